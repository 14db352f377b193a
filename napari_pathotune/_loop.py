"""The loop that follows the hand: marks in, class map out.

Token features are computed once in the engine lane, the screen first. Every
change of the marks refits the fast model in the fast lane and repaints what is
on the screen from the features at hand, then the rest, nearest first; a newer
stroke cancels the repaint of an older one. Arrays are written in the lanes and
only shown from the GUI thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_pathotune import _settings
from pathotune.events import Progress, TilesDone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pathotune.maps.classmap import ClassMap
    from pathotune.slides.slide import Region

    from napari_pathotune._session import Session

CHUNK = 192  # tokens a side painted between two looks at a newer stroke
_SETTLE_MS = 15  # several edits of one gesture count as one
_VERDICT_MS = 400  # the verdict waits until the hand rests


@dataclass(frozen=True, slots=True)
class LoopStatus:
    """What the docks say about the loop.

    `missing` is one sentence on what the model needs next, or None; `done` of
    `total` tiles have features; `has_map` tells whether there is a map to show.
    """

    missing: str | None = None
    done: int = 0
    total: int = 0
    computing: bool = False
    paused: bool = False
    has_map: bool = False
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class _Fitted:
    head: Any
    missing: str | None
    classmap: ClassMap | None


@dataclass(frozen=True, slots=True)
class _Plan:
    card: Any
    grid: Any
    store: Any
    cells: Any


class MapLoop:
    """Features, the fast model and the map of one session.

    Attributes
    ----------
    classmap : ClassMap or None
        The map as far as it is painted; its arrays are written in place.
    head : LinearHead or None
        The fast model.
    evaluation : Evaluation or None
        The verdict on the fast model, split by region.
    missing : str or None
        What the fast model needs next, in one sentence.
    grid, store : TileGrid, FeatureStore or None
        Where the features lie.
    status : LoopStatus
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.classmap: ClassMap | None = None
        self.head: Any = None
        self.evaluation: Any = None
        self.missing: str | None = None
        self.paused = False
        self.plan: _Plan | None = None
        self.status = LoopStatus()
        self._live: Any = None
        self._focus: Region | None = None
        self._dirty: list[TilesDone] = []
        self._refit = False
        self._soon = self._timer(_SETTLE_MS, self._paint)
        self._verdict = self._timer(_VERDICT_MS, self._validate)

    def _timer(self, ms: int, slot: Any) -> QTimer:
        timer = QTimer(self._session.jobs)
        timer.setSingleShot(True)
        timer.setInterval(ms)
        timer.timeout.connect(slot)
        return timer

    @property
    def grid(self) -> Any:
        """The tile plan of the slide, or None."""
        return self.plan.grid if self.plan else None

    @property
    def store(self) -> Any:
        """The features of the slide, or None."""
        return self.plan.store if self.plan else None

    # -- from the session -------------------------------------------------------

    def look_at(self, region: Region | None) -> None:
        """Tell what is on the screen; it is computed and painted first."""
        self._focus = region

    def marks_changed(self) -> None:
        """The marks changed: refit, repaint."""
        self._refit = True
        if self.plan is not None:
            self._soon.start()
        else:
            self._say(missing=None)

    def pause(self) -> None:
        """Stop computing features; what is there stays and follows the marks."""
        self.paused = True
        self._session.jobs.cancel("features")
        self._say(paused=True, computing=False)

    def resume(self) -> None:
        """Go on computing features."""
        self.paused = False
        self._say(paused=False)
        self._compute()

    def clear(self) -> None:
        """Forget features, model and map (the slide goes)."""
        for key in ("plan", "features", "paint", "verdict"):
            self._session.jobs.cancel(key)
        self._soon.stop()
        self._verdict.stop()
        plan, self.plan = self.plan, None
        if plan is not None:
            self._session.run(
                "engine", plan.store.close, what="Closing features", where="slide", quiet=True
            )
        had_map, self.classmap = self.classmap is not None, None
        self.head = self.evaluation = self.missing = self._live = None
        self._dirty.clear()
        self.status = LoopStatus(paused=self.paused)
        self._session.status_changed.emit(self.status)
        if had_map:
            self._session.map_changed.emit(None)
        self._session.validation_changed.emit(None)

    def restart(self) -> None:
        """Slide, um/px, tissue, backbone, device or model changed: start over from the disk."""
        self.clear()
        session = self._session
        slide, tissue = session.slide, session.tissue
        if slide is None or slide.mpp is None or tissue is None:
            return
        card_id = session.card_id

        def start() -> _Plan:
            from pathotune.models.features import FeatureStore
            from pathotune.slides.tiles import TileGrid

            from pathotune.models.cards import card

            backbone = card(card_id)
            grid = TileGrid.plan(
                slide.width,
                slide.height,
                slide.mpp,
                mpp=backbone.mpp,
                tile_px=backbone.tile_px,
                token_px=backbone.token_px,
                halo=backbone.halo,
            )
            root = _settings.cache_root()
            store = FeatureStore.open(slide.stamp, backbone, grid, root=root)
            return _Plan(backbone, grid, store, grid.cells(tissue))

        session.run(
            "files",
            start,
            what="Looking for features",
            where="slide",
            key="plan",
            replace=True,
            quiet=True,
            on_done=self._planned,
        )

    def close(self) -> None:
        """Stop the timers and close the store."""
        self._soon.stop()
        self._verdict.stop()

    # -- features -----------------------------------------------------------------

    def _planned(self, plan: _Plan) -> None:
        from pathotune.learn.live import LiveProbe

        self.plan, self._live, self._refit = plan, LiveProbe(), True
        self._paint()
        self._compute()

    def _compute(self) -> None:
        session, plan = self._session, self.plan
        slide = session.slide
        if plan is None or slide is None or self.paused or session.bundle is not None:
            return
        device = session.device

        def start() -> Any:
            from pathotune.models.features import compute_features

            return compute_features(
                slide, plan.card, plan.grid, plan.store, plan.cells, device=device, focus=self.focus
            )

        self._say(computing=True)
        session.run(
            "engine",
            start,
            what="Reading the slide for the model",
            where="slide",
            key="features",
            replace=True,
            background=True,
            on_event=self._on_features,
            on_done=lambda _: self._say(computing=False, seconds_left=None),
            on_error=self._on_features_failed,
        )

    def focus(self) -> Region | None:
        """What to compute first; asked from the engine lane between batches."""
        return self._focus

    def _on_features(self, event: Any) -> None:
        if isinstance(event, TilesDone):
            self._dirty.append(event)
            self._soon.start()
        elif isinstance(event, Progress):
            self._say(done=event.done, total=event.total, seconds_left=event.seconds_left)

    def _on_features_failed(self, error: Any) -> None:
        self._say(computing=False)
        self._session.fail("slide", error)

    # -- the map ------------------------------------------------------------------

    def _paint(self) -> None:
        session, plan, tissue = self._session, self.plan, self._session.tissue
        if plan is None or tissue is None or session.bundle is not None:
            return
        dirty, self._dirty = self._dirty, []
        marks, live, old, old_map = session.annotations, self._live, self.head, self.classmap
        self._refit = False

        def start() -> Iterator[Any]:
            return _follow(plan, tissue, marks, live, old, old_map, dirty, self.focus)

        session.run(
            "fast",
            start,
            what="Drawing the map",
            where="classify",
            key="paint",
            replace=True,
            quiet=True,
            on_event=self._on_painted,
            on_done=lambda _: self._verdict.start(),
            on_cancelled=lambda: self._dirty.extend(dirty),
        )

    def _on_painted(self, event: Any) -> None:
        session = self._session
        if isinstance(event, _Fitted):
            new_map = event.classmap is not self.classmap
            new_head = event.head is not self.head
            self.head, self.missing, self.classmap = event.head, event.missing, event.classmap
            self._say(missing=event.missing, has_map=event.classmap is not None)
            if new_head:
                session.model_changed.emit()
            if new_map:
                session.map_changed.emit(None)
        elif isinstance(event, TilesDone):
            session.map_changed.emit(event)

    def _validate(self) -> None:
        live = self._live
        if live is None or self.head is None:
            if self.evaluation is not None:
                self.evaluation = None
                self._session.validation_changed.emit(None)
            return
        self._session.run(
            "fast",
            live.validation,
            what="Judging the model",
            where="tune",
            key="verdict",
            replace=True,
            quiet=True,
            on_done=self._on_verdict,
        )

    def _on_verdict(self, evaluation: Any) -> None:
        self.evaluation = evaluation
        self._session.validation_changed.emit(evaluation)

    def _say(self, **changes: Any) -> None:
        from dataclasses import replace

        status = replace(self.status, **changes)
        if status != self.status:
            self.status = status
            self._session.status_changed.emit(status)


