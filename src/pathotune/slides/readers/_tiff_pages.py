"""The few facts of a TIFF's pages that reading JPEG tiles by their place needs.

tifffile knows TIFF far better, but importing it takes longer than opening a
scanner's slide and showing it. So a slide that OpenSlide has opened is looked at
here, with tags as TIFF 6.0 (section 2) and BigTIFF lay them out; whatever is odd
ends in an error, and the slide is read through OpenSlide.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_MOST_PAGES = 1000
_KINDS = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 7: "u1", 13: "u4", 16: "u8", 18: "u8"}
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_SAMPLES, _PLANAR, _TILE_W, _TILE_H, _OFFSETS, _COUNTS = 277, 284, 322, 323, 324, 325
_EXTRA, _TABLES, _DEPTH, _TILE_DEPTH = 338, 347, 32997, 32998
_WANTED = {
    _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR, _TILE_W, _TILE_H,
    _OFFSETS, _COUNTS, _EXTRA, _TABLES, _DEPTH, _TILE_DEPTH,
}  # fmt: skip


@dataclass(frozen=True)
class Page:
    """One page, its fields named and filled as tifffile's."""

    imagewidth: int
    imagelength: int
    tilewidth: int
    tilelength: int
    bitspersample: int
    compression: int
    photometric: int
    samplesperpixel: int
    planarconfig: int
    imagedepth: int
    tiledepth: int
    extrasamples: tuple[int, ...]
    jpegtables: bytes | None
    dataoffsets: NDArray[np.uint64]
    databytecounts: NDArray[np.uint64]
    is_tiled: bool
    is_jfif: bool = False
    jpegheader: None = None


def tiff_pages(path: Path) -> list[Page]:
    """Return the pages of a classic or big TIFF, in their order.

    Raises
    ------
    OSError, ValueError, struct.error
        The file cannot be read or is not laid out as a TIFF.
    """
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None:
            raise ValueError("not a TIFF")
        version = struct.unpack(order + "H", head[2:4])[0]
        big = version == 43
        if not big and version != 42:
            raise ValueError("not a TIFF")
        at = struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])[0]
        found: list[Page] = []
        seen: set[int] = set()
        while at and at not in seen and len(found) < _MOST_PAGES:
            seen.add(at)
            tags, at = _directory(file, at, order, big)
            found.append(_page(tags))
        return found


def _directory(
    file: BinaryIO, at: int, order: str, big: bool
) -> tuple[dict[int, NDArray[np.generic]], int]:
    """Return the wanted tags of the directory at a place, and where the next lies."""
    count, entry, word = ("Q", 20, "Q") if big else ("H", 12, "I")
    inline = struct.calcsize(word)
    file.seek(at)
    number = struct.unpack(order + count, file.read(struct.calcsize(count)))[0]
    if number > 4096:
        raise ValueError("more tags than a page has")
    entries = file.read(number * entry)
    following = struct.unpack(order + word, file.read(inline))[0]
    size = file.seek(0, 2)
    tags: dict[int, NDArray[np.generic]] = {}
    for i in range(number):
        raw = entries[i * entry : (i + 1) * entry]
        tag, kind, length = struct.unpack(order + "HH" + word, raw[: 4 + inline])
        if tag not in _WANTED or kind not in _KINDS:
            continue
        values = np.dtype(order + _KINDS[kind])
        if length * values.itemsize > size:
            raise ValueError("a tag larger than the file")
        data = raw[4 + inline :][: length * values.itemsize]
        if length * values.itemsize > inline:
            file.seek(struct.unpack(order + word, raw[4 + inline :])[0])
            data = file.read(length * values.itemsize)
        tags[tag] = np.frombuffer(data, values, length)
    return tags, following


def _page(tags: dict[int, NDArray[np.generic]]) -> Page:
    def one(tag: int, default: int) -> int:
        values = tags.get(tag)
        return default if values is None or not len(values) else int(values[0])

    nothing: NDArray[np.generic] = np.empty(0, np.uint64)
    bits = tags.get(_BITS, nothing)
    tables = tags.get(_TABLES)
    return Page(
        imagewidth=one(_WIDTH, 0),
        imagelength=one(_LENGTH, 0),
        tilewidth=one(_TILE_W, 0),
        tilelength=one(_TILE_H, 0),
        bitspersample=int(bits[0]) if len(bits) and len(set(bits.tolist())) == 1 else 1,
        compression=one(_COMPRESSION, 1),
        photometric=one(_PHOTOMETRIC, -1),
        samplesperpixel=one(_SAMPLES, 1),
        planarconfig=one(_PLANAR, 1),
        imagedepth=one(_DEPTH, 1),
        tiledepth=one(_TILE_DEPTH, 1),
        extrasamples=tuple(int(v) for v in tags.get(_EXTRA, nothing).tolist()),
        jpegtables=None if tables is None else tables.tobytes(),
        dataoffsets=tags.get(_OFFSETS, nothing).astype(np.uint64),
        databytecounts=tags.get(_COUNTS, nothing).astype(np.uint64),
        is_tiled=_TILE_W in tags and _OFFSETS in tags,
    )
