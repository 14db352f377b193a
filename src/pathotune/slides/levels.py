"""A level of a slide as napari wants it: an array that reads what is looked at.

Not dask: a graph per level costs fifteen times the read itself. napari places
levels by the ratio of their shapes, which for truncated levels is not the true
downsample; the columns and rows are picked so that every pixel still sits
within half a pixel of where it belongs. Where the file's coarsest level is still too
large to be drawn whole, or a level is missing between two and tiles can be
decoded at half their size, such levels are made on the fly.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError
from pathotune.slides.geometry import Level
from pathotune.slides.resample import area

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from pathotune.slides.slide import Slide

LARGEST_WHOLE = 1 << 31  # bytes that may be asked for at once
OVERVIEW_SIDE = 4096  # a coarsest level not longer than this is drawn at once
_BAND_BYTES = 1 << 26
_STEP = 4
_GAP = 2.5  # from one level to the next, beyond which one between them is worth while


class LevelArray:
    """Array-like (height, width, 3) uint8 over one level; supports basic slicing."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, slide: Slide, level: int, size: Level | None = None) -> None:
        size = slide.levels[level] if size is None else size
        self._slide = slide
        self._level = level
        self.shape = (size.height, size.width, 3)
        side = slide.chunk
        self.chunks = (min(side, size.height), min(side, size.width), 3)
        # true level pixels per pixel as napari places it; 1 unless sizes were truncated
        self._ratio_y = slide.height / size.height / size.downsample_y
        self._ratio_x = slide.width / size.width / size.downsample_x

    @property
    def size(self) -> int:
        """Return the number of values."""
        return self.shape[0] * self.shape[1] * 3

    @property
    def nbytes(self) -> int:
        """Return the bytes the whole level would take."""
        return self.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        key = key if isinstance(key, tuple) else (key,)
        if Ellipsis in key:
            at = key.index(Ellipsis)
            key = (*key[:at], *[slice(None)] * (4 - len(key)), *key[at + 1 :])
        key = (*key, *[slice(None)] * (3 - len(key)))
        rows, columns = (
            np.arange(n)[k] if isinstance(k, slice) else np.arange(n)[int(k)][None]
            for k, n in zip(key[:2], self.shape[:2], strict=True)
        )
        if not len(rows) or not len(columns):
            block = np.empty((len(rows), len(columns), 3), np.uint8)
        else:
            y, x = self._true(rows, self._ratio_y, 0), self._true(columns, self._ratio_x, 1)
            block = self._block(y, x)
        block = block[:, :, key[2]]
        drop = tuple(0 if not isinstance(k, slice) else slice(None) for k in key[:2])
        return block[drop]

    def _block(self, y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Return the pixels at rows and columns of the level, read in bands of bounded size."""
        if len(y) * len(x) * 3 > LARGEST_WHOLE:
            raise PathotuneError(
                "This level of the slide is too large to be loaded at once.",
                "Zoom in, or use a coarser level.",
            )
        left, width = int(x.min()), int(np.ptp(x)) + 1
        bands = -(-(int(np.ptp(y)) + 1) * width * 3 // _BAND_BYTES)
        parts = []
        for rows in np.array_split(y, min(bands, len(y))):
            top, height = int(rows.min()), int(np.ptp(rows)) + 1
            read = self._read(left, top, width, height)
            parts.append(_pick(_pick(read, rows - top, 0), x - left, 1))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        return self._slide.read_level(self._level, x, y, width, height)

    def _true(self, at: NDArray[np.intp], ratio: float, axis: int) -> NDArray[np.intp]:
        if ratio == 1:
            return at
        true = np.floor((at + 0.5) * ratio).astype(np.intp)
        inside: NDArray[np.intp] = np.minimum(true, self.shape[axis] - 1)
        return inside

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        whole = self[:, :, :]
        return whole if dtype is None else whole.astype(dtype)


class Halved(LevelArray):
    """Half of a level, decoded at that size: a quarter of the pixels to load and draw.

    It is one pixel longer than half: napari takes a level only if it has more
    pixels than the screen, and at exactly half size this one is wanted.
    """

    def __init__(self, slide: Slide, level: int) -> None:
        full = slide.levels[level]
        across, down = 2 * full.downsample_x, 2 * full.downsample_y
        size = Level(full.width // 2 + 1, full.height // 2 + 1, across, down)
        super().__init__(slide, level, size)
        side = max(1, slide.chunk // 2)  # what a tile of the file becomes
        self.chunks = (min(side, size.height), min(side, size.width), 3)

    def _read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        if 2 in self._slide.reductions(self._level):
            return self._slide.read_reduced(self._level, 2, x, y, width, height)
        whole = self._slide.read_level(self._level, 2 * x, 2 * y, 2 * width, 2 * height)
        return area(whole, 0, 0, 2, 2, width, height)


class Overview(LevelArray):
    """A level that the file lacks, averaged from a finer one; a small one is kept."""

    def __init__(self, slide: Slide, factor: int) -> None:
        width, height = max(1, slide.width // factor), max(1, slide.height // factor)
        super().__init__(slide, -1, Level(width, height, factor, factor))
        self._factor = factor
        self._lock = Lock()
        self._whole: NDArray[np.uint8] | None = None

    def _read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        factor = self._factor
        if max(self.shape) > OVERVIEW_SIDE:
            return self._slide.read_downsampled(x * factor, y * factor, factor, width, height)
        with self._lock:
            if self._whole is None:
                rows, columns = self.shape[:2]
                self._whole = self._slide.read_downsampled(0, 0, factor, columns, rows)
        return self._whole[y : y + height, x : x + width]


def pyramid(slide: Slide) -> list[LevelArray]:
    """Return the slide's levels, and coarser ones until the whole slide can be drawn at once."""
    found: list[LevelArray] = []
    last = slide.levels[-1]
    longest = max(last.width, last.height)
    for i, level in enumerate(slide.levels):
        found.append(LevelArray(slide, i))
        # the next level, or the overview below, is more than twice smaller
        gap = level is last and longest > OVERVIEW_SIDE
        if level is not last:
            gap = slide.levels[i + 1].downsample_x / level.downsample_x > _GAP
        if gap and slide.may_reduce(i):
            found.append(Halved(slide, i))
    factor = round((last.downsample_x + last.downsample_y) / 2)
    while longest > OVERVIEW_SIDE:
        factor, longest = factor * _STEP, longest // _STEP
        found.append(Overview(slide, factor))
    return found


def _pick(block: NDArray[np.uint8], at: NDArray[np.intp], axis: int) -> NDArray[np.uint8]:
    if len(at) == block.shape[axis] and (len(at) == 1 or at[-1] - at[0] == len(at) - 1):
        return block
    return block.take(at, axis=axis)
