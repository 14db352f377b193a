"""Dice, AJI and PQ of the segmenters on nuclei outlined by people, one appearance at a time.

Usage: ``python benchmarks/nuclei_quality.py FOLDER`` with images in ``train/images`` and label
images of the same stem in ``train/masks``. The tiles have no um/px: each gets the one at which
its median nucleus is 7.5 um wide. That uses the truth for scale alone. Appearances are
told apart by k-means on the mean and spread of the colours. No parameter is fitted here.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import skimage.io
import skimage.transform
from sklearn.cluster import KMeans

from pathotune.nuclei.scores import scores
from pathotune.nuclei.segmenter import known, prepare
from pathotune.slides.slide import open_slide

DIAMETER_UM = 7.5
GROUPS = 3


def main() -> None:
    """Print a table."""
    folder = Path(sys.argv[1]) / "train"
    images = sorted((folder / "images").glob("*.png"))
    pixels = [skimage.io.imread(p)[..., :3] for p in images]
    truths = [skimage.io.imread(next((folder / "masks").glob(f"{p.stem}*"))) for p in images]
    colours = np.array([[*p.mean(axis=(0, 1)), *p.std(axis=(0, 1))] for p in pixels])
    groups = KMeans(GROUPS, n_init=10, random_state=0).fit_predict(colours)
    for key in known():
        told: dict[str, list[dict[str, float]]] = defaultdict(list)
        for path, truth, group in zip(images, truths, groups, strict=True):
            areas = np.bincount(truth.ravel())[1:]
            wide = 2 * np.sqrt(np.median(areas[areas > 0]) / np.pi)
            mpp = DIAMETER_UM / wide
            with open_slide(path, mpp=float(np.clip(mpp, 0.1, 2.0))) as slide:
                finder = prepare(key, slide)
                labels = finder.segment(slide.read(slide.bounds, finder.mpp)).labels
            whole = skimage.transform.resize(
                labels, truth.shape, order=0, preserve_range=True, anti_aliasing=False
            )
            row = scores(whole.astype(np.int64), truth)
            told[f"appearance {group}"].append(row)
            told["all"].append(row)
        for name in sorted(told):
            rows = told[name]
            text = "  ".join(
                f"{k} {np.mean([r[k] for r in rows]):.3f} +- {np.std([r[k] for r in rows]):.3f}"
                for k in ("dice", "aji", "pq")
            )
            print(f"{key:12} {name:14} n={len(rows):3d}  {text}")


if __name__ == "__main__":
    main()
