"""Exact outlines of a class on a map: polygons along the edges of its pixels.

Joining millions of little boxes takes minutes. Here only the corners where an
outline turns are looked at: each has one link along its row and one along its
column, so the rings fall out of two sorts, and a ring belongs to the connected
part its pixels belong to. Where two parts touch at a corner only, they stay two
polygons, which keeps every polygon valid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

# A corner's code has bit 1 for the pixel above left, 2 above right, 4 below left, 8 below right.
# Walked with the inside on the right hand, a corner is entered and left in these directions
# (0 right, 1 down, 2 left, 3 up).
_OUT = np.full(16, -1, np.int8)
_IN = np.full(16, -1, np.int8)
for _code, _in, _out in (
    (1, 1, 2),
    (2, 2, 3),
    (4, 0, 1),
    (8, 3, 0),
    (7, 2, 1),
    (11, 3, 2),
    (14, 0, 3),
    (13, 1, 0),
):
    _IN[_code], _OUT[_code] = _in, _out
# A pixel inside, seen from the corner: rows and columns to add. Where the corner is one of two
# at a place, codes 7 and 14 stand for 6, and 11 and 13 for 9.
_INSIDE_ROW = np.zeros(16, np.int8)
_INSIDE_COL = np.zeros(16, np.int8)
for _code, _row, _col in (
    (1, -1, -1),
    (2, -1, 0),
    (4, 0, -1),
    (8, 0, 0),
    (7, -1, 0),
    (14, -1, 0),
    (11, -1, -1),
    (13, -1, -1),
):
    _INSIDE_ROW[_code], _INSIDE_COL[_code] = _row, _col


def outlines(
    here: NDArray[np.bool_], origin: tuple[float, float] = (0.0, 0.0), step: float = 1.0
) -> list[BaseGeometry]:
    """Return a valid polygon, with holes, for every connected part of a mask.

    Parameters
    ----------
    here : bool (rows, cols)
        Pixels are connected over their sides, not over their corners.
    origin : (float, float)
        (x, y) of the mask's upper left corner.
    step : float
        Side of a pixel.
    """
    from scipy import ndimage

    rows, cols = np.flatnonzero(here.any(axis=1)), np.flatnonzero(here.any(axis=0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(cols[0])
    here = here[top : rows[-1] + 1, left : cols[-1] + 1]
    parts, count = ndimage.label(here)
    y, x, code = _corners(here, parts)
    order, starts = _rings(y, x, code)
    inside = parts[y + _INSIDE_ROW[code], x + _INSIDE_COL[code]]
    xy = np.column_stack([x + left, y + top])[order] * float(step) + np.asarray(origin, float)
    return _polygons(xy, starts, inside[order[starts]], count)


def _corners(
    here: NDArray[np.bool_], parts: NDArray[np.integer]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]:
    """Return row, column and code of every turn; corners with two turns come twice."""
    padded = np.zeros((here.shape[0] + 2, here.shape[1] + 2), np.uint8)
    padded[1:-1, 1:-1] = here
    codes = padded[:-1, :-1] | padded[:-1, 1:] << 1 | padded[1:, :-1] << 2 | padded[1:, 1:] << 3
    turns = np.zeros(16, bool)
    turns[[1, 2, 4, 8, 7, 11, 14, 13, 6, 9]] = True
    y, x = np.nonzero(turns[codes])
    code = codes[y, x]
    double = (code == 6) | (code == 9)
    if not double.any():
        return y, x, code
    dy, dx, falling = y[double], x[double], code[double] == 9
    one = parts[dy - 1, np.where(falling, dx - 1, dx)]
    other = parts[dy, np.where(falling, dx, dx - 1)]
    # Two pixels of one part: the outline turns about the pixels that are out, else about them.
    same = one == other
    first = np.where(falling, np.where(same, 13, 1), np.where(same, 7, 2))
    second = np.where(falling, np.where(same, 11, 8), np.where(same, 14, 4))
    return (
        np.concatenate([y[~double], dy, dy]),
        np.concatenate([x[~double], dx, dx]),
        np.concatenate([code[~double], first, second]).astype(np.uint8),
    )


def _rings(
    y: NDArray[np.intp], x: NDArray[np.intp], code: NDArray[np.uint8]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the turns ring after ring, and where each ring starts."""
    following = np.empty(len(code), np.intp)
    along_rows, along_cols = np.lexsort((x, y)), np.lexsort((y, x))
    for direction in range(4):
        along = along_rows if direction in (0, 2) else along_cols
        # edges of one direction never overlap, so the k-th that leaves meets the k-th that comes
        leaving = along[_OUT[code[along]] == direction]
        following[leaving] = along[_IN[code[along]] == direction]
    chain: list[int] = following.tolist()
    seen = bytearray(len(chain))
    order: list[int] = []
    starts: list[int] = []
    for first in range(len(chain)):
        if seen[first]:
            continue
        starts.append(len(order))
        at = first
        while not seen[at]:
            seen[at] = 1
            order.append(at)
            at = chain[at]
    return np.array(order, np.intp), np.array(starts, np.intp)


def _polygons(
    xy: NDArray[np.float64], starts: NDArray[np.intp], part: NDArray[np.integer], count: int
) -> list[BaseGeometry]:
    """Sort rings into shells and holes by their sense of turning, and put them together."""
    import shapely

    lengths = np.diff(np.append(starts, len(xy)))
    ring_of = np.repeat(np.arange(len(starts)), lengths)
    after = np.arange(1, len(xy) + 1)
    after[starts + lengths - 1] = starts
    near = xy - xy[starts][ring_of]  # small numbers keep the sign of small rings
    doubled = np.add.reduceat(near[:, 0] * near[after, 1] - near[after, 0] * near[:, 1], starts)
    rings = shapely.linearrings(xy, indices=ring_of)
    hole = doubled < 0
    shells = np.empty(count, object)
    shells[part[~hole] - 1] = rings[~hole]
    polygons = shapely.polygons(shells)
    holes: dict[int, list[BaseGeometry]] = {}
    for index in np.flatnonzero(hole):
        holes.setdefault(int(part[index]) - 1, []).append(rings[index])
    for number, inner in holes.items():
        polygons[number] = shapely.polygons(shells[number], holes=inner)
    return list(polygons)
