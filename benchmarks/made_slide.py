"""Writes a large SVS from real H&E pixels in a second, for what needs a slide of a given size.

A crop of the shipped skin slide, mirrored so that nothing shows a seam, is
encoded once as JPEG tiles; the file then names the same tiles again and again,
so that 100,000 x 80,000 pixels take a few megabytes. Reading and decoding are
those of any SVS: every tile is read from the file and decoded as if it were
unique. Levels are 4, 16 and 32 times smaller, as Aperio's.

    python benchmarks/made_slide.py 40960 40960 /tmp/made.svs
"""

from __future__ import annotations

import argparse
import struct
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from pathotune.slides.sample import skin_slide
from pathotune.slides.slide import Region, open_slide

TILE = 256
CROP = 2048
STEPS = (1, 4, 16, 32)
QUALITY, SAMPLING = 80, "422"
_SHORT, _LONG, _LONG8, _ASCII = 3, 4, 16, 2


def period() -> np.ndarray:
    """Return the pixels that the slide repeats, (2 * CROP, 2 * CROP, 3)."""
    with open_slide(skin_slide()) as slide:
        crop = slide.read(Region((slide.width - CROP) // 2, 700, CROP, CROP))
    two = np.concatenate([crop, crop[:, ::-1]], axis=1)
    return np.concatenate([two, two[::-1]], axis=0)


def streams(pixels: np.ndarray, step: int) -> tuple[list[bytes], int]:
    """Return a level's different tiles, row by row, and how many there are in a row."""
    small = np.asarray(Image.fromarray(pixels).reduce(step)) if step > 1 else pixels
    if len(small) < TILE:
        times = TILE // len(small)
        small = np.tile(small, (times, times, 1))
    n = len(small) // TILE
    found = []
    for row in range(n):
        for column in range(n):
            at = np.s_[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
            data = simplejpeg.encode_jpeg(
                np.ascontiguousarray(small[at]), QUALITY, colorsubsampling=SAMPLING
            )
            if data[2:4] == b"\xff\xe0":  # scanners leave the colours to the TIFF
                data = data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]
            found.append(data)
    return found, n


def make_slide(path: Path, width: int, height: int, mpp: float = 0.25) -> Path:
    """Write a BigTIFF that OpenSlide takes for an Aperio SVS.

    Parameters
    ----------
    path : Path
        Where to.
    width, height : int
        Pixels of the largest level.
    mpp : float
        um/px written into the file.
    """
    pixels = period()
    about = (
        f"Aperio Image Library v12.0.15 \r\n{width}x{height} ({TILE}x{TILE}) JPEG/RGB "
        f"Q={QUALITY}|AppMag = {round(10 / mpp)}|MPP = {mpp:.4f}\0"
    ).encode()
    steps = [s for s in STEPS if min(width, height) // s >= 64]
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        link = 8
        for step in steps:
            tiles, n = streams(pixels, step)
            places = []
            for data in tiles:
                places.append((file.tell(), len(data)))
                file.write(data)
            w, h = width // step, height // step
            rows = np.arange(-(-h // TILE))[:, None] % n
            columns = np.arange(-(-w // TILE))[None] % n
            index = (rows * n + columns).ravel()
            offsets = np.array([p for p, _ in places], "<u8")[index]
            counts = np.array([c for _, c in places], "<u8")[index]
            tags = [
                (254, _LONG, struct.pack("<I", 0)),
                (256, _LONG, struct.pack("<I", w)),
                (257, _LONG, struct.pack("<I", h)),
                (258, _SHORT, struct.pack("<3H", 8, 8, 8)),
                (259, _SHORT, struct.pack("<H", 7)),
                (262, _SHORT, struct.pack("<H", 6)),
                (270, _ASCII, about),
                (277, _SHORT, struct.pack("<H", 3)),
                (284, _SHORT, struct.pack("<H", 1)),
                (322, _LONG, struct.pack("<I", TILE)),
                (323, _LONG, struct.pack("<I", TILE)),
                (324, _LONG8, offsets.tobytes()),
                (325, _LONG8, counts.tobytes()),
                (530, _SHORT, struct.pack("<2H", 2, 1)),
            ]
            link = _directory(file, tags, link)
    return path


def _directory(file, tags: list[tuple[int, int, bytes]], link: int) -> int:  # noqa: ANN001
    """Write values and their directory, link it from the one before; return where to link next."""
    size = {_SHORT: 2, _LONG: 4, _LONG8: 8, _ASCII: 1}
    entries = []
    for tag, kind, data in tags:
        count = len(data) // size[kind]
        if len(data) > 8:
            value = struct.pack("<Q", file.tell())
            file.write(data + b"\0" * (-len(data) % 8))
        else:
            value = data.ljust(8, b"\0")
        entries.append(struct.pack("<HHQ", tag, kind, count) + value)
    file.write(b"\0" * (-file.tell() % 8))
    here = file.tell()
    file.write(struct.pack("<Q", len(entries)) + b"".join(entries) + struct.pack("<Q", 0))
    after = file.tell() - 8
    file.seek(link)
    file.write(struct.pack("<Q", here))
    file.seek(0, 2)
    return after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("width", type=int)
    parser.add_argument("height", type=int)
    parser.add_argument("path", type=Path)
    parser.add_argument("--mpp", type=float, default=0.25)
    args = parser.parse_args()
    make_slide(args.path, args.width, args.height, args.mpp)
    print(f"{args.path}: {args.path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
