"""The work of the fast lane: where the features lie, what to refit, what to paint next.

Everything here is numpy and runs outside the GUI thread. The painting yields
after every box, so that a newer stroke can stop it, and asks each time what is
on the screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_pathotune import _settings
from pathotune.events import TilesDone
from pathotune.slides.mpp import refuse_blur

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pathotune.maps.classmap import ClassMap
    from pathotune.slides.slide import Region, Slide

CHUNK = 192  # tokens a side painted between two looks at a newer stroke


@dataclass(frozen=True, slots=True)
class Fitted:
    """The fast model after a change of the marks, and the map it is painted into.

    `cells` are the tiles under the marks, `glass` the classes drawn where the mask saw none.
    """

    head: Any
    missing: str | None
    classmap: ClassMap | None
    cells: Any = None
    glass: tuple[str, ...] = ()
    wanted: Region | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A backbone's lattice over a slide, its features on disk, the tiles to compute.

    `tokens` is (rows, cols) bool over the lattice; `cells` are the tiles of the
    tissue with a rim, so that every token on tissue has all its neighbours.
    """

    card: Any
    grid: Any
    store: Any
    cells: Any
    tokens: Any


class Todo:
    """Boxes still to paint and boxes painted; outlives a painting that is cancelled."""

    def __init__(self, boxes: list[TilesDone]) -> None:
        self.boxes = boxes
        self.painted: TilesDone | None = None

    def done(self, box: TilesDone) -> None:
        """Tick a box off."""
        self.boxes.remove(box)
        self.painted = box if self.painted is None else self.painted.merge(box)


def make_plan(slide: Slide, tissue: Any, card_id: str, device: str = "auto") -> Plan:
    """Open the features of a slide for a backbone (files lane).

    Raises
    ------
    PathotuneError
        The backbone is not known here, the slide has no um/px, or it is far too coarse.
    """
    from pathotune.models.cards import card
    from pathotune.models.features import FeatureStore
    from pathotune.slides.tiles import TileGrid

    backbone = card(card_id)
    refuse_blur(slide.need_mpp(), backbone.mpp)
    grid = TileGrid.plan(
        slide.width,
        slide.height,
        slide.need_mpp(),
        mpp=backbone.mpp,
        tile_px=backbone.tile_px,
        token_px=backbone.token_px,
        halo=backbone.halo,
    )
    root = _settings.cache_root()
    store = FeatureStore.open(slide.stamp, backbone, grid, root=root, device=device)
    FeatureStore.evict(_settings.cache_bytes(), root)  # not the one that is open
    cells = grid.cells(tissue, margin_tokens=backbone.neighbourhood // 2)
    return Plan(backbone, grid, store, cells, grid.tokens(tissue))


def empty_map(plan: Plan, classes: Any, colours: Any) -> ClassMap:
    """Return a map of the whole slide with nothing on it yet."""
    from pathotune.maps.classmap import ClassMap

    lattice = plan.grid.lattice
    return ClassMap.empty(
        tuple(classes),
        tuple(colours),
        (lattice.x0, lattice.y0),
        lattice.step,
        plan.card.token_um,
        lattice.rows,
        lattice.cols,
    )


def follow(
    plan: Plan,
    tissue: Any,
    marks: Any,
    live: Any,
    old: tuple[Any, ClassMap | None],
    todo: Todo,
    focus: Callable[[], Region | None],
) -> Iterator[Any]:
    """Refit, then paint: the screen first, then the rest or what is new (fast lane).

    Parameters
    ----------
    old : (head, map)
        Of the last time; what is still true of them is not painted again.
    todo : Todo
        What new features call for; everything is added when the model changed.

    Yields
    ------
    Fitted, then TilesDone
    """
    from pathotune.maps.paint import paint

    old_head, classmap = old
    head, missing = live.update(marks, plan.store, plan.grid, tissue)
    lacking = next((c for c in live.cells if not plan.store.has(c)), None)
    wanted = None if lacking is None else plan.grid.lattice.region(*plan.grid.token_box(lacking))
    lattice, rim = plan.grid.lattice, plan.card.neighbourhood // 2
    if head is None:
        yield Fitted(None, missing, None, live.cells, tuple(live.glass), wanted)
        return
    names = live.classes
    if classmap is None or tuple(classmap.classes) != names:
        colours = {**getattr(live, "colours", {}), **{c.name: c.colour for c in marks.classes}}
        classmap = empty_map(plan, names, tuple(colours[name] for name in names))
        old_head = None
    whole = TilesDone(0, 0, lattice.rows, lattice.cols)
    if head is not old_head:
        todo.boxes = _chunks([whole])
        view = focus()
        if view is not None:
            todo.boxes.insert(0, TilesDone(*lattice.window(view)))
    else:
        todo.boxes = _chunks([_grown(box, rim, whole) for box in todo.boxes])
    yield Fitted(head, missing, classmap, live.cells, tuple(live.glass), wanted)
    at = 0
    while todo.boxes:
        box = todo.boxes[at]
        window = (box.row0, box.col0, box.row1, box.col1)
        labels, probs = paint(plan.store, head, window, plan.tokens, plan.card.neighbourhood)
        _show_marked(live, plan, head, window, labels, probs)
        rows, cols = slice(box.row0, box.row1), slice(box.col0, box.col1)
        if labels.any() or classmap.labels[rows, cols].any():
            classmap.labels[rows, cols] = labels
            if classmap.probs is not None:
                classmap.probs[rows, cols] = probs
            yield box
        todo.done(box)
        at = _nearest(todo.boxes, lattice, focus())


def _grown(box: TilesDone, rim: int, whole: TilesDone) -> TilesDone:
    """Return a box with the neighbours whose mean it changes."""
    return TilesDone(
        max(box.row0 - rim, 0),
        max(box.col0 - rim, 0),
        min(box.row1 + rim, whole.row1),
        min(box.col1 + rim, whole.col1),
    )


def _show_marked(
    live: Any, plan: Plan, head: Any, window: tuple[int, int, int, int], labels: Any, probs: Any
) -> None:
    """Map marked tokens even where the mask saw no tissue: it never hides what was marked."""
    from pathotune.maps.paint import paint

    r0, c0, r1, c1 = window
    rows, cols = live.off_tissue
    here = (rows >= r0) & (rows < r1) & (cols >= c0) & (cols < c1)
    if here.any():
        at = rows[here] - r0, cols[here] - c0
        found, shares = paint(plan.store, head, window, None, plan.card.neighbourhood)
        labels[at], probs[at] = found[at], shares[at]


def _chunks(boxes: list[TilesDone]) -> list[TilesDone]:
    return [
        TilesDone(r, c, min(r + CHUNK, b.row1), min(c + CHUNK, b.col1))
        for b in boxes
        for r in range(b.row0, b.row1, CHUNK)
        for c in range(b.col0, b.col1, CHUNK)
    ]


def _nearest(boxes: list[TilesDone], lattice: Any, view: Region | None) -> int:
    if view is None or not boxes:
        return 0
    r0, c0, r1, c1 = lattice.window(view)
    row, col = (r0 + r1) / 2, (c0 + c1) / 2
    far = [abs((b.row0 + b.row1) / 2 - row) + abs((b.col0 + b.col1) / 2 - col) for b in boxes]
    return int(np.argmin(far))
