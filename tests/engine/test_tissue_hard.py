"""What once fooled the tissue mask: blue nuclei, pale fat, unscanned parts, ink."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shapely.geometry import Polygon, shape

from pathotune.slides.pen import strokes
from pathotune.slides.sample import sample_annotations, sample_slide
from pathotune.slides.slide import open_slide
from pathotune.slides.stain import kind_of, looks_like_he, stain_problem
from pathotune.slides.tissue import TissueMask, find_tissue, tissue_mask

RNG = np.random.default_rng(11)


def section(glass=(243, 241, 243), colour=(205, 140, 180)) -> np.ndarray:
    """Return glass with a square of tissue in rows and columns 60 to 190."""
    pixels = RNG.normal(glass, 1.0, (250, 250, 3))
    pixels[60:190, 60:190] = np.array(colour) + RNG.normal(0, 14, (130, 130, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def test_every_region_of_the_sample_is_kept():
    with open_slide(sample_slide()) as slide:
        mask = tissue_mask(slide)
        assert slide.stain_problem == ""
    features = json.loads(sample_annotations().read_text())["features"]
    assert features
    for feature in features:
        geometry = shape(feature["geometry"])
        x0, y0, x1, y1 = geometry.bounds
        x, y = (a.ravel() for a in np.meshgrid(np.arange(x0, x1, 9), np.arange(y0, y1, 9)))
        inside = shapely.contains_xy(geometry, x, y)
        assert mask.at(x[inside], y[inside]).mean() >= 0.95, feature["properties"]


def test_blue_nuclei_of_a_frozen_section_are_no_pen(shared):
    with open_slide(shared / "data/wsi_her2st_sections/C2_pyramid.ome.tif") as slide:
        small = slide.read_downsampled(0, 0, 6, slide.width // 6, slide.height // 6)
        assert not strokes(small, slide.mpp * 6).any()


def test_blue_pen_beside_tissue(shared):
    path = shared / "data/img_histolab_artifacts/wsi-blue-pen.png"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    mask = find_tissue(pixels, 60.0)
    red, _, blue = pixels.astype(int).transpose(2, 0, 1)
    ink = (blue - red > 60) & (blue > 120)
    assert ink.sum() > 200 and mask[ink].mean() < 0.15
    pink = (red - pixels[..., 1].astype(int) > 40) & ~ink
    assert mask[pink].mean() > 0.95


@pytest.mark.parametrize("ink", [(40, 160, 130), (40, 90, 200), (205, 40, 55), (25, 24, 30)])
def test_a_stroke_of_any_ink_is_left_out_and_tissue_beside_it_kept(ink):
    pixels = section()
    pixels[205:245, 20:230] = (np.array(ink) + RNG.normal(0, 3, (40, 210, 3))).clip(0, 255)
    mask = find_tissue(pixels, 8.0)
    assert mask[207:243, 24:226].mean() < 0.02
    assert mask[62:180, 62:188].mean() > 0.97


@pytest.mark.parametrize("void", [255, 0])
def test_parts_that_were_never_scanned_are_glass(void):
    pixels = section(glass=(225, 222, 228))
    pixels[:, :50] = void
    mask = find_tissue(pixels, 8.0)
    assert mask[:, :40].mean() < 0.02 and mask[:50].mean() < 0.02
    assert mask[65:185, 65:185].mean() > 0.97


def test_pale_tissue_that_hangs_together_with_darker_stays():
    pixels = section()
    pale = np.array((243, 236, 243))  # six grey levels of eosin
    pixels[190:230, 60:190] = (pale + RNG.normal(0, 1.0, (40, 130, 3))).astype(np.uint8)
    mask = find_tissue(pixels, 8.0)
    assert mask[190:226, 64:186].mean() > 0.9
    assert mask[:40].mean() < 0.02


def test_a_grey_picture_has_no_pen():
    grey = np.repeat(section()[..., :1], 3, axis=2)
    grey[100:150, 100:150] = 20
    assert find_tissue(grey, 8.0)[102:148, 102:148].mean() > 0.9


@pytest.mark.parametrize("shape_", [(1, 1), (3, 200), (200, 2), (17, 9)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_the_smallest_and_emptiest_pictures_do_no_harm(shape_, value):
    mask = find_tissue(np.full((*shape_, 3), value, np.uint8), 4.0)
    assert mask.shape == shape_ and mask.dtype == bool


def test_tissue_painted_round_with_black_is_not_fluorescence(shared):
    path = shared / "data/regions_her2st_A1/A1_HE_background_masked.png"
    with open_slide(path) as slide:
        assert slide.kind == "brightfield" and slide.stain_problem == ""
        mask = tissue_mask(slide)
        dark = slide.thumbnail(512).max(axis=2) < 10
        assert mask.mask.mean() < 1 - 0.85 * dark.mean()


def test_what_is_not_he_is_named(shared):
    data = shared / "data"
    with open_slide(data / "img_skimage_ihc/ihc.png") as slide:
        assert slide.stain_problem == "The colours do not look like H&E."
    for path in sorted((data / "tiles_crc_he_9class").rglob("*.png"))[::9]:
        assert looks_like_he(np.asarray(Image.open(path).convert("RGB"))) == (True, ""), path
    lymphocytes = (np.array((62, 38, 68)) + RNG.normal(0, 12, (99, 99, 3))).astype(np.uint8)
    assert kind_of(lymphocytes) == "brightfield" and stain_problem(lymphocytes) == ""


@given(
    st.lists(st.tuples(st.floats(-50, 900), st.floats(-50, 700)), min_size=3, max_size=7),
    st.floats(3, 40),
    st.floats(3, 40),
)
@settings(max_examples=60, deadline=None)
def test_no_point_of_a_marked_region_is_ever_hidden(points, step_x, step_y):
    region = Polygon(points).buffer(0)
    empty = np.zeros((max(1, int(650 / step_y)), max(1, int(850 / step_x))), bool)
    mask = TissueMask(empty, 850 / empty.shape[1], 650 / empty.shape[0], "auto")
    x, y = (a.ravel() for a in np.meshgrid(np.arange(1.0, 850, 13), np.arange(1.0, 650, 13)))
    inside = shapely.contains_xy(region, x, y)
    assert mask.with_regions([region]).at(x[inside], y[inside]).all()
