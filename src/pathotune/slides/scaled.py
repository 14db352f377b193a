"""Reads a slide at any scale: the cheapest source that is fine enough, then the mean of each area.

The source is a level of the file, or a level whose tiles the decoder gives at
half, a quarter or an eighth of their size. Such a decoded pixel is the mean of
its block, so it serves where the wanted pixels are made of whole blocks, or of
so many that parts of one do not matter. Averaging what remains keeps a landmark
in its place at every scale. For a model, which sees what no eye does, tiles are
decoded whole and averaged exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pathotune.slides.resample import area

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.slides.slide import Slide

BAND_PIXELS = 1 << 24  # source pixels averaged at once: 50 MB, 200 MB while averaging
_HAIR = 1.0001  # um/px are rounded: 1.99995 times coarser is twice
# Blocks a wanted pixel must span when it cuts through some: then it differs from the exact mean
# by less than a grey level on average, on sharp tissue too; at 2.5 blocks it was up to 2.
_BLOCKS = 4
_MISFIT = 1 / 16  # of a block, by which edges may miss its border and still count as on it


def read_downsampled(
    slide: Slide,
    x: float,
    y: float,
    downsample: float,
    width: int,
    height: int,
    *,
    exact: bool = False,
) -> NDArray[np.uint8]:
    """Return (height, width, 3) pixels that each span `downsample` level-0 pixels.

    Parameters
    ----------
    slide : Slide
    x, y : float
        Corner of the result in level-0 pixels, to a fraction.
    downsample : float
        Level-0 pixels a pixel of the result.
    width, height : int
        Size of the result.
    exact : bool
        Every pixel is the mean of the pixels of tiles decoded whole; otherwise
        the decoder may shrink them, to about one grey level.
    """
    fine = [
        i
        for i, level in enumerate(slide.levels)
        if max(level.downsample_x, level.downsample_y) <= downsample * _HAIR
    ]
    number = max(fine, key=lambda i: slide.levels[i].downsample_x) if fine else 0
    level = slide.levels[number]
    left, top = x / level.downsample_x, y / level.downsample_y
    step_x, step_y = downsample / level.downsample_x, downsample / level.downsample_y
    reduction = 1
    if min(step_x, step_y) * _HAIR >= 2:
        for reduction in sorted(slide.reductions(number), reverse=True):
            across = _blocks(left, step_x, width, reduction, exact)
            down = _blocks(top, step_y, height, reduction, exact)
            if across is not None and down is not None:
                (left, step_x), (top, step_y) = across, down
                break

    def average(at: float, rows: int) -> NDArray[np.uint8]:
        edge = 1 if min(step_x, step_y) < 1 else 0  # interpolation looks at the neighbours
        x0, y0 = int(np.floor(left + 1e-7)) - edge, int(np.floor(at + 1e-7)) - edge
        x1 = int(np.ceil(left + step_x * width - 1e-7)) + edge
        y1 = int(np.ceil(at + step_y * rows - 1e-7)) + edge
        box = x0, y0, max(1, x1 - x0), max(1, y1 - y0)
        block = slide.read_reduced(number, reduction, *box, exact=exact)
        return area(block, left - x0, at - y0, step_x, step_y, width, rows)

    # A whole slide of one level would not fit: averaged in bands, whose size is bounded.
    rows = max(1, int(BAND_PIXELS / (step_x * step_y * max(1, width))))
    if rows >= height:
        return average(top, height)
    out = np.empty((height, width, 3), np.uint8)
    for row in range(0, height, rows):
        n = min(rows, height - row)
        out[row : row + n] = average(top + row * step_y, n)
    return out


def _blocks(
    first: float, step: float, count: int, size: int, exact: bool
) -> tuple[float, float] | None:
    """Return corner and step in blocks of `size` pixels, or None where those cannot serve."""
    first, step = first / size, step / size
    if size == 1 or (step >= _BLOCKS and not exact):
        return first, step
    whole = round(step)
    misfit = max(abs(first - round(first)), abs(step - whole) * count)
    return (round(first), whole) if whole >= 1 and misfit <= _MISFIT else None
