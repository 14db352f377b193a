"""The backbone's features around nuclei, from the store that the class map uses.

Nothing is computed twice: where the slide was mapped, naming nuclei reads the
same tokens; where it was not, the tiles that hold nuclei are computed once and
serve the map afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pathotune.models.features import FeatureStore
    from pathotune.slides.tiles import TileGrid

NEIGHBOURHOOD = 3  # tokens square around the nucleus' own


def tokens_of(store: FeatureStore, grid: TileGrid) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return what gives the features around centres, for `classify`.

    The result takes float (n, 2), level-0 pixels, and gives float32 (n, d): the mean of the
    tokens around each centre; NaN where none are there.
    """
    lattice = grid.lattice

    def tokens(xy: NDArray[Any]) -> NDArray[Any]:
        place = np.floor((np.asarray(xy, float) - (lattice.x0, lattice.y0)) / lattice.step)
        columns = np.clip(place[:, 0].astype(np.int64), 0, lattice.cols - 1)
        rows = np.clip(place[:, 1].astype(np.int64), 0, lattice.rows - 1)
        # nuclei are smaller than tokens: many share one
        flat, back = np.unique(rows * lattice.cols + columns, return_inverse=True)
        found, ok = store.gather(flat // lattice.cols, flat % lattice.cols, NEIGHBOURHOOD)
        found[~ok] = np.nan
        around: NDArray[Any] = found[back.ravel()]
        return around

    return tokens


def cells_of(grid: TileGrid, xy: NDArray[Any]) -> NDArray[np.int32]:
    """Return the tiles, (n, 2) row and column, that hold centres, float (n, 2)."""
    lattice = grid.lattice
    place = (np.asarray(xy, float) - (lattice.x0, lattice.y0)) / (lattice.step * grid.core)
    cells = np.floor(place[:, ::-1]).astype(np.int32)
    cells = np.clip(cells, 0, (grid.tile_rows - 1, grid.tile_cols - 1))
    return np.unique(cells, axis=0).astype(np.int32)
