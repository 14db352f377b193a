"""The map as regions that QuPath imports: one annotation for each connected area of a class.

Outlines follow the map's spots exactly, holes included, in level-0 pixels, so
that areas add up to those of the table. Features are written one by one; a map
with a hundred thousand islands needs no more memory than its outlines.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pathotune.cases.replacing import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pathotune.maps.classmap import ClassMap
    from pathotune.slides.slide import Slide

SUFFIX = ".geojson"
ACCEPTS = ("classmap",)


def write(path: Path, classmap: ClassMap, slide: Slide | None = None) -> list[Path]:
    """Write the regions and return the file.

    Parameters
    ----------
    path : Path
        The file to write.
    classmap : ClassMap
        The map.
    slide : Slide, optional
        Not used: nothing of the slide goes into the file.
    """
    with replacing(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.write('{"type":"FeatureCollection","note":"research use only","features":[\n')
        for number, feature in enumerate(features(classmap)):
            file.write(",\n" if number else "")
            json.dump(feature, file, separators=(",", ":"))
        file.write("\n]}\n")
    return [path]


def features(classmap: ClassMap) -> Iterator[dict[str, Any]]:
    """Yield a GeoJSON feature for each connected area of each class."""
    from shapely.geometry import mapping

    shapes = classmap.polygons()
    for name, colour in zip(classmap.classes, classmap.colours, strict=True):
        shape = shapes.get(name)
        for part in () if shape is None else getattr(shape, "geoms", (shape,)):
            if part.is_empty:
                continue
            yield {
                "type": "Feature",
                "geometry": mapping(part),
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": name, "color": [int(c) for c in colour]},
                },
            }
