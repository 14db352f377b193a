"""Decoded tiles of every open slide, kept while they are likely to be looked at again.

The viewer pans over the tiles that the model reads, and a model's tiles overlap;
without this each would be decoded several times. There is one cache a process,
so that ten open slides take no more memory than one. Two threads that want the
same tile decode it once.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pathotune.slides.tile_memory import TileMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    Key = tuple[Hashable, ...]
    Make = Callable[[Key], NDArray[Any] | None]
    Use = Callable[[Key, NDArray[Any] | None], None]

LIMIT_BYTES = 128 << 20
_FEW = 4  # tiles that one thread decodes sooner than a second one wakes up
_EMPTY_BYTES = 64  # what remembering costs where the file has no tile


class _Kept:
    """A tile, who decodes it, and who is looking at it."""

    __slots__ = ("done", "error", "nbytes", "pixels", "users")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.pixels: NDArray[Any] | None = None
        self.nbytes = 0
        self.users = 1


class TileCache:
    """Decoded tiles by key, the longest unused given up first; safe from many threads.

    Parameters
    ----------
    limit : int
        Bytes of pixels that are kept at most; what is larger by itself (an
        image compressed in one piece) is kept alone until the next is wanted.
    """

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self.limit = limit
        self._tiles: OrderedDict[Key, _Kept] = OrderedDict()
        self._coming: dict[Key, _Kept] = {}
        self._memory = TileMemory()
        self._lock = threading.Lock()
        self._bytes = 0
        self._busy = 0

    @property
    def nbytes(self) -> int:
        """Return the bytes of pixels kept now."""
        return self._bytes

    def get(self, key: Key, make: Make) -> NDArray[Any] | None:
        """Return a tile, decoded by `make` if nobody has it.

        The array is shared and cannot be written to. Where another thread is
        decoding the same tile its result, or its error, is waited for.

        Parameters
        ----------
        key : tuple
            Begins with the owner that `forget` names.
        make : callable
            Decodes the tile of a key; None where the file has none, which is
            remembered.
        """
        return self._borrow(key, make).pixels  # never given back: its memory is not used again

    def each(self, keys: Iterable[Key], make: Make, use: Use) -> None:
        """Hand every tile to `use`, decoding what is missing in as many threads as are idle.

        Parameters
        ----------
        keys : iterable of tuple
            The tiles wanted.
        make : callable
            As in `get`; its result is best decoded into a `buffer`.
        use : callable
            Called once a tile, from any of the threads. It must not keep the
            tile, whose memory will hold another.
        """
        missing = [key for key in keys if not self.use_if_here(key, use)]
        todo = iter(missing)
        turn = threading.Lock()
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                with turn:
                    key = next(todo, None)
                if key is None:
                    return
                try:
                    kept = self._borrow(key, make)
                    try:
                        use(key, kept.pixels)
                    finally:
                        self._give_back(kept)
                except BaseException:
                    stop.set()
                    raise

        if not missing:
            return
        with self._lock:
            self._busy += 1
            idle = _threads() - self._busy
        helpers = []
        if len(missing) >= _FEW:
            helpers = [_pool().submit(work) for _ in range(min(idle, len(missing) // 2))]
        try:
            work()
        finally:
            with self._lock:
                self._busy -= 1
            # a helper that never began has nothing to give; one at work ends with its tile
            for helper in helpers:
                if not helper.cancel():
                    helper.result()

    def buffer(self, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Return memory to decode a tile into, that of a tile given up for it if there is one."""
        with self._lock:
            self._make_room(shape[0] * shape[1] * shape[2])
            return self._memory.take(shape)

    def use_if_here(self, key: Key, use: Use) -> bool:
        """Hand a tile to `use` if it is kept, and return whether it was; see `each`."""
        with self._lock:
            kept = self._tiles.get(key)
            if kept is None:
                return False
            self._tiles.move_to_end(key)
            kept.users += 1
        try:
            use(key, kept.pixels)
        finally:
            self._give_back(kept)
        return True

    def forget(self, owner: Hashable) -> None:
        """Give up all tiles of an owner, the first part of their keys."""
        with self._lock:
            for key in [k for k in self._tiles if k[0] == owner]:
                self._bytes -= self._tiles.pop(key).nbytes
            for key in [k for k in self._coming if k[0] == owner]:
                del self._coming[key]
            self._memory.clear()

    def _borrow(self, key: Key, make: Make) -> _Kept:
        with self._lock:
            kept = self._tiles.get(key)
            if kept is not None:
                self._tiles.move_to_end(key)
                kept.users += 1
                return kept
            kept = self._coming.get(key)
            mine = kept is None
            if kept is None:
                kept = self._coming[key] = _Kept()
            else:
                kept.users += 1
        if mine:
            self._fill(key, kept, make)
        else:
            kept.done.wait()
        if kept.error is not None:
            raise kept.error
        return kept

    def _fill(self, key: Key, kept: _Kept, make: Make) -> None:
        try:
            kept.pixels = make(key)
        except BaseException as error:  # noqa: BLE001 - raised by `_borrow` in all who wait
            kept.error = error
        finally:
            if kept.pixels is not None:
                kept.pixels.setflags(write=False)
            kept.nbytes = _EMPTY_BYTES if kept.pixels is None else kept.pixels.nbytes
            with self._lock:
                wanted = self._coming.pop(key, None)  # else its owner has been forgotten
                if wanted is not None and kept.error is None:
                    self._make_room(kept.nbytes)
                    self._tiles[key] = kept
                    self._bytes += kept.nbytes
            kept.done.set()

    def _give_back(self, kept: _Kept) -> None:
        with self._lock:
            kept.users -= 1

    def _make_room(self, nbytes: int) -> None:
        """Give up the longest unused tiles; what nobody looks at lends its memory to the next."""
        while self._bytes + nbytes > self.limit and self._tiles:
            kept = self._tiles.popitem(last=False)[1]
            self._bytes -= kept.nbytes
            if kept.users == 0 and kept.pixels is not None:
                self._memory.give(kept.pixels)
        self._memory.shrink(max(0, self.limit - self._bytes))


def _threads() -> int:
    return max(1, min(8, os.cpu_count() or 1))


_made: list[ThreadPoolExecutor] = []
_making = threading.Lock()


def _pool() -> ThreadPoolExecutor:
    """Return the threads that help decoding, made when they are first wanted."""
    with _making:
        if not _made:
            _made.append(ThreadPoolExecutor(_threads(), thread_name_prefix="pathotune-decoder"))
        return _made[0]


TILES = TileCache()
