"""Reads at a place in a file from several threads at once, on every system.

A shared file position would make threads wait for one another, and a memory map
turns a network drive that goes away into a crash; reading at a place does
neither. Where the system lacks it (Windows) the position is guarded by a lock.
"""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class PlacedFile:
    """A file that is read at given places."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._lock = Lock()
        self._pread = getattr(os, "pread", None)

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` on; fewer only at the end of the file."""
        parts: list[bytes] = []
        while count > 0:
            part = self._some(offset, count)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _some(self, offset: int, count: int) -> bytes:
        if self._pread is not None:
            found: bytes = self._pread(self._file.fileno(), count, offset)
            return found
        with self._lock:
            self._file.seek(offset)
            return self._file.read(count)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
