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

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from numpy.typing import NDArray

    Key = tuple[Hashable, ...]
    Make = Callable[[], NDArray[Any] | None]

LIMIT_BYTES = 144 << 20
_FEW = 4  # tiles that one thread decodes sooner than a second one wakes up
_EMPTY_BYTES = 64  # what remembering costs where the file has no tile


class _Pending:
    """A tile that some thread is decoding."""

    __slots__ = ("done", "error", "tile")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.tile: NDArray[Any] | None = None
        self.error: BaseException | None = None


class TileCache:
    """Decoded tiles by key, the longest unused given up first; safe from many threads.

    Parameters
    ----------
    limit : int
        Bytes of pixels that are kept at most.
    """

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self.limit = limit
        self._tiles: OrderedDict[Key, NDArray[Any] | None] = OrderedDict()
        self._pending: dict[Key, _Pending] = {}
        self._lock = threading.Lock()
        self._bytes = 0

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
            Decodes the tile; None where the file has none, which is remembered.
        """
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
            pending = self._pending.get(key)
            mine = pending is None
            if pending is None:
                pending = self._pending[key] = _Pending()
        if not mine:
            pending.done.wait()
            if pending.error is not None:
                raise pending.error
            return pending.tile
        try:
            tile = make()
        except BaseException as error:
            pending.error = error
            with self._lock:
                self._pending.pop(key, None)
            raise
        else:
            if tile is not None:
                tile.setflags(write=False)
            pending.tile = tile
            with self._lock:
                if self._pending.pop(key, None) is not None:  # else its owner has been forgotten
                    self._keep(key, tile)
            return tile
        finally:
            pending.done.set()

    def _keep(self, key: Key, tile: NDArray[Any] | None) -> None:
        self._tiles[key] = tile
        self._bytes += _size(tile)
        while self._bytes > self.limit and self._tiles:
            self._bytes -= _size(self._tiles.popitem(last=False)[1])

    def each(
        self,
        keys: Iterable[Key],
        make: Callable[[Key], NDArray[Any] | None],
        use: Callable[[Key, NDArray[Any] | None], None],
    ) -> None:
        """Hand every tile to `use`, decoding what is missing in several threads.

        Parameters
        ----------
        keys : iterable of tuple
            The tiles wanted.
        make : callable
            As in `get`, given the key.
        use : callable
            Called once a tile, from any of the threads.
        """
        missing = []
        for key in keys:
            with self._lock:
                here = key in self._tiles
                tile = self._tiles.get(key)
                if here:
                    self._tiles.move_to_end(key)
            if here:
                use(key, tile)
            else:
                missing.append(key)
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
                    use(key, self.get(key, lambda key=key: make(key)))  # type: ignore[misc]
                except BaseException:
                    stop.set()
                    raise

        if len(missing) < _FEW:
            work()
            return
        helpers = [_pool().submit(work) for _ in range(min(_threads(), len(missing) // 2) - 1)]
        try:
            work()
        finally:
            # a helper that never began has nothing to give; one at work ends with its tile
            for helper in helpers:
                if not helper.cancel():
                    helper.result()

    def forget(self, owner: Hashable) -> None:
        """Give up all tiles of an owner, the first part of their keys."""
        with self._lock:
            for key in [k for k in self._tiles if k[0] == owner]:
                self._bytes -= _size(self._tiles.pop(key))
            for key in [k for k in self._pending if k[0] == owner]:
                del self._pending[key]


def _size(tile: NDArray[Any] | None) -> int:
    return _EMPTY_BYTES if tile is None else tile.nbytes


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
