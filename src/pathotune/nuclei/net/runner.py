"""Runs a nucleus network on a field of any size, in the fastest way that gives the same maps.

On a graphics card that is torch in 16 bits; on a processor a graph compiled by
OpenVINO, which is kept on disk, so that later starts need no torch; torch is the
reference and the way out. Large fields go through in blocks that see beyond their
borders, so that memory stays flat.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pathotune.models import runtime
from pathotune.models.engines import compiled, openvino, trust

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BLOCK = 1536
SEEN = 64  # pixels beyond a block's border; what lies further hardly changes the answer
MULTIPLE = 16
CHANGED = {"bf16": 0.01, "f32": 0.001}
"""Mean change of the maps, which run from 0 to 1, that is accepted of a compiled graph."""


class Way(Protocol):
    """One way to compute: `name` for people, and a field (h, w, 3) to maps (3, h, w)."""

    name: str

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return the maps; h and w are multiples of `MULTIPLE`."""
        ...


class Runner:
    """A network that has found its way to compute.

    Parameters
    ----------
    way : callable
        As `Way`.
    """

    def __init__(self, way: Way) -> None:
        self.way = way

    @property
    def name(self) -> str:
        """What runs, for people: "OpenVINO, bf16"."""
        return self.way.name

    def maps(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return foreground, edge and middle, float32 (3, h, w), of uint8 (h, w, 3)."""
        h, w = pixels.shape[:2]
        out = np.empty((3, h, w), np.float32)
        for r0 in range(0, h, BLOCK):
            for c0 in range(0, w, BLOCK):
                r1, c1 = min(h, r0 + BLOCK), min(w, c0 + BLOCK)
                top, left = max(0, r0 - SEEN), max(0, c0 - SEEN)
                seen = pixels[top : min(h, r1 + SEEN), left : min(w, c1 + SEEN)]
                found = self._one(seen)
                out[:, r0:r1, c0:c1] = found[:, r0 - top : r1 - top, c0 - left : c1 - left]
        return out

    def _one(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        h, w = pixels.shape[:2]
        more = -h % MULTIPLE, -w % MULTIPLE
        if any(more):
            pixels = np.pad(pixels, ((0, more[0]), (0, more[1]), (0, 0)), mode="symmetric")
        return self.way(np.ascontiguousarray(pixels))[:, :h, :w]


def runner(weights: Path, device: str = "auto") -> Runner:
    """Return what runs the network in a file.

    Parameters
    ----------
    weights : Path
        As `weights.save` writes it.
    device : str
        As `runtime.pick_device` takes it.

    Raises
    ------
    PathotuneError
        The file is damaged, or the device is not there.
    """
    where, exact = runtime.split(runtime.pick_device(device))
    if where == "cpu" and openvino.available():
        half = runtime.has_bf16() and not exact
        with suppress(openvino.NotFaster, ImportError, OSError):
            return Runner(_compiled(weights, half))
    return Runner(_Torch(weights, where, half=where.startswith("cuda") and not exact))


class _Torch:
    """torch on any device."""

    def __init__(self, weights: Path, device: str, half: bool = False) -> None:
        import torch

        self._half, self._device = half, device
        layout = torch.channels_last
        self._network = _network(weights).to(device=device, memory_format=layout)
        self.name = f"torch, {device}" + (", 16 bits" if half else "")

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode(), runtime.limited_threads():
            given = torch.from_numpy(pixels[None].copy()).to(self._device)
            with torch.autocast(self._device.partition(":")[0], torch.bfloat16, self._half):
                found = self._network(given)
            maps: NDArray[np.float32] = found[0].float().cpu().numpy()
        return maps


class _OpenVino:
    """A compiled graph; one request for each of the last few shapes."""

    def __init__(self, model: Any, precision: str, keep: Any) -> None:
        self._model, self._precision, self._keep = model, precision, keep
        self._requests: dict[tuple[Any, ...], Any] = {}
        self.name = f"OpenVINO, {precision}"

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        batch = pixels[None]
        key = (batch.shape, runtime.threads_here())
        if key not in self._requests:
            while len(self._requests) >= 2:
                del self._requests[next(iter(self._requests))]
            self._requests[key] = openvino.request(
                self._model.clone(), self._precision, batch.shape, key[1]
            )
        request = self._requests[key]
        request.infer([batch], share_inputs=True)
        maps: NDArray[np.float32] = request.get_output_tensor().data[0].astype(np.float32)
        return maps


def _network(weights: Path) -> Any:
    from pathotune.models.quiet import import_torch

    import_torch()
    from pathotune.nuclei.net.network import FromPixels
    from pathotune.nuclei.net.weights import load

    return FromPixels(load(weights)[0]).eval()


def _compiled(weights: Path, half: bool) -> _OpenVino:
    """Return the kept graph, or convert and keep it."""
    key = "nucleus-net-" + hashlib.sha256(weights.read_bytes()).hexdigest()
    folder = compiled.folder(key, half)
    with suppress(OSError, ValueError, KeyError, RuntimeError):
        facts = json.loads((folder / compiled.ABOUT).read_text(encoding="utf-8"))
        model, mapped = compiled.read(folder / "part0.xml")
        compiled.touch(folder)
        return _OpenVino(model, facts["precisions"][0], mapped)
    network = _network(weights)
    tiles = trust.tissue_tiles(256, 0.5)
    try:
        model = openvino.traced_model(network, tiles)
        reference = _reference(network, tiles)
        for precision in ("bf16", "f32") if half else ("f32",):
            way = _OpenVino(model, precision, network)
            changed = np.mean(
                [np.abs(way(t) - r).mean() for t, r in zip(tiles, reference, strict=True)]
            )
            if changed <= CHANGED[precision]:
                facts = {"why_not": "", "precisions": [precision], "joined": True}
                compiled.keep(folder, [model], facts)
                return way
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise openvino.NotFaster(str(error)[:200]) from error
    raise openvino.NotFaster("the converted network gives other maps")


def _reference(network: Any, tiles: NDArray[Any]) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        maps: NDArray[np.float32] = network(torch.from_numpy(tiles)).numpy()
    return maps
