"""One GeoJSON feature to one annotation and back, losing nothing QuPath wrote.

What this program understands (id, class, name, lock, geometry) becomes fields;
everything else in the feature is kept word for word in `Annotation.extra` and
written out again. Strokes go out as the polygon they cover, which QuPath can
read, with their middle line beside it so that they come back as strokes. The
format is QuPath's, from 0.2 (types as ids, packed colours) to 0.7.
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from pathotune.events import PathotuneError
from pathotune.marks.annotations import Annotation, AnnotationClass, new_id
from pathotune.marks.classes import next_colour
from pathotune.marks.coordinates import from_geojson, mended, to_geojson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from shapely.geometry.base import BaseGeometry

OWN = "pathotune"
KINDS = {
    "Polygon": "polygon",
    "MultiPolygon": "multipolygon",
    "Point": "point",
    "MultiPoint": "multipoint",
    "LineString": "line",
    "MultiLineString": "line",
}
# QuPath 0.2 wrote the type of an object in place of its id.
_TYPE_IDS = {
    "PathAnnotationObject": "annotation",
    "PathDetectionObject": "detection",
    "PathCellObject": "cell",
    "PathTileObject": "tile",
    "PathRootObject": "root",
    "TMACoreObject": "tmaCore",
}
_TYPE_KEYS = ("objectType", "object_type", "type")
_CHILDREN = ("childObjects", "children")


def _dict(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _colour(found: Mapping[str, Any]) -> tuple[int, int, int] | None:
    colour = found.get("color", found.get("colour", found.get("colorRGB")))
    if isinstance(colour, list | tuple) and len(colour) >= 3:
        if all(isinstance(c, int | float) and math.isfinite(c) for c in colour):
            return int(colour[0]) & 255, int(colour[1]) & 255, int(colour[2]) & 255
    elif isinstance(colour, int):  # older QuPath: a signed 32-bit integer
        return colour >> 16 & 255, colour >> 8 & 255, colour & 255
    return None


def _class_of(properties: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    found = properties.get("classification")
    if isinstance(found, str):
        return found or None, {}
    if isinstance(found, dict):
        names = found.get("names")
        name = found.get("name")
        if name is None and isinstance(names, list):
            name = ": ".join(map(str, names))
        return str(name) if name else None, found
    return None, {}


def flat(feature: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a feature and what QuPath nested inside it, each without its children."""
    properties = _dict(feature.get("properties"))
    for key in _CHILDREN:
        children = properties.get(key)
        if isinstance(children, list) and any(_dict(c).get("type") == "Feature" for c in children):
            yield {
                **feature,
                "properties": {k: v for k, v in properties.items() if k != key},
            }
            for child in children:
                yield from flat(_dict(child))
            return
    yield feature


def is_root(feature: Mapping[str, Any]) -> bool:
    """Whether a feature only stands for the whole image."""
    properties = _dict(feature.get("properties"))
    return properties.get("objectType") == "root" or feature.get("id") == "PathRootObject"


def _own(own: Mapping[str, Any], geometry: BaseGeometry) -> tuple[str | None, BaseGeometry, float]:
    """Return kind, geometry and width as drawn here, unless the shape was edited since."""
    kind = own.get("kind")
    if kind == "rectangle" and geometry.geom_type == "Polygon":
        right = len(geometry.exterior.coords) == 5 and not geometry.interiors
        return ("rectangle" if right else None), geometry, 0.0
    if kind == "ellipse" and geometry.geom_type == "Polygon":
        return "ellipse", geometry, 0.0
    if kind == "stroke":
        try:
            line, width = from_geojson(own.get("path")), float(own.get("width", 0))
        except (TypeError, ValueError):
            return None, geometry, 0.0
        area = line.buffer(width / 2)
        moved = np.abs(np.subtract(area.bounds, geometry.bounds)).max(initial=0)
        if moved <= 0.5 and abs(area.area - geometry.area) <= 0.02 * area.area + 1:
            return "stroke", line, width
    return None, geometry, 0.0


