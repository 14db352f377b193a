"""Lets many threads read a file and closes it only when none is inside.

A window closes a slide while the learning behind it still reads tiles. Freeing
the file under a running read crashes the whole program in C code, so closing
waits for the reads that have begun and turns away those that come later.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Gate:
    """Counts who is inside; shut once and for good."""

    def __init__(self) -> None:
        self._inside = 0
        self._shut = False
        self._changed = threading.Condition()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Stay inside while reading.

        Raises
        ------
        PathotuneError
            The gate has been shut.
        """
        with self._changed:
            if self._shut:
                raise PathotuneError("This slide has been closed.", "Open it again.")
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def shut(self, close: Callable[[], None]) -> None:
        """Turn newcomers away, wait for those inside, then close; a second call does nothing."""
        with self._changed:
            if self._shut:
                return
            self._shut = True
            self._changed.wait_for(lambda: self._inside == 0)
        close()
