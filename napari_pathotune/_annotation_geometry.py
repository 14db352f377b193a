"""How an annotation looks as shapes, and what a hand that moved the shapes meant.

napari draws rings of vertices and knows neither holes nor strokes, while the
annotation keeps them. So each ring becomes one outline, and an edit is read
back as the least that explains it: a shift moves the whole geometry, a stretch
transforms it, and only a moved vertex rebuilds it from its outlines. What was
imported is thus kept without loss until a vertex is really touched.

Vertices here are (y, x) in level-0 pixels, as napari wants them; geometries are
(x, y). Nothing in this file needs a window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely.geometry import (
    LineString,
    MultiPoint,
    MultiPolygon,
    Point,
    Polygon,
    box,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pathotune.marks.annotations import Annotation

#: napari keeps vertices in float32, which far out on a large slide resolves 1/100 px.
TOLERANCE_PX = 0.05
DECIMALS = 2


@dataclass(frozen=True, slots=True)
class Outline:
    """One ring of an annotation as napari draws it; `ring` 0 is the shell, others are holes."""

    part: int
    ring: int
    shape_type: str
    vertices: NDArray[np.float64]
    filled: bool


def is_ellipse(geometry: Any) -> bool:
    """Tell whether a polygon is the upright ellipse in its box, so that its box is enough."""
    if not isinstance(geometry, Polygon) or geometry.interiors or geometry.is_empty:
        return False
    xy = shapely.get_coordinates(geometry.exterior)
    low, high = xy.min(axis=0), xy.max(axis=0)
    half = (high - low) / 2
    if half.min() <= 0 or len(xy) < 9:
        return False
    off = np.abs(np.hypot(*((xy - (low + high) / 2) / half).T) - 1)
    return bool(off.max() * half.max() <= max(0.02 * half.min(), 2 * TOLERANCE_PX))


def is_points(annotation: Annotation) -> bool:
    """Tell whether the annotation is drawn as points and not as outlines."""
    return isinstance(annotation.geometry, Point | MultiPoint)


def dots(annotation: Annotation) -> NDArray[np.float64]:
    """Return the points of a point annotation, (n, 2) as (y, x)."""
    xy: NDArray[np.float64] = shapely.get_coordinates(annotation.geometry)
    return xy[:, ::-1]


def outlines(annotation: Annotation) -> list[Outline]:
    """Return the rings to draw; a ring is filled only when nothing is cut out of it."""
    geometry = annotation.geometry
    if isinstance(geometry, LineString) and annotation.width <= 0:
        return [Outline(0, 0, "path", shapely.get_coordinates(geometry)[:, ::-1], False)]
    if annotation.kind == "stroke":
        geometry = annotation.area().simplify(max(annotation.width * 0.005, 0.1))
    if annotation.kind == "rectangle" and isinstance(geometry, Polygon):
        corners = shapely.get_coordinates(geometry)[:-1, ::-1]
        if len(corners) == 4 and _is_upright(corners):
            return [Outline(0, 0, "rectangle", corners, True)]
    if annotation.kind == "ellipse" and is_ellipse(geometry):
        x0, y0, x1, y1 = geometry.bounds
        return [Outline(0, 0, "ellipse", np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0)]), True)]
    found: list[Outline] = []
    for part, polygon in enumerate(_polygons(geometry)):
        rings = [polygon.exterior, *polygon.interiors]
        for number, ring in enumerate(rings):
            vertices = shapely.get_coordinates(ring)[:-1, ::-1]
            if len(vertices) >= 3:
                found.append(Outline(part, number, "polygon", vertices, len(rings) == 1))
    return found


def drawn(
    vertices: NDArray[Any], shape_type: str, pen_width: float
) -> tuple[str, Any, float] | None:
    """Turn what napari's tools drew into (kind, geometry, width), or None if it has no extent.

    Open lines have no area to learn from, so they become strokes of the pen's width (level-0 px).
    """
    yx = np.asarray(vertices, np.float64)
    if shape_type in {"line", "path"}:
        return stroke(yx, pen_width)
    if shape_type == "ellipse":
        yx = _ellipse(yx)
    if len(yx) < 3:
        return None
    if shape_type == "rectangle" and _is_upright(yx):
        (y0, x0), (y1, x1) = yx.min(axis=0), yx.max(axis=0)
        shape = box(*np.round([x0, y0, x1, y1], DECIMALS))
        return ("rectangle", shape, 0.0) if shape.area > 0 else None
    geometry = _mended(Polygon(np.round(yx[:, ::-1], DECIMALS)))
    if geometry is None:
        return None
    kind = "ellipse" if shape_type == "ellipse" else _kind(geometry)
    return kind, geometry, 0.0


def stroke(vertices: NDArray[Any], width: float) -> tuple[str, Any, float] | None:
    """Return the stroke of a pen of `width` px that went through the vertices; a tap is a dot."""
    yx = np.asarray(vertices, np.float64)
    if width <= 0 or len(yx) == 0:
        return None
    xy = np.round(yx[:, ::-1], DECIMALS)
    if len(xy) == 1 or not np.ptp(xy, axis=0).any():
        # A line needs two places; a hundredth of a pixel apart they are one to the eye.
        xy = np.array([xy[0], xy[0] + [10.0**-DECIMALS, 0]])
    line = LineString(xy).simplify(width * 0.02)
    return "stroke", line, float(width)


def painted(path: Sequence[NDArray[Any]], width: float) -> NDArray[np.float64]:
    """Return the outline of what a round pen of `width` px has painted so far, (n, 2) as (y, x)."""
    line = Point(path[0]) if len(path) == 1 else LineString(path)
    outline: NDArray[np.float64] = shapely.get_coordinates(
        line.buffer(width / 2, quad_segs=6).exterior
    )[:-1]
    return outline


def edited(
    annotation: Annotation, before: Sequence[Outline], after: Sequence[NDArray[Any]]
) -> Annotation | None:
    """Return the annotation as the hand left it.

    Parameters
    ----------
    annotation : Annotation
        As it was before the edit.
    before : sequence of Outline
        Every outline of it that is on the screen.
    after : sequence of (n, 2) arrays
        Their vertices now, in the same order.

    Returns
    -------
    Annotation or None
        None when nothing with an area is left.
    """
    old = [np.asarray(o.vertices, np.float64) for o in before]
    new = [np.asarray(a, np.float64) for a in after]
    if all(len(a) == len(b) for a, b in zip(old, new, strict=True)):
        matrix = _affine(np.concatenate(old), np.concatenate(new))
        if matrix is not None:
            moved = _transformed(annotation, matrix)
            if moved is not None:
                return moved
    if any(o.shape_type == "path" for o in before):
        line = LineString(np.round(new[0][:, ::-1], DECIMALS)) if len(new[0]) > 1 else None
        return None if line is None else replace(annotation, geometry=line)
    geometry = _rebuilt(before, new)
    if geometry is None:
        return None
    return replace(annotation, geometry=geometry, kind=_kind(geometry), width=0.0)


def moved_dots(annotation: Annotation, places: NDArray[Any]) -> Annotation:
    """Return a point annotation with its points at `places`, (n, 2) as (y, x)."""
    xy = np.round(np.asarray(places, np.float64)[:, ::-1], DECIMALS)
    geometry = MultiPoint(xy) if isinstance(annotation.geometry, MultiPoint) else Point(xy[0])
    return replace(annotation, geometry=geometry)


def _transformed(annotation: Annotation, matrix: NDArray[np.float64]) -> Annotation | None:
    """Apply the (2, 3) matrix in (x, y), or return None where the kind would no longer fit."""
    linear = matrix[:, :2]
    geometry = shapely.transform(annotation.geometry, lambda xy: xy @ linear.T + matrix[:, 2])
    if np.allclose(linear, np.eye(2), atol=1e-4):
        return replace(annotation, geometry=geometry)
    upright = abs(linear[0, 1]) < 1e-4 and abs(linear[1, 0]) < 1e-4
    if annotation.kind == "stroke":
        size = float(np.sqrt(abs(np.linalg.det(linear))))
        if not np.allclose(linear @ linear.T, np.eye(2) * size**2, atol=0.01 * size**2):
            return None  # a pen stays round; a squeezed stroke is a polygon
        return replace(annotation, geometry=geometry, width=annotation.width * size)
    if annotation.kind in {"rectangle", "ellipse"} and not upright:
        return replace(annotation, geometry=geometry, kind="polygon")
    return replace(annotation, geometry=geometry)


def _affine(old: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the (2, 3) matrix in (x, y) that takes old to new, or None when none does."""
    source, target = old[:, ::-1], new[:, ::-1]
    shift = (target - source).mean(axis=0)
    if np.abs(target - source - shift).max() <= TOLERANCE_PX:
        return np.column_stack([np.eye(2), shift])
    if len(source) < 4:
        return None  # any three vertices fit; taken as an edit of vertices instead
    centre = source.mean(axis=0)
    padded = np.column_stack([source - centre, np.ones(len(source))])
    solution, _, rank, _ = np.linalg.lstsq(padded, target, rcond=None)
    if rank < 3 or np.abs(padded @ solution - target).max() > TOLERANCE_PX:
        return None
    linear = solution[:2].T
    if abs(np.linalg.det(linear)) < 1e-6:
        return None
    matrix: NDArray[np.float64] = np.column_stack([linear, solution[2] - linear @ centre])
    return matrix


