"""The second speed: a method learns on the marked regions while the window stays alive.

One tuning at a time and a session. It runs in the engine lane on a copy of the
marks, so that drawing goes on meanwhile. What it has learnt is kept when it is
stopped, and on the disk while it runs, so that a crash loses nothing. It never
changes the map by itself: the verdict is told and the user decides.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Event as Flag
from typing import TYPE_CHECKING, Any, Literal

from psygnal import Signal

from napari_pathotune._overlaps import Overlaps
from pathotune.events import EpochDone, PathotuneError, Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from napari_pathotune._session import Session
    from pathotune.slides.slide import Region

State = Literal["idle", "learning", "stopping", "done"]
KEY = "tuning"
_PREVIEW_SHARE = 0.1  # of the training's time may go into looking at what it has learnt
_PREVIEW_TILES = 4  # a side, in the middle of the screen


@dataclass(frozen=True, slots=True)
class Asked:
    """What to tune: a method, its settings, and the sentence for methods that read one."""

    method: str
    values: Mapping[str, Any]
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """The map of the screen as the best model so far would draw it."""

    classmap: Any


class Tuning:
    """The better model of a session: being learnt, learnt, or found on the disk.

    Attributes
    ----------
    state : {"idle", "learning", "stopping", "done"}
    curve : list of EpochDone
        The passes so far.
    bundle : ModelBundle or None
        The finished model, or the best so far.
    wants_preview : bool
        Whether the screen is drawn with the best model now and then.

    Signals
    -------
    changed()
        State, progress, curve or model changed.
    previewed(ClassMap | None)
        A new look at the screen; None: take it away.
    """

    changed = Signal()
    previewed = Signal(object)

    def __init__(self, session: Session) -> None:
        self._session = session
        self.state: State = "idle"
        self.curve: list[EpochDone] = []
        self.bundle: Any = None
        self.progress: Progress | None = None
        self.error: PathotuneError | None = None
        self.left_behind: Path | None = None
        self.wants_preview = False
        self._stop = Flag()
        self._task: Any = None
        self._began = 0.0
        self._began_at: int | None = None
        session.slide_changed.connect(self._on_slide)
        session.closed.connect(self._on_closed)

    # -- what the user does --------------------------------------------------------

    def start(self, asked: Asked) -> None:
        """Learn in the background; `changed` follows."""
        session = self._session
        slide, plan = session.slide, session.loop.plan
        if slide is None or plan is None or self.state in ("learning", "stopping"):
            return
        self._stop.clear()
        self.curve, self.bundle, self.error, self.progress = [], None, None, None
        self.left_behind = None
        self.state, self._began, self._began_at = "learning", time.monotonic(), None
        keep = _kept(slide)
        marks = _copy(session.annotations)
        device, card = session.device, plan.card
        overlap = Overlaps.of(session).answer
        tissue = "off" if getattr(session.tissue, "source", "auto") == "off" else "auto"

        def job() -> Generator[Any, None, Any]:
            from pathotune.learn.train import train
            from pathotune.learn.tune import settings

            keep.parent.mkdir(parents=True, exist_ok=True)
            config, training = settings(asked.method, asked.values)
            learning = train(
                [(slide, marks)],
                card=card,
                method=asked.method,
                config=config,
                plan=training,
                sentence=asked.sentence,
                device=device,
                tissue=tissue,
                overlap=overlap,
                stop=self._stop.is_set,
                keep=keep,
            )
            return (yield from self._with_previews(learning, slide))

        self._task = session.run(
            "engine",
            job,
            what="Learning a better model",
            where="tune",
            key=KEY,
            on_event=self._on_event,
            on_done=self._on_done,
            on_error=self._on_error,
            on_cancelled=self._on_cancelled,
        )
        self.changed.emit()

    def stop(self) -> None:
        """Stop learning and keep the best model so far."""
        if self.state == "learning":
            self._stop.set()
            self.state = "stopping"
            self.changed.emit()

    def cancel(self) -> None:
        """Stop at once; the best model so far stays on offer if there is one."""
        if self._task is not None:
            self._task.cancel()

    def forget(self) -> None:
        """Take the better model off the list, here and on the disk."""
        self.state, self.bundle, self.curve = "idle", None, []
        left, self.left_behind = self.left_behind, None
        slide = self._session.slide
        for path in {p for p in (left, None if slide is None else _kept(slide)) if p is not None}:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        self.previewed.emit(None)
        self.changed.emit()

    def recover(self) -> None:
        """Take up the model that was being learnt when the program ended."""
        path, self.left_behind = self.left_behind, None
        if path is None:
            return

        def load() -> Any:
            from pathotune.models.bundle import ModelBundle

            return ModelBundle.load(path)

        self._session.run(
            "files",
            load,
            what="Loading the model",
            where="tune",
            on_done=self._on_recovered,
        )

    # -- what can be known -----------------------------------------------------------

    @property
    def seconds_left(self) -> float | None:
        """How long it will take at most, from the passes so far; None while unknown."""
        if not self.curve or self._began_at is None:
            return None
        last = self.curve[-1]
        done = last.epoch - self._began_at
        if done < 1:
            return None
        return (time.monotonic() - self._began) / done * max(0, last.total - last.epoch - 1)

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """What came of it: `word`, `text` and the numbers; None before the end."""
        if self.bundle is None:
            return None
        found: Mapping[str, Any] | None = self.bundle.meta.get("tuning", {}).get("verdict")
        return found

    # -- what happens ------------------------------------------------------------------

    def _with_previews(
        self, learning: Generator[Any, None, Any], slide: Any
    ) -> Generator[Any, None, Any]:
        """Pump the training; look at the screen with the best model when there is time for it."""
        spent, began = 0.0, time.monotonic()
        shown: Any = None
        try:
            while True:
                try:
                    event = next(learning)
                except StopIteration as end:
                    return end.value
                yield event
                best = event.bundle if isinstance(event, EpochDone) else None
                if best is None or best is shown or not self.wants_preview or not event.epoch:
                    continue
                if spent > _PREVIEW_SHARE * (time.monotonic() - began):
                    continue
                region = self._middle()
                start = time.monotonic()
                classmap = yield from self._look(slide, best, region)
                spent += time.monotonic() - start
                if classmap is not None:
                    shown = best
                    yield Preview(classmap)
        finally:
            learning.close()

    def _middle(self) -> Region | None:
        """Return the middle of the screen, no larger than a look may cost."""
        region, plan = self._session.loop.focus(), self._session.loop.plan
        if region is None or plan is None:
            return None
        side = int(_PREVIEW_TILES * plan.grid.core * plan.grid.lattice.step)
        width, height = min(region.width, side), min(region.height, side)
        left = region.x + (region.width - width) // 2
        top = region.y + (region.height - height) // 2
        return replace(region, x=left, y=top, width=width, height=height)

    def _look(self, slide: Any, bundle: Any, region: Region | None) -> Generator[Any, None, Any]:
        from pathotune.maps.predict import predict

        tissue = self._session.tissue
        if region is None or tissue is None:
            return None
        drawing = predict(slide, bundle, region=region, tissue=tissue, device=self._session.device)
        try:
            while True:
                try:
                    next(drawing)
                except StopIteration as end:
                    return end.value
                if self._stop.is_set():
                    return None
                yield Progress(0, 0, "Drawing what it has learnt")
        finally:
            drawing.close()

    def _on_event(self, event: Any) -> None:
        if isinstance(event, EpochDone):
            if self._began_at is None:
                self._began, self._began_at = time.monotonic(), event.epoch
            self.curve.append(event)
            if event.bundle is not None:
                self.bundle = event.bundle
            self.changed.emit()
        elif isinstance(event, Progress):
            self.progress = event
            self.changed.emit()
        elif isinstance(event, Preview):
            self.previewed.emit(event.classmap)

    def _on_done(self, bundle: Any) -> None:
        self._task, self.bundle, self.state = None, bundle, "done"
        self.previewed.emit(None)
        self.changed.emit()

    def _on_error(self, error: PathotuneError) -> None:
        self._task, self.error = None, error
        self.state = "idle" if self.bundle is None else "done"
        self.previewed.emit(None)
        self.changed.emit()

    def _on_cancelled(self) -> None:
        self._task = None
        self.state = "idle" if self.bundle is None else "done"
        self.previewed.emit(None)
        self.changed.emit()

    def _on_recovered(self, bundle: Any) -> None:
        self.bundle, self.state = bundle, "done"
        self.changed.emit()

    def _on_slide(self, slide: Any) -> None:
        self.cancel()
        self.state, self.bundle, self.curve, self.error = "idle", None, [], None
        self.previewed.emit(None)
        path = None if slide is None else _kept(slide)
        self.left_behind = path if path is not None and path.is_file() else None
        self.changed.emit()

    def _on_closed(self) -> None:
        self._stop.set()


def _kept(slide: Any) -> Path:
    """Return where the best model of a slide is kept while it is learnt."""
    from pathotune.places import data_dir

    return data_dir() / "tuned" / f"{slide.fingerprint}.safetensors"


def _copy(marks: Any) -> Any:
    """Return the marks as they are now; the hand may go on."""
    from pathotune.marks.annotations import AnnotationSet

    return AnnotationSet(marks.classes, marks.items)
