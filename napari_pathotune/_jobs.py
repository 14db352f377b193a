"""Pump the engine's generators off the GUI thread, and stop them at once.

napari's generator worker takes every `RuntimeError` for a deleted widget, and
running out of graphics memory is one, so jobs here are pumped by our own
worker. There are three lanes of one thread each: *engine* (one owner of the
device: features, training, prediction), *fast* (numpy only: the map that
follows the hand) and *files* (opening, saving). Each lane has its own pool,
because Qt's global one has as many threads as cores and a long job would keep
the short ones waiting.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal

from napari.qt.threading import WorkerBase, WorkerBaseSignals
from qtpy.QtCore import QObject, QThread, QThreadPool, QTimer, Signal

from pathotune.events import Event, Job, PathotuneError, Progress, TilesDone

LaneName = Literal["engine", "fast", "files"]
LANES: tuple[LaneName, ...] = ("engine", "fast", "files")
_PERIOD = 0.1  # seconds between two deliveries of events to the GUI thread
_TURN = 0.02  # seconds of one delivery before the event loop gets its turn
_logger = logging.getLogger(__name__)


def coalesce(events: Iterable[Event]) -> list[Event]:
    """Return fewer events that say the same: the last `Progress`, merged `TilesDone`.

    Boxes are merged only where the common box is little larger than the two,
    so that tiles at both ends of a slide do not repaint all between them.
    Notes and `EpochDone` are all kept, in order.
    """
    kept: list[Event] = []
    boxes: list[TilesDone] = []
    last: Progress | None = None
    for event in events:
        if isinstance(event, Progress):
            last = event
        elif isinstance(event, TilesDone):
            _add_box(boxes, event)
        else:
            kept.append(event)
    return [*kept, *boxes, *([last] if last else [])]


def _area(box: TilesDone) -> int:
    return max(0, box.row1 - box.row0) * max(0, box.col1 - box.col0)


def _add_box(boxes: list[TilesDone], new: TilesDone) -> None:
    for i, old in enumerate(boxes):
        both = old.merge(new)
        if _area(both) <= 1.3 * (_area(old) + _area(new)):
            del boxes[i]
            _add_box(boxes, both)
            return
    boxes.append(new)


@dataclass(eq=False)
class Task:
    """One thing to do in a lane; callbacks are called in the GUI thread.

    Parameters
    ----------
    start : callable
        Called in the lane's thread. It returns a job (a generator of events),
        which is then pumped, or simply a result.
    what : str
        What it does, in the user's words ("Computing features").
    key : str, optional
        A new task replaces a waiting one of the same key.
    replace : bool
        The new task also cancels a running one of the same key.
    background : bool
        Any other task may interrupt it; it is started again afterwards, so its
        `start` must resume.
    on_event, on_done, on_error, on_cancelled : callable, optional
        Receive an event, the result, a `PathotuneError`, nothing. After
        `cancel` only `on_cancelled` is called.
    """

    start: Callable[[], Any]
    what: str = ""
    key: str | None = None
    replace: bool = False
    background: bool = False
    on_event: Callable[[Event], None] | None = None
    on_done: Callable[[Any], None] | None = None
    on_error: Callable[[PathotuneError], None] | None = None
    on_cancelled: Callable[[], None] | None = None
    state: Literal["waiting", "running", "cancelled", "done", "failed"] = "waiting"
    _worker: _Worker | None = field(default=None, repr=False)

    @property
    def alive(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("waiting", "running")

    def cancel(self) -> None:
        """Stop at the next event; nothing but `on_cancelled` is called from now on."""
        if not self.alive:
            return
        self.state = "cancelled"
        if self._worker is not None:
            self._worker.quit()
        if self.on_cancelled is not None:
            self.on_cancelled()


class _Signals(WorkerBaseSignals):
    mail = Signal(object)
    over = Signal(object)


def give_way() -> None:
    """Let the window go first wherever the cores are short; for the thread that calls."""
    QThread.currentThread().setPriority(QThread.Priority.LowPriority)  # not heeded on Linux
    if sys.platform == "linux":  # there every thread has a niceness, and hands it to its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


class _Worker(WorkerBase):
    """Pumps one job and closes it, whatever happens."""

    def __init__(self, task: Task, gives_way: bool) -> None:
        super().__init__(SignalsClass=_Signals)
        self.setAutoDelete(False)
        self.task = task
        self._gives_way = gives_way
        self.result: Any = None
        self.error: Exception | None = None
        self._lock = Lock()
        self._mail: list[Event] = []

    def run(self) -> None:
        # The base class changes the process-wide warning filters around the
        # work, which two lanes at once would leave broken; so we do not.
        if self._gives_way:
            give_way()
        try:
            self.result = self.work()
        except PathotuneError as error:
            self.error = error
        except Exception as error:
            _logger.exception("%s failed", self.task.what or "a job")
            self.error = error
        self.signals.over.emit(self)

    def work(self) -> Any:
        job = self.task.start()
        if not isinstance(job, Generator):
            return job
        pumped: Job[Any] = job
        try:
            while not self.abort_requested:
                try:
                    event = next(pumped)
                except StopIteration as stop:
                    return stop.value
                self._post(event)
            return None
        finally:
            pumped.close()

    def _post(self, event: Event) -> None:
        with self._lock:
            self._mail.append(event)
            first = len(self._mail) == 1
        if first:
            self.signals.mail.emit(self)

    def take(self) -> list[Event]:
        """Empty the mailbox (GUI thread)."""
        with self._lock:
            mail, self._mail = self._mail, []
        return coalesce(mail)


class _Lane(QObject):
    """A queue and the one thread that works it off."""

    def __init__(self, runner: JobRunner, name: LaneName) -> None:
        super().__init__(runner)
        self._runner = runner
        self.name = name
        self.waiting: list[Task] = []
        self.worker: _Worker | None = None
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)
        self._delivered = 0.0
        self._undelivered: list[Event] = []
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._deliver)

    @property
    def running(self) -> Task | None:
        """The task that runs or is being stopped."""
        return self.worker.task if self.worker else None

    def submit(self, task: Task) -> None:
        if task.key is not None:
            for other in [t for t in self.waiting if t.key == task.key]:
                self.waiting.remove(other)
                other.cancel()
            if task.replace and self.running and self.running.key == task.key:
                self.running.cancel()
        if task.background:
            self.waiting.append(task)
        else:
            ahead = next((i for i, t in enumerate(self.waiting) if t.background), None)
            self.waiting.insert(len(self.waiting) if ahead is None else ahead, task)
            if self.worker and self.worker.task.background:
                self.worker.quit()  # it is put back in line when its worker is over
        self._next()

    def _next(self) -> None:
        self.waiting = [t for t in self.waiting if t.alive]
        if self.worker is not None or not self.waiting or self._runner.closed:
            return
        task = self.waiting.pop(0)
        task.state = "running"
        self.worker = task._worker = _Worker(task, gives_way=self.name == "engine")
        self.worker.signals.mail.connect(self._on_mail)
        self.worker.signals.over.connect(self._on_over)
        self._pool.start(self.worker)
        self._runner.changed.emit()

    def _on_mail(self, worker: _Worker) -> None:
        if worker is not self.worker or self._later.isActive():
            return
        wait = self._delivered + _PERIOD - time.monotonic()
        if wait <= 0:
            self._deliver()
        else:
            self._later.start(int(wait * 1000) + 1)

    def _deliver(self, everything: bool = False) -> None:
        """Hand events out, a few at a time: several heavy ones in one turn would be felt."""
        if self.worker is None:
            return
        self._delivered = time.monotonic()
        task = self.worker.task
        self._undelivered += self.worker.take()
        while self._undelivered:
            event = self._undelivered.pop(0)
            if task.state == "running" and task.on_event is not None:
                task.on_event(event)
            late = time.monotonic() - self._delivered > _TURN
            if late and self._undelivered and not everything:
                self._later.start(1)
                return

    def _on_over(self, worker: _Worker) -> None:
        if worker is not self.worker:
            return
        self._later.stop()
        self._deliver(everything=True)
        task, self.worker = worker.task, None
        task._worker = None
        if task.state == "running" and not self._runner.closed:
            if worker.error is not None:
                task.state = "failed"
                self._runner.report(task, worker.error)
            elif worker.abort_requested:  # interrupted: back in line
                task.state = "waiting"
                self.waiting.append(task)
            else:
                task.state = "done"
                if task.on_done is not None:
                    task.on_done(worker.result)
        self._next()
        self._runner.changed.emit()

    def close(self, wait_ms: int) -> bool:
        for task in self.waiting:
            task.cancel()
        if self.running:
            self.running.cancel()
        self.waiting.clear()
        return bool(self._pool.waitForDone(wait_ms))


class JobRunner(QObject):
    """The lanes of one session.

    Signals
    -------
    changed()
        A task started or ended in some lane.
    """

    changed = Signal()
    _posted = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.closed = False
        self._lanes = {name: _Lane(self, name) for name in LANES}
        self._posted.connect(self._call)

    def post(self, call: Callable[[], Any]) -> None:
        """Call something in the GUI thread, from any thread."""
        self._posted.emit(call)

    def _call(self, call: Callable[[], Any]) -> None:
        if not self.closed:
            call()

    def submit(self, lane: LaneName, task: Task) -> Task:
        """Put a task in line and return it; a closed runner cancels it."""
        if self.closed:
            task.cancel()
        else:
            self._lanes[lane].submit(task)
        return task

    def running(self, lane: LaneName) -> Task | None:
        """Return the task that runs in a lane."""
        return self._lanes[lane].running

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits anywhere."""
        return all(x.worker is None and not x.waiting for x in self._lanes.values())

    def cancel(self, key: str) -> None:
        """Cancel every task with this key."""
        for lane in self._lanes.values():
            for task in [*lane.waiting, *([lane.running] if lane.running else [])]:
                if task.key == key:
                    task.cancel()

    def report(self, task: Task, error: Exception) -> None:
        """Tell the task's owner in the user's words; what is our fault also goes to napari."""
        if not isinstance(error, PathotuneError):
            from napari.utils.notifications import notification_manager

            notification_manager.receive_error(type(error), error, error.__traceback__)
            error = PathotuneError(
                f"{task.what or 'A job'} stopped because of a fault in the program.",
                "Nothing you marked is lost. The details are in napari's notification.",
            )
        if task.on_error is not None:
            task.on_error(error)

    def close(self, wait_s: float = 20.0) -> None:
        """Cancel everything and wait until the threads have let go of the slide."""
        if self.closed:
            return
        self.closed = True
        left = wait_s
        for lane in self._lanes.values():
            began = time.monotonic()
            if not lane.close(int(max(left, 0.1) * 1000)):
                _logger.warning("the %s lane did not stop in time", lane.name)
            left -= time.monotonic() - began
