"""The watershed on outlined nuclei, where there is no eosin, and beside ink."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import skimage.io
import skimage.transform

from pathotune.nuclei.scores import scores
from pathotune.nuclei.segmenters.watershed import Config, Watershed, threshold
from pathotune.nuclei.stains import HAEMATOXYLIN, Stains, density, estimate, inked, separation


def found(pixels):
    stains = estimate([pixels])
    config = Config()
    segmenter = Watershed(stains, threshold([pixels], stains, config.share), config, ())
    return segmenter.segment(pixels).labels


@pytest.mark.parametrize(
    ("appearance", "least"), [("he_pink", 0.33), ("hematoxylin_lilac", 0.43), ("white_bg", 0.40)]
)
def test_nuclei_outlined_by_people_are_found_in_every_appearance(shared, appearance, least):
    """Mean AJI of nine tiles, each at the scale where its median nucleus is 7.5 um wide.

    Two of the appearances hold no eosin: two depths of one violet must not pass for two dyes.
    """
    folder = shared / "data" / "nuclei_dsb2018_he"
    with (folder / "index_dev.csv").open() as file:
        names = [r["id"] for r in csv.DictReader(file) if r["appearance"] == appearance]
    told = []
    for name in names[:: max(1, len(names) // 9)][:9]:
        pixels = skimage.io.imread(folder / "train" / "images" / f"{name}.png")[..., :3]
        truth = skimage.io.imread(next((folder / "train" / "masks").glob(f"{name}*")))
        areas = np.bincount(truth.ravel())[1:]
        factor = 15 / (2 * np.sqrt(np.median(areas[areas > 0]) / np.pi))
        size = [round(s * factor) for s in truth.shape]
        scaled = skimage.transform.resize(pixels, size, order=1, preserve_range=True)
        labels = found(scaled.round().astype(np.uint8))
        whole = skimage.transform.resize(
            labels, truth.shape, order=0, preserve_range=True, anti_aliasing=False
        )
        told.append(scores(whole.astype(np.int64), truth)["aji"])
    assert np.mean(told) > least


def picture(dyes, stains):
    light = sum(a[..., None] * np.array(v) for a, v in zip(dyes, stains, strict=True))
    return np.round(255 * 10**-light).astype(np.uint8)


def test_ink_is_no_nucleus_and_does_not_colour_the_stains():
    rng = np.random.default_rng(0)
    stains = Stains()
    mix = rng.random((200, 200)) ** 3
    tissue = picture((0.8 * mix, 0.8 * (1 - mix)), (stains.haematoxylin, stains.eosin))
    with_ink = tissue.copy()
    with_ink[:60] = (10, 140, 130)
    assert inked(density(with_ink))[:60].all()
    assert not inked(density(tissue)).any()
    seen = estimate([with_ink])
    assert np.dot(seen.haematoxylin, HAEMATOXYLIN) > 0.99
    assert not found(with_ink)[:58].any()


def test_separation_of_two_heaps_and_of_one():
    two = np.r_[np.full(500, 0.2), np.full(500, 0.8)] + np.linspace(-0.01, 0.01, 1000)
    assert separation(two) > 0.99
    assert separation(np.full(100, 0.3)) == 0
