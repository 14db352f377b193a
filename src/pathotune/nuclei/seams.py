"""No nucleus twice and none cut where two tiles meet.

A tile is seen with a halo and owns the nuclei whose centre lies in its core, so
a nucleus on the seam is whole and has one owner. Where two fields cut a clump
differently both may own a part of it; then the one that was there first stays.
Only nuclei that reach over a core's border are remembered, and only until all
neighbours of their tile are done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Cell = tuple[int, int]
SHARED = 0.3  # of the smaller one: from here on two outlines are one nucleus


class Seams:
    """What reaches over the borders of tiles that are done.

    Parameters
    ----------
    cells : set of (row, column)
        All tiles of the run.
    """

    def __init__(self, cells: set[Cell]) -> None:
        self._cells = cells
        self._done: set[Cell] = set()
        self._kept: dict[Cell, list[Any]] = {}

    def add(self, cell: Cell, rows: dict[str, Any], core: tuple[float, ...]) -> NDArray[np.bool_]:
        """Take a tile's nuclei in; return which of them no neighbour has already.

        Parameters
        ----------
        cell : (row, column)
        rows : dict
            As `measure` makes them.
        core : x0, y0, x1, y1
            The tile without its halo, level-0 pixels.
        """
        import shapely

        keep = np.ones(len(rows["x"]), bool)
        over = (rows["x0"] < core[0]) | (rows["y0"] < core[1])
        over |= (rows["x1"] > core[2]) | (rows["y1"] > core[3])
        others = [s for near in self._around(cell) for s in self._kept.get(near, ())]
        which = np.flatnonzero(over)
        mine = [shapely.make_valid(shapely.polygons(rows["outline"][i])) for i in which]
        if others and mine:
            tree = shapely.STRtree(others)
            left, right = tree.query(mine, predicate="intersects")
            for i, j in zip(left, right, strict=True):
                both = shapely.area(shapely.intersection(mine[i], others[j]))
                if both > SHARED * min(mine[i].area, others[j].area):
                    keep[which[i]] = False
        self._kept[cell] = [m for m, i in zip(mine, which, strict=True) if keep[i]]
        self._done.add(cell)
        for near in (cell, *self._around(cell)):
            if near in self._done and all(c in self._done for c in self._around(near)):
                self._kept.pop(near, None)
        return keep

    def _around(self, cell: Cell) -> list[Cell]:
        near = [(cell[0] + r, cell[1] + c) for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c]
        return [c for c in near if c in self._cells]
