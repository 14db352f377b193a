"""Smaller copies of a map for programs that zoom, without inventing a class.

Class numbers must never be averaged: half-way between 1 and 3 lies not class 2.
Each spot of a smaller level takes the class that covers most of what lies under
it, counted in the full map and not in the level before, so that a thin majority
does not grow from level to level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SMALLEST = 256  # a level no longer than one tile needs none below it


def depth(shape: tuple[int, ...]) -> int:
    """Return how many smaller levels a map of (rows, cols) gets, each half as large."""
    longest, found = max(shape[:2], default=0), 0
    while longest > SMALLEST:
        longest, found = -(-longest // 2), found + 1
    return found


def _room(most: int) -> type[np.unsignedinteger]:
    """Return the smallest type that counts so far: the first level is by far the largest."""
    return next(t for t in (np.uint8, np.uint16, np.uint32) if most <= np.iinfo(t).max)


def _summed(counts: NDArray[np.unsignedinteger], most: int) -> NDArray[np.unsignedinteger]:
    """Return the sums of blocks of 2 x 2; what sticks out at the far edges counts alone."""
    rows, cols = counts.shape[:2]
    out = np.zeros((-(-rows // 2), -(-cols // 2), counts.shape[2]), _room(most))
    for y in (0, 1):
        for x in (0, 1):
            part = counts[y::2, x::2]
            out[: part.shape[0], : part.shape[1]] += part.astype(out.dtype, copy=False)
    return out


def _first(labels: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    """Return how often 0..n stand in each block of 2 x 2 of the map itself."""
    rows, cols = labels.shape
    out = np.zeros((-(-rows // 2), -(-cols // 2), n + 1), np.uint8)
    for y in (0, 1):
        for x in (0, 1):
            part = labels[y::2, x::2]
            for value in range(n + 1):
                out[: part.shape[0], : part.shape[1], value] += part == value
    return out


def _winner(counts: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    """Return the most frequent class; in a tie a class goes before no answer, then by number."""
    last = counts.shape[2] - 1
    order = np.roll(np.arange(last + 1, dtype=np.uint8), -1)  # 1, 2, ..., n, 0
    found: NDArray[np.uint8] = order[np.roll(counts, -1, axis=2).argmax(axis=2)]
    return found


def class_levels(labels: NDArray[np.uint8], n: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the smaller levels of a class map.

    Parameters
    ----------
    labels : uint8 (rows, cols)
        0 for no answer, 1..n for the classes.
    n : int
        Number of classes.

    Yields
    ------
    uint8 (ceil(rows / 2), ceil(cols / 2)), and so on: `depth` of them
    """
    counts: NDArray[np.unsignedinteger] | None = None
    for level in range(1, depth(labels.shape) + 1):
        counts = _first(labels, n) if counts is None else _summed(counts, 4**level)
        yield _winner(counts)
