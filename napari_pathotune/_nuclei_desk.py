"""The nuclei of a viewer's slide: what finds them, the run, and what was found.

One object a session, as the map has its loop. The run goes through the session's
lanes: what is on the screen ahead of everything else, the rest in the background, so
that drawing and the map are never kept waiting. Every tile that is done is shown at
once and lies on disk; stopping keeps it and opening the slide again brings it back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QObject

from napari_pathotune import _layers
from napari_pathotune import _nuclei_files as files
from pathotune.events import Note, NucleiDone, Progress

if TYPE_CHECKING:
    from napari_pathotune._jobs import Task
    from napari_pathotune._session import Session
    from pathotune.events import Event, Job, PathotuneError
    from pathotune.marks.classes import AnnotationClass
    from pathotune.nuclei.edits import Edits
    from pathotune.nuclei.query import Nuclei
    from pathotune.slides.geometry import Region
    from pathotune.slides.slide import Slide

KEY = "nuclei"


@dataclass(frozen=True)
class RunState:
    """How far the run is; `total` 0: it has not begun to count."""

    running: bool = False
    waiting: bool = False
    done: int = 0
    total: int = 0
    seconds_left: float | None = None


@dataclass(frozen=True)
class Found:
    """Nuclei with what a person corrected on them."""

    nuclei: Nuclei
    edits: Edits
    measures: tuple[str, ...]
    classes: tuple[AnnotationClass, ...]


class NucleiDesk(QObject):
    """The nuclei of one session; get it with `NucleiDesk.of(session)`.

    Signals
    -------
    replaced()
        Other nuclei, or none.
    grown()
        More of the same, or some were changed.
    state_changed(RunState)
    noted(str)
        What the segmenter wants the user to know.
    classes_changed()
        The classes that nuclei can be given, their names or colours.

    Attributes
    ----------
    nuclei : Nuclei or None
    edits : Edits or None
        None while a run goes on.
    measures : tuple of str
        What the nuclei can be coloured by, without asking the file.
    segmenter : str
        Key of the one that the next run takes.
    state : RunState
    """

    replaced = Signal()
    grown = Signal()
    state_changed = Signal(object)
    noted = Signal(str)
    classes_changed = Signal()

    def __init__(self, session: Session) -> None:
        from pathotune.nuclei.segmenter import DEFAULT

        super().__init__(session.jobs)
        self.session = session
        self.segmenter = DEFAULT
        self.nuclei: Nuclei | None = None
        self.edits: Edits | None = None
        self.measures: tuple[str, ...] = ()
        self.classes: tuple[AnnotationClass, ...] = ()
        self.state = RunState()
        self._task: Task | None = None
        self._prepared: tuple[Any, Any] | None = None
        session.slide_changed.connect(self._on_slide)
        session.mpp_changed.connect(self._on_slide)
        session.closed.connect(self._let_go)
        if session.slide is not None:
            self._on_slide()

    @classmethod
    def of(cls, session: Session) -> NucleiDesk:
        """Return the one of a session, made on first use."""
        found = session.jobs.findChild(cls)
        return cls(session) if found is None else found

    # -- the run ------------------------------------------------------------------------

    @property
    def why_not(self) -> str:
        """Why no nuclei can be looked for now; empty when they can."""
        slide = self.session.slide
        if slide is None:
            return "Open a slide first, or try the sample."
        if slide.mpp is None:
            return "Sizes need µm/px. Enter them in the Slide dock."
        if self.session.tissue is None:
            return "The tissue is being looked for."
        return ""

    def start(self, region: Region | None = None) -> None:
        """Find the nuclei of a region, or of the slide, the screen first."""
        session, slide, tissue = self.session, self.session.slide, self.session.tissue
        viewer = session.viewer
        if slide is None or tissue is None or slide.mpp is None or viewer is None:
            return
        from pathotune.nuclei.query import Nuclei
        from pathotune.nuclei.run import segment_slide

        self.cancel()
        key, out = self.segmenter, files.place(slide, self.segmenter, region)
        focus = _layers.view_region(viewer, slide)
        growing = Nuclei.growing({"mpp": slide.mpp, "segmenter": key})
        seen: set[Path] = set()

        def start() -> Job[Found]:
            segmenter = self._prepare(key)
            job = segment_slide(slide, segmenter, out, tissue=tissue, region=region, focus=focus)
            return _growing(job, growing, seen, slide)

        def screen() -> Job[Found | None]:
            return _until_beside(start(), focus)

        def screen_done(found: Found | None) -> None:
            if found is None:
                self._go(start, background=True)
            else:
                self._finished(found)

        self._show(growing, None)
        self._go(screen, on_done=screen_done)

    def _go(self, start: Any, *, background: bool = False, on_done: Any = None) -> None:
        lane = self.session.jobs.running("engine")
        busy = background and lane is not None
        self._say(replace(self.state, running=True, waiting=busy))
        self._task = self.session.run(
            "engine",
            start,
            what="Finding nuclei",
            where="nuclei",
            key=KEY,
            replace=True,
            background=background,
            quiet=True,
            on_event=self._on_event,
            on_done=on_done or self._finished,
            on_error=self._on_error,
        )

    def cancel(self) -> None:
        """Stop at once; what was found stays, here and on disk."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            self._say(RunState())
            self._join_edits()

    def _prepare(self, key: str) -> Any:
        """Let the segmenter look at the slide, once (in a lane)."""
        from pathotune.nuclei.segmenter import prepare

        slide, tissue = self.session.slide, self.session.tissue
        asked = key, id(slide), id(tissue), None if slide is None else slide.mpp
        if self._prepared is None or self._prepared[0] != asked:
            assert slide is not None
            self._prepared = asked, prepare(key, slide, tissue)
        return self._prepared[1]

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._say(RunState(True, False, event.done, event.total, event.seconds_left))
        elif isinstance(event, NucleiDone):
            self.grown.emit()
        elif isinstance(event, Note) and event.level == "warning":
            self.noted.emit(event.text)

    def _finished(self, found: Found) -> None:
        self._task = None
        self._take(found)
        self._say(RunState())

    def _on_error(self, error: PathotuneError) -> None:
        self._task = None
        self._say(RunState())
        self.session.fail("nuclei", error)

    def _say(self, state: RunState) -> None:
        self.state = state
        self.state_changed.emit(state)

    # -- what there is ------------------------------------------------------------------

    def _show(
        self, nuclei: Nuclei | None, edits: Edits | None, measures: tuple[str, ...] = ()
    ) -> None:
        from pathotune.nuclei.measure import MEASURES

        self.measures = measures or MEASURES
        old, self.nuclei = self.nuclei, nuclei
        last, self.edits = self.edits, edits
        if last is not None and last is not edits:
            last.close()
        if old is not None and old is not nuclei:
            old.close()
        self.replaced.emit()

    def _take(self, found: Found) -> None:
        self.classes = found.classes or self.classes
        self._show(found.nuclei, found.edits, found.measures)
        self.classes_changed.emit()

    def set_classes(self, classes: tuple[AnnotationClass, ...]) -> None:
        """Take other classes that nuclei can be given; they are kept for the slide."""
        slide, self.classes = self.session.slide, classes
        self.classes_changed.emit()
        if slide is not None:
            self.session.run(
                "files",
                lambda: files.write_classes(slide, classes),
                what="Keeping the classes",
                where="nuclei",
                quiet=True,
            )

    @property
    def own_colours(self) -> tuple[tuple[str, tuple[int, int, int]], ...]:
        """Class and colour, as the user gave them: to nuclei first, else to tissue."""
        own = {c.name: c.colour for c in self.session.annotations.classes}
        return tuple((own | {c.name: c.colour for c in self.classes}).items())

    def open(self, path: Path) -> None:
        """Open a file of nuclei of this slide, with the corrections made on it (files lane)."""
        slide = self.session.slide
        if slide is None:
            return
        self.session.run(
            "files",
            lambda: opened(path, slide),
            what="Opening the nuclei",
            where="nuclei",
            key="nuclei-open",
            replace=True,
            quiet=True,
            on_done=self._take,
        )

    def _join_edits(self) -> None:
        """Lay earlier corrections over what a stopped run has found."""
        nuclei, slide = self.nuclei, self.session.slide
        if nuclei is None or slide is None or not len(nuclei.ids):
            return

        def done(edits: Edits) -> None:
            if self.nuclei is nuclei and self.edits is None:
                self.edits = edits
                self.grown.emit()
                self.state_changed.emit(self.state)

        self.session.run(
            "files",
            lambda: edits_of(nuclei, slide),
            what="Reading your corrections",
            where="nuclei",
            key="nuclei-open",
            quiet=True,
            on_done=done,
        )

    def _on_slide(self, *_: Any) -> None:
        self.cancel()
        self._prepared, self.classes = None, ()
        self._show(None, None)
        slide = self.session.slide
        if slide is not None and slide.mpp is not None:
            last = files.latest(slide)
            if last is not None:
                self.open(last)
        self.state_changed.emit(self.state)

    def _let_go(self) -> None:
        self._show(None, None)


