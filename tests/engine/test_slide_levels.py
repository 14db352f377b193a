"""Levels for the viewer keep landmarks in place and memory bounded."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.registration import phase_cross_correlation

from pathotune.events import PathotuneError
from pathotune.slides import levels, scaled
from pathotune.slides.resample import area, weights
from pathotune.slides.slide import open_slide


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Return a flat picture of one level with soft structure, and its pixels."""
    path = tmp_path_factory.mktemp("flat") / "flat.tif"
    rng = np.random.default_rng(3)
    coarse = rng.integers(40, 230, (47, 61, 3), dtype=np.uint8)
    pixels = area(coarse, 0, 0, 47 / 1503, 47 / 1503, 1950, 1503)
    tifffile.imwrite(path, pixels, photometric="rgb")
    return path, pixels


def test_a_flat_slide_gets_levels_that_can_be_drawn(flat, monkeypatch):
    path, pixels = flat
    monkeypatch.setattr(levels, "OVERVIEW_SIDE", 300)
    with open_slide(path) as slide:
        arrays = slide.pyramid()
        assert [a.shape for a in arrays] == [(1503, 1950, 3), (375, 487, 3), (93, 121, 3)]
        for array in arrays[1:]:
            ratio = 1503 / array.shape[0], 1950 / array.shape[1]
            ideal = area(pixels, 0, 0, ratio[1], ratio[0], array.shape[1], array.shape[0])
            shown = np.asarray(array)
            shift = phase_cross_correlation(
                ideal.mean(axis=2), shown.mean(axis=2), upsample_factor=20
            )[0]
            assert np.abs(shift).max() <= 0.5
            assert np.array_equal(array[10:40, 20:60], shown[10:40, 20:60])


def test_a_slide_with_levels_enough_gets_no_more(shared):
    path = shared / "data/wsi_her2st_sections/C2_pyramid.ome.tif"
    with open_slide(path) as slide:
        assert len(slide.pyramid()) == len(slide.levels)


def test_steps_are_read_in_bands(flat, monkeypatch):
    path, pixels = flat
    monkeypatch.setattr(levels, "_BAND_BYTES", 200_000)
    with open_slide(path) as slide:
        largest = 0
        read = slide.read_level

        def watched(level, x, y, w, h):
            nonlocal largest
            largest = max(largest, w * h * 3)
            return read(level, x, y, w, h)

        monkeypatch.setattr(slide, "read_level", watched)
        assert np.array_equal(slide.level_array(0)[::97, ::31], pixels[::97, ::31])
        assert np.array_equal(slide.level_array(0)[::-50, 5:9], pixels[::-50, 5:9])
        assert largest <= 2 * 200_000


def test_a_whole_level_too_large_for_memory_is_refused_in_words(flat, monkeypatch):
    monkeypatch.setattr(levels, "LARGEST_WHOLE", 1_000_000)
    with open_slide(flat[0]) as slide:
        array = slide.level_array(0)
        with pytest.raises(PathotuneError, match="too large"):
            np.asarray(array)
        assert array[:50, :50].shape == (50, 50, 3)
        with pytest.raises(IndexError):
            array[9999]


def test_a_thumbnail_of_a_flat_slide_is_read_in_bands(flat, monkeypatch):
    path, _ = flat
    with open_slide(path) as slide:
        want = slide.thumbnail(200)
    monkeypatch.setattr(scaled, "BAND_PIXELS", 50_000)
    with open_slide(path) as slide:
        got = slide.thumbnail(200)
    assert np.abs(got.astype(int) - want).max() <= 1


@given(st.floats(0.2, 9), st.floats(-3, 20), st.integers(1, 30))
@settings(max_examples=80, deadline=None)
def test_weights_sum_to_one_and_sit_where_the_pixel_lies(step, start, count):
    # a pixel in part is averaged as if all of it lay at its centre: an eighth of a pixel at most
    size = 300
    matrix = weights(start, step, count, size).toarray()
    assert np.allclose(matrix.sum(axis=1), 1, atol=1e-5) and (matrix >= -1e-6).all()
    middles = matrix @ (np.arange(size) + 0.5)
    wanted = start + step * (np.arange(count) + 0.5)
    inside = (wanted - max(step, 1) / 2 > 1) & (wanted + max(step, 1) / 2 < size - 1)
    assert np.abs(middles - wanted)[inside].max(initial=0) <= 0.126


@given(st.floats(1, 6), st.floats(0, 5), st.integers(2, 20), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_two_tiles_side_by_side_are_one(step, start, count, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 260, 3), dtype=np.uint8)
    whole = area(pixels, start, 0, step, 2, 2 * count, 12)
    left = area(pixels, start, 0, step, 2, count, 12)
    right = area(pixels, start + count * step, 0, step, 2, count, 12)
    assert np.abs(np.hstack([left, right]).astype(int) - whole).max() <= 1


def test_enlarging_is_seamless_between_tiles(flat):
    with open_slide(flat[0], mpp=0.7) as slide:
        whole = slide.read_scaled(100.3, 200.8, 0.5, 160, 80).astype(int)
        half = 80 * 0.5 / 0.7
        left = slide.read_scaled(100.3, 200.8, 0.5, 80, 80)
        right = slide.read_scaled(100.3 + half, 200.8, 0.5, 80, 80)
        assert np.abs(np.hstack([left, right]) - whole).max() <= 1
