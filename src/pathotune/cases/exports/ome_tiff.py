"""The class map as OME-TIFF: class numbers with um/px, for any image program.

uint8, 0 for no answer and 1..n in the order of the classes, which the metadata
names with their colours; where the map lies on the slide stands beside them. A
map longer than a tile carries smaller levels, so that programs that zoom need
not read all of it; in each a spot is the class of most of what it covers.
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from typing import TYPE_CHECKING

import numpy as np

from pathotune.cases.exports._common import RESEARCH_USE, put
from pathotune.cases.exports._pyramid import class_levels, depth
from pathotune.maps.classmap import ClassMap

if TYPE_CHECKING:
    from pathlib import Path

    from pathotune.slides.slide import Slide

SUFFIX = ".ome.tif"
ACCEPTS = ClassMap


def write(path: Path, thing: ClassMap, slide: Slide | None) -> list[Path]:
    """Write the labels; of `slide` only which picture it is gets told.

    Raises
    ------
    PathotuneError
        The file cannot be saved.
    """
    import tifffile

    about = {
        "origin_x": thing.origin[0],
        "origin_y": thing.origin[1],
        "step": thing.step,
        "classes": {str(i): name for i, name in enumerate(thing.classes, 1)},
        "colours": {
            name: list(rgb) for name, rgb in zip(thing.classes, thing.colours, strict=True)
        },
        "picture": None if slide is None else slide.view.words(),
        "note": RESEARCH_USE,
    }
    pairs = {key: json.dumps(value, ensure_ascii=False) for key, value in about.items()}
    content = json.dumps(about, sort_keys=True).encode() + thing.labels.tobytes()
    # tifffile's own choice holds the network address of this computer, and differs every time
    name = uuid.UUID(bytes=hashlib.sha256(content).digest()[:16], version=4)
    kept = {"photometric": "minisblack", "compression": "zlib", "tile": (256, 256)}
    memory = io.BytesIO()
    with tifffile.TiffWriter(memory, ome=True) as out:
        out.write(
            np.ascontiguousarray(thing.labels),
            **kept,
            subifds=depth(thing.labels.shape),
            resolution=(1e4 / thing.mpp, 1e4 / thing.mpp),
            resolutionunit="CENTIMETER",
            metadata={
                "axes": "YX",
                "UUID": f"urn:uuid:{name}",
                "Name": "class map",
                "PhysicalSizeX": thing.mpp,
                "PhysicalSizeXUnit": "µm",
                "PhysicalSizeY": thing.mpp,
                "PhysicalSizeYUnit": "µm",
                "MapAnnotation": {"Namespace": "napari-pathotune/classmap", **pairs},
            },
        )
        for level in class_levels(thing.labels, len(thing.classes)):
            out.write(level, **kept, subfiletype=1, metadata=None)
    return put(path, memory.getvalue())
