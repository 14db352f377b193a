"""Outlines back to label images: for scripts, other programs, and for judging.

Everything is painted from the outlines at the resolution asked for, so that a
label image is as smooth as the outlines are, and a slide's is written tile by
tile with smaller levels, in the memory of one tile.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.marks.geojson import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.nuclei.query import Nuclei

TILE = 512
SMALLEST = 512  # px: the longest side at which levels end


def paint(
    labels: NDArray[Any],
    rings: Sequence[NDArray[Any]],
    numbers: Sequence[int] | NDArray[Any],
    corner: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
) -> None:
    """Paint closed outlines into a label image, in place; pixels whose centre lies inside.

    Parameters
    ----------
    labels : integer (h, w)
    rings : n arrays of float (k, 2)
        x and y in level-0 pixels, which cover [i, i + 1).
    numbers : n integers
    corner : (x, y)
        The image's corner in level-0 pixels.
    scale : float
        Level-0 pixels per pixel of the image.
    """
    from skimage.draw import polygon

    for ring, number in zip(rings, numbers, strict=True):
        x, y = ((ring[:, k] - corner[k]) / scale - 0.5 for k in (0, 1))
        rows, columns = polygon(y, x, labels.shape)
        labels[rows, columns] = number


def kind(most: int) -> type[np.unsignedinteger[Any]]:
    """Return uint16 where the numbers fit, uint32 elsewhere."""
    return np.uint16 if most < 1 << 16 else np.uint32


def write_labels(path: Path, nuclei: Nuclei, width: int, height: int) -> None:
    """Write a tiled label OME-TIFF with levels, the size of the slide; a nucleus' value is its id.

    Parameters
    ----------
    path : Path
    nuclei : Nuclei
    width, height : int
        Of the slide, level-0 pixels.

    Raises
    ------
    PathotuneError
        It cannot be saved; an old file of that name stays as it was.
    """
    import tifffile

    dtype = np.dtype(kind(int(nuclei.ids.max(initial=0))))
    depth = 0
    while max(width, height) >> depth > SMALLEST:
        depth += 1
    per_cm = 1e4 / nuclei.mpp
    um = {"PhysicalSizeX": nuclei.mpp, "PhysicalSizeXUnit": "µm"}
    um |= {"PhysicalSizeY": nuclei.mpp, "PhysicalSizeYUnit": "µm"}

    def write(file: Any) -> None:
        with tifffile.TiffWriter(Unnamed(file), ome=True, bigtiff=True) as out:
            for level in range(depth + 1):
                step = 1 << level
                size = (-(-height // step), -(-width // step))
                told: dict[str, Any] = {"subfiletype": 1, "metadata": None}
                if not level:
                    told = {"subifds": depth, "metadata": {"axes": "YX", "Name": "nuclei", **um}}
                out.write(
                    _tiles(nuclei, size, step, dtype),
                    shape=size,
                    dtype=dtype,
                    tile=(TILE, TILE),
                    compression="zlib",
                    photometric="minisblack",
                    resolution=(per_cm / step, per_cm / step),
                    resolutionunit="CENTIMETER",
                    **told,
                )

    write_atomically(path, write)


class Unnamed:
    """A file for tifffile, which takes the number in place of a name for a path."""

    def __init__(self, file: Any) -> None:
        self.write, self.seek, self.tell, self.flush = (
            file.write,
            file.seek,
            file.tell,
            file.flush,
        )


def _tiles(
    nuclei: Nuclei, size: tuple[int, int], step: int, dtype: np.dtype[Any]
) -> Iterator[bytes]:
    """Yield the compressed tiles of a level, row by row; empty ones are compressed once."""
    empty = zlib.compress(np.zeros((TILE, TILE), dtype).tobytes(), 6)
    side = TILE * step
    for y in range(0, size[0] * step, side):
        for x in range(0, size[1] * step, side):
            rows = nuclei.within(x, y, x + side, y + side)
            if not len(rows):
                yield empty
                continue
            tile = np.zeros((TILE, TILE), dtype)
            for first in range(0, len(rows), 4096):  # a far view holds the whole slide
                part = rows[first : first + 4096]
                found = nuclei.outlines(part)
                rings = [found.ring(i) for i in range(len(part))]
                paint(tile, rings, nuclei.ids[part], (x, y), step)
            tile[size[0] - y // step :], tile[:, size[1] - x // step :] = 0, 0
            yield zlib.compress(tile.tobytes(), 6)
