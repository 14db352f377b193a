"""Where the nuclei of a slide lie on this computer.

One folder a slide, by its fingerprint and never by its name, one file a segmenter
and region. The newest one is opened with the slide.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathotune.marks.classes import AnnotationClass
    from pathotune.slides.geometry import Region
    from pathotune.slides.slide import Slide

PARTS = ".parts"
EDITS = "corrections.jsonl"
CLASSES = "classes.json"


def folder(slide: Slide) -> Path:
    """Return the folder of a slide's nuclei; it need not be there."""
    from pathotune import places

    return places.data_dir() / "nuclei" / slide.fingerprint


def place(slide: Slide, segmenter: str, region: Region | None) -> Path:
    """Return where a run writes; the folder is made.

    Parameters
    ----------
    segmenter : str
        Its key, or the name of its file.
    region : Region or None
        None: the whole slide.
    """
    where = "slide"
    if region is not None:
        where = f"{region.x}-{region.y}-{region.width}-{region.height}"
    home = folder(slide)
    home.mkdir(parents=True, exist_ok=True)
    return home / f"{Path(segmenter).stem}-{where}.parquet"


def latest(slide: Slide) -> Path | None:
    """Return the file of the newest run, whole or stopped; None if there was none."""
    home = folder(slide)
    if not home.is_dir():
        return None
    found = {p: p.stat().st_mtime for p in home.glob("*.parquet")}
    for parts in home.glob(f"*.parquet{PARTS}"):
        out = parts.with_name(parts.name.removesuffix(PARTS))
        if out not in found and any(parts.glob("tile_*.parquet")):
            found[out] = parts.stat().st_mtime
    return max(found, key=lambda p: found[p], default=None)


def read_classes(slide: Slide) -> tuple[AnnotationClass, ...]:
    """Return the classes that nuclei of a slide were given names for; none if unreadable."""
    from pathotune.marks.classes import AnnotationClass

    try:
        told = json.loads((folder(slide) / CLASSES).read_text(encoding="utf-8"))
        return tuple(AnnotationClass(str(n), (int(r), int(g), int(b))) for n, (r, g, b) in told)
    except (OSError, ValueError, TypeError):
        return ()


def write_classes(slide: Slide, classes: tuple[AnnotationClass, ...]) -> None:
    """Keep the classes of a slide's nuclei.

    Raises
    ------
    PathotuneError
        They cannot be saved.
    """
    from pathotune.marks.geojson import write_atomically

    folder(slide).mkdir(parents=True, exist_ok=True)
    told = json.dumps([[c.name, list(c.colour)] for c in classes]).encode()
    write_atomically(folder(slide) / CLASSES, lambda f: f.write(told))
