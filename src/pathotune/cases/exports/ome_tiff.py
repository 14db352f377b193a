"""The map as a label image with its um/px, for QuPath, ImageJ and scripts.

Pixel values are the classes in the model's order, 0 where there is no tissue
or no prediction. The names, the colours and the place of the first pixel on the
slide go into the OME metadata, because a number alone means nothing in a year.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pathotune.cases.replacing import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from pathotune.maps.classmap import ClassMap
    from pathotune.slides.slide import Slide

SUFFIX = ".ome.tif"
ACCEPTS = ("classmap",)


def write(path: Path, classmap: ClassMap, slide: Slide | None = None) -> list[Path]:
    """Write the labels, (rows, cols) uint8, and return the file.

    Parameters
    ----------
    path : Path
        The file to write.
    classmap : ClassMap
        The map; its step becomes the pixel size in um.
    slide : Slide, optional
        Not used: nothing of the slide goes into the file.

    Notes
    -----
    The OME description is JSON: ``classes`` (value, name, colour), ``origin`` (x, y of the
    first pixel's corner in level-0 pixels of the slide) and ``step`` (level-0 pixels a spot).
    """
    import tifffile

    described = {
        "note": "research use only",
        "classes": [
            {"value": value, "name": name, "colour": [int(c) for c in colour]}
            for value, (name, colour) in enumerate(
                zip(classmap.classes, classmap.colours, strict=True), 1
            )
        ],
        "origin": [float(v) for v in classmap.origin],
        "step": float(classmap.step),
    }
    side = float(classmap.mpp)
    # `mpp` of a map is the side of a spot, `step` the same in slide pixels.
    corner = [float(v) / float(classmap.step) * side for v in classmap.origin]
    metadata = {
        "axes": "YX",
        "Name": "class map",
        "Description": json.dumps(described),
        "PhysicalSizeX": side,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": side,
        "PhysicalSizeYUnit": "µm",
        "Plane": {
            "PositionX": [corner[0]],
            "PositionXUnit": ["µm"],
            "PositionY": [corner[1]],
            "PositionYUnit": ["µm"],
        },
    }
    with replacing(path) as draft:
        tifffile.imwrite(
            draft,
            classmap.labels,
            ome=True,
            photometric="minisblack",
            compression="deflate",
            tile=(256, 256),
            resolution=(1e4 / side, 1e4 / side),
            resolutionunit="CENTIMETER",
            metadata=metadata,
        )
    return [path]
