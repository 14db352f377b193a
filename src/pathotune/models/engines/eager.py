"""Runs a card's networks with torch, on any device.

On a processor torch computes in 32 bits and is the reference that every faster
way is held against. On a graphics card each part runs in the 16-bit numbers
that `trust` finds harmless for it; tiles go there and tokens come back through
page-locked memory, in a stream of each batch's own, so that the copies of one
batch lie beside the computation of another. There the networks may be compiled
(`compiling`); what torch's compiler cannot do runs as it is.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import Note
from pathotune.models import runtime
from pathotune.models.engines import compiling, trust
from pathotune.models.engines.graph import part_graphs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.models.cards import ModelCard

_HALF = ("float16", "bfloat16")  # the finer first; it overflows in some networks


@dataclass
class _Way:
    """A stream of a graphics card, with page-locked memory in and out; one batch at a time."""

    stream: Any
    into: Any = None
    back: Any = None


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
        self.notes: list[Note] = []
        self._lock = threading.Lock()
        # kept by the engine, not by threads: these end with every job, and memory that torch has
        # set aside for a stream serves no other
        self._ways: list[_Way] = []
        self._fast: list[Any] = []
        self._fast_batch = 0
        if self.cuda:
            import torch

            torch.backends.cudnn.allow_tf32 = False  # 32 bits are asked for where 19 do harm

    @property
    def name(self) -> str:
        """What runs, for people: "torch, fp16"."""
        short = {"torch.float16": "fp16", "torch.bfloat16": "bf16", "None": "f32"}
        kinds = dict.fromkeys(short[str(t)] for t in self._types)
        made = ", compiled" if self._fast else ""
        return "torch, " + (" and ".join(kinds) or "f32") + made

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
        self._settle()
        self._graphs = graphs

    def _settle(self) -> None:
        """Wait until weights and projection are in place: batches' streams do not wait for them."""
        if self.cuda:
            import torch

            torch.cuda.synchronize(self.device)

    def compile(self, batch: int) -> bool:
        """Compile the parts for batches of one size, and return whether that succeeded.

        Batches of other sizes run as before, and all of them where it did not; a note
        says why.
        """
        import torch

        side = self.card.tile_px
        tissue = trust.tissue_tiles(side, self.card.mpp)
        tiles = np.resize(tissue, (batch, side, side, 3))
        expected = self.run(tiles, runtime.threads_here())
        try:
            fast = [torch.compile(graph, dynamic=False) for graph in self._graphs]
            with torch.inference_mode():
                x = self._tokens(torch.from_numpy(tiles).to(self.device), fast)
            self._settle()
            moved = trust.change(expected, x.cpu().numpy())
            if moved > trust.LIMIT:
                raise ValueError(f"the compiled network gives other features ({moved:.3f})")
        except compiling.STUMBLES as error:
            why = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            text = f"{self.card.name} runs as it is: torch could not compile it here ({why})."
            self.notes.append(Note(text))
            runtime.release_memory(self.device)
            return False
        self._fast, self._fast_batch = fast, batch
        return True

    def _harmless(self, graph: Any) -> Any:
        """Return the 16-bit type that leaves a part's features as they are, or None."""
        import torch

        tiles = torch.from_numpy(trust.tissue_tiles(self.card.tile_px, self.card.mpp))
        tiles = tiles.to(self.device)
        with torch.inference_mode():
            reference = graph(tiles).float().cpu().numpy()
            for name in _HALF:
                kind = getattr(torch, name)
                # older cards only imitate bfloat16, more slowly than 32 bits
                if name == "bfloat16" and self.cuda and not _has_bfloat16():
                    continue
                if trust.change(reference, self._part(graph, kind, tiles)) <= trust.LIMIT:
                    return kind
        return None

    def _part(self, graph: Any, kind: Any, tiles: Any) -> Any:
        import torch

        how = nullcontext() if kind is None else torch.autocast(tiles.device.type, dtype=kind)
        with how:
            x = graph(tiles).float()
        return x if self._graphs else x.cpu().numpy()

    def _tokens(self, tiles: Any, graphs: list[Any] | None = None) -> Any:
        import torch

        if graphs is None:
            graphs = self._fast if len(tiles) == self._fast_batch else self._graphs
        parts = [self._part(g, k, tiles) for g, k in zip(graphs, self._types, strict=True)]
        return torch.cat(parts, dim=-1) if self._projection is None else sum(parts)

    def _on_cuda(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        with self._lock:
            way = self._ways.pop() if self._ways else _Way(_stream(self.device))
        # on failure the way is dropped with its memory, which is what then lacks
        with _within(way.stream):
            if way.into is None or way.into.shape != tiles.shape:
                way.into = _pinned(tiles.shape, torch.uint8)
            way.into.numpy()[:] = tiles
            x = self._tokens(way.into.to(self.device, non_blocking=True))
            if way.back is None or way.back.shape != x.shape:
                way.back = _pinned(x.shape, torch.float32)
            way.back.copy_(x, non_blocking=True)
        way.stream.synchronize()
        result: NDArray[np.float32] = way.back.numpy().copy()
        with self._lock:
            self._ways.append(way)
        return result


def _has_bfloat16() -> bool:
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _pinned(shape: tuple[int, ...], kind: Any) -> Any:
    import torch

    return torch.empty(shape, dtype=kind, pin_memory=True)


def _within(stream: Any) -> Any:
    import torch

    return torch.cuda.stream(stream)


def _stream(device: str) -> Any:
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
