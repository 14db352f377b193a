"""Shrink pixels by the area they cover, to any scale and from any sub-pixel place.

A model was trained at its own um/px, which is hardly ever a level of the slide.
Averaging exactly the area under each wanted pixel neither aliases nor shifts:
a landmark keeps its place at every scale. Running sums make the cost
independent of the ratio.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

UInt8 = NDArray[np.uint8]


def _along(sums: NDArray[np.float32], start: float, step: float, count: int) -> NDArray[np.float32]:
    """Average over `count` intervals of `step` along axis 0 of running sums."""
    edges = start + step * np.arange(count + 1)
    edges = np.clip(edges, 0, sums.shape[0] - 1)
    low = np.minimum(edges.astype(np.intp), sums.shape[0] - 2)
    part = (edges - low).astype(np.float32)[:, None, None]
    at = sums[low] * (1 - part) + sums[low + 1] * part
    widths = np.maximum(np.diff(edges), 1e-6).astype(np.float32)[:, None, None]
    means: NDArray[np.float32] = (at[1:] - at[:-1]) / widths
    return means


def _running(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    # Centred on mid grey, so that float32 keeps a 1/1000 of a grey level over a tile.
    sums = np.zeros((pixels.shape[0] + 1, *pixels.shape[1:]), np.float32)
    np.cumsum(pixels, axis=0, out=sums[1:])
    return sums


def area(
    pixels: UInt8, x: float, y: float, step_x: float, step_y: float, width: int, height: int
) -> UInt8:
    """Average the area under each wanted pixel.

    Parameters
    ----------
    pixels : uint8 (h, w, 3)
        The source, which covers [0, w) x [0, h).
    x, y : float
        Where the first wanted pixel begins, in source pixels.
    step_x, step_y : float
        Size of a wanted pixel in source pixels. Below 1 (enlarging) the result
        is interpolated bilinearly instead.
    width, height : int
        Wanted size.

    Returns
    -------
    uint8 (height, width, 3)
    """
    h, w = pixels.shape[:2]
    whole = (
        abs(step_x - round(step_x)) < 1e-9
        and abs(step_y - round(step_y)) < 1e-9
        and abs(x - round(x)) < 1e-9
        and abs(y - round(y)) < 1e-9
    )
    if whole:
        kx, ky, x0, y0 = round(step_x), round(step_y), round(x), round(y)
        block = pixels[y0 : y0 + ky * height, x0 : x0 + kx * width]
        if block.shape[:2] == (ky * height, kx * width):
            if kx == ky == 1:
                return block
            sums = block.reshape(height, ky, width, kx, 3).sum(axis=(1, 3), dtype=np.uint32)
            mean: UInt8 = ((sums + kx * ky // 2) // (kx * ky)).astype(np.uint8)
            return mean
    if step_x < 1 or step_y < 1:
        box = (max(0.0, x), max(0.0, y), min(w, x + step_x * width), min(h, y + step_y * height))
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box)
        return np.asarray(resized)
    rows = _along(_running(pixels.astype(np.float32) - 128), y, step_y, height)
    columns = _along(_running(np.ascontiguousarray(rows.transpose(1, 0, 2))), x, step_x, width)
    result = columns.transpose(1, 0, 2) + np.float32(128.5)
    return np.ascontiguousarray(np.clip(result, 0, 255).astype(np.uint8))
