"""Which pages of a TIFF are the levels of its main image, and which its channels.

tifffile finds what the standards describe. Other programs also write thirds or
odd sizes, as sub-images or as further pages marked as reduced; those are levels
too when they have the shape and the kind of pixels of the full image.
"""

from __future__ import annotations

import math
from typing import Any


def find_levels(file: Any) -> list[list[Any]]:
    """Return the planes (pages) of every level of the largest image, finest first.

    Raises
    ------
    ValueError
        There is no image in the file.
    """
    series = max(file.series, key=lambda s: math.prod(s.shape))
    levels = {p[0].imagewidth: p for p in map(_planes, series.levels)}
    first = max(levels.values(), key=lambda p: p[0].imagewidth)
    if len(first) == 1:
        full = first[0]
        others = list(full.pages or ())
        others += [p for p in file.pages if p.subfiletype & 1 and p.is_tiled]
        for page in map(_loaded, others):
            ratio = full.imagewidth / page.imagewidth
            if ratio > 1 and abs(full.imagelength / page.imagelength / ratio - 1) < 0.02:
                alike = page.samplesperpixel == full.samplesperpixel
                if alike and page.dtype == full.dtype:
                    levels.setdefault(page.imagewidth, [page])
    return [levels[width] for width in sorted(levels, reverse=True)]


def _loaded(page: Any) -> Any:
    return page.aspage() if hasattr(page, "aspage") else page


def _planes(level: Any) -> list[Any]:
    """Return one page, or up to three pages that are channels of one image."""
    if not len(level.pages) or level.pages[0] is None:
        raise ValueError("no image in the file")
    first = _loaded(level.pages[0])
    if first.dtype is None:
        raise ValueError("pixels of a kind that is not known")
    if first.samplesperpixel >= 3 or "C" not in level.axes or len(level.pages) == 1:
        return [first]
    # pages run over all axes before the image's own; depths and times are taken at the first
    axis = level.axes.index("C")
    stride = math.prod(
        n
        for a, n in zip(level.axes[axis + 1 :], level.shape[axis + 1 :], strict=True)
        if a not in "YXS"
    )
    chosen = [level.pages[i * stride] for i in range(min(level.shape[axis], 3))]
    return [_loaded(p) for p in chosen if p is not None]