def from_feature(
    feature: Mapping[str, Any], known: Mapping[str, AnnotationClass]
) -> tuple[Annotation, AnnotationClass | None, str | None]:
    """Read a feature.

    Parameters
    ----------
    feature : mapping
        A GeoJSON Feature, coordinates in level-0 pixels.
    known : mapping of str to AnnotationClass
        Classes met before, by name.

    Returns
    -------
    annotation : Annotation
    new_class : AnnotationClass or None
        Its class, when that is not in `known`.
    note : str or None
        What was mended.

    Raises
    ------
    PathotuneError
        It is not a feature with a geometry.
    """
    raw = feature.get("geometry")
    properties = _dict(feature.get("properties"))
    try:
        geometry = from_geojson(raw)
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError) as error:
        raise PathotuneError(
            f"The file holds something that is not a region ({error}).",
            "Export the annotations again as GeoJSON.",
        ) from error
    fields = {"type", "coordinates", "geometries"}
    beside = {k: v for k, v in _dict(raw).items() if k not in fields}
    own, own_geometry, width = _own(_dict(properties.get(OWN)), geometry)
    kind = own or ("ellipse" if beside.get("isEllipse") else KINDS.get(geometry.geom_type, "other"))
    geometry = own_geometry
    name, classification = _class_of(properties)
    note = None
    if kind != "stroke" and not geometry.is_valid:
        geometry = mended(geometry)
        kind = KINDS.get(geometry.geom_type, "other")
        note = f"A region{f' of {name}' if name else ''} crossed itself; it was split into parts."
    new = None
    if name is not None and name not in known:
        colour = _colour(classification)
        new = AnnotationClass(name, colour or next_colour(c.colour for c in known.values()))
    raw_id = feature.get("id")
    extra: dict[str, Any] = {
        "feature": {
            k: v for k, v in feature.items() if k not in {"type", "id", "geometry", "properties"}
        },
        "properties": {k: v for k, v in properties.items() if k != OWN},
        "geometry": beside,
    }
    if isinstance(raw_id, str) and raw_id in _TYPE_IDS:
        if not any(key in properties for key in _TYPE_KEYS):
            extra["properties"]["objectType"] = _TYPE_IDS[raw_id]
        raw_id = None
    if raw_id is not None and not isinstance(raw_id, str):
        extra["id"] = raw_id
    title = properties.get("name")
    annotation = Annotation(
        id=new_id() if raw_id is None or raw_id == "" else str(raw_id),
        class_name=name,
        kind=kind,
        geometry=geometry,
        width=width,
        name=None if title is None else str(title),
        extra=MappingProxyType(extra),
        locked=bool(properties.get("isLocked", False)),
    )
    return annotation, new, note


def _is_upright_ellipse(geometry: BaseGeometry) -> bool:
    """Whether the box of a shape is enough to draw it as an ellipse, as QuPath does."""
    if geometry.geom_type != "Polygon" or geometry.is_empty:
        return False
    x0, y0, x1, y1 = geometry.bounds
    share = geometry.area / max((x1 - x0) * (y1 - y0), 1e-9)
    return bool(abs(share / (math.pi / 4) - 1) < 0.02)


def _classification(
    properties: Mapping[str, Any], name: str, known: AnnotationClass | None
) -> str | dict[str, Any]:
    """Return the class as QuPath has it, with what stood beside its name before."""
    old = properties.get("classification")
    same = _class_of(properties)[0] == name
    if isinstance(old, str) and same:
        return old
    found = dict(_dict(old))
    if not same:
        found.pop("names", None)
        found["name"] = name
    if known is not None and _colour(found) != known.colour:
        found.pop("colorRGB", None)
        found.pop("colour", None)
        found["color"] = list(known.colour)
    return found


def to_feature(annotation: Annotation, classes: Mapping[str, AnnotationClass]) -> dict[str, Any]:
    """Return a feature that QuPath reads; `classes` gives the colours, by name."""
    extra = annotation.extra
    properties = dict(extra.get("properties", {}))
    if not any(key in properties for key in _TYPE_KEYS):
        properties = {"objectType": "annotation", **properties}
    name = annotation.class_name
    if name is not None:
        properties["classification"] = _classification(properties, name, classes.get(name))
    elif properties.get("classification") is not None:
        del properties["classification"]
    if annotation.name is None:
        if properties.get("name") is not None:
            del properties["name"]
    elif str(properties.get("name")) != annotation.name:
        properties["name"] = annotation.name
    if annotation.locked != bool(properties.get("isLocked", False)):
        properties["isLocked"] = annotation.locked
    geometry = to_geojson(annotation.area())
    ellipse = annotation.kind == "ellipse" and _is_upright_ellipse(annotation.geometry)
    if annotation.kind in {"rectangle", "ellipse", "stroke"} and not ellipse:
        own: dict[str, Any] = {"kind": annotation.kind}
        if annotation.kind == "stroke":
            own |= {"path": to_geojson(annotation.geometry), "width": float(annotation.width)}
        properties[OWN] = own
    geometry |= extra.get("geometry", {})
    if ellipse or "isEllipse" in geometry:
        geometry["isEllipse"] = ellipse
    return {
        "type": "Feature",
        "id": extra["id"] if str(extra.get("id")) == annotation.id else annotation.id,
        "geometry": geometry,
        "properties": properties,
        **extra.get("feature", {}),
    }


def with_fresh_ids(items: Iterable[Annotation]) -> list[Annotation]:
    """Give later ones of equal ids a new id, so that none is lost."""
    seen: set[str] = set()
    result = []
    for item in items:
        kept = replace(item, id=new_id()) if item.id in seen else item
        seen.add(kept.id)
        result.append(kept)
    return result
