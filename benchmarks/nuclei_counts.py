"""Counts of nuclei where a number is known, and whether the scan's um/px changes them.

Usage: ``python benchmarks/nuclei_counts.py DEVELOPMENT_DATA [KEY ...]``. The OS-1 field has
published counts of 319 (QuPath) and 331 (StarDist). Both images are averaged by area (or, below
their own um/px, interpolated) to scans of 0.2 to 1.0 um/px, written as files and opened like any
slide; every segmenter then works at its own um/px.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from pathotune.nuclei.segmenter import known, prepare
from pathotune.slides.slide import open_slide

SCALES = (0.2, 0.25, 0.35, 0.5, 0.7, 1.0)
IMAGES = {
    "OS-1": ("img_os1_he_crop/OS-1-detail.ome.tif", 0.2271),
    "CMU-1": ("wsi_cmu1_small_region/CMU-1-Small-Region.svs", 0.499),
}
FIELD_UM = 700.0


def count(path: Path, mpp: float, key: str) -> int:
    """Return how many nuclei a segmenter finds in a whole picture."""
    with open_slide(path, mpp=mpp) as slide:
        finder = prepare(key, slide)
        w, h = (round(s * mpp / finder.mpp) for s in (slide.width, slide.height))
        pixels = slide.read_scaled(0, 0, finder.mpp, w, h)
        return int(finder.segment(pixels).labels.max(initial=0))


def main() -> None:
    """Print a line for each image and segmenter."""
    data, keys = Path(sys.argv[1]), sys.argv[2:] or list(known())
    with tempfile.TemporaryDirectory() as folder:
        for name, (file, own) in IMAGES.items():
            with open_slide(data / file, mpp=own) as slide:
                side = min(slide.width, slide.height, round(FIELD_UM / own))
                side = side // 2 * 2
                for key in keys:
                    told = []
                    for mpp in SCALES:
                        n = round(side * own / mpp)
                        x = (slide.width - side) / 2
                        picture = Path(folder) / f"{name}-{mpp}.png"
                        if not picture.exists():
                            y = (slide.height - side) / 2
                            Image.fromarray(slide.read_scaled(x, y, mpp, n, n)).save(picture)
                        told.append(count(picture, mpp, key))
                    spread = (max(told) - min(told)) / max(1, np.median(told))
                    text = "  ".join(f"{m:g}: {c}" for m, c in zip(SCALES, told, strict=True))
                    print(f"{name:6} {key:12} {text}  (spread {spread:.0%})", flush=True)


if __name__ == "__main__":
    main()
