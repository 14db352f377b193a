"""How close together nuclei lie: the nearest one, and how many there are around.

Both need all nuclei of a slide, over the borders of tiles, so they are measured
when the tiles become one store. At the rim of the tissue the surroundings are
partly empty, and the density there is lower, as it is on the slide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

AROUND_UM = 50.0
NEIGHBOURS = ("nearest_um", "around_per_mm2")
_AT_ONCE = 65536


def neighbours(xy: NDArray[Any], mpp: float) -> dict[str, NDArray[Any]]:
    """Measure the neighbourhood of every nucleus.

    Parameters
    ----------
    xy : float (n, 2)
        Centres in level-0 pixels.
    mpp : float
        um per level-0 pixel.

    Returns
    -------
    dict
        ``nearest_um``: from centre to centre, NaN if there is no other nucleus.
        ``around_per_mm2``: nuclei within 50 um of the centre, itself among them, per mm2.
    """
    from scipy.spatial import cKDTree

    n = len(xy)
    out = {name: np.full(n, np.nan, np.float32) for name in NEIGHBOURS}
    if not n:
        return out
    um = np.asarray(xy, float) * mpp
    tree = cKDTree(um)
    area = np.pi * AROUND_UM**2 / 1e6
    for first in range(0, n, _AT_ONCE):
        part = np.s_[first : first + _AT_ONCE]
        if n > 1:
            out["nearest_um"][part] = np.asarray(tree.query(um[part], 2)[0])[:, 1]
        count = tree.query_ball_point(um[part], AROUND_UM, return_length=True)
        out["around_per_mm2"][part] = count / area
    return out
