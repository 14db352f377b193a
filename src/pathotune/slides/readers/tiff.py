"""OME-TIFF and plain TIFF, tiled or in strips, through tifffile.

Levels are sub-resolutions of the largest image in the file. Only the tiles or
strips under a request are read and decoded; a small cache keeps the newest.
More than eight bits, grey, and fluorescence channels are brought to 8-bit RGB
with limits taken once from the coarsest level, so that neighbouring requests
match.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from pathotune.events import PathotuneError
from pathotune.slides.readers._base import Reader, as_rgb

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

KEY = "tiff"
ORDER = 2
CACHE_BYTES = 96 << 20
_UM = {"µm": 1.0, "um": 1.0, "μm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "pm": 1e-6}
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def claims(path: Path, head: bytes) -> bool:
    """Whether the file is a TIFF of any kind."""
    del path
    return head[:4] in _MAGIC


def _ome_mpp(xml: str) -> tuple[float | None, float | None]:
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None, None
    for node in root.iter():
        if node.tag.rpartition("}")[2] == "Pixels":
            found: list[float | None] = []
            for axis in "XY":
                size = node.get(f"PhysicalSize{axis}")
                unit = _UM.get(node.get(f"PhysicalSize{axis}Unit", "µm"))
                try:
                    found.append(float(size) * unit if size and unit else None)
                except ValueError:
                    found.append(None)
            return found[0], found[1]
    return None, None


def _tag_mpp(page: Any) -> tuple[float | None, float | None]:
    unit = page.tags.get("ResolutionUnit")
    per_um = {2: 25400.0, 3: 10000.0}.get(int(unit.value) if unit is not None else 2)
    found: list[float | None] = []
    for name in ("XResolution", "YResolution"):
        tag = page.tags.get(name)
        try:
            found.append(per_um * tag.value[1] / tag.value[0] if tag and per_um else None)
        except (ZeroDivisionError, TypeError, IndexError):
            found.append(None)
    return found[0], found[1]


class TiffReader(Reader):
    """A TIFF file; `sizes` are the levels of its largest image."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        try:
            self._file = tifffile.TiffFile(path)
            series = max(self._file.series, key=lambda s: int(np.prod(s.shape)))
            self._levels = self._find_levels(series)
        except Exception as error:
            raise self._broken(error) from error
        for page in (page for planes in self._levels for page in planes):
            ends = max(
                map(sum, zip(page.dataoffsets, page.databytecounts, strict=False)), default=0
            )
            if ends > self._file.filehandle.size:
                self._file.close()
                raise self._broken(ValueError("it ends too early"))
        self._lock = Lock()
        self._cache: OrderedDict[tuple[int, int, int], NDArray[Any]] = OrderedDict()
        self._cached = 0
        self.sizes = tuple((p[0].imagewidth, p[0].imagelength) for p in self._levels)
        page = self._levels[0][0]
        self.vendor = "ome" if self._file.is_ome else "tiff"
        ome = _ome_mpp(self._file.ome_metadata or "") if self._file.is_ome else (None, None)
        self.mpp = ome if ome != (None, None) else _tag_mpp(page)
        self.chunk = page.tilewidth if page.is_tiled else 512
        self.fluorescence = False
        self._channels_apart = len(self._levels[0]) > 1
        self._limits: NDArray[np.float64] | None = None

    def _broken(self, error: Exception) -> PathotuneError:
        return PathotuneError(
            f"{self.name} cannot be read ({error}); the file is damaged or incomplete.",
            "Copy it again from where it came, then open it again.",
        )

    def _find_levels(self, series: Any) -> list[list[Any]]:
        """Return the planes of every level; also those that tifffile keeps apart.

        tifffile takes only halvings for levels; other programs also write thirds
        or odd sizes, as sub-images or as further pages marked as reduced.
        """
        levels = {p[0].imagewidth: p for p in map(self._planes, series.levels)}
        first = max(levels.values(), key=lambda p: p[0].imagewidth)
        if len(first) == 1:
            full = first[0]
            others = list(full.pages or ())
            others += [p for p in self._file.pages if p.subfiletype & 1 and p.is_tiled]
            for page in others:
                page = page.aspage() if hasattr(page, "aspage") else page
                ratio = full.imagewidth / page.imagewidth
                if ratio > 1 and abs(full.imagelength / page.imagelength / ratio - 1) < 0.02:
                    alike = page.samplesperpixel == full.samplesperpixel
                    if alike and page.dtype == full.dtype:
                        levels.setdefault(page.imagewidth, [page])
        return [levels[width] for width in sorted(levels, reverse=True)]

    @staticmethod
    def _planes(level: Any) -> list[Any]:
        """Return one page, or up to three pages that are channels of one image."""
        pages = [p for p in level.pages if p is not None]
        if not pages:
            raise ValueError("no image in the file")
        first = pages[0]
        first = first.aspage() if hasattr(first, "aspage") else first
        if first.samplesperpixel >= 3 or "C" not in level.axes:
            return [first]
        count = level.shape[level.axes.index("C")]
        return [p.aspage() if hasattr(p, "aspage") else p for p in pages[: min(count, 3)]]

    def _segment(self, level: int, plane: int, index: int) -> NDArray[Any] | None:
        """Return a decoded tile or strip (h, w, samples), or None where the file has none."""
        key = (level, plane, index)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            page = self._levels[level][plane]
            offset, count = page.dataoffsets[index], page.databytecounts[index]
            if count == 0:
                return None
            handle = page.parent.filehandle
            handle.seek(offset)
            data = handle.read(count)
        if len(data) < count:
            raise self._broken(ValueError("the data end too early"))
        try:
            tables = page.jpegtables
            decoded = page.decode(data, index, **({"jpegtables": tables} if tables else {}))[0]
        except Exception as error:
            raise self._broken(error) from error
        if decoded is None:
            return None
        segment: NDArray[Any] = decoded[0]
        with self._lock:
            if key not in self._cache:
                self._cache[key] = segment
                self._cached += segment.nbytes
                while self._cached > CACHE_BYTES and len(self._cache) > 1:
                    self._cached -= self._cache.popitem(last=False)[1].nbytes
        return segment

    def _plane(
        self, level: int, plane: int, x: int, y: int, width: int, height: int
    ) -> NDArray[Any]:
        page = self._levels[level][plane]
        samples = page.samplesperpixel
        tile_w = page.tilewidth if page.is_tiled else page.imagewidth
        tile_h = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
        across = -(-page.imagewidth // tile_w)
        down = -(-page.imagelength // tile_h)
        separate = page.planarconfig == 2 and samples > 1
        fill = (
            0 if self._channels_apart else np.iinfo(page.dtype).max if page.dtype.kind == "u" else 1
        )
        out = np.full((height, width, samples), fill, page.dtype)
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
        if page.photometric == 0:  # white is zero
            out = np.iinfo(page.dtype).max - out
        elif page.photometric == 3 and page.colormap is not None:
            out = page.colormap[:, out[..., 0]].transpose(1, 2, 0)
        return out

    def _channels(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        planes = [
            self._plane(level, i, x, y, width, height) for i in range(len(self._levels[level]))
        ]
        if len(planes) == 1:
            return planes[0]
        return np.concatenate([p[..., :1] for p in planes], axis=2)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return 8-bit RGB of a box of a level."""
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
                low, high = np.zeros(sample.shape[2]), np.full(sample.shape[2], 65535.0)
            else:
                low, high = np.nanpercentile(sample, (0.5, 99.8), axis=(0, 1))
            self._limits = np.stack([low, np.maximum(high, low + 1e-6)])
        low, high = self._limits
        scaled = (pixels.astype(np.float32) - low) * (255 / (high - low))
        result: NDArray[np.uint8] = np.clip(np.nan_to_num(scaled) + 0.5, 0, 255).astype(np.uint8)
        return result

    def close(self) -> None:
        """Close the file and forget its tiles."""
        with self._lock:
            self._cache.clear()
            self._file.close()


def open_reader(path: Path) -> Reader:
    """Open a file for which `claims` was true."""
    return TiffReader(path)
