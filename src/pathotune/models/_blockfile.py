"""Blocks of one size in a file that survives being killed, filling the disk, and bit rot.

Blocks are appended to ``blocks.bin``; only when a block is written whole does
its line go to ``blocks.idx``, with the block's checksum and one of its own. A
process that dies in between leaves a block without a line, which the next one
writes over. Files are written with plain writes, where a full disk is an error,
and read through a memory map, where it is none. One process at a time may
write: the others read what was there when they came.
"""

from __future__ import annotations

import os
import sys
import zlib
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_LINE = np.dtype([("row", "<i4"), ("col", "<i4"), ("crc", "<u4"), ("check", "<u4")])


class FolderLock:
    """The right to write in a folder, held until released or until the process ends."""

    def __init__(self, folder: Path) -> None:
        self.held = False
        self._file = (folder / "lock").open("a+b")
        try:
            if sys.platform == "win32":
                import msvcrt

                self._file.seek(0)
                msvcrt.locking(self._file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another process has it, or the file system knows no locks
            self._file.close()
        else:
            self.held = True

    def release(self) -> None:
        """Give the right back."""
        self._file.close()
        self.held = False


class BlockFile:
    """An append-only file of blocks, each known by its (row, col).

    Parameters
    ----------
    folder : Path
        Exists; holds ``blocks.bin``, ``blocks.idx`` and ``lock``.
    dtype : numpy.dtype
        Layout of one block.

    Raises
    ------
    OSError
        The folder cannot be read.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._data_path = folder / "blocks.bin"
        self._lock = RLock()
        self._owner = FolderLock(folder)
        self._map: NDArray[Any] | None = None
        self._lines = self._read_lines(folder / "blocks.idx")
        self._count = len(self._lines)
        self._good: set[int] = set()
        self._data: Any = None
        self._index: Any = None
        if self._owner.held:
            try:
                self._data = self._open(self._data_path, self._count * dtype.itemsize)
                self._index = self._open(folder / "blocks.idx", self._count * _LINE.itemsize)
            except OSError:
                self.close()
                raise

    @staticmethod
    def _open(path: Path, size: int) -> Any:
        """Open for writing at `size`, cutting off what a killed process left behind it."""
        file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        try:
            file.truncate(size)
            file.seek(size)
        except OSError:
            file.close()
            raise
        return file

    def _read_lines(self, path: Path) -> NDArray[Any]:
        raw = path.read_bytes() if path.exists() else b""
        lines = np.frombuffer(raw[: len(raw) // _LINE.itemsize * _LINE.itemsize], dtype=_LINE)
        size = self._data_path.stat().st_size if self._data_path.exists() else 0
        return lines[: size // self._dtype.itemsize].copy()

    @property
    def writable(self) -> bool:
        """Whether this process may write here."""
        return self._data is not None

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self._count * (self._dtype.itemsize + _LINE.itemsize)

    def known(self) -> Iterator[tuple[int, int, int]]:
        """Yield (row, col, slot) of every block with a sound line; later ones replace earlier."""
        for slot, line in enumerate(self._lines):
            if zlib.crc32(line.tobytes()[:12]) == int(line["check"]):
                yield int(line["row"]), int(line["col"]), slot

    def append(self, row: int, col: int, block: NDArray[Any]) -> int:
        """Write a block and return its slot.

        Raises
        ------
        OSError
            The disk is full or gone; what was there before stays readable.
        """
        with self._lock:
            if self._data is None:
                raise PermissionError("another process writes here")
            data = block.tobytes()
            head = np.array((row, col, zlib.crc32(data), 0), dtype=_LINE).tobytes()[:12]
            line = head + zlib.crc32(head).to_bytes(4, "little")
            try:
                _write(self._data, data)
                _write(self._index, line)
            except OSError:
                # The half block has no line; go back so that the next try writes over it.
                self._data.seek(self._count * self._dtype.itemsize)
                self._index.seek(self._count * _LINE.itemsize)
                self._index.truncate()
                raise
            slot = self._count
            self._count += 1
            self._good.add(slot)
            return slot

    def blocks(self, upto: int) -> NDArray[Any]:
        """Return all blocks as a read-only array that reaches beyond slot `upto`."""
        found = self._map
        if found is None or len(found) <= upto:
            with self._lock:
                found = np.memmap(
                    self._data_path, dtype=self._dtype, mode="r", shape=(self._count,)
                )
                self._map = found
        return found

    def sound(self, slot: int) -> bool:
        """Tell whether a block is what was written; computed at most once a block."""
        if slot in self._good:
            return True
        ok = zlib.crc32(self.blocks(slot)[slot].tobytes()) == int(self._lines[slot]["crc"])
        if ok:
            self._good.add(slot)
        return ok

    def close(self) -> None:
        """Give files, map and lock back."""
        with self._lock:
            for file in (self._data, self._index):
                if file is not None:
                    file.close()
            self._data = self._index = self._map = None
            self._owner.release()


def _write(file: Any, data: bytes) -> None:
    """Write all of `data`: an unbuffered file may take only a part of it."""
    view = memoryview(data)
    while view:
        done = file.write(view)
        if not done:
            raise OSError(os.strerror(28))
        view = view[done:]
