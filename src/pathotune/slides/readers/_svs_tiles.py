"""Finds the levels of an SVS whose JPEG tiles may be decoded without OpenSlide.

OpenSlide stays the judge: a level is read directly only after tiles of it have
given the same pixels both ways. A file with odd colours, overlaps or streams
fails that and is read through OpenSlide as ever.
"""

from __future__ import annotations

import struct
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from pathotune.events import PathotuneError
from pathotune.slides.readers._jpeg_tiles import JpegLevel, JpegTiles, jpeg_level
from pathotune.slides.readers._tiff_pages import tiff_pages

if TYPE_CHECKING:
    from pathlib import Path

    from pathotune.slides.readers._jpeg_tiles import Otherwise

_LARGEST_STEP = 1  # grey level by which a pixel may differ where both see the same place
_MEAN_STEP = 3.0  # on average elsewhere, where OpenSlide may shift a level by part of a pixel
_STUMBLES = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
)


class SvsTiles(JpegTiles):
    """JPEG tiles of an SVS; a level proves itself when it is first asked for."""

    def __init__(self, path: Path, levels: dict[int, JpegLevel], otherwise: Otherwise) -> None:
        super().__init__(path, levels, otherwise)
        self._proven: dict[int, bool] = {}
        self._proving = Lock()

    def reductions(self, level: int) -> tuple[int, ...]:
        """Return by how much tiles can be shrunk; none where a level is not to be read here."""
        if level not in self.levels:
            return ()
        proven = self._proven.get(level)
        if proven is None:
            with self._proving:
                proven = self._proven.get(level)
                if proven is None:
                    proven = self._proven[level] = self._prove(level)
        return super().reductions(level) if proven else ()

    def _prove(self, level: int) -> bool:
        """Compare the first tile, whose place is beyond doubt, and one from the middle."""
        here = self.levels[level]
        middle = here.down // 2 * here.across + here.across // 2
        seen = False
        for index in dict.fromkeys((0, middle)):
            direct = self._stream(here, 1, index)
            if direct is None:
                continue  # this one is left to OpenSlide anyway
            row, column = divmod(index, here.across)
            x, y = column * here.tile_w, row * here.tile_h
            w, h = min(here.tile_w, here.width - x), min(here.tile_h, here.height - y)
            try:
                judge = self._otherwise(level, x, y, w, h)
            except PathotuneError:
                continue
            difference = np.abs(direct[:h, :w].astype(np.int16) - judge)
            exact = index == 0 or level == 0
            if difference.max() > _LARGEST_STEP if exact else difference.mean() > _MEAN_STEP:
                return False
            seen = True
        return seen


def svs_tiles(
    path: Path, sizes: tuple[tuple[int, int], ...], otherwise: Otherwise
) -> SvsTiles | None:
    """Return the JPEG tiles of an SVS, or None if it has none.

    Parameters
    ----------
    path : Path
        The file.
    sizes : tuple of (width, height)
        Levels as OpenSlide counts them.
    otherwise : callable
        Reads a box of a level through OpenSlide.
    """
    levels: dict[int, JpegLevel] = {}
    try:
        for page in tiff_pages(path):
            found = jpeg_level(page, as_tagged=True)
            size = (page.imagewidth, page.imagelength)
            if found is not None and size in sizes:
                levels.setdefault(sizes.index(size), found)
        return SvsTiles(path, levels, otherwise) if levels else None
    except _STUMBLES:  # OpenSlide has opened the file, and reads it
        return None
