"""One GeoJSON feature to one annotation and back, losing nothing QuPath wrote.

What this program understands (id, class, name, lock, geometry) becomes fields;
everything else in the feature is kept word for word in `Annotation.extra` and
written out again. Strokes go out as the polygon they cover, which QuPath can
read, with their middle line beside it so that they come back as strokes.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import shapely
from shapely.geometry import mapping, shape

from pathotune.events import PathotuneError
from pathotune.marks.annotations import Annotation, AnnotationClass, new_id
from pathotune.marks.classes import next_colour

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
_OWN_KINDS = {"rectangle", "ellipse", "stroke"}


def _colour(found: Mapping[str, Any]) -> tuple[int, int, int] | None:
    colour = found.get("color", found.get("colour"))
    if isinstance(colour, list | tuple) and len(colour) >= 3:
        return int(colour[0]) & 255, int(colour[1]) & 255, int(colour[2]) & 255
    packed = found.get("colorRGB")  # older QuPath: a signed 32-bit integer
    if isinstance(packed, int):
        return packed >> 16 & 255, packed >> 8 & 255, packed & 255
    return None


def _class_of(properties: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    found = properties.get("classification")
    if isinstance(found, str):
        return found or None, {}
    if isinstance(found, dict):
        names = found.get("names")
        name = found.get("name") or (": ".join(map(str, names)) if names else None)
        return name, found
    return None, {}


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
    properties = feature.get("properties") or {}
    own: dict[str, Any] = properties.get(OWN) or {}
    try:
        geometry: BaseGeometry = shape(raw)
        if not isinstance(properties, dict):
            raise TypeError("properties are not an object")
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError) as error:
        raise PathotuneError(
            f"The file holds something that is not a region ({error}).",
            "Export the annotations again as GeoJSON.",
        ) from error
    extra: dict[str, Any] = {
        "feature": {
            k: v for k, v in feature.items() if k not in {"type", "id", "geometry", "properties"}
        },
        "properties": {k: v for k, v in properties.items() if k not in {"isLocked", "name", OWN}},
    }
    note = None
    name, classification = _class_of(properties)
    kind = KINDS.get(geometry.geom_type, "other")
    width = 0.0
    if own.get("kind") in _OWN_KINDS:
        kind = own["kind"]
        if kind == "stroke":
            geometry, width = shape(own["path"]), float(own["width"])
    if raw is not None:
        known_keys = {"type", "coordinates", "geometries"}
        extra["geometry"] = {k: v for k, v in raw.items() if k not in known_keys}
        if extra["geometry"].get("isEllipse"):
            kind = "ellipse"
    if kind != "stroke" and not geometry.is_valid:
        mended = shapely.make_valid(geometry)
        parts = [p for p in shapely.get_parts(mended) if p.area > 0]
        flat: list[BaseGeometry] = []
        for part in parts:
            flat.extend(shapely.get_parts(part))
        geometry = shapely.unary_union(flat) if flat else mended
        kind = KINDS.get(geometry.geom_type, "other")
        note = f"A region{f' of {name}' if name else ''} crossed itself; it was split into parts."
    new = None
    if name is not None and name not in known:
        colour = _colour(classification)
        new = AnnotationClass(name, colour or next_colour(c.colour for c in known.values()))
    annotation = Annotation(
        id=str(feature.get("id") or own.get("id") or new_id()),
        class_name=name,
        kind=kind,
        geometry=geometry,
        width=width,
        name=properties.get("name"),
        extra=MappingProxyType(extra),
        locked=bool(properties.get("isLocked", False)),
    )
    return annotation, new, note


def _plain(value: Any) -> Any:
    """Return coordinates as JSON has them: lists, and whole numbers without a point."""
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _geometry(geometry: BaseGeometry) -> dict[str, Any]:
    found = mapping(geometry)
    return {"type": found["type"], "coordinates": _plain(found.get("coordinates", []))}


def to_feature(annotation: Annotation, classes: Mapping[str, AnnotationClass]) -> dict[str, Any]:
    """Return a feature that QuPath reads; `classes` gives the colours, by name."""
    extra = annotation.extra
    properties = dict(extra.get("properties", {}))
    if annotation.class_name is None:
        properties.pop("classification", None)
    else:
        old = properties.get("classification")
        known = classes.get(annotation.class_name)
        same = _class_of(properties)[0] == annotation.class_name
        found = dict(old) if isinstance(old, dict) and same else {"name": annotation.class_name}
        if known is not None and _colour(found) != known.colour:
            found.pop("colorRGB", None)
            found["color"] = list(known.colour)
        properties["classification"] = old if isinstance(old, str) and same else found
    properties.setdefault("objectType", "annotation")
    if annotation.name is not None:
        properties["name"] = annotation.name
    if annotation.locked:
        properties["isLocked"] = True
    geometry = _geometry(annotation.area())
    if annotation.kind in _OWN_KINDS:
        own: dict[str, Any] = {"kind": annotation.kind}
        if annotation.kind == "stroke":
            own |= {"path": _geometry(annotation.geometry), "width": annotation.width}
        properties[OWN] = own
    geometry |= extra.get("geometry", {})
    return {
        "type": "Feature",
        "id": annotation.id,
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
