"""What leaves the window: the map as files, and the sums the legend shows.

Each export is a file in the engine's folder; this module only asks for a name
and hands the work to the files lane.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QFileDialog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qtpy.QtWidgets import QWidget

    from napari_pathotune._session import Session
    from pathotune.maps.classmap import ClassMap

FOLDER = "pathotune.cases.exports"
LABELS = {
    "geojson": "Regions for QuPath (GeoJSON)...",
    "ome_tiff": "Map with µm/px (OME-TIFF)...",
    "csv": "Areas (CSV)...",
    "png": "Picture of the map (PNG)...",
}
UNSURE = 0.6  # a token is unsure when its best class is less likely than this


def choices() -> list[tuple[str, str]]:
    """Return (label, key) of every export, the usual ones first."""
    from pathotune import plugins

    there = plugins.names(FOLDER)
    known = [k for k in LABELS if k in there]
    return [(LABELS.get(k, f"{k}..."), k) for k in (*known, *(k for k in there if k not in LABELS))]


def ask(parent: QWidget, session: Session, key: str) -> Path | None:
    """Ask where to save; the name follows the slide's."""
    from pathotune import plugins

    suffix = plugins.load(FOLDER, key).SUFFIX
    slide = session.slide
    stem = slide.name.split(".")[0] if slide is not None else "map"
    path, _ = QFileDialog.getSaveFileName(
        parent, LABELS.get(key, key).rstrip("."), f"{stem}-map{suffix}", f"*{suffix}"
    )
    if not path:
        return None
    return Path(path) if path.lower().endswith(suffix) else Path(path + suffix)


def export(session: Session, key: str, path: Path, on_done: Callable[[list[str]], None]) -> None:
    """Write the map in the files lane; `on_done` gets the names of the files written."""
    from pathotune import plugins

    slide, classmap = session.slide, session.loop.classmap
    if classmap is None:
        return
    now = {c.name: c.colour for c in session.annotations.classes}
    pairs = zip(classmap.classes, classmap.colours, strict=True)
    classmap = replace(classmap, colours=tuple(now.get(n, c) for n, c in pairs))

    def start() -> list[str]:
        written = plugins.load(FOLDER, key).write(path, classmap, slide)
        return [p.name for p in written]

    session.run("files", start, what=f"Saving {path.name}", where="classify", on_done=on_done)


def areas(classmap: ClassMap) -> tuple[Mapping[str, float], float]:
    """Return mm2 of every class and of what the model is unsure of."""
    mm2 = classmap.areas_mm2()
    if classmap.probs is None:
        return mm2, 0.0
    token = (classmap.mpp / 1000) ** 2  # `mpp` of a map is the side of a token in um
    unsure = 0
    for first in range(0, classmap.labels.shape[0], 512):  # no copy of a large map at once
        rows = slice(first, first + 512)
        top = classmap.probs[rows].max(axis=-1)
        unsure += int(np.count_nonzero((top < UNSURE) & (classmap.labels[rows] > 0)))
    return mm2, unsure * token


def under_cursor(found: tuple[str, Mapping[str, float]]) -> str:
    """Return "Under the cursor: Stroma 0.87, Tumour 0.10"."""
    name, probs = found
    if not probs:
        return f"Under the cursor: {name}"
    pairs = sorted(probs.items(), key=lambda pair: -pair[1])[:3]
    return "Under the cursor: " + ", ".join(f"{n} {p:.2f}" for n, p in pairs if p >= 0.01)