def _rebuilt(before: Sequence[Outline], after: Sequence[NDArray[np.float64]]) -> Any | None:
    shells: dict[int, NDArray[np.float64]] = {}
    holes: dict[int, list[NDArray[np.float64]]] = {}
    for outline, vertices in zip(before, after, strict=True):
        if len(vertices) < 3:
            continue
        xy = np.round(vertices[:, ::-1], DECIMALS)
        if outline.ring == 0:
            shells[outline.part] = xy
        else:
            holes.setdefault(outline.part, []).append(xy)
    parts = [Polygon(shell, holes.get(part, [])) for part, shell in shells.items()]
    if not parts:
        return None
    return _mended(parts[0] if len(parts) == 1 else MultiPolygon(parts))


def _mended(geometry: Any) -> Any | None:
    """Return the geometry valid and polygonal (a ring that crosses itself is split), or None."""
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry)
    parts = [p for p in _polygons(geometry) if p.area > 0]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def _polygons(geometry: Any) -> list[Polygon]:
    if isinstance(geometry, Polygon):
        return [] if geometry.is_empty else [geometry]
    return [p for part in getattr(geometry, "geoms", ()) for p in _polygons(part)]


def _kind(geometry: Any) -> str:
    return "multipolygon" if isinstance(geometry, MultiPolygon) else "polygon"


def _is_upright(yx: NDArray[np.float64]) -> bool:
    """Tell whether four corners form a rectangle along the axes."""
    if len(yx) != 4:
        return False
    low, high = yx.min(axis=0), yx.max(axis=0)
    on_edge = (np.abs(yx - low) <= TOLERANCE_PX) | (np.abs(yx - high) <= TOLERANCE_PX)
    centre = yx.mean(axis=0)
    return bool(on_edge.all()) and bool(np.abs(centre - (low + high) / 2).max() <= TOLERANCE_PX)


def _ellipse(corners: NDArray[np.float64], n: int = 64) -> NDArray[np.float64]:
    """Return n vertices of the ellipse in the four corners of its (perhaps turned) box."""
    centre = corners.mean(axis=0)
    half_a, half_b = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)[:, None]
    ring: NDArray[np.float64] = centre + np.cos(angle) * half_a + np.sin(angle) * half_b
    return ring
