"""Pieces of a slide read by a few threads, for a window that must not wait for a drive.

The window says which pieces it wants now; whatever it wanted before and has not
been begun is dropped, because the view has moved. What has come is kept, up to
a bound. Threads are started when something is wanted and end when nothing is
left, so none outlives its work, whoever forgets to stop it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Piece = tuple[int, int, int]

THREADS = 4
LIMIT_BYTES = 96 << 20
NAME = "pathotune-slow-drive"
_AGAIN_S = 5.0  # after which a piece that could not be read is tried again
_SHARE = 0.3  # of the newest reading in the average


class SlowReads:
    """Reads pieces, (level, row, column), in the background.

    Parameters
    ----------
    read : callable
        Reads a piece; called in the threads.
    came : callable
        Called in a thread when a piece has come.
    failed : callable
        Called in a thread with the error when one could not be read.
    limit : int
        Bytes of pixels that are kept at most.
    """

    def __init__(
        self,
        read: Callable[[Piece], Pixels],
        came: Callable[[], None],
        failed: Callable[[PathotuneError], None],
        limit: int = LIMIT_BYTES,
    ) -> None:
        self._read, self._came, self._failed, self._limit = read, came, failed, limit
        self._kept: OrderedDict[Piece, Pixels] = OrderedDict()
        self._bytes = 0
        self._waiting: list[Piece] = []
        self._begun: set[Piece] = set()
        self._bad: dict[Piece, float] = {}
        self._threads = 0
        self._stopped = False
        self._news = threading.Condition()
        self.typical_s = 0.0  # what a reading takes

    def get(self, piece: Piece) -> Pixels | None:
        """Return a piece that has come, or None."""
        with self._news:
            found = self._kept.get(piece)
            if found is not None:
                self._kept.move_to_end(piece)
            return found

    def want(self, pieces: Sequence[Piece]) -> None:
        """Read these, in this order, and nothing that was wanted before."""
        with self._news:
            if self._stopped:
                return
            now = time.monotonic()
            self._bad = {p: t for p, t in self._bad.items() if now - t < _AGAIN_S}
            self._waiting = [
                p
                for p in pieces
                if p not in self._begun and p not in self._kept and p not in self._bad
            ]
            missing = min(THREADS, len(self._waiting) + len(self._begun)) - self._threads
            starting = max(0, missing)
            self._threads += starting
        for _ in range(starting):
            threading.Thread(target=self._work, name=NAME, daemon=True).start()

    def wait(self, pieces: Sequence[Piece], seconds: float) -> None:
        """Wait a moment for pieces that are likely to come at once."""

        def here() -> bool:
            return self._stopped or all(p in self._kept or p in self._bad for p in pieces)

        with self._news:
            self._news.wait_for(here, seconds)

    def stop(self) -> None:
        """Read no more and give the pieces up; threads end with the reading they are in."""
        with self._news:
            self._stopped = True
            self._waiting.clear()
            self._kept.clear()
            self._bytes = 0
            self._news.notify_all()

    @property
    def idle(self) -> bool:
        """Whether no thread is left."""
        return self._threads == 0

    @property
    def trouble(self) -> bool:
        """Whether something that was wanted lately could not be read."""
        return bool(self._bad)

    def _next(self) -> Piece | None:
        with self._news:
            if not self._waiting:
                self._threads -= 1
                return None
            piece = self._waiting.pop(0)
            self._begun.add(piece)
            return piece

    def _work(self) -> None:
        while (piece := self._next()) is not None:
            began = time.monotonic()
            pixels, error = None, None
            try:
                pixels = self._read(piece)
            except PathotuneError as problem:
                error = problem
            except (OSError, ValueError) as problem:  # a reader's words for what went away
                why = getattr(problem, "strerror", None) or "it gave nothing that can be read"
                error = PathotuneError(
                    f"The drive of this slide did not answer: {why}.",
                    "Check that it is connected; the program tries again by itself.",
                )
            finally:
                self._ended(piece, pixels, time.monotonic() - began)
            if self._stopped:
                continue
            if error is not None:
                self._failed(error)
            else:
                self._came()

    def _ended(self, piece: Piece, pixels: Pixels | None, seconds: float) -> None:
        with self._news:
            self._begun.discard(piece)
            if pixels is None:
                self._bad[piece] = time.monotonic()
            elif not self._stopped:
                new = seconds if not self.typical_s else self.typical_s
                self.typical_s = new + _SHARE * (seconds - new)
                self._kept[piece] = pixels
                self._bytes += pixels.nbytes
                while self._bytes > self._limit and len(self._kept) > 1:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
            self._news.notify_all()
