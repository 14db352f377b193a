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
    """Write class, area in mm2 and share in percent; `slide` is not looked at.

    Raises
    ------
    PathotuneError
        The file cannot be saved.
    """
    del slide
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["class", "area_mm2", "percent", "note"])
    percent = thing.areas_percent()
    for name, area in thing.areas_mm2().items():
        table.writerow([name, f"{area:.6f}", f"{percent[name]:.3f}", RESEARCH_USE])
    return put(path, text.getvalue().encode("utf-8"))
