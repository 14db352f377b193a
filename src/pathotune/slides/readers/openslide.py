"""Vendor formats through OpenSlide: SVS, NDPI, MRXS, SCN, BIF, VMS, DICOM.

OpenSlide finds the format by content, reads from several threads and knows the
scanners' properties. JPEG tiles of SVS are decoded without it, which is several
times faster, once a level has shown the same pixels both ways. Plain and OME
TIFF are left to the tiff reader, which understands their metadata better.
"""

from __future__ import annotations

import contextlib
import itertools
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import openslide

from pathotune.events import PathotuneError
from pathotune.slides.readers._base import Reader, as_rgb
from pathotune.slides.readers._mosaic import mosaic
from pathotune.slides.readers._svs_tiles import svs_tiles
from pathotune.slides.tile_cache import TILES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.slides.view import View

KEY = "openslide"
ORDER = 1
_HAIR = 1e-6
_owners = itertools.count()


def claims(path: Path, head: bytes) -> bool:
    """Whether OpenSlide knows the file as a scanner's own format."""
    try:
        vendor = openslide.OpenSlide.detect_format(str(path))
    except openslide.OpenSlideError:
        return False
    return vendor is not None and vendor != "generic-tiff"


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


class OpenSlideReader(Reader):
    """A file that OpenSlide reads."""

    def __init__(self, path: Path) -> None:
        try:
            self._slide = openslide.OpenSlide(str(path))
        except openslide.OpenSlideError as error:
            raise PathotuneError(
                f"{path.name} looks like a slide but cannot be opened.",
                "It may be incomplete: copy it again from the scanner or the archive.",
            ) from error
        properties = self._slide.properties
        self._path = path
        self._lock = Lock()
        self._owner = ("openslide", next(_owners))
        self.name = path.name
        self.sizes = tuple(self._slide.level_dimensions)
        self._downsamples = self._slide.level_downsamples
        self.vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
        self.quickhash = properties.get(openslide.PROPERTY_NAME_QUICKHASH1, "")
        self.objective = _number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))
        x = _number(properties.get(openslide.PROPERTY_NAME_MPP_X))
        y = _number(properties.get(openslide.PROPERTY_NAME_MPP_Y))
        self.mpp = (x if x is not None else y, y if y is not None else x)
        profile = self._slide.color_profile
        self.icc_profile = profile.tobytes() if profile is not None else b""
        tile = _number(properties.get("openslide.level[0].tile-width"))
        self.chunk = int(tile) if tile and 128 <= tile <= 1024 else 256
        self._tiles = svs_tiles(path, self.sizes, self._region) if self.vendor == "aperio" else None

    def reductions(self, level: int) -> tuple[int, ...]:
        """Return by how much tiles of a level can be decoded smaller."""
        return (self._tiles.reductions(level) if self._tiles else ()) or (1,)

    def may_reduce(self, level: int) -> bool:
        """Whether tiles of a level are JPEG; whether they can be read directly is seen later."""
        return self._tiles is not None and level in self._tiles.levels

    def read_reduced(
        self, level: int, reduction: int, x: int, y: int, width: int, height: int, *, exact: bool
    ) -> NDArray[np.uint8]:
        """Decode tiles at a smaller size, or whole and average them."""
        if self._tiles is not None and reduction in self._tiles.reductions(level):
            return self._tiles.read(level, reduction, x, y, width, height, exact=exact)
        return super().read_reduced(level, reduction, x, y, width, height, exact=exact)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read level pixels: JPEG tiles directly, else squares that are kept for the next time."""
        if self._tiles is not None and self._tiles.reductions(level):
            return self._tiles.read(level, 1, x, y, width, height, exact=True)
        if abs(self._downsamples[level] - round(self._downsamples[level])) > _HAIR:
            # places between level-0 pixels: read in one piece, they are off by the same fraction
            return self._region(level, x, y, width, height)
        side = self.chunk
        level_w, level_h = self.sizes[level]

        def make(row: int, column: int) -> NDArray[np.uint8]:
            left, top = column * side, row * side
            w, h = min(side, level_w - left), min(side, level_h - top)
            square = TILES.buffer((h, w, 3))
            square[...] = self._region(level, left, top, w, h)
            return square

        return mosaic(self._owner, (level, 1), (side, side), (x, y, width, height), make)

    def _region(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read level pixels through OpenSlide, which wants the corner in level-0 pixels."""
        scale = self._downsamples[level]
        slide = self._slide
        try:
            tile = slide.read_region((round(x * scale), round(y * scale)), level, (width, height))
        except (openslide.OpenSlideError, OSError) as error:
            self._renew(slide)
            raise PathotuneError(
                f"A part of {self.name} cannot be read; the file is damaged there.",
                "Copy it again from the scanner or the archive, then open it again.",
            ) from error
        return as_rgb(np.asarray(tile))

    def _renew(self, broken: openslide.OpenSlide) -> None:
        """Open the file again: after one error OpenSlide refuses even what is whole.

        The old handle is freed when the last thread that reads from it is done.
        """
        with self._lock:
            if self._slide is broken:
                with contextlib.suppress(openslide.OpenSlideError, OSError):
                    self._slide = openslide.OpenSlide(str(self._path))

    def close(self) -> None:
        """Close the file."""
        if self._tiles is not None:
            self._tiles.close()
        TILES.forget(self._owner)
        self._slide.close()

    def associated(self) -> tuple[str, ...]:
        """Return names of label, macro and thumbnail."""
        return tuple(self._slide.associated_images)

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Return (h, w, 3) of an associated image."""
        try:
            return as_rgb(np.asarray(self._slide.associated_images[name]))
        except (openslide.OpenSlideError, OSError) as error:
            raise PathotuneError(
                f"The {name} image of {self.name} cannot be read.",
                "The slide itself can still be used.",
            ) from error


def open_reader(path: Path, view: View) -> Reader:
    """Open a file for which `claims` was true; it holds one picture."""
    del view
    return OpenSlideReader(path)
