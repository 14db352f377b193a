"""OME-TIFF and plain TIFF, tiled or in strips, through tifffile.

Only the tiles or strips under a request are read and decoded, JPEG tiles
without a detour, and kept in the cache of decoded tiles; rows of uncompressed
strips are read in place, so that a file saved in one piece needs no more memory
than one in tiles. More than eight
bits, grey, and fluorescence channels are brought to 8-bit RGB with limits taken
once from the coarsest level, so that neighbouring requests match.
"""

from __future__ import annotations

import itertools
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError
from pathotune.slides.readers._base import Reader, as_rgb
from pathotune.slides.readers._jpeg_tiles import JpegTiles, jpeg_level
from pathotune.slides.readers._tiff_levels import choose, find_levels
from pathotune.slides.readers._tiff_scale import ome_mpp, tag_mpp
from pathotune.slides.tile_cache import TILES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.slides.view import View

KEY = "tiff"
ORDER = 2
LARGEST_SEGMENT = 1 << 30
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE_IS_ZERO, _PALETTE, _CMYK = 0, 3, 5
_owners = itertools.count()


def claims(path: Path, head: bytes) -> bool:
    """Whether the file is a TIFF of any kind."""
    del path
    return head[:4] in _MAGIC


class TiffReader(Reader):
    """A TIFF file; `sizes` are the levels of its largest image."""

    def __init__(self, path: Path, view: View) -> None:
        import tifffile  # slow to import, and not wanted for scanners' own formats

        self.name = path.name
        try:
            self._file = tifffile.TiffFile(path)
        except Exception as error:
            raise self._broken() from error
        try:
            shown = choose(self._file, view)
            self._levels = find_levels(self._file, shown)
            for page in (page for planes in self._levels for page in planes):
                self._check(page)
        except PathotuneError:
            self._file.close()
            raise
        except Exception as error:
            self._file.close()
            raise self._broken() from error
        self._lock = Lock()
        self._owner = ("tiff", next(_owners))
        self.sizes = tuple((p[0].imagewidth, p[0].imagelength) for p in self._levels)
        page = self._levels[0][0]
        self.scenes, self.scene, self.quickhash = shown.scenes, shown.scene, shown.hint
        self.depth, self.z = shown.depth, shown.z
        self.channels, self.channel, self.times = shown.channels, shown.channel, shown.times
        self.icc_profile = bytes(page.iccprofile or b"")
        self.vendor = "ome" if self._file.is_ome else "tiff"
        xml = self._file.ome_metadata or ""
        ome = ome_mpp(xml, shown.image) if self._file.is_ome else (None, None)
        self.mpp = ome if ome != (None, None) else tag_mpp(page)
        self.chunk = page.tilewidth if page.is_tiled else 512
        self._channels_apart = len(self._levels[0]) > 1
        self._limits: NDArray[np.float64] | None = None
        found = {
            i: jpeg_level(planes[0], as_tagged=False)
            for i, planes in enumerate(self._levels)
            if len(planes) == 1 and planes[0].parent is self._file
        }
        levels = {i: level for i, level in found.items() if level is not None}
        self._tiles = JpegTiles(path, levels, self._decoded) if levels else None

    def _broken(self) -> PathotuneError:
        return PathotuneError(
            f"{self.name} cannot be read; the file is damaged or incomplete.",
            "Copy it again from where it came, then open it again.",
        )

    def _check(self, page: Any) -> None:
        ends = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
        if ends > page.parent.filehandle.size:
            raise ValueError("it ends too early")
        tile_w, tile_h = _segment_size(page)
        if min(tile_w, tile_h, page.imagewidth, page.imagelength) < 1:
            raise ValueError("it says that it has no pixels")
        needed = -(-page.imagewidth // tile_w) * -(-page.imagelength // tile_h)
        if len(page.dataoffsets) < needed or len(page.databytecounts) < needed:
            raise ValueError("it says that it is larger than it is")
        samples = 1 if page.planarconfig == 2 else page.samplesperpixel
        nbytes = tile_w * tile_h * samples * page.dtype.itemsize
        if nbytes > LARGEST_SEGMENT and not _in_place(page):
            raise PathotuneError(
                f"{self.name} is compressed in one piece of {nbytes / 1e9:.1f} GB, "
                "which does not fit into memory.",
                "Save it as a tiled, pyramidal TIFF and open that.",
            )

    def _bytes(self, page: Any, offset: int, count: int) -> bytes:
        handle = page.parent.filehandle
        try:
            with self._lock:
                handle.seek(offset)
                data: bytes = handle.read(count)
        except OSError as error:
            raise self._broken() from error
        if len(data) < count:
            raise self._broken()
        return data

    def _segment(self, level: int, plane: int, index: int) -> NDArray[Any] | None:
        """Return a decoded tile or strip (h, w, samples), or None where the file has none."""
        key = (self._owner, level, plane, index)
        return TILES.get(key, lambda _: self._decode(self._levels[level][plane], index))

    def _decode(self, page: Any, index: int) -> NDArray[Any] | None:
        if index >= len(page.dataoffsets) or page.databytecounts[index] == 0:
            return None
        data = self._bytes(page, page.dataoffsets[index], page.databytecounts[index])
        try:
            tables = page.jpegtables
            decoded = page.decode(data, index, **({"jpegtables": tables} if tables else {}))[0]
        except Exception as error:
            raise self._broken() from error
        if decoded is None:
            return None
        segment: NDArray[Any] = decoded[0]
        return segment

    def _rows(self, page: Any, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """Return a box of a page whose strips are not compressed, reading only its bytes."""
        apart = page.planarconfig == 2 and page.samplesperpixel > 1
        samples = 1 if apart else page.samplesperpixel
        dtype = page.dtype.newbyteorder(page.parent.byteorder)
        pixel = samples * dtype.itemsize
        per_strip = _segment_size(page)[1]
        strips = -(-page.imagelength // per_strip)
        out = np.empty((height, width, page.samplesperpixel), page.dtype)
        for part in range(page.samplesperpixel if apart else 1):
            for row in range(height):
                strip, within = divmod(y + row, per_strip)
                at = page.dataoffsets[part * strips + strip]
                at += (within * page.imagewidth + x) * pixel
                line = np.frombuffer(self._bytes(page, at, width * pixel), dtype)
                if apart:
                    out[row, :, part] = line
                else:
                    out[row] = line.reshape(width, samples)
        return out

    def _plane(
        self, level: int, plane: int, x: int, y: int, width: int, height: int
    ) -> NDArray[Any]:
        page = self._levels[level][plane]
        if _in_place(page):
            return _as_light(self._rows(page, x, y, width, height), page)
        samples = page.samplesperpixel
        tile_w, tile_h = _segment_size(page)
        across = -(-page.imagewidth // tile_w)
        down = -(-page.imagelength // tile_h)
        separate = page.planarconfig == 2 and samples > 1
        white = np.iinfo(page.dtype).max if page.dtype.kind == "u" else 1
        out = np.full((height, width, samples), 0 if self._channels_apart else white, page.dtype)
        for row in range(y // tile_h, (y + height - 1) // tile_h + 1):
            for column in range(x // tile_w, (x + width - 1) // tile_w + 1):
                for part in range(samples if separate else 1):
                    index = part * across * down + row * across + column
                    segment = self._segment(level, plane, index)
                    if segment is None:
                        continue
                    x0, y0 = column * tile_w, row * tile_h
                    left, top = max(x, x0), max(y, y0)
                    right = min(x + width, x0 + segment.shape[1])
                    bottom = min(y + height, y0 + segment.shape[0])
                    if right <= left or bottom <= top:
                        continue
                    piece = segment[top - y0 : bottom - y0, left - x0 : right - x0]
                    target = out[top - y : bottom - y, left - x : right - x]
                    if separate:
                        target[..., part] = piece[..., 0]
                    else:
                        target[...] = piece
        return _as_light(out, page)

    def _channels(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        planes = [
            self._plane(level, i, x, y, width, height) for i in range(len(self._levels[level]))
        ]
        if len(planes) == 1:
            return planes[0]
        return np.concatenate([p[..., :1] for p in planes], axis=2)

    def reductions(self, level: int) -> tuple[int, ...]:
        """Return by how much tiles of a level can be decoded smaller."""
        return (self._tiles.reductions(level) if self._tiles else ()) or (1,)

    def read_reduced(
        self, level: int, reduction: int, x: int, y: int, width: int, height: int, *, exact: bool
    ) -> NDArray[np.uint8]:
        """Decode tiles at a smaller size, or whole and average them."""
        if self._tiles is not None and reduction in self._tiles.reductions(level):
            return self._tiles.read(level, reduction, x, y, width, height, exact=exact)
        return super().read_reduced(level, reduction, x, y, width, height, exact=exact)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return 8-bit RGB of a box of a level."""
        if self._tiles is not None and self._tiles.reductions(level):
            return self._tiles.read(level, 1, x, y, width, height, exact=True)
        return self._decoded(level, x, y, width, height)

    def _decoded(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return 8-bit RGB of a box of a level, decoded by tifffile."""
        pixels = self._channels(level, x, y, width, height)
        if pixels.dtype != np.uint8:
            pixels = self._to_8_bit(pixels)
        if pixels.shape[2] == 2 and self._channels_apart:
            pixels = np.concatenate([pixels, np.zeros_like(pixels[..., :1])], axis=2)
        return as_rgb(pixels)

    def _to_8_bit(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        if self._limits is None:
            width, height = (min(s, 2048) for s in self.sizes[-1])
            sample = self._channels(len(self.sizes) - 1, 0, 0, width, height)
            if pixels.dtype == np.uint16 and sample.shape[2] >= 3 and not self._channels_apart:
                # colour of 10, 12 or 14 bits in 16: stretched as a whole, never a channel alone
                most = next(n for n in (255, 1023, 4095, 16383, 65535) if sample.max() <= n)
                low, high = np.zeros(sample.shape[2]), np.full(sample.shape[2], float(most))
            else:
                low, high = np.nanpercentile(sample, (0.5, 99.8), axis=(0, 1))
            self._limits = np.stack([low, np.maximum(high, low + 1e-6)])
        low, high = self._limits
        scaled = (pixels.astype(np.float32) - low) * (255 / (high - low))
        result: NDArray[np.uint8] = np.clip(np.nan_to_num(scaled) + 0.5, 0, 255).astype(np.uint8)
        return result

    def close(self) -> None:
        """Close the file and forget its tiles."""
        if self._tiles is not None:
            self._tiles.close()
        TILES.forget(self._owner)
        with self._lock:
            self._file.close()


def _segment_size(page: Any) -> tuple[int, int]:
    """Return width and height of a tile or strip."""
    if page.is_tiled:
        return page.tilewidth, page.tilelength
    return page.imagewidth, min(page.rowsperstrip or page.imagelength, page.imagelength)


def _in_place(page: Any) -> bool:
    """Whether pixels lie in the file as they are in memory, row after row."""
    return (
        not page.is_tiled
        and page.compression == 1
        and page.predictor == 1
        and page.fillorder == 1
        and page.dtype.itemsize * 8 == page.bitspersample
        and len(page.dataoffsets) > 0
        and min(page.databytecounts) > 0
    )


def _as_light(pixels: NDArray[Any], page: Any) -> NDArray[Any]:
    """Return pixels in which more is lighter: inverted, coloured or unmixed as the page says."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    if page.photometric == _WHITE_IS_ZERO and pixels.dtype.kind == "u":
        return np.iinfo(pixels.dtype).max - pixels
    if page.photometric == _PALETTE and page.colormap is not None:
        return np.ascontiguousarray(page.colormap[:, pixels[..., 0]].transpose(1, 2, 0))
    if page.photometric == _CMYK and pixels.shape[2] == 4 and pixels.dtype.kind == "u":
        most = float(np.iinfo(pixels.dtype).max)
        light = (most - pixels[..., :3]) * ((most - pixels[..., 3:]) / most)
        return (light + 0.5).astype(pixels.dtype)
    return pixels


def open_reader(path: Path, view: View) -> Reader:
    """Open a file for which `claims` was true."""
    return TiffReader(path, view)
