"""Which nuclei lie in a rectangle, a million of them, in a few milliseconds.

Centres are sorted into square cells of a lattice, so that a rectangle is a few
runs of one array. Almost all nuclei are of one size: a rectangle is widened by
that size, and the few larger ones are looked at one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

A_CELL = 24  # nuclei in a cell on average
LARGE = 99.9  # percentile of the reach above which a nucleus is one of the few large ones


class Grid:
    """An index over boxes that do not change.

    Parameters
    ----------
    centres : float32 (n, 2)
        x and y in level-0 pixels.
    boxes : float32 (n, 4)
        x0, y0, x1, y1 in level-0 pixels.
    """

    def __init__(self, centres: NDArray[Any], boxes: NDArray[Any]) -> None:
        self.size = len(boxes)
        self._boxes = boxes
        if not self.size:
            return
        reach = np.maximum(centres - boxes[:, :2], boxes[:, 2:] - centres).max(axis=1)
        self._reach = float(np.percentile(reach, LARGE))
        self._large = np.flatnonzero(reach > self._reach)
        self._low = centres.min(axis=0).astype(float)
        span = np.maximum(centres.max(axis=0) - self._low, 1.0)
        self._cell = float(max(1.0, np.sqrt(span[0] * span[1] * A_CELL / self.size)))
        self._cell = max(self._cell, float(span.max()) / 4096)  # a line of nuclei
        self._shape = tuple(int(v / self._cell) + 1 for v in span)  # columns, rows
        place = ((centres - self._low) / self._cell).astype(np.int64)
        flat = place[:, 1] * self._shape[0] + place[:, 0]
        self._order = np.argsort(flat, kind="stable")
        count = np.bincount(flat, minlength=self._shape[0] * self._shape[1])
        self._start = np.concatenate([[0], np.cumsum(count)])

    def touching(self, x0: float, y0: float, x1: float, y1: float) -> NDArray[np.int64]:
        """Return the rows whose box touches a rectangle, in rising order."""
        if not self.size:
            return np.zeros(0, np.int64)
        rim, (across, down) = self._reach, self._shape
        c0, r0 = (int(np.floor((v - rim - low) / self._cell)) for v, low in self._corner(x0, y0))
        c1, r1 = (int(np.floor((v + rim - low) / self._cell)) for v, low in self._corner(x1, y1))
        c0, r0, c1, r1 = max(c0, 0), max(r0, 0), min(c1, across - 1), min(r1, down - 1)
        if (c1 - c0 + 1) * (r1 - r0 + 1) > 0.3 * across * down:
            return np.flatnonzero(_hit(self._boxes, x0, y0, x1, y1))
        runs = [self._large[:0]]
        if c1 >= c0:
            for row in range(r0, r1 + 1):
                first = row * across
                begin, end = self._start[first + c0], self._start[first + c1 + 1]
                runs.append(self._order[begin:end])
        near = np.concatenate(runs)
        near = near[_hit(self._boxes[near], x0, y0, x1, y1)]
        large = self._large[_hit(self._boxes[self._large], x0, y0, x1, y1)]
        return np.union1d(near, large) if len(large) else np.sort(near)

    def _corner(self, x: float, y: float) -> zip[tuple[float, float]]:
        return zip((x, y), self._low, strict=True)


def _hit(boxes: NDArray[Any], x0: float, y0: float, x1: float, y1: float) -> NDArray[np.bool_]:
    """Return bool (n,): which boxes touch a rectangle; a point is one, too."""
    hit: NDArray[np.bool_] = (boxes[:, 0] <= x1) & (boxes[:, 2] >= x0)
    hit &= (boxes[:, 1] <= y1) & (boxes[:, 3] >= y0)
    return hit


def counted(xy: NDArray[Any], step: float, far: tuple[float, float]) -> NDArray[np.int32]:
    """Return how many points, (n, 2), lie in each square cell from 0, 0 to a far corner."""
    across, down = (int(v / step) + 1 for v in far)
    column = np.clip((xy[:, 0] * np.float32(1 / step)).astype(np.int32), 0, across - 1)
    row = np.clip((xy[:, 1] * np.float32(1 / step)).astype(np.int32), 0, down - 1)
    flat = np.bincount(row.astype(np.int64) * across + column, minlength=across * down)
    return flat.reshape(down, across).astype(np.int32)
