"""Folders of tiles: which files belong to which class, and each at a model's um/px.

Tiles come in all sizes and scales. They are resampled by their um/px and never
stretched to fit: one smaller than the model's window is continued by its mirror
image, one larger is cut into windows that overlap as little as needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pathotune.events import PathotuneError
from pathotune.slides.resample import area

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}


def tile_files(folder: Path) -> list[Path]:
    """Return the picture files below a folder, sorted.

    Raises
    ------
    PathotuneError
        There is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise PathotuneError(f"There is no folder {folder}.", "Check the name.")
    found = sorted(
        p
        for p in _files(folder)
        if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
    )
    if not found:
        raise PathotuneError(
            f"There are no tiles in {folder}.", "Tiles are PNG, JPEG or TIFF files."
        )
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder: linked folders too, each once; hidden ones not."""
    seen: set[Path] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = Path(here).resolve()
        if real in seen:
            folders.clear()  # a link that leads back
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(here) / name for name in files)


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """Return the tiles of each class: the first folder on the way to a file is its class."""
    found: dict[str, list[Path]] = {}
    for path in tile_files(folder):
        parts = path.relative_to(folder).parts
        if len(parts) > 1:
            found.setdefault(parts[0], []).append(path)
    return found


def read_tile_file(path: Path, mpp: float | None = None) -> tuple[NDArray[np.uint8], float | None]:
    """Return a tile (h, w, 3) and its um/px, None when neither given nor in the file.

    Raises
    ------
    PathotuneError
        The file cannot be read.
    """
    from pathotune.slides.slide import open_slide

    with open_slide(path, mpp=mpp) as tile:
        return tile.read(tile.bounds), tile.mpp


def at_mpp(tile: NDArray[np.uint8], mpp: float, wanted: float) -> NDArray[np.uint8]:
    """Return a tile resampled from `mpp` to `wanted` um/px."""
    step = wanted / mpp
    height, width = (max(1, round(n / step)) for n in tile.shape[:2])
    return tile if abs(step - 1) < 1e-6 else area(tile, 0, 0, step, step, width, height)


def windows(tile: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Cut a tile into windows (n, side, side, 3) that cover it; a small one is mirrored."""
    height, width = tile.shape[:2]
    down, right = max(0, side - height), max(0, side - width)
    if down or right:
        around = ((down // 2, down - down // 2), (right // 2, right - right // 2), (0, 0))
        # symmetric also works where the tile is smaller than what is added to it
        tile = np.pad(
            tile, around, mode="symmetric" if min(height, width) < side // 2 else "reflect"
        )
        height, width = tile.shape[:2]
    places = [
        np.unique(np.linspace(0, n - side, -(-n // side)).round().astype(int))
        for n in (height, width)
    ]
    return np.stack([tile[r : r + side, c : c + side] for r in places[0] for c in places[1]])
