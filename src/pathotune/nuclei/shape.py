"""What an outline alone tells of a nucleus.

Drawn and imported nuclei have no label image, so size and shape come from the
polygon: area and second moments by Green's theorem, in closed form. The names
and meanings are those of the measurements of nuclei that a segmenter found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def shape_measures(ring: NDArray[Any], mpp: float) -> dict[str, float]:
    """Return size and shape of a closed outline.

    Parameters
    ----------
    ring : float (k, 2)
        x and y in pixels; the last point is the first.
    mpp : float
        um per pixel.

    Returns
    -------
    dict
        area_um2, perimeter_um, major_um, minor_um (of the ellipse of the same moments),
        eccentricity, orientation_deg (of the long axis from x towards y), solidity.
    """
    import shapely

    ring = np.asarray(ring, float)
    p = ring - ring.mean(axis=0)  # far from the origin the sums would cancel
    x0, y0, x1, y1 = p[:-1, 0], p[:-1, 1], p[1:, 0], p[1:, 1]
    cross = x0 * y1 - x1 * y0
    area = cross.sum() / 2
    if abs(area) < 1e-9:
        names = ("area_um2", "perimeter_um", "major_um", "minor_um", "eccentricity")
        return dict.fromkeys((*names, "orientation_deg", "solidity"), 0.0)
    cx = ((x0 + x1) * cross).sum() / (6 * area)
    cy = ((y0 + y1) * cross).sum() / (6 * area)
    xx = ((x0 * x0 + x0 * x1 + x1 * x1) * cross).sum() / (12 * area) - cx * cx
    yy = ((y0 * y0 + y0 * y1 + y1 * y1) * cross).sum() / (12 * area) - cy * cy
    both = (x0 * y1 + 2 * x0 * y0 + 2 * x1 * y1 + x1 * y0) * cross
    xy = both.sum() / (24 * area) - cx * cy
    root = np.hypot(xx - yy, 2 * xy)
    large, small = max((xx + yy + root) / 2, 1e-9), max((xx + yy - root) / 2, 1e-9)
    hull = shapely.area(shapely.convex_hull(shapely.linestrings(p)))
    return {
        "area_um2": float(abs(area) * mpp**2),
        "perimeter_um": float(np.hypot(x1 - x0, y1 - y0).sum() * mpp),
        "major_um": float(4 * np.sqrt(large) * mpp),
        "minor_um": float(4 * np.sqrt(small) * mpp),
        "eccentricity": float(np.sqrt(max(0.0, 1 - small / large))),
        "orientation_deg": float(np.degrees(0.5 * np.arctan2(2 * xy, xx - yy))),
        "solidity": float(min(1.0, abs(area) / max(hull, 1e-9))),
    }


def centre(ring: NDArray[Any]) -> tuple[float, float]:
    """Return x and y of the middle of what a closed outline encloses."""
    import shapely

    shape = shapely.make_valid(shapely.polygons(np.asarray(ring, float)))
    middle = shapely.centroid(shape)
    return float(shapely.get_x(middle)), float(shapely.get_y(middle))
