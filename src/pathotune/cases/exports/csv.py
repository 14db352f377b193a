"""The areas as a table that every spreadsheet reads: one row a class.

Areas are sums of map spots, so they are as coarse as the map; the column
``note`` travels with each row because tables get cut and pasted.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from pathotune.cases.replacing import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from pathotune.maps.classmap import ClassMap
    from pathotune.slides.slide import Slide

SUFFIX = ".csv"
ACCEPTS = ("classmap",)
HEAD = ("class", "area_mm2", "percent_of_map", "note")


def write(path: Path, classmap: ClassMap, slide: Slide | None = None) -> list[Path]:
    """Write class, mm2 and percent of the mapped tissue; return the file.

    Parameters
    ----------
    path : Path
        The file to write.
    classmap : ClassMap
        The map.
    slide : Slide, optional
        Not used: nothing of the slide goes into the file.
    """
    mm2, percent = classmap.areas_mm2(), classmap.areas_percent()
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(HEAD)
        for name in classmap.classes:
            row = (name, f"{mm2[name]:.6f}", f"{percent[name]:.3f}", "research use only")
            rows.writerow(row)
    return [path]
