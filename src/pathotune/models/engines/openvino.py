"""Runs a card's networks on the processor as graphs compiled by OpenVINO.

Where the processor multiplies 16-bit numbers this is several times as fast as
torch. Each part is converted once, held against torch on real tissue in the
16-bit numbers and, where those do harm, in 32; what passed is kept on disk with
the verdict, and later starts need no torch at all. OpenVINO's own converter is
passed by: it would set up telemetry, and nothing here may call out.
"""

from __future__ import annotations

import importlib.util
import json
import threading
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.models import runtime
from pathotune.models.engines import compiled, trust
from pathotune.models.engines.graph import part_graphs
from pathotune.models.quiet import import_openvino

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.models.cards import ModelCard


_SLOWER = 1.3  # one timing on a busy computer is no better than that


class NotFaster(Exception):
    """Why torch serves better here, in words."""


def available() -> bool:
    """Tell whether OpenVINO is installed, without importing it."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoEngine:
    """Compiled parts of a card.

    Parameters
    ----------
    models : list of openvino.Model
        One a part, of any batch.
    precisions : list of str
        "bf16" or "f32", one a part.
    joined : bool
        The parts' features are joined; else they are summed.
    keep : object
        What the models' weights lie in, if not on disk.
    """

    lanes = 1

    def __init__(
        self, models: list[Any], precisions: list[str], joined: bool, keep: Any = None
    ) -> None:
        self._models, self._precisions, self._joined, self._keep = models, precisions, joined, keep
        self._made: tuple[int, int] = (0, 0)
        self._requests: list[Any] = []
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What runs, for people: "OpenVINO, bf16"."""
        return "OpenVINO, " + " and ".join(dict.fromkeys(self._precisions))

    def run(self, tiles: NDArray[np.uint8], threads: int) -> NDArray[np.float32]:
        """Return the tokens of whole tiles (B, T, T, D)."""
        tiles = np.ascontiguousarray(tiles)
        with self._lock:
            if self._made != (len(tiles), threads):
                self._requests = []  # before others take their memory
                self._requests = [
                    request(model, precision, tiles.shape, threads)
                    for model, precision in zip(self._models, self._precisions, strict=True)
                ]
                self._made = (len(tiles), threads)
            parts = []
            for one in self._requests:
                one.infer([tiles], share_inputs=True)
                parts.append(one.get_output_tensor().data)
            if self._joined:
                return np.concatenate(parts, axis=-1, dtype=np.float32)
            out = parts[0].astype(np.float32)
            for part in parts[1:]:
                out += part
            return out


def request(model: Any, precision: str, shape: tuple[int, ...], threads: int) -> Any:
    """Compile a model for one shape and return what runs it."""
    model.reshape(list(shape))
    hints = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": False,  # readers and the window move threads about
    }
    return import_openvino().Core().compile_model(model, "CPU", hints).create_infer_request()


def load(folder: Path) -> OpenVinoEngine:
    """Return what `convert` kept in a folder.

    Raises
    ------
    NotFaster
        torch serves better, as found out then.
    OSError, ValueError, KeyError, RuntimeError
        Nothing whole is there.
    """
    facts = json.loads((folder / compiled.ABOUT).read_text(encoding="utf-8"))
    if facts["why_not"]:
        raise NotFaster(facts["why_not"])
    read = [compiled.read(folder / f"part{i}.xml") for i, _ in enumerate(facts["precisions"])]
    models, weights = [m for m, _ in read], [w for _, w in read]
    return OpenVinoEngine(models, facts["precisions"], facts["joined"], keep=weights)


def verdict(card_hash: str, half: bool) -> str | None:
    """Return what was found out about a card here, in words; None when it has not run yet."""
    try:
        about = compiled.folder(card_hash, half) / compiled.ABOUT
        facts = json.loads(about.read_text(encoding="utf-8"))
        if facts["why_not"]:
            return f"torch, because of OpenVINO: {facts['why_not']}"
        return "OpenVINO, its parts in " + " and ".join(facts["precisions"])
    except (OSError, ValueError, KeyError):
        return None


def convert(
    card: ModelCard,
    networks: list[Any],
    projection: dict[str, Any] | None,
    folder: Path | None,
    half: bool,
    threads: int,
) -> OpenVinoEngine:
    """Convert a card's networks, hold them against torch and keep them.

    Parameters
    ----------
    networks, projection
        As `backbones.load_networks` returns them, on the processor.
    folder : Path or None
        Where to keep the graphs and the verdict; None: nowhere.
    half : bool
        Try 16-bit numbers: the processor multiplies them.
    threads : int
        Cores to use.

    Raises
    ------
    NotFaster
        The conversion failed, gives other features, or is slower than torch.
    """
    tiles = trust.tissue_tiles(card.tile_px, card.mpp)
    models, precisions = [], []
    ours = theirs = 0.0
    try:
        graphs = part_graphs(card, networks, projection)
        for graph in graphs:
            reference, seconds = _timed_torch(graph, tiles, threads)
            theirs += seconds
            model = traced_model(graph, tiles)
            precision, seconds = _harmless(model, reference, tiles, half, threads)
            ours += seconds
            models.append(model)
            precisions.append(precision)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, MemoryError) as e:
        why = str(e).strip().partition("\n")[0][:200] or "memory ran out"
        if not runtime.is_out_of_memory(e):  # which may be otherwise next time
            compiled.keep(folder, [], {"why_not": why})
        raise NotFaster(why) from e
    if ours > _SLOWER * theirs:
        count = len(tiles)
        why = f"it is slower here, {ours / count:.2f} s a tile against {theirs / count:.2f} s"
        compiled.keep(folder, [], {"why_not": why})
        raise NotFaster(why)
    joined = projection is None
    facts = {"why_not": "", "precisions": precisions, "joined": joined}
    if compiled.keep(folder, models, facts) and folder is not None:
        with suppress(OSError, ValueError, KeyError, RuntimeError):
            return load(folder)  # torch's copy of the weights can go
    return OpenVinoEngine(models, precisions, joined, keep=graphs)


def _timed_torch(graph: Any, tiles: NDArray[np.uint8], threads: int) -> tuple[Any, float]:
    import torch

    torch.set_num_threads(threads)
    pixels = torch.from_numpy(tiles)
    with torch.inference_mode():  # `part_graphs` has run it once, so this is no first run
        start = time.perf_counter()
        return graph(pixels).numpy(), time.perf_counter() - start


def traced_model(graph: Any, tiles: NDArray[np.uint8]) -> Any:
    """Trace a module on an example and hand the trace to OpenVINO; return its model."""
    import torch

    import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # shapes become constants, which is what is wanted
        decoder = TorchScriptPythonDecoder(
            graph, example_input=(torch.from_numpy(tiles),), shared_memory=True
        )
        front = FrontEndManager().load_by_framework("pytorch")
        return front.convert(front.load(decoder))


def _harmless(
    model: Any, reference: Any, tiles: NDArray[np.uint8], half: bool, threads: int
) -> tuple[str, float]:
    """Return the fastest precision that keeps a part's features, and its seconds for the tiles."""
    changed = 0.0
    for precision, limit in (("bf16", trust.LIMIT), ("f32", trust.SAME)):
        if precision == "bf16" and not half:
            continue
        one = request(model, precision, tiles.shape, threads)
        one.infer([tiles])
        start = time.perf_counter()
        one.infer([tiles])
        seconds = time.perf_counter() - start
        changed = trust.change(reference, one.get_output_tensor().data)
        if changed <= limit:
            return precision, seconds
    raise ValueError(f"the converted network gives other features ({changed:.3f} of their spread)")
