"""What applying a slide's colour profile costs in reading: the same places with and without it.

A made pyramid of real H&E in JPEG tiles with a matrix profile is read in turn
with and without the correction, box by box: screens at full size and at a
quarter, and tiles as a network wants them. Times are of one thread's processor
time, so that other load on the machine weighs little; the decoded tiles are
forgotten before each reading. The ratio of the medians is printed.

    python benchmarks/icc.py
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import ImageCms

from pathotune.slides.sample import skin_slide
from pathotune.slides.slide import Slide, open_slide
from pathotune.slides.tile_cache import TILES
from pathotune.slides.view import View

SIDE, ROUNDS = 4096, 40


def exchanged() -> bytes:
    """Return a profile whose red and blue are not sRGB's: a built sRGB with its tags exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.index(b"rXYZ"), data.index(b"bXYZ")
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def make(path: Path) -> None:
    """Write a pyramid of mirrored real tissue with a profile."""
    with open_slide(skin_slide()) as slide:
        side = min(slide.width, slide.height, SIDE // 2)
        crop = slide.read_level(0, 0, 0, side, side)
    row = np.concatenate([crop, crop[:, ::-1]], axis=1)
    pixels = np.concatenate([row, row[::-1]], axis=0)
    kind: dict[str, Any] = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg"}
    with tifffile.TiffWriter(path) as out:
        for step in (1, 4):
            small = pixels[::step, ::step]
            per_cm = 40000 / step
            where = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
            out.write(small, iccprofile=exchanged(), subfiletype=int(step > 1), **kind, **where)


def looks(slide: Slide, dice: random.Random) -> dict[str, Any]:
    """Return what is read, by name; the places are those of the dice."""
    x, y = (dice.randrange(0, slide.width - 1600) for _ in range(2))
    return {
        "screen at full size, 1366 x 768": lambda: slide.read_level(0, x, y, 1366, 768),
        "screen at a quarter": lambda: slide.read_level(1, x // 8, y // 8, 512, 512),
        "224 px at 0.5 um/px": lambda: slide.read_scaled(x, y, 0.5, 224, 224),
    }


def main() -> None:
    found: dict[str, tuple[list[float], list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "profiled.tif"
        make(path)
        sides = [open_slide(path, view=View(icc=on)) for on in (False, True)]
        limit, TILES.limit = TILES.limit, 0
        for seed in range(ROUNDS):
            order = (0, 1) if seed % 2 else (1, 0)
            for i in order:
                for what, read in looks(sides[i], random.Random(seed)).items():
                    began = time.process_time()
                    read()
                    spent = time.process_time() - began
                    found.setdefault(what, ([], []))[i].append(spent)
        TILES.limit = limit
        for slide in sides:
            slide.close()
    for what, (plain, corrected) in found.items():
        a, b = (1000 * statistics.median(v) for v in (plain, corrected))
        print(f"{what:34s} plain {a:6.2f} ms, corrected {b:6.2f} ms, ratio {b / a:.2f}")


if __name__ == "__main__":
    main()
