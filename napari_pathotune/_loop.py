"""The loop that follows the hand: marks in, class map out.

Token features are computed once in the engine lane, the screen first. Every
change of the marks refits the fast model in the fast lane and repaints what is
on the screen from the features at hand, then the rest, nearest first; a newer
stroke cancels the repaint of an older one. Arrays are written in the lanes and
only shown from the GUI thread.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_pathotune import _settings
from napari_pathotune._fixed_model import fixed_model
from napari_pathotune._overlaps import Overlaps
from napari_pathotune._painting import Fitted, Plan, Todo, follow, make_plan
from napari_pathotune._working import DeviceFound, Work, draw, features, finished_map
from pathotune.events import Note, Progress, TilesDone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_pathotune._session import Session
    from pathotune.maps.classmap import ClassMap
    from pathotune.slides.slide import Region

_SETTLE_MS = 15  # several edits of one gesture count as one
_VERDICT_MS = 400  # the verdict waits until the hand rests


@dataclass(frozen=True, slots=True)
class LoopStatus:
    """What the docks say about the loop.

    `missing` is one sentence on what the model needs next, or None; `done` of
    `total` tiles have features; `has_map` tells whether there is a map to show, `reading`
    whether features are still missing under the marks.
    """

    missing: str | None = None
    done: int = 0
    total: int = 0
    computing: bool = False
    paused: bool = False
    has_map: bool = False
    reading: bool = False
    seconds_left: float | None = None


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
        self.plan: Plan | None = None
        self.status = LoopStatus()
        self._live: Any = None
        self._fixed: Any = None
        self._engine_draws = False
        self._focus: Region | None = None
        self._dirty: list[TilesDone] = []
        self._wanted: Region | None = None
        self._soon = self._timer(_SETTLE_MS, self._paint)
        self._verdict = self._timer(_VERDICT_MS, self._validate)

    def _timer(self, ms: int, slot: Any) -> QTimer:
        timer = QTimer(self._session.jobs)
        timer.setSingleShot(True)
        timer.setInterval(ms)
        timer.timeout.connect(slot)
        return timer

    @property
    def fitted(self) -> Any:
        """The fast model with what it was learnt from and its verdict, as one; None without."""
        return None if self._live is None else self._live.model

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
        self.head = self.evaluation = self.missing = self._live = self._fixed = None
        self._engine_draws = False
        self._dirty.clear()
        self._wanted = None
        self.status = LoopStatus(paused=self.paused)
        self._session.status_changed.emit(self.status)
        if had_map:
            self._session.map_changed.emit(None)
        self._session.validation_changed.emit(None)

    def swap(self, bundle: Any) -> bool:
        """Let another model of the same backbone draw the map at once (None: the fast model).

        Returns False where that needs a start from the disk.
        """
        plan, tissue = self.plan, self._session.tissue
        if plan is None or tissue is None or self._engine_draws:
            return False
        fixed = None if bundle is None else fixed_model(bundle, plan, tissue)
        if bundle is not None and fixed is None:
            return False
        self._fixed = fixed
        if self.evaluation is not None:
            self.evaluation = None
            self._session.validation_changed.emit(None)
        self._paint()
        return True

    def restart(self) -> None:
        """Slide, um/px, tissue, backbone, device or model changed: start over from the disk."""
        self.clear()
        session = self._session
        slide, tissue = session.slide, session.tissue
        if slide is None or slide.mpp is None or tissue is None:
            return
        card_id, device = session.card_id, session.device
        if self._fetch(card_id):
            return
        session.run(
            "files",
            lambda: make_plan(slide, tissue, card_id, device),
            what="Looking for features",
            where="slide",
            key="plan",
            replace=True,
            quiet=True,
            on_done=self._planned,
        )

    def _fetch(self, card_id: str) -> bool:
        """Fetch a backbone that was agreed to and is not here yet; start over when it is."""
        from pathotune.models.cards import cards
        from pathotune.models.weights import download, set_offline

        set_offline(_settings.offline())
        session = self._session
        backbone = cards().get(card_id)
        if backbone is None or card_id not in session.allow_download or backbone.here:
            return False
        session.run(
            "engine",
            lambda: download(backbone),
            what=f"Downloading {backbone.name}",
            where="slide",
            key="download",
            replace=True,
            on_done=lambda _: self.restart() if backbone.here else None,
        )
        return True

    def close(self) -> None:
        """Stop the timers and close the store."""
        self._soon.stop()
        self._verdict.stop()

    # -- features -----------------------------------------------------------------

    def _planned(self, plan: Plan) -> None:
        from pathotune.learn.live import LiveProbe

        self.plan, self._live = plan, LiveProbe(plan.card.neighbourhood)
        session = self._session
        self._engine_draws = session.bundle is not None
        if session.bundle is not None and session.slide is not None:
            self.classmap = finished_map(session.slide, plan, session.bundle)
            self._say(missing=None, has_map=True)
        session.map_changed.emit(None)  # its layer comes with the slide, not with a stroke
        self._paint()
        self._compute()

    def _compute(self) -> None:
        session, plan = self._session, self.plan
        slide = session.slide
        if plan is None or slide is None or self.paused:
            return
        work = Work(
            slide,
            session.tissue,
            plan,
            session.device,
            self.focus,
            plan.card.id in session.allow_download,
        )
        bundle = session.bundle if self._engine_draws else None

        def start() -> Any:
            return features(work) if bundle is None else draw(work, bundle, self.classmap)

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
        """What to compute first: marks without features, then the screen; asked from lanes."""
        return self._wanted or self._focus

    def _on_features(self, event: Any) -> None:
        if isinstance(event, TilesDone):
            if self._engine_draws:
                self._session.map_changed.emit(event)
                return
            self._dirty.append(event)
            self._soon.start()
        elif isinstance(event, DeviceFound):
            self._session.know_device(event.name)
        elif isinstance(event, Progress):
            self._say(done=event.done, total=event.total, seconds_left=event.seconds_left)

    def _on_features_failed(self, error: Any) -> None:
        self._say(computing=False)
        self._session.fail("slide", error)

    # -- the map ------------------------------------------------------------------

    def _paint(self) -> None:
        session, plan, tissue = self._session, self.plan, self._session.tissue
        if plan is None or tissue is None or self._engine_draws:
            return
        session.jobs.cancel("paint")  # hands back what it had not painted yet
        todo, self._dirty = Todo(self._dirty), []
        marks, live = session.annotations, self._fixed or self._live
        if self._live is not None:
            self._live.overlap = Overlaps.of(session).answer or "leave-out"
        old = (self.head, self.classmap)

        def start() -> Iterator[Any]:
            return follow(plan, tissue, marks, live, old, todo, self.focus)

        def cancelled() -> None:
            self._dirty.extend(todo.boxes)
            if todo.painted is not None:  # its last words may not have been heard
                session.map_changed.emit(todo.painted)

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
            on_cancelled=cancelled,
        )

    def _on_painted(self, event: Any) -> None:
        session = self._session
        if isinstance(event, Fitted):
            new_map = event.classmap is not self.classmap
            new_head = event.head is not self.head
            self.head, self.missing, self.classmap = event.head, event.missing, event.classmap
            self._wanted = event.wanted
            self._say(
                missing=event.missing,
                has_map=event.classmap is not None,
                reading=event.wanted is not None,
            )
            self._reach_marks(event)
            if new_head:
                session.model_changed.emit()
            if new_map:
                session.map_changed.emit(None)
        elif isinstance(event, TilesDone):
            session.map_changed.emit(event)

    def _reach_marks(self, event: Fitted) -> None:
        """Compute what lies under the marks, on glass too; the mask never hides a mark."""
        session, plan = self._session, self.plan
        if plan is None:
            return
        if event.glass:
            names = ", ".join(event.glass)
            session.note.emit(
                Note(f"{names} is marked where no tissue was found: the whole slide is mapped.")
            )
            session.set_tissue(None)
            return
        old = {tuple(c) for c in plan.cells.tolist()}
        new = [c for c in event.cells.tolist() if tuple(c) not in old]
        if new:
            cells = np.concatenate([np.array(new, plan.cells.dtype), plan.cells])
            self.plan = replace(plan, cells=cells)
            self._compute()

    def _validate(self) -> None:
        live = self._live
        if live is None or self.head is None or self._fixed is not None:
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
        status = replace(self.status, **changes)
        if status != self.status:
            self.status = status
            self._session.status_changed.emit(status)
