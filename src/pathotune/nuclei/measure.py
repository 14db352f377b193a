"""From a label image to rows of numbers and outlines.

Everything that can be summed is summed over all nuclei at once; only outlines
are traced one by one. Lengths are in um, positions in level-0 pixels, and the
names are those of the columns in every file that is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.nuclei.dab import brown
from pathotune.nuclei.neighbours import NEIGHBOURS
from pathotune.nuclei.stains import density

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.nuclei.segmenter import Found
    from pathotune.nuclei.stains import Stains

MEASURES = (
    "area_um2",
    "perimeter_um",
    "major_um",
    "minor_um",
    "eccentricity",
    "orientation_deg",
    "solidity",
    "haematoxylin_mean",
    "haematoxylin_std",
    "eosin_mean",
    "eosin_std",
    "density_mean",
    "dab_mean",
    "dab_std",
    "texture",
    *NEIGHBOURS,
)


def centres(labels: NDArray[Any]) -> NDArray[Any]:
    """Return (n, 2) centres, row and column, in pixels whose corners are whole numbers."""
    rows, columns = np.nonzero(labels)
    which = labels[rows, columns]
    count = np.bincount(which, minlength=int(labels.max(initial=0)) + 1)[1:]
    sums = [np.bincount(which, v + 0.5, len(count) + 1)[1:] / count for v in (rows, columns)]
    return np.stack(sums, axis=1)


def measure(
    pixels: NDArray[Any],
    found: Found,
    wanted: NDArray[Any],
    origin: tuple[float, float],
    scale: float,
    mpp: float,
    stains: Stains,
) -> dict[str, Any]:
    """Measure the wanted nuclei of a field.

    Parameters
    ----------
    pixels : uint8 (h, w, 3)
    found : Found
    wanted : bool (n,)
    origin : (x, y)
        The field's corner in level-0 pixels.
    scale : float
        Level-0 pixels per pixel of the field.
    mpp : float
        um/px of the field.
    stains : Stains

    Returns
    -------
    dict
        A column each, of as many rows as are wanted: `MEASURES` but those of `neighbours`; x, y,
        x0, y0, x1, y1 (level-0 pixels); confidence; and `outline`, a list of float32 (k, 2)
        closed rings of x, y.
    """
    import shapely
    from scipy import ndimage

    labels = found.labels
    rows, columns = np.nonzero(labels)
    which = labels[rows, columns]
    n = len(found.confidence) + 1
    area = np.maximum(np.bincount(which, minlength=n), 1)

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        return np.bincount(which, values, n) / area

    cy, cx = mean(rows + 0.5), mean(columns + 0.5)
    dy, dx = rows + 0.5 - cy[which], columns + 0.5 - cx[which]
    yy, xx, xy = mean(dy * dy) + 1 / 12, mean(dx * dx) + 1 / 12, mean(dx * dy)
    root = np.sqrt((xx - yy) ** 2 + 4 * xy**2)
    large, small = (xx + yy + root) / 2, np.maximum((xx + yy - root) / 2, 1e-9)
    inked = pixels[rows, columns]
    h, e = stains.split(inked)
    out: dict[str, NDArray[Any]] = {
        "area_um2": area * mpp**2,
        "major_um": 4 * np.sqrt(large) * mpp,
        "minor_um": 4 * np.sqrt(small) * mpp,
        "eccentricity": np.sqrt(np.maximum(0, 1 - small / large)),
        "orientation_deg": np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)),
        "density_mean": mean(h + e),
        "x": origin[0] + cx * scale,
        "y": origin[1] + cy * scale,
    }
    out["texture"] = mean(_roughness(pixels, labels, rows, columns))
    for name, dye in (("haematoxylin", h), ("eosin", e), ("dab", brown(density(inked), stains))):
        middle = mean(dye)
        out[f"{name}_mean"] = middle
        out[f"{name}_std"] = np.sqrt(np.maximum(0, mean(dye.astype(float) ** 2) - middle**2))
    out = {name: values[1:][wanted] for name, values in out.items()}
    out["confidence"] = found.confidence[wanted]
    boxes = ndimage.find_objects(labels, n - 1)
    rings = [_ring(labels, boxes[i], i + 1) for i in np.flatnonzero(wanted).tolist()]
    shapes = shapely.polygons([shapely.linearrings(r) for r in rings]) if rings else np.array([])
    hull = shapely.area(shapely.convex_hull(shapes))
    out["solidity"] = np.minimum(1.0, shapely.area(shapes) / np.maximum(hull, 1e-9))
    out["perimeter_um"] = shapely.length(shapes) * mpp
    placed = [(np.array(origin) + ring * scale).astype(np.float32) for ring in rings]
    bounds = np.array([(*r.min(axis=0), *r.max(axis=0)) for r in placed]).reshape(-1, 4)
    out.update(zip(("x0", "y0", "x1", "y1"), bounds.T, strict=True))
    return {**out, "outline": placed}


def _roughness(
    pixels: NDArray[Any], labels: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any]
) -> NDArray[Any]:
    """Return how much the optical density changes to the next pixels of the same nucleus, (n,).

    The mean of the absolute differences to the right and below; the edge of the nucleus, where
    everything changes, does not count.
    """
    grey = density(pixels).mean(axis=2)
    total, count = np.zeros(len(rows)), np.zeros(len(rows))
    for dr, dc in ((0, 1), (1, 0)):
        r, c = rows + dr, columns + dc
        same = (r < labels.shape[0]) & (c < labels.shape[1])
        r, c = np.where(same, r, rows), np.where(same, c, columns)
        same &= labels[r, c] == labels[rows, columns]
        total += np.abs(grey[r, c] - grey[rows, columns]) * same
        count += same
    rough: NDArray[Any] = total / np.maximum(count, 1)
    return rough


def _ring(labels: NDArray[Any], box: tuple[slice, ...], number: int) -> NDArray[Any]:
    """Return the longest closed outline of a nucleus, (k, 2) x and y in pixels of the field."""
    from skimage.measure import find_contours

    part = np.pad(labels[box] == number, 1).astype(np.float32)
    ring = max(find_contours(part, 0.5), key=len)
    corner = np.array([box[1].start, box[0].start]) - 0.5  # the padding, and pixel centres
    return np.asarray(ring[:, ::-1] + corner)
