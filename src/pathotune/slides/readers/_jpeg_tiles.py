"""JPEG tiles of SVS and TIFF, read by their place in the file and decoded directly.

Most slides are TIFFs of JPEG tiles. Going to a tile by its offset and decoding
it once is several times faster than reading a region through OpenSlide, and the
decoder can give half, a quarter or an eighth of the size from the same
coefficients, which is what the window wants when zoomed out. A model gets tiles
decoded whole and averaged: the small differences (clipped values, colours) turn
a class in a hundred tokens, and averaging costs it less than half as much again.
What cannot be read this way is handed back to the reader that asked.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg

from pathotune.slides.readers._mosaic import mosaic
from pathotune.slides.readers._pread import PlacedFile
from pathotune.slides.resample import area
from pathotune.slides.shrink import scratch, shrink
from pathotune.slides.tile_cache import TILES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Otherwise = Callable[[int, int, int, int, int], NDArray[np.uint8]]

REDUCTIONS = (1, 2, 4, 8)
_JPEG = 7
_RGB, _YCBCR = 2, 6
_START, _END = b"\xff\xd8", b"\xff\xd9"
# The Adobe marker is how a stream says whether its three components are RGB (0) or YCbCr (1).
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
# Whole tiles of this kind get their colours smoothed, the decoder's small ones do not: over a grey
# level on sharp borders. So they are decoded whole and averaged, for the window too.
_SMOOTHED = "420"
_owners = itertools.count()


@dataclass(frozen=True)
class JpegLevel:
    """Where the tiles of a level lie.

    Attributes
    ----------
    width, height : int
        Pixels of the level.
    tile_w, tile_h : int
        Pixels of a tile.
    offsets, counts : int64 (tiles,)
        Place and length in the file, row by row; length 0 where there is none.
    start : bytes
        What each stream begins with: tables they share, and their colours.
    """

    width: int
    height: int
    tile_w: int
    tile_h: int
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    start: bytes

    @property
    def across(self) -> int:
        """Return the number of tiles in a row."""
        return -(-self.width // self.tile_w)

    @property
    def down(self) -> int:
        """Return the number of rows of tiles."""
        return -(-self.height // self.tile_h)


def jpeg_level(page: Any, *, as_tagged: bool) -> JpegLevel | None:
    """Return where a page's tiles lie, or None if it is not of plain JPEG tiles.

    Parameters
    ----------
    page : tifffile.TiffPage or _tiff_pages.Page
    as_tagged : bool
        Whether the page's tag decides between RGB and YCbCr whatever the
        streams say, as OpenSlide does for scanners' files; otherwise only
        streams that say nothing follow an RGB tag, as tifffile does.
    """
    plain = (
        page.is_tiled
        and page.compression == _JPEG
        and page.samplesperpixel == 3
        and page.planarconfig == 1
        and page.bitspersample == 8
        and page.imagedepth == 1
        and page.tiledepth == 1
        and page.photometric in {_RGB, _YCBCR}
        and not page.extrasamples
        and page.jpegheader is None
        and min(page.imagewidth, page.imagelength, page.tilewidth, page.tilelength) > 0
    )
    if not plain:
        return None
    start = _START
    tables = page.jpegtables
    if tables:
        start = tables.removesuffix(_END)
    if not start.startswith(_START):
        return None
    if as_tagged:
        start += _ADOBE + bytes([page.photometric == _YCBCR])
    elif page.photometric == _RGB and not page.is_jfif:
        start += _ADOBE + b"\0"
    level = JpegLevel(
        page.imagewidth,
        page.imagelength,
        page.tilewidth,
        page.tilelength,
        np.asarray(page.dataoffsets, np.int64),
        np.asarray(page.databytecounts, np.int64),
        start,
    )
    tiles = level.across * level.down
    return level if len(level.offsets) >= tiles and len(level.counts) >= tiles else None


class JpegTiles:
    """The levels of a file that are made of JPEG tiles.

    Parameters
    ----------
    path : Path
        The file.
    levels : mapping of int to JpegLevel
        By the number of the level in the slide.
    otherwise : callable
        ``otherwise(level, x, y, width, height)`` gives pixels of a level in
        the slow way. It is asked for tiles that are absent or do not decode,
        and raises what the user is to read.
    """

    def __init__(self, path: Path, levels: Mapping[int, JpegLevel], otherwise: Otherwise) -> None:
        self.levels = dict(levels)
        self._file = PlacedFile(path)
        self._otherwise = otherwise
        self._owner = ("jpeg", next(_owners))

    def reductions(self, level: int) -> tuple[int, ...]:
        """Return by how much the decoder can shrink tiles of a level; none where it is not here."""
        found = self.levels.get(level)
        if found is None:
            return ()
        return tuple(r for r in REDUCTIONS if found.tile_w % r == 0 and found.tile_h % r == 0)

    def read(
        self, level: int, reduction: int, x: int, y: int, width: int, height: int, *, exact: bool
    ) -> NDArray[np.uint8]:
        """Return (height, width, 3) of a reduced level; the box is in its pixels, inside it.

        With `exact` each pixel is the mean of the pixels of whole tiles, to half
        a grey level; otherwise what the decoder gives at that size, which is faster.
        """
        here = self.levels[level]
        size = here.tile_w // reduction, here.tile_h // reduction
        exact = exact and reduction > 1

        def make(row: int, column: int) -> NDArray[np.uint8]:
            return self._decode(level, reduction, (row, column), exact)

        box = x, y, width, height
        return mosaic(self._owner, (level, (reduction, exact)), size, box, make)

    def _kept(
        self, level: int, reduction: int, cell: tuple[int, int], exact: bool
    ) -> NDArray[np.uint8] | None:
        """Return a tile made from one that is kept: the model's for the window, or a whole one."""
        here = self.levels[level]
        shape = here.tile_h // reduction, here.tile_w // reduction, 3
        found: list[NDArray[np.uint8]] = []

        def take(_: object, pixels: NDArray[np.uint8] | None) -> None:
            if pixels is not None:
                found.append(TILES.buffer(shape))
                whole = pixels.shape != shape
                size = shape[1], shape[0]
                found[0][...] = area(pixels, 0, 0, reduction, reduction, *size) if whole else pixels

        if not exact:
            TILES.use_if_here((self._owner, level, (reduction, True), cell), take)
        if not found:
            TILES.use_if_here((self._owner, level, (1, False), cell), take)
        return found[0] if found else None

    def _decode(
        self, level: int, reduction: int, cell: tuple[int, int], exact: bool
    ) -> NDArray[np.uint8]:
        """Return a tile as it is kept: its full size, white beyond the slide if reduced."""
        here = self.levels[level]
        row, column = cell
        x, y = column * here.tile_w, row * here.tile_h
        inside_w = min(here.tile_w, here.width - x)
        inside_h = min(here.tile_h, here.height - y)
        index = row * here.across + column
        # where pixels of the slide and of the filling would be mixed the decoder cannot reduce
        mixed = bool(inside_w % reduction or inside_h % reduction)
        tile = None
        if reduction > 1 and not mixed:
            tile = self._kept(level, reduction, cell, exact)
        if tile is None:
            tile = self._stream(here, 1 if mixed else reduction, index, exact)
        if tile is None:
            tile = np.full((here.tile_h, here.tile_w, 3), 255, np.uint8)
            tile[:inside_h, :inside_w] = self._otherwise(level, x, y, inside_w, inside_h)
            mixed = reduction > 1
        if mixed:
            whole = np.full((here.tile_h, here.tile_w, 3), 255, np.uint8)
            whole[:inside_h, :inside_w] = tile[:inside_h, :inside_w]
            size = here.tile_w // reduction, here.tile_h // reduction
            tile = np.array(area(whole, 0, 0, reduction, reduction, *size))
        return tile

    def _stream(
        self, here: JpegLevel, reduction: int, index: int, exact: bool = False
    ) -> NDArray[np.uint8] | None:
        """Return a decoded tile, or None if it is absent or not as it should be."""
        count = int(here.counts[index])
        if count < 4:
            return None
        try:
            data = self._file.read(int(here.offsets[index]), count)
        except OSError:
            return None
        if len(data) < count or not data.startswith(_START):
            return None
        shape = here.tile_h // reduction, here.tile_w // reduction, 3
        data = here.start + data[2:]
        try:
            height, width, _, sampling = simplejpeg.decode_jpeg_header(data)
            if (height, width) != (here.tile_h, here.tile_w):
                return None
            # into a buffer of the tile's size, so that nothing larger is ever allocated
            tile = TILES.buffer(shape)
            if reduction > 1 and (exact or sampling == _SMOOTHED):
                whole = simplejpeg.decode_jpeg(data, "RGBX", buffer=scratch(height, width))
                shrink(whole, reduction, tile)
                return tile
            found: NDArray[np.uint8] = simplejpeg.decode_jpeg(
                data, "RGB", min_height=shape[0], min_width=shape[1], buffer=tile
            )
        except ValueError:
            return None
        return found if found.shape == shape else None

    def close(self) -> None:
        """Close the file and give up its tiles."""
        TILES.forget(self._owner)
        self._file.close()
