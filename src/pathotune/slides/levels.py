"""A level of a slide as napari wants it: an array that reads what is looked at.

Not dask: a graph per level costs fifteen times the read itself. napari places
levels by the ratio of their shapes, which for truncated levels is not the true
downsample; the columns and rows are picked so that every pixel still sits
within half a pixel of where it belongs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from pathotune.slides.slide import Slide

LARGEST_WHOLE = 1 << 31  # bytes that may be asked for at once


class LevelArray:
    """Array-like (height, width, 3) uint8 over one level; supports basic slicing."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, slide: Slide, level: int) -> None:
        size = slide.levels[level]
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
            np.arange(n)[k if isinstance(k, slice) else slice(int(k) % n, int(k) % n + 1)]
            for k, n in zip(key[:2], self.shape[:2], strict=True)
        )
        if not len(rows) or not len(columns):
            block = np.empty((len(rows), len(columns), 3), np.uint8)
        else:
            y, x = self._true(rows, self._ratio_y, 0), self._true(columns, self._ratio_x, 1)
            top, left = int(y.min()), int(x.min())
            height, width = int(y.max()) - top + 1, int(x.max()) - left + 1
            if height * width * 3 > LARGEST_WHOLE:
                raise PathotuneError(
                    "This level of the slide is too large to be loaded at once.",
                    "Zoom in, or use a coarser level.",
                )
            block = self._slide.read_level(self._level, left, top, width, height)
            block = _pick(_pick(block, y - top, 0), x - left, 1)
        block = block[:, :, key[2]]
        drop = tuple(0 if not isinstance(k, slice) else slice(None) for k in key[:2])
        return block[drop]

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


def _pick(block: NDArray[np.uint8], at: NDArray[np.intp], axis: int) -> NDArray[np.uint8]:
    if len(at) == block.shape[axis] and (len(at) == 1 or at[-1] - at[0] == len(at) - 1):
        return block
    return block.take(at, axis=axis)
