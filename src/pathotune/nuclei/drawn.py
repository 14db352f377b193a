"""Outlines as a hand draws them, made fit to be nuclei.

Whatever is drawn may cross itself, have two points or cut beside its nucleus;
what can be mended is mended, and the rest is refused in words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SMALLEST_UM2 = 1.0
APART_UM = 5.0  # from here on two nuclei are not one
SLIVER = 0.02  # of a nucleus: what a line cuts off below this is dust


def closed(points: Any, mpp: float) -> NDArray[Any]:
    """Return a drawn outline as a closed ring, float32 (k, 2); the largest part of a crossed one.

    Raises
    ------
    PathotuneError
        It encloses nothing that could be a nucleus.
    """
    import shapely

    points = np.asarray(points, float).reshape(-1, 2)
    sound = len(points) >= 3 and bool(np.isfinite(points).all())
    shape = shapely.make_valid(shapely.polygons(points)) if sound else shapely.Polygon()
    largest = max(_polygons(shape), key=lambda p: p.area, default=None)
    if largest is None or largest.area * mpp**2 < SMALLEST_UM2:
        raise PathotuneError(
            "This outline encloses nothing that could be a nucleus.", "Draw around the nucleus."
        )
    return _ring(largest)


def halves(ring: NDArray[Any], line: Any) -> list[NDArray[Any]]:
    """Return the parts into which a line cuts an outline.

    Raises
    ------
    PathotuneError
        The line does not cross it.
    """
    import shapely
    from shapely import ops

    shape = shapely.make_valid(shapely.polygons(np.asarray(ring, float)))
    line = np.asarray(line, float).reshape(-1, 2)
    found: list[Any] = []
    if len(line) >= 2 and np.ptp(line, axis=0).max() > 0:
        cut = shapely.linestrings(line)
        for part in _polygons(shape):
            found += [p for p in ops.split(part, cut).geoms if p.area > SLIVER * shape.area]
    if len(found) < 2:
        raise PathotuneError(
            "The line does not cut this nucleus in two.",
            "Draw it right across, from outside to outside.",
        )
    return [_ring(p) for p in found]


def joined(rings: Sequence[NDArray[Any]], mpp: float) -> NDArray[Any]:
    """Return one outline around several; a narrow gap between them is bridged.

    Raises
    ------
    PathotuneError
        They lie too far apart.
    """
    import shapely

    shapes = [shapely.make_valid(shapely.polygons(np.asarray(r, float))) for r in rings]
    whole = shapely.union_all(shapes)
    step = APART_UM / mpp / 2
    for wide in (0.0, 0.1 * step, 0.25 * step, 0.5 * step, step):
        bridged = whole.buffer(wide, join_style="mitre").buffer(-wide, join_style="mitre")
        parts = _polygons(shapely.union(bridged, whole))
        if len(parts) == 1:
            return _ring(parts[0])
    raise PathotuneError(
        "These nuclei lie too far apart to be one.", "Merge only nuclei that touch or nearly do."
    )


def _polygons(shape: Any) -> list[Any]:
    import shapely

    return [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon" and not p.is_empty]


def _ring(polygon: Any) -> NDArray[Any]:
    return np.asarray(polygon.exterior.coords, np.float32)
