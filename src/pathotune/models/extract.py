"""Fills a feature store: reads tiles, runs the backbone, keeps the tokens.

What is on the screen comes first, wherever the screen goes meanwhile; the rest
follows outward from there. The order changes nothing in the numbers. Cancelling
is closing the job: what is in the store stays, and the next run goes on from it.
When nothing is missing no network is loaded at all.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing
from threading import RLock
from typing import TYPE_CHECKING, Any

from pathotune.events import Job, Note, Progress, TilesDone

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from pathotune.models.backbones import Backbone
    from pathotune.models.cards import ModelCard
    from pathotune.models.features import FeatureStore
    from pathotune.slides.geometry import Region
    from pathotune.slides.slide import Slide
    from pathotune.slides.tiles import TileGrid

_WHAT = "Reading the tissue"
_loaded: dict[tuple[str, str], Backbone] = {}
_loading = RLock()


def backbone_for(card: ModelCard, device: str = "auto", allow_download: bool = False) -> Backbone:
    """Return the card's backbone on a device; the last one used is kept in memory.

    Raises
    ------
    PathotuneError
        As `backbones.load_backbone`.
    """
    from pathotune.models.weights import resolve

    for weights in card.weights:  # before seconds go into importing torch
        resolve(weights, card, allow_download)
    from pathotune.models.backbones import load_backbone
    from pathotune.models.runtime import pick_device
    from pathotune.models.tuned import TunedCard, load_tuned

    with _loading:
        key = (card.hash(), pick_device(device))
        if key not in _loaded:
            _loaded.clear()  # before loading: two at a time may not fit
            _loaded[key] = (
                load_tuned(card, key[1])
                if isinstance(card, TunedCard)
                else load_backbone(card, key[1], allow_download, fast=True)
            )
        return _loaded[key]


def what_runs(card: ModelCard, device: str = "auto") -> str | None:
    """Return what computes a card here, such as "CPU (OpenVINO, bf16), 2 cores".

    None until its network is loaded: which engine takes it, and in how many
    bits, is found out then.
    """
    from pathotune.models import runtime

    key = runtime.pick_device(device)
    backbone = _loaded.get((card.hash(), key))
    if backbone is None:
        return None
    where = runtime.split(key)[0]
    if where == "cpu":
        n = runtime.cores()
        return f"CPU ({backbone.engine.name}), {n} core{'s' if n > 1 else ''}"
    name = next((d.name for d in runtime.devices() if d.key == where), where)
    return f"{name} ({backbone.engine.name})"


class _Queue:
    """The tiles still to read, in the order of what the user looks at now."""

    def __init__(
        self,
        grid: TileGrid,
        cells: NDArray[np.int32],
        focus: Callable[[], Region | None] | None,
    ) -> None:
        self._grid = grid
        self._focus = focus
        self._seen: Region | None = None
        self._left = cells
        self._next = 0

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        while self._next < len(self._left):
            self.look()
            cell = self._left[self._next]
            self._next += 1
            yield cell

    def look(self) -> None:
        """Sort what is left anew when the user has moved."""
        region = self._focus() if self._focus is not None else None
        if region is not None and region != self._seen:
            self._seen = region
            self._left = self._grid.order(self._left[self._next :], region)
            self._next = 0


def compute_features(
    slide: Slide,
    card: ModelCard,
    grid: TileGrid,
    store: FeatureStore,
    cells: NDArray[np.integer[Any]],
    *,
    device: str = "auto",
    focus: Callable[[], Region | None] | None = None,
    allow_download: bool = False,
) -> Job[None]:
    """Compute the token features of tiles that the store lacks.

    Parameters
    ----------
    slide, card, grid, store
        What to read, with which backbone, where the tiles lie, where to keep them.
    cells : (n, 2) int
        Tiles, in the order to take without a focus.
    device : str
        "auto", "cpu", "cuda".
    focus : callable, optional
        Returns what is on the screen; asked before every tile.
    allow_download : bool
        The user agreed to fetch this model.

    Yields
    ------
    Progress, Note, TilesDone
        One `TilesDone` a tile, with its box of tokens.

    Raises
    ------
    PathotuneError
        No weights, unreadable slide, or neither disk nor memory left for features.
    """
    todo = store.missing(cells)
    total, before = len(cells), len(cells) - len(todo)
    yield Progress(before, total, _WHAT)
    if store.problem is not None:
        yield Note(store.problem, "warning")
    if not len(todo):
        return
    from pathotune.models.runtime import readers
    from pathotune.slides.tiles import read_batches

    told = store.problem
    if not _loaded:  # the first use of a network here converts it, which takes seconds
        yield Progress(before, total, "Preparing the network")
    backbone = backbone_for(card, device, allow_download)
    begun, done = time.monotonic(), 0
    batches = read_batches(
        slide, grid, _Queue(grid, todo, focus), backbone.batch, readers(backbone.device)
    )
    with closing(batches), closing(_ahead(backbone, batches)) as results:
        for done_cells, tokens in results:
            yield from backbone.notes()
            for cell, block in zip(done_cells, tokens, strict=True):
                store.put(cell, block)
            if store.problem != told and store.problem is not None:
                told = store.problem
                yield Note(store.problem, "warning")
            for cell in done_cells:
                yield TilesDone(*grid.token_box(cell))
            done += len(done_cells)
            left = (time.monotonic() - begun) / done * (len(todo) - done)
            yield Progress(before + done, total, _WHAT, left)


def _ahead(
    backbone: Backbone, batches: Iterable[tuple[NDArray[np.int32], NDArray[np.uint8]]]
) -> Generator[tuple[NDArray[np.int32], NDArray[np.float32]], None, None]:
    """Give the tokens of batches in their order, with the next under way meanwhile.

    Keeping one batch's features, and reading the one after the next, then cost the
    model no time. What was begun when this is closed is waited for: one batch a lane.
    """
    under_way: deque[tuple[NDArray[np.int32], Future[NDArray[np.float32]]]] = deque()
    with backbone.ahead() as begin:
        for cells, tiles in batches:
            under_way.append((cells, begin(tiles)))
            if len(under_way) > backbone.engine.lanes:
                first, tokens = under_way.popleft()
                yield first, tokens.result()
        while under_way:
            first, tokens = under_way.popleft()
            yield first, tokens.result()
