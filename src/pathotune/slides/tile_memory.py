"""Memory for decoded tiles that is used again and goes back to the system.

The C library keeps what threads free in places of their own, and tiles are
decoded in one thread and given up in another: left to it, a process grew to
twice the size of its cache of tiles. So tiles get pages of their own. Asking the
system for fresh ones costs a third of a tile's decoding, hence a tile that is
given up lends its pages to the next.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OWN_PAGES = 1 << 15  # bytes from which a tile gets pages of its own
Shape = tuple[int, int, int]


class TileMemory:
    """Memory of tiles that have been given up, by size; guarded by whoever owns it."""

    def __init__(self) -> None:
        self._spare: dict[int, list[NDArray[np.uint8]]] = {}
        self._bytes = 0

    def take(self, shape: Shape) -> NDArray[np.uint8]:
        """Return memory for a tile, with any content."""
        nbytes = shape[0] * shape[1] * shape[2]
        spare = self._spare.get(nbytes)
        if spare:
            self._bytes -= nbytes
            return spare.pop().reshape(shape)
        if nbytes < _OWN_PAGES or not hasattr(mmap, "MAP_PRIVATE"):
            return np.empty(shape, np.uint8)
        pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return np.frombuffer(pages, np.uint8).reshape(shape)

    def give(self, tile: NDArray[np.uint8]) -> None:
        """Keep the memory of a tile that nobody looks at any more."""
        if tile.dtype != np.uint8 or tile.base is None or not tile.flags.c_contiguous:
            return  # not from here
        tile.setflags(write=True)
        self._spare.setdefault(tile.nbytes, []).append(tile)
        self._bytes += tile.nbytes

    def shrink(self, limit: int) -> None:
        """Give memory back to the system until at most `limit` bytes are spare."""
        while self._bytes > limit:
            largest = max(self._spare, key=lambda n: n * len(self._spare[n]))
            self._spare[largest].pop()
            self._bytes -= largest
            if not self._spare[largest]:
                del self._spare[largest]

    def clear(self) -> None:
        """Give everything spare back to the system."""
        self._spare.clear()
        self._bytes = 0
