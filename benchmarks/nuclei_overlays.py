"""Pictures to judge by eye: outlines of every segmenter on every H&E image at hand.

Usage: ``python benchmarks/nuclei_overlays.py DEVELOPMENT_DATA OUT [KEY ...]``. Each picture
shows the tissue at 0.5 um/px as it is and, beside it, with the outlines of each segmenter; the
counts are printed. Larger images are shown by a field from their middle.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.segmentation import find_boundaries

from pathotune.nuclei.segmenter import known, prepare
from pathotune.slides.slide import open_slide

FIELD = 384
ZOOM = 2
LINE = (0, 255, 0)
# um/px where the file has none, judged by the width of lymphocytes and red cells
IMAGES = {
    "img_os1_he_crop/OS-1-detail.ome.tif": 0.2271,
    "img_instanseg_he/HE_example.tif": 0.5,
    "img_stardist_histo/histo.jpg": 0.4,
    "img_stain_pair/source.png": 1.0,
    "img_stain_pair/target.png": 1.0,
    "img_histolab_artifacts/medium-nuclei-score-level0.png": 0.5,
    "img_histolab_artifacts/low-nuclei-score-level0.png": 0.5,
    "img_histolab_artifacts/very-low-nuclei-score-level0.png": 0.5,
    "img_histolab_artifacts/high-nuclei-score-red-pen-level1.png": 1.0,
    "img_histolab_artifacts/tcga-lung-rgb.png": 0.3,
    "img_histolab_artifacts/no-tissue-green-pen.png": 0.5,
    "img_skimage_ihc/ihc.png": 0.6,
    "wsi_cmu1_small_region/CMU-1-Small-Region.svs": 0.499,
    "wsi_tcga_cr7395/TCGA-CR-7395-01A-01-TS1.svs": 1.0,
    "wsi_her2st_sections/C2_pyramid.ome.tif": 0.688,
    "regions_crc_mosaic/crc_mosaic_dev.ome.tif": 0.5,
}


def outlined(pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the picture enlarged, with a line around every nucleus."""
    big = np.asarray(Image.fromarray(pixels).resize([s * ZOOM for s in pixels.shape[1::-1]]))
    big = big.copy()
    large = labels.repeat(ZOOM, 0).repeat(ZOOM, 1)
    big[find_boundaries(large, mode="inner")] = LINE
    return big


def main() -> None:
    """Write the pictures and print the counts."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    keys = sys.argv[3:] or list(known())
    out.mkdir(parents=True, exist_ok=True)
    for name, mpp in IMAGES.items():
        with open_slide(data / name, mpp=mpp) as slide:
            w, h = (int(s * mpp / 0.5) for s in (slide.width, slide.height))
            side_x, side_y = min(w, FIELD), min(h, FIELD)
            x, y = ((s - n) / 2 * 0.5 / mpp for s, n in ((w, side_x), (h, side_y)))
            pixels = slide.read_scaled(x, y, 0.5, side_x, side_y)
            shown = [outlined(pixels, np.zeros(pixels.shape[:2], int))]
            told = []
            for key in keys:
                found = prepare(key, slide).segment(pixels)
                shown.append(outlined(pixels, found.labels))
                told.append(f"{key} {found.labels.max()}")
        Image.fromarray(np.hstack(shown)).save(out / (name.replace("/", "_") + ".jpg"), quality=85)
        print(f"{name}: {', '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
