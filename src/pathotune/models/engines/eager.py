"""Runs a card's networks with torch, on any device.

On a processor torch computes in 32 bits and is the reference that every faster
way is held against. On a graphics card each part runs in the 16-bit numbers
that `trust` finds harmless for it; tiles go there and tokens come back through
page-locked memory, in a stream of each thread's own, so that the copies of one
batch lie beside the computation of another.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.models.engines import trust
from pathotune.models.engines.graph import part_graphs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.models.cards import ModelCard

_HALF = ("float16", "bfloat16")  # the finer first; it overflows in some networks


class EagerEngine:
    """The networks of a card in torch.

    Parameters
    ----------
    card : ModelCard
    device : str
        A torch device.
    networks, projection
        As `backbones.load_networks` returns them, on that device.
    half : bool
        Use 16-bit numbers where they are harmless; for graphics cards.
    """

    def __init__(
        self,
        card: ModelCard,
        device: str,
        networks: list[Any],
        projection: dict[str, Any] | None,
        half: bool = False,
    ) -> None:
        self.card = card
        self.device = device
        self.cuda = device.startswith("cuda")
        self.lanes = 2 if self.cuda else 1
        self.half = half
        self._networks, self._projection = networks, projection
        self._graphs: list[Any] = []
        self._types: list[Any] = []
        self._lock = threading.Lock()
        self._own = threading.local()
        if self.cuda:
            import torch

            torch.backends.cudnn.allow_tf32 = False  # 32 bits are asked for where 19 do harm

    @property
    def name(self) -> str:
        """What runs, for people: "torch, fp16"."""
        short = {"torch.float16": "fp16", "torch.bfloat16": "bf16", "None": "f32"}
        kinds = dict.fromkeys(short[str(t)] for t in self._types)
        return "torch, " + (" and ".join(kinds) or "f32")

    def run(self, tiles: NDArray[np.uint8], threads: int) -> NDArray[np.float32]:
        """Return the tokens of whole tiles (B, T, T, D)."""
        import torch

        if torch.get_num_threads() > threads:  # a caller may have asked for fewer
            torch.set_num_threads(threads)
        with self._lock:
            if not self._graphs:
                self._prepare()
        tiles = np.ascontiguousarray(tiles)
        with torch.inference_mode():
            if self.cuda:
                return self._on_cuda(tiles)
            x = self._tokens(torch.from_numpy(tiles).to(self.device))
            result: NDArray[np.float32] = x.float().contiguous().cpu().numpy()
            return result

    def _prepare(self) -> None:
        """Close the parts and choose the numbers they run in."""
        graphs = part_graphs(self.card, self._networks, self._projection)
        self._types = [self._harmless(g) if self.half else None for g in graphs]
        self._graphs = graphs

    def _harmless(self, graph: Any) -> Any:
        """Return the 16-bit type that leaves a part's features as they are, or None."""
        import torch

        tiles = torch.from_numpy(trust.tissue_tiles(self.card.tile_px, self.card.mpp))
        tiles = tiles.to(self.device)
        with torch.inference_mode():
            reference = graph(tiles).float().cpu().numpy()
            for name in _HALF:
                kind = getattr(torch, name)
                if trust.change(reference, self._part(graph, kind, tiles)) <= trust.LIMIT:
                    return kind
        return None

    def _part(self, graph: Any, kind: Any, tiles: Any) -> Any:
        import torch

        how = nullcontext() if kind is None else torch.autocast(tiles.device.type, dtype=kind)
        with how:
            x = graph(tiles).float()
        return x if self._graphs else x.cpu().numpy()

    def _tokens(self, tiles: Any) -> Any:
        import torch

        parts = [self._part(g, k, tiles) for g, k in zip(self._graphs, self._types, strict=True)]
        return torch.cat(parts, dim=-1) if self._projection is None else sum(parts)

    def _on_cuda(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        own = self._own
        if getattr(own, "stream", None) is None:
            own.stream, own.into, own.back = _stream(self.device), None, None
        with torch.cuda.stream(own.stream):
            if own.into is None or own.into.shape != tiles.shape:
                own.into = torch.empty(tiles.shape, dtype=torch.uint8, pin_memory=True)
            own.into.numpy()[:] = tiles
            x = self._tokens(own.into.to(self.device, non_blocking=True))
            if own.back is None or own.back.shape != x.shape:
                own.back = torch.empty(x.shape, dtype=torch.float32, pin_memory=True)
            own.back.copy_(x, non_blocking=True)
        own.stream.synchronize()
        result: NDArray[np.float32] = own.back.numpy().copy()
        return result


def _stream(device: str) -> Any:
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
