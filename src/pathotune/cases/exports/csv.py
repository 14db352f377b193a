"""Areas of the classes as a table for a spreadsheet.

One row a class; the last column carries the research-use line, so that it
travels with the numbers and the file stays a plain table.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from pathotune.cases.exports._common import RESEARCH_USE, put
from pathotune.maps.classmap import ClassMap

if TYPE_CHECKING:
    from pathlib import Path

    from pathotune.slides.slide import Slide

SUFFIX = ".csv"
ACCEPTS = ClassMap


def write(path: Path, thing: ClassMap, slide: Slide | None) -> list[Path]:
    """Write class, colour, area in mm2 and percent of what was mapped; `slide` is not looked at.

    Raises
    ------
    PathotuneError
        The file cannot be saved.
    """
    del slide
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["class", "colour", "area_mm2", "percent", "note"])
    percent = thing.areas_percent()
    areas = thing.areas_mm2()
    for name, (red, green, blue) in zip(thing.classes, thing.colours, strict=True):
        colour = f"#{red:02x}{green:02x}{blue:02x}"
        row = [name, colour, f"{areas[name]:.6f}", f"{percent[name]:.3f}", RESEARCH_USE]
        table.writerow(row)
    return put(path, text.getvalue().encode("utf-8"))
