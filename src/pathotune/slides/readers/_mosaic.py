"""Puts a box of a level together from tiles of the cache.

Readers differ in how a tile comes about, not in how a box is covered with
tiles: this is the second half, the same for JPEG tiles that are decoded directly
and for squares that OpenSlide reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pathotune.slides.tile_cache import TILES

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import NDArray

    Make = Callable[[int, int], NDArray[np.uint8]]
    Box = tuple[int, int, int, int]


def mosaic(
    owner: Hashable, level: tuple[Hashable, Hashable], tile: tuple[int, int], box: Box, make: Make
) -> NDArray[np.uint8]:
    """Return the pixels of a box that tiles cover, from the cache where they are in it.

    Parameters
    ----------
    owner : hashable
        Whose tiles they are, as `TILES.forget` is told.
    level : (hashable, hashable)
        Number of the level, and how its tiles are made.
    tile : (width, height)
        Of a whole tile; the last of a row or column may be smaller if it
        covers the box.
    box : (x, y, width, height)
        In pixels of the level as it is shrunk, inside it.
    make : callable
        ``make(row, column)`` gives a tile, from any of several threads.
    """
    tile_w, tile_h = tile
    x, y, width, height = box
    out = np.empty((height, width, 3), np.uint8)

    def place(key: tuple[Hashable, ...], pixels: NDArray[np.uint8] | None) -> None:
        row, column = _cell(key)
        x0, y0 = column * tile_w, row * tile_h
        left, top = max(x, x0), max(y, y0)
        right, bottom = min(x + width, x0 + tile_w), min(y + height, y0 + tile_h)
        if pixels is not None:
            piece = pixels[top - y0 : bottom - y0, left - x0 : right - x0]
            out[top - y : bottom - y, left - x : right - x] = piece

    keys = [
        (owner, *level, (row, column))
        for row in range(y // tile_h, (y + height - 1) // tile_h + 1)
        for column in range(x // tile_w, (x + width - 1) // tile_w + 1)
    ]
    TILES.each(keys, lambda key: make(*_cell(key)), place)
    return out


def _cell(key: tuple[Hashable, ...]) -> tuple[int, int]:
    cell = key[3]
    assert isinstance(cell, tuple)
    return cell
