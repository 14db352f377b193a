"""Nuclei as files for other programs: one menu, written off the GUI thread.

What is written is what is shown: corrections and classes included.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QWidget

    from napari_pathotune._nuclei_desk import NucleiDesk

KINDS = {
    "geojson": ("Detections for QuPath (GeoJSON)...", ".geojson"),
    "csv": ("Table (CSV)...", ".csv"),
    "parquet": ("Table with outlines (Parquet)...", ".parquet"),
    "labels": ("Label image with µm/px (OME-TIFF)...", ".ome.tif"),
    "anndata": ("AnnData (h5ad)...", ".h5ad"),
}


def choices() -> list[tuple[str, str]]:
    """Return (label, key) of what can be written here."""
    from importlib.util import find_spec

    there = find_spec("anndata") is not None
    return [(label, key) for key, (label, _) in KINDS.items() if key != "anndata" or there]


def ask(parent: QWidget, desk: NucleiDesk, key: str) -> Path | None:
    """Ask where to save; the name follows the slide's."""
    label, suffix = KINDS[key]
    slide = desk.session.slide
    stem = slide.name.split(".")[0] if slide is not None else "slide"
    path, _ = QFileDialog.getSaveFileName(
        parent, label.rstrip("."), f"{stem}-nuclei{suffix}", f"*{suffix}"
    )
    if not path:
        return None
    return Path(path) if path.lower().endswith((suffix, ".gz")) else Path(path + suffix)


def save(desk: NucleiDesk, key: str, path: Path, done: Callable[[str], None]) -> None:
    """Write the nuclei in the files lane; `done` gets the file's name."""
    nuclei, slide = desk.nuclei, desk.session.slide
    if nuclei is None or slide is None:
        return
    width, height = slide.width, slide.height

    def start() -> str:
        from pathotune.nuclei import exports, raster

        if key == "labels":
            raster.write_labels(path, nuclei, width, height)
        else:
            writers = {
                "geojson": exports.write_geojson,
                "csv": exports.write_csv,
                "parquet": exports.write_parquet,
                "anndata": exports.write_anndata,
            }
            writers[key](path, nuclei)
        return path.name

    desk.session.run("files", start, what=f"Saving {path.name}", where="nuclei", on_done=done)
