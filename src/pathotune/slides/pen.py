"""Felt pen on the cover glass, told from stained tissue by hue and breadth.

Pathologists mark slides with felt pens, and a model calls ink what it likes.
Haematoxylin and eosin absorb green most, so green and blue ink break an order
that tissue keeps; red ink has next to no green and blue, black ink no colour.
Blood and melanin come close to red and black, but a pen stroke is broad.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HALF_STROKE_UM = 25.0  # of green, blue and red ink
HALF_BLACK_UM = 75.0  # folds and melanin are as dark, but narrower
BORDER = 1.5  # half strokes around a stroke, where its ink fades


def inks(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (h, w) of coloured ink and (h, w) of black ink in a thumbnail (h, w, 3)."""
    red, green, blue = pixels.astype(np.int16).transpose(2, 0, 1)
    brightest = np.maximum(np.maximum(red, green), blue)
    colour = brightest - np.minimum(np.minimum(red, green), blue)
    is_green = (green - red > 12) & (green - blue > -25) & (colour > 25)
    is_blue = (blue - red > 35) & (green - red > 15) & (4 * (green - red) > blue - red)
    is_red = (red - green > 90) & (red - blue > 75) & (abs(green - blue) < 40)
    is_dark_red = (red > 60) & (10 * green < 3.5 * red) & (10 * blue < 4.5 * red)
    coloured: NDArray[np.bool_] = is_green | is_blue | is_red | is_dark_red
    black: NDArray[np.bool_] = (brightest < 50) & (colour < 20)
    return coloured, black


def strokes(pixels: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """Return (h, w) of broad pen strokes with their soft borders.

    Parameters
    ----------
    pixels : uint8 (h, w, 3)
        A thumbnail of brightfield.
    mpp : float
        um per thumbnail pixel.
    """
    from scipy import ndimage

    found = np.zeros(pixels.shape[:2], bool)
    for marks, half_um in zip(inks(pixels), (HALF_STROKE_UM, HALF_BLACK_UM), strict=True):
        if not marks.any():
            continue
        half = max(1.0, half_um / mpp)
        depth = ndimage.distance_transform_edt(np.pad(marks, 1, mode="edge"))[1:-1, 1:-1]
        core: NDArray[np.bool_] = depth >= half
        if core.any():
            border = half + BORDER * max(1.0, HALF_STROKE_UM / mpp)
            found |= ndimage.distance_transform_edt(~core) <= border
    return found
