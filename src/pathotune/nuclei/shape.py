"""What outlines alone tell of nuclei.

Drawn and imported nuclei have no label image, so size and shape come from the
polygons: area and second moments by Green's theorem, in closed form, for
thousands at once. The names and meanings are those of the measurements of
nuclei that a segmenter found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SHAPES = (
    "area_um2",
    "perimeter_um",
    "major_um",
    "minor_um",
    "eccentricity",
    "orientation_deg",
    "solidity",
)


def shape_table(rings: Sequence[NDArray[Any]], mpp: float) -> dict[str, NDArray[Any]]:
    """Return place, size and shape of closed outlines.

    Parameters
    ----------
    rings : n arrays of float (k, 2)
        x and y in pixels; the last point is the first; at least 4 points each.
    mpp : float
        um per pixel.

    Returns
    -------
    dict
        float (n,) each: `SHAPES` (axes of the ellipse of the same moments, orientation of the
        long one from x towards y), and x, y (the middle), x0, y0, x1, y1 in pixels.
    """
    import shapely

    if not rings:
        none = np.zeros(0)
        return dict.fromkeys((*SHAPES, "x", "y", "x0", "y0", "x1", "y1"), none)
    sizes = np.array([len(r) for r in rings])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    points = np.concatenate(rings).astype(float)
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    middle = (low + high) / 2
    p = points - np.repeat(middle, sizes, axis=0)  # far from the origin the sums would cancel
    nxt = np.roll(p, -1, axis=0)
    nxt[starts + sizes - 1] = p[starts + sizes - 1]  # a ring's last point leads nowhere
    x0, y0, x1, y1 = p[:, 0], p[:, 1], nxt[:, 0], nxt[:, 1]
    cross = x0 * y1 - x1 * y0

    def total(values: NDArray[Any]) -> NDArray[Any]:
        return np.add.reduceat(values, starts)

    area = total(cross) / 2
    flat = np.abs(area) < 1e-9
    safe = np.where(flat, 1.0, area)
    cx, cy = (total((a + b) * cross) / (6 * safe) for a, b in ((x0, x1), (y0, y1)))
    xx = total((x0 * x0 + x0 * x1 + x1 * x1) * cross) / (12 * safe) - cx * cx
    yy = total((y0 * y0 + y0 * y1 + y1 * y1) * cross) / (12 * safe) - cy * cy
    both = (x0 * y1 + 2 * x0 * y0 + 2 * x1 * y1 + x1 * y0) * cross
    xy = total(both) / (24 * safe) - cx * cy
    root = np.hypot(xx - yy, 2 * xy)
    large, small = np.maximum((xx + yy + root) / 2, 1e-9), np.maximum((xx + yy - root) / 2, 1e-9)
    which = np.repeat(np.arange(len(rings)), sizes)
    hull = shapely.area(shapely.convex_hull(shapely.linestrings(p, indices=which)))
    size = np.abs(area)
    told = {
        "area_um2": size * mpp**2,
        "perimeter_um": total(np.hypot(x1 - x0, y1 - y0)) * mpp,
        "major_um": 4 * np.sqrt(large) * mpp,
        "minor_um": 4 * np.sqrt(small) * mpp,
        "eccentricity": np.sqrt(np.maximum(0.0, 1 - small / large)),
        "orientation_deg": np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)),
        "solidity": np.minimum(1.0, size / np.maximum(hull, 1e-9)),
    }
    told = {name: np.where(flat, 0.0, values) for name, values in told.items()}
    told |= {"x": middle[:, 0] + np.where(flat, 0, cx), "y": middle[:, 1] + np.where(flat, 0, cy)}
    return told | {"x0": low[:, 0], "y0": low[:, 1], "x1": high[:, 0], "y1": high[:, 1]}


def shape_measures(ring: NDArray[Any], mpp: float) -> dict[str, float]:
    """Return `SHAPES` of one closed outline; see `shape_table`."""
    told = shape_table([np.asarray(ring, float)], mpp)
    return {name: float(told[name][0]) for name in SHAPES}