def edits_of(nuclei: Nuclei, slide: Slide) -> Edits:
    """Lay the slide's corrections over nuclei; they are kept by slide, so a new run has them."""
    from pathotune.nuclei.edits import Edits

    return Edits(nuclei, files.folder(slide) / files.EDITS)


def opened(path: Path, slide: Slide) -> Found:
    """Open a file of nuclei with the slide's corrections."""
    from pathotune.nuclei.query import Nuclei

    nuclei = Nuclei.open(path)
    return Found(nuclei, edits_of(nuclei, slide), nuclei.measures, files.read_classes(slide))


def _growing(job: Job[dict[str, Any]], nuclei: Nuclei, seen: set[Path], slide: Slide) -> Job[Found]:
    """Take every tile in as it comes, off the GUI thread; return the whole store at the end."""
    try:
        while True:
            try:
                event = next(job)
            except StopIteration as stop:
                return opened(Path(stop.value["out"]), slide)
            if isinstance(event, NucleiDone) and event.file not in seen:
                seen.add(event.file)
                nuclei.add(event.file)
            yield event
    finally:
        job.close()


def _until_beside(job: Job[Found], focus: Region | None) -> Job[Found | None]:
    """Pump a job until a tile does not touch the screen; return None unless it is all done."""
    try:
        while True:
            try:
                event = next(job)
            except StopIteration as stop:
                whole: Found = stop.value
                return whole
            yield event
            if isinstance(event, NucleiDone) and focus is not None:
                x0, y0, x1, y1 = event.box
                beside = x0 >= focus.x1 or y0 >= focus.y1 or x1 <= focus.x or y1 <= focus.y
                if beside:
                    return None
    finally:
        job.close()
