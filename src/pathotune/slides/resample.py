"""Shrink pixels by the area they cover, to any scale and from any sub-pixel place.

A model was trained at its own um/px, which is hardly ever a level of the slide.
Averaging exactly the area under each wanted pixel neither aliases nor shifts:
a landmark keeps its place at every scale. Rows and columns are averaged one
after the other by sparse matrices, which costs one look at every source pixel
whatever the ratio.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

_HAIR = 1e-7  # so that 3.9999999 counts as 4


def weights(start: float, step: float, count: int, size: int) -> csr_matrix:
    """Return the (count, size) matrix that averages along one axis.

    Row i weighs the source pixels by how much of [start + i * step,
    start + (i + 1) * step) they cover. With a step below 1 it interpolates
    linearly between pixel centres instead. Beyond the source the outermost
    pixel is repeated; every row sums to 1.
    """
    from scipy.sparse import csr_matrix

    edges = start + step * np.arange(count + 1, dtype=np.float64)
    if step < 1:
        middle = (edges[:-1] + edges[1:]) / 2 - 0.5
        first = np.floor(middle).astype(np.int64)
        share = middle - first
        columns = first[:, None] + np.arange(2)
        values = np.stack([1 - share, share], axis=1)
    else:
        first = np.floor(edges[:-1] + _HAIR).astype(np.int64)
        columns = first[:, None] + np.arange(int(np.ceil(step + _HAIR)) + 1)
        right = np.minimum(columns + 1, edges[1:, None])
        values = np.clip(right - np.maximum(columns, edges[:-1, None]), 0, None)
        values /= values.sum(axis=1, keepdims=True)
    columns = np.clip(columns, 0, size - 1)
    ends = np.arange(0, values.size + 1, values.shape[1])
    flat = (values.ravel().astype(np.float32), columns.ravel(), ends)
    return csr_matrix(flat, shape=(count, size))


_cached_weights = lru_cache(maxsize=64)(weights)


def _whole(value: float) -> bool:
    return abs(value - round(value)) < _HAIR


def area(
    pixels: NDArray[np.uint8],
    x: float,
    y: float,
    step_x: float,
    step_y: float,
    width: int,
    height: int,
) -> NDArray[np.uint8]:
    """Average the area under each wanted pixel, exactly to half a grey level.

    Parameters
    ----------
    pixels : uint8 (h, w, 3)
        The source, which covers [0, w) x [0, h).
    x, y : float
        Where the first wanted pixel begins, in source pixels.
    step_x, step_y : float
        Size of a wanted pixel in source pixels. Along an axis where it is below
        1 (enlarging) the result is interpolated linearly instead.
    width, height : int
        Wanted size.

    Returns
    -------
    uint8 (height, width, 3)
    """
    h, w = pixels.shape[:2]
    if all(map(_whole, (x, y, step_x, step_y))) and min(step_x, step_y) >= 1:
        kx, ky, x0, y0 = round(step_x), round(step_y), round(x), round(y)
        exact = (kx * ky) & (kx * ky - 1) == 0  # Pillow's fixed point rounds other sums off
        if exact and 0 <= x0 and 0 <= y0 and x0 + kx * width <= w and y0 + ky * height <= h:
            block = pixels[y0 : y0 + ky * height, x0 : x0 + kx * width]
            if kx == ky == 1:
                return block
            return np.asarray(Image.fromarray(np.ascontiguousarray(block)).reduce((kx, ky)))
    # rounded, so that tiles of one grid share their few matrices
    across = _cached_weights(round(x, 6), round(step_x, 9), width, w)
    down = _cached_weights(round(y, 6), round(step_y, 9), height, h)
    rows = down @ pixels.reshape(h, w * 3).astype(np.float32)
    turned = np.ascontiguousarray(rows.reshape(height, w, 3).transpose(1, 0, 2))
    means = (across @ turned.reshape(w, height * 3)).reshape(width, height, 3)
    return np.ascontiguousarray((means.transpose(1, 0, 2) + np.float32(0.5)).astype(np.uint8))
