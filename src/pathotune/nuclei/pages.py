"""Outlines and measurements of nuclei, read from their files when asked for.

A row group is a page: read whole, kept while there is room, and dropped oldest
first. Rows are numbered through all files in the order they were added. Not
safe for threads by itself; `Nuclei` holds its lock around every call.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.nuclei.store import NucleusStore

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

OUTLINE_BYTES = 256 << 20  # of outlines kept in memory

Page = tuple[Any, Any]  # points, float32 (p, 2), and where rings begin, int64 (n + 1,)


class Pages:
    """Row groups of one file or of many.

    Parameters
    ----------
    stay : bool
        Keep the last file open. Files that will be deleted must not stay open.
    """

    def __init__(self, stay: bool) -> None:
        self.files: dict[Path, int] = {}  # and their first row
        self._stay = stay
        self._groups: list[tuple[Path, int]] = []
        self._firsts: list[int] = []
        self._kept: OrderedDict[int, Page] = OrderedDict()
        self._open: tuple[Path, NucleusStore] | None = None

    def add(self, file: Path, sizes: list[int], first: int) -> None:
        """Take in a file whose rows begin at `first`."""
        self.files[file] = first
        for group, size in enumerate(sizes):
            self._groups.append((file, group))
            self._firsts.append(first)
            first += size

    def of(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """Return the page of each row."""
        return np.searchsorted(self._firsts, rows, side="right") - 1

    def first(self, page: int) -> int:
        """Return the first row of a page."""
        return self._firsts[page]

    def outlines(self, page: int) -> Page:
        """Return a page's points and where its rings begin."""
        if page in self._kept:
            self._kept.move_to_end(page)
            return self._kept[page]
        file, group = self._groups[page]
        got = self._kept[page] = self._store(file).outlines(group)
        while len(self._kept) > 1 and sum(p.nbytes for p, _ in self._kept.values()) > OUTLINE_BYTES:
            self._kept.popitem(last=False)
        self._rest()
        return got

    def values(self, row: int) -> dict[str, float]:
        """Return every measurement of a row."""
        page = int(self.of(np.array([row]))[0])
        file, group = self._groups[page]
        store = self._store(file)
        table = store.columns(list(store.measures), group)
        self._rest()
        return {k: float(v[row - self._firsts[page]]) for k, v in table.items()}

    def column(self, name: str, whole: NDArray[Any]) -> None:
        """Write a measurement into an array of all rows."""
        for file, first in self.files.items():
            store = self._store(file)
            if name in store.measures:
                values = store.columns([name])[name]
                whole[first : first + len(values)] = values
        self._rest()

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measurements in the first file."""
        for file in self.files:
            found = self._store(file).measures
            self._rest()
            return found
        return ()

    def _store(self, file: Path) -> NucleusStore:
        if self._open is None or self._open[0] != file:
            self.close()
            self._open = file, NucleusStore(file)
        return self._open[1]

    def _rest(self) -> None:
        if not self._stay:
            self.close()

    def close(self) -> None:
        """Let go of the file; asking again opens it again."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
