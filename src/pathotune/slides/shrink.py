"""The mean of every 2 x 2, 4 x 4 or 8 x 8 pixels of a decoded tile, in a few tens of microseconds.

A tile that is decoded whole and averaged is what a model sees; this is the
second half. Pixels of four bytes are added as one 64-bit number each, two bytes
a colour, into memory that a thread uses again for every tile: half the time of
an image library's way, which copies the tile twice.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEEP_BYTES = 1 << 20  # memory of larger tiles is not held on to
_mine = threading.local()


def scratch(height: int, width: int) -> NDArray[np.uint8]:
    """Return (height, width, 4) to decode a tile into, good until this thread asks again."""
    return _memory("tile", height, 4 * width).reshape(height, width, 4)


def _memory(name: str, rows: int, columns: int) -> NDArray[np.uint8]:
    """Return (rows, columns) bytes, those of last time where the shape is the same."""
    kept: dict[str, NDArray[np.uint8]] = _mine.__dict__
    found = kept.get(name)
    if found is None or found.shape != (rows, columns):
        found = np.empty((rows, columns), np.uint8)
        if found.nbytes <= _KEEP_BYTES:
            kept[name] = found
    return found


def shrink(pixels: NDArray[np.uint8], factor: int, out: NDArray[np.uint8]) -> None:
    """Write the means of blocks, rounded, halves up.

    Parameters
    ----------
    pixels : uint8 (h, w, 4)
        Red, green, blue and a fourth value that is ignored; contiguous.
    factor : int
        Side of a block: 2, 4 or 8; divides both sides.
    out : uint8 (h / factor, w / factor, 3)
        Where to.

    Raises
    ------
    ValueError
        Sizes do not match, or sums would not fit.
    """
    height, width = pixels.shape[:2]
    rows, columns = height // factor, width // factor
    fits = (rows * factor, columns * factor) == (height, width)
    if factor not in {2, 4, 8} or not fits or out.shape != (rows, columns, 3):
        raise ValueError(f"{pixels.shape} does not shrink {factor} times to {out.shape}")
    lines = pixels.reshape(height, 4 * width)
    sums = _memory("rows", rows, 8 * width).view(np.uint16)
    np.add(lines[0::factor], lines[1::factor], out=sums, dtype=np.uint16)
    for i in range(2, factor):
        np.add(sums, lines[i::factor], out=sums, dtype=np.uint16)
    wide = sums.view(np.uint64)  # a pixel each: 64 values of a byte fit into 16 bits
    blocks = _memory("blocks", rows, 8 * columns).view(np.uint64)
    np.add(wide[:, 0::factor], wide[:, 1::factor], out=blocks)
    for i in range(2, factor):
        np.add(blocks, wide[:, i::factor], out=blocks)
    half = factor * factor // 2
    np.add(blocks, np.uint64(half * 0x0001000100010001), out=blocks)
    np.right_shift(blocks, np.uint64(half.bit_length()), out=blocks)
    # what each colour got from its neighbour lies above its low byte
    bytes_ = blocks.view(np.uint8).reshape(rows, columns, 8)
    low = (0, 2, 4) if np.little_endian else (1, 3, 5)
    for colour, at in enumerate(low):
        out[..., colour] = bytes_[..., at]
