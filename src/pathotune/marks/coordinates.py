"""Geometries between shapely and GeoJSON, number for number.

shapely's own `shape` and `mapping` build many small objects on the way, which
a file of a hundred thousand outlines makes felt; and they turn whole numbers
into ``12.0``, which doubles a file that QuPath wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely.geometry import shape

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

_EXACT = 2.0**53  # whole numbers beyond are not all floats


def _ring(points: Any) -> NDArray[np.float64]:
    found = np.asarray(points, np.float64)
    if found.ndim != 2 or found.shape[1] not in (2, 3):
        raise ValueError("a coordinate is not a pair of numbers")
    if not np.isfinite(found).all():
        raise ValueError("a coordinate is not finite")
    return found


def from_geojson(raw: Any) -> BaseGeometry:
    """Read a GeoJSON geometry.

    Raises
    ------
    AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError
        It is none, or holds numbers that are not finite.
    """
    if not isinstance(raw, dict):
        raise TypeError("there is no geometry")
    if raw.get("type") == "Polygon" and raw.get("coordinates"):
        shell, *holes = (_ring(ring) for ring in raw["coordinates"])
        found = shapely.polygons(shell, holes=[shapely.linearrings(h) for h in holes] or None)
    else:
        found = shape(raw)
    if not np.isfinite(shapely.get_coordinates(found)).all():
        raise ValueError("a coordinate is not finite")
    return found


def mended(geometry: BaseGeometry) -> BaseGeometry:
    """Return a valid geometry of the same area, lines and points that fall off left out."""
    valid = shapely.make_valid(geometry)
    simple: list[BaseGeometry] = []
    for part in shapely.get_parts(valid):
        simple.extend(p for p in shapely.get_parts(part) if p.area > 0)
    return shapely.unary_union(simple) if simple else valid


def _numbers(geometry: BaseGeometry) -> list[Any]:
    xy = shapely.get_coordinates(geometry, include_z=bool(shapely.has_z(geometry)))
    whole = np.rint(xy)
    if (whole == xy).all() and (np.abs(xy) < _EXACT).all():
        return list(whole.astype(np.int64).tolist())
    listed: list[Any] = xy.tolist()
    return [[int(v) if v.is_integer() and abs(v) < _EXACT else v for v in p] for p in listed]


def _coordinates(geometry: BaseGeometry) -> list[Any]:
    kind = geometry.geom_type
    if geometry.is_empty:
        return []
    if kind == "Polygon":
        return [_numbers(geometry.exterior), *(_numbers(ring) for ring in geometry.interiors)]
    if kind == "Point":
        return list(_numbers(geometry)[0])
    if kind in ("LineString", "LinearRing", "MultiPoint"):
        return _numbers(geometry)
    return [_coordinates(part) for part in geometry.geoms]


def to_geojson(geometry: BaseGeometry) -> dict[str, Any]:
    """Return a GeoJSON geometry; whole numbers are written without a point."""
    if geometry.geom_type == "GeometryCollection":
        return {"type": "GeometryCollection", "geometries": [to_geojson(g) for g in geometry.geoms]}
    kind = "LineString" if geometry.geom_type == "LinearRing" else geometry.geom_type
    return {"type": kind, "coordinates": _coordinates(geometry)}
