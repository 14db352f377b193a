"""SHELL runs from what ships, warns, and its stain pictures mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from pathotune import drain, open_slide
from pathotune.events import Note
from pathotune.maps.dense import shell
from pathotune.slides.sample import skin_slide
from pathotune.slides.tissue import full_mask


def test_shell_maps_a_piece_of_skin_and_warns(tmp_path):
    pytest.importorskip("onnxruntime")
    with open_slide(skin_slide()) as whole:
        cut = whole.read_level(0, 0, 400, 700, 700)
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, cut, resolution=(20000, 20000), resolutionunit="CENTIMETER")
    notes = []
    with open_slide(path) as slide:
        job = shell.predict(slide, full_mask(slide))
        found = drain(job, lambda e: notes.append(e.text) if isinstance(e, Note) else None)
    assert "prostate" in notes[0]
    assert found.labels.shape == (44, 44) and (found.labels > 0).all()
    assert np.abs(found.probs.astype(float).sum(-1) - 1).max() < 2e-3


def test_stain_pictures_tell_the_stains_apart():
    rng = np.random.default_rng(0)
    h = np.array([0.65, 0.70, 0.29])
    e = np.array([0.07, 0.99, 0.11])
    amount = rng.uniform(0, 0.7, (4000, 2)) * np.eye(2)[rng.integers(0, 2, 4000)]
    pixels = 245 * 10.0 ** -(amount @ np.array([h, e]))
    stains = shell.Stains(pixels.astype(np.uint8))
    eosin, blue, density = stains.pictures(pixels.astype(np.uint8).reshape(1, 40, 100, 3))[0]
    assert np.corrcoef(blue.ravel(), amount[:, 0])[0, 1] > 0.95
    assert np.corrcoef(eosin.ravel(), amount[:, 1])[0, 1] > 0.95
    assert density.min() >= 0 and density.max() <= 1
