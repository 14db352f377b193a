"""The class map as polygons that QuPath opens: one annotation for each class.

Coordinates are level-0 pixels. Classes keep their colours; a class that
appears nowhere is left out.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from pathotune.cases.exports._common import RESEARCH_USE, put
from pathotune.maps.classmap import ClassMap
from pathotune.marks.coordinates import to_geojson

if TYPE_CHECKING:
    from pathlib import Path

    from pathotune.slides.slide import Slide

SUFFIX = ".geojson"
ACCEPTS = ClassMap
_SPACE = uuid.UUID("6e1f6b0e-6a5c-4f7e-9f0f-2d5a0f6b7c11")


def write(path: Path, thing: ClassMap, slide: Slide | None) -> list[Path]:
    """Write the outlines of every class; `slide` is not looked at.

    Raises
    ------
    PathotuneError
        The file cannot be saved.
    """
    from shapely import multipolygons, transform

    del slide
    areas = thing.areas_mm2()
    features = []
    for (name, shapes), colour in zip(thing.polygons().items(), thing.colours, strict=True):
        if not shapes:
            continue
        shape = shapes[0] if len(shapes) == 1 else multipolygons(shapes)
        features.append(
            {
                "type": "Feature",
                # the same class keeps its id, so that a second import replaces the first
                "id": str(uuid.uuid5(_SPACE, name)),
                "geometry": to_geojson(transform(shape, lambda xy: xy.round(3))),
                "properties": {
                    "objectType": "annotation",
                    "name": name,
                    "classification": {"name": name, "color": list(colour)},
                    "measurements": {"Area mm^2": areas[name]},
                    "metadata": {"note": RESEARCH_USE},
                },
            }
        )
    return put(path, json.dumps({"type": "FeatureCollection", "features": features}).encode())
