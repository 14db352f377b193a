"""The true downsample of every level, so that a landmark keeps its place when zooming.

Sizes alone do not tell it. A scanner that halves an odd width drops the last
column, and the factor is exactly 2; a program that resizes to the same size
spreads the picture, and the factor is the ratio of the sizes. Over a slide the
two differ by up to a pixel. Where both explain the sizes, the pixels decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pathotune.events import PathotuneError
from pathotune.slides.geometry import Level
from pathotune.slides.resample import area

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    ReadLevel = Callable[[int, int, int, int, int], NDArray[np.uint8]]

_PATCH = 96
_PLACES = ((0.9, 0.9), (0.5, 0.9), (0.9, 0.5), (0.7, 0.7), (0.5, 0.5))


def place_levels(
    sizes: tuple[tuple[int, int], ...], read: ReadLevel | None = None, *, scanner: bool = False
) -> tuple[Level, ...]:
    """Place levels over one another.

    Parameters
    ----------
    sizes : tuple of (width, height)
        From the finest level on.
    read : callable, optional
        ``read(level, x, y, width, height)`` gives pixels of a level; looked at
        only where sizes leave a doubt.
    scanner : bool
        A scanner's own file, whose levels are whole reductions cut to size.

    Returns
    -------
    tuple of Level
    """
    width, height = sizes[0]
    ratios = [Level(w, h, width / w, height / h) for w, h in sizes]
    wholes = [_whole(sizes[0], level) for level in ratios]
    doubtful = [
        i
        for i, (ratio, whole) in enumerate(zip(ratios, wholes, strict=True))
        if whole is not None and whole != ratio
    ]
    if not doubtful:
        return tuple(ratios)
    cut = scanner
    if not scanner and read is not None:
        try:
            cut = _pixels_say_cut(read, ratios[doubtful[0]], wholes[doubtful[0]], doubtful[0])
        except PathotuneError:
            cut = False  # a damaged part speaks for itself when it is looked at
    return tuple(
        (whole or ratio) if cut else ratio for ratio, whole in zip(ratios, wholes, strict=True)
    )


def _whole(full: tuple[int, int], level: Level) -> Level | None:
    factor = max(1, round((level.downsample_x + level.downsample_y) / 2))
    fits = abs(full[0] / factor - level.width) < 1 and abs(full[1] / factor - level.height) < 1
    return Level(level.width, level.height, factor, factor) if fits else None


def _pixels_say_cut(read: ReadLevel, ratio: Level, whole: Level | None, number: int) -> bool:
    """Compare a level with level 0 reduced under both hypotheses, far from the corner."""
    score = 0.0
    n = min(_PATCH, ratio.width // 4, ratio.height // 4)
    if whole is None or n < 8:
        return False
    for fx, fy in _PLACES:
        x = min(int(ratio.width * fx), ratio.width - n - 2)
        y = min(int(ratio.height * fy), ratio.height - n - 2)
        here = read(number, x, y, n, n).astype(np.float32)
        if here.std() < 8:
            continue
        errors = []
        for level in (ratio, whole):
            left, top = x * level.downsample_x, y * level.downsample_y
            side_x = int(np.ceil(n * level.downsample_x)) + 2
            side_y = int(np.ceil(n * level.downsample_y)) + 2
            block = read(0, int(left), int(top), side_x, side_y)
            fitted = area(
                block,
                left - int(left),
                top - int(top),
                level.downsample_x,
                level.downsample_y,
                n,
                n,
            )
            errors.append(float(np.abs(fitted - here).mean()))
        score += errors[0] - errors[1]
    return score > 0
