"""How a session speaks to its docks and how work reaches its lanes.

Signals come up in the GUI thread; work goes down through `run`, which routes
notes, progress and errors to the docks so that no caller has to. A dock shows
only the failures that name it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_pathotune._jobs import JobRunner, LaneName, Task
from pathotune.events import Event, Note, PathotuneError, Progress

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Failure:
    """An error for one dock ("slide", "annotate", "tune", "classify"), in the user's words."""

    where: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Activity:
    """What is being done; `total` is 0 when it cannot be known."""

    what: str
    done: int = 0
    total: int = 0
    seconds_left: float | None = None


class Bus:
    """Signals and lanes of one session.

    Signals
    -------
    slide_changed(Slide | None), mpp_needed(Slide), mpp_changed(float),
    tissue_changed(TissueMask | None)
    annotations_replaced(AnnotationSet), annotations_changed(Change)
    model_changed()
        The backbone, the model in use or the head changed.
    validation_changed(Evaluation | None)
        A new verdict on the fast model; None while there is none.
    map_changed(TilesDone | None)
        These tokens of the map are new; None: all of it, its layers included.
    status_changed(LoopStatus)
        What the loop computes, what is missing.
    activity_changed(Activity | None), note(Note), failed(Failure)
    device_changed(str), device_known(str)
        The device asked for; the name of the one that is used.
    dock_wanted(str)
        Somebody asks for a dock ("slide", "annotate", "tune", "classify") to be raised.
    closed()
    """

    slide_changed = Signal(object)
    mpp_needed = Signal(object)
    mpp_changed = Signal(float)
    tissue_changed = Signal(object)
    annotations_replaced = Signal(object)
    annotations_changed = Signal(object)
    model_changed = Signal()
    validation_changed = Signal(object)
    map_changed = Signal(object)
    status_changed = Signal(object)
    activity_changed = Signal(object)
    device_changed = Signal(str)
    device_known = Signal(str)
    note = Signal(object)
    failed = Signal(object)
    dock_wanted = Signal(str)
    closed = Signal()

    def __init__(self) -> None:
        self.jobs = JobRunner()

    def run(
        self,
        lane: LaneName,
        start: Callable[[], Any],
        *,
        what: str,
        where: str,
        key: str | None = None,
        replace: bool = False,
        background: bool = False,
        quiet: bool = False,
        on_event: Callable[[Event], None] | None = None,
        on_done: Callable[[Any], None] | None = None,
        on_error: Callable[[PathotuneError], None] | None = None,
        on_cancelled: Callable[[], None] | None = None,
    ) -> Task:
        """Put work in a lane; its notes, progress and errors reach the docks by themselves.

        Parameters
        ----------
        lane : {"engine", "fast", "files"}
            "engine" for torch, "fast" for numpy under 0.2 s, "files" for disks.
        start : callable
            Called in the lane's thread; returns a job or a result.
        what, where : str
            What it does, in the user's words, and the dock that shows its errors.
        quiet : bool
            Show no progress.
        key, replace, background, on_event, on_done, on_error, on_cancelled
            As in `Task`. An `on_error` takes the error instead of the dock.
        """

        def event(e: Event) -> None:
            if isinstance(e, Note):
                self.note.emit(e)
            elif isinstance(e, Progress) and not quiet:
                self.activity_changed.emit(
                    Activity(e.what or what, e.done, e.total, e.seconds_left)
                )
            if on_event is not None:
                on_event(e)

        def error(e: PathotuneError) -> None:
            if not quiet:
                self.activity_changed.emit(None)
            if on_error is not None:
                on_error(e)
            else:
                self.fail(where, e)

        def done(result: Any) -> None:
            if not quiet:
                self.activity_changed.emit(None)
            if on_done is not None:
                on_done(result)

        def cancelled() -> None:
            if not quiet:
                self.activity_changed.emit(None)
            if on_cancelled is not None:
                on_cancelled()

        task = Task(start, what, key, replace, background, event, done, error, cancelled)
        return self.jobs.submit(lane, task)

    def fail(self, where: str, error: PathotuneError) -> None:
        """Show an error in the dock it belongs to."""
        self.failed.emit(Failure(where, error.message, error.hint))