def _follow(
    plan: _Plan,
    tissue: Any,
    marks: Any,
    live: Any,
    old_head: Any,
    classmap: ClassMap | None,
    dirty: list[TilesDone],
    focus: Any,
) -> Iterator[Any]:
    """Refit, then paint: the screen, then the rest or what is new (fast lane)."""
    from pathotune.maps.classmap import ClassMap
    from pathotune.maps.paint import paint

    head, missing = live.update(marks, plan.store, plan.grid)
    lattice = plan.grid.lattice
    if head is None:
        yield _Fitted(None, missing, None)
        return
    names = tuple(c.name for c in marks.classes)
    if classmap is None or tuple(classmap.classes) != names:
        classmap = ClassMap(
            names,
            tuple(c.colour for c in marks.classes),
            (lattice.x0, lattice.y0),
            lattice.step,
            plan.card.mpp * plan.card.token_px,
            np.zeros((lattice.rows, lattice.cols), np.uint8),
            np.zeros((lattice.rows, lattice.cols, len(names)), np.float16),
        )
        old_head = None
    yield _Fitted(head, missing, classmap)
    whole = TilesDone(0, 0, lattice.rows, lattice.cols)
    boxes = _chunks(dirty if head is old_head else [whole])
    view = focus()
    if view is not None and head is not old_head:
        r0, c0, r1, c1 = lattice.window(view)
        boxes.insert(0, TilesDone(r0, c0, r1, c1))
    first = True
    while boxes:
        box = boxes.pop(0 if first else _nearest(boxes, lattice, focus()))
        first = False
        window = (box.row0, box.col0, box.row1, box.col1)
        labels, probs = paint(plan.store, head, window, tissue, plan.card.neighbourhood)
        rows, cols = slice(box.row0, box.row1), slice(box.col0, box.col1)
        if labels.any() or classmap.labels[rows, cols].any():
            classmap.labels[rows, cols] = labels
            if classmap.probs is not None:
                classmap.probs[rows, cols] = probs
            yield box


def _chunks(boxes: list[TilesDone]) -> list[TilesDone]:
    return [
        TilesDone(r, c, min(r + CHUNK, b.row1), min(c + CHUNK, b.col1))
        for b in boxes
        for r in range(b.row0, b.row1, CHUNK)
        for c in range(b.col0, b.col1, CHUNK)
    ]


def _nearest(boxes: list[TilesDone], lattice: Any, view: Region | None) -> int:
    if view is None:
        return 0
    r0, c0, r1, c1 = lattice.window(view)
    row, col = (r0 + r1) / 2, (c0 + c1) / 2
    far = [abs((b.row0 + b.row1) / 2 - row) + abs((b.col0 + b.col1) / 2 - col) for b in boxes]
    return int(np.argmin(far))
