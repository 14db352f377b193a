"""Many regions reach napari's layer in slices, so that the window never stands still for them.

napari needs a third of a millisecond for a region and some milliseconds for every
call, more the more regions there are. So the size of a slice follows the time the
last one took, and between two slices the window turns once: an import of hundreds of
regions fills in over a second in which the slide can be moved.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pathotune.marks.annotations import Annotation

FIRST, SMALLEST, LARGEST = 24, 12, 96
SHORT_MS, LONG_MS = 15.0, 30.0  # a call of ours may take 50
PAUSE_MS = 4
LOOK_S = 0.25  # between two looks at the picture: drawing it may take longer than a slice


class Feed:
    """Regions that wait to be shown; one with holes comes whole.

    Parameters
    ----------
    put : callable
        Takes some regions into the layer.
    show : callable
        Draws what was taken in.
    may : callable
        Whether they may be shown now; asked before every slice. Who made it say no calls
        `go_on` when it is over.
    """

    def __init__(
        self,
        put: Callable[[list[Annotation]], None],
        show: Callable[[], None],
        may: Callable[[], bool],
    ) -> None:
        self._put, self._show, self._may = put, show, may
        self._shown_at = 0.0
        self._waiting: deque[Annotation] = deque()
        self._slice = FIRST
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.timeout.connect(self._next)

    def __len__(self) -> int:
        return len(self._waiting)

    def ids(self) -> set[str]:
        """Return which regions wait."""
        return {region.id for region in self._waiting}

    def drop(self, ids: Iterable[str] | None = None) -> None:
        """Forget these, or all."""
        gone = None if ids is None else set(ids)
        kept = [] if gone is None else [region for region in self._waiting if region.id not in gone]
        self._waiting = deque(kept)

    def add(self, regions: Iterable[Annotation]) -> None:
        """Show the first slice now and the rest in turns of the window, after what waits."""
        busy = bool(self._waiting)
        self._waiting.extend(regions)
        if not busy:
            self._next()

    def go_on(self) -> None:
        """Go on after a halt."""
        if self._waiting:
            self._timer.start()

    def stop(self) -> None:
        """Forget everything; for the end."""
        self._timer.stop()
        self._waiting.clear()

    def _next(self) -> None:
        if not self._waiting or not self._may():
            return
        regions = [self._waiting.popleft() for _ in range(min(self._slice, len(self._waiting)))]
        began = time.perf_counter()
        self._put(regions)
        now = time.perf_counter()
        spent = (now - began) * 1000
        if spent > LONG_MS:
            self._slice = max(self._slice // 2, SMALLEST)
        elif spent < SHORT_MS and len(regions) == self._slice:
            self._slice = min(self._slice * 2, LARGEST)
        if not self._waiting or now - self._shown_at > LOOK_S:
            self._show()
            self._shown_at = time.perf_counter()
        self.go_on()
