"""Made-up nuclei: laid out as asked, and painted where they lie and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pathotune.events import PathotuneError
from pathotune.nuclei.stains import Stains
from pathotune.nuclei.synth.masks import Sizes, measured, pseudo_mask
from pathotune.nuclei.synth.renderer import render

SLIDERS = [
    Sizes(),
    Sizes(6, 0.2, 1.2, 6000, 0.6),
    Sizes(10, 0.4, 2.0, 1500, 0.0),
    Sizes(8, 0.3, 1.5, 4000, 1.0),
]


@pytest.mark.parametrize("sizes", SLIDERS)
def test_sizes_and_density_are_within_a_tenth_of_the_sliders(sizes):
    fields = [pseudo_mask(np.random.default_rng(k), 320, 0.5, sizes) for k in range(6)]
    told = [measured(f.instances, 0.5) for f in fields]
    assert np.mean([t.diameter_um for t in told]) == pytest.approx(sizes.diameter_um, rel=0.1)
    assert np.mean([t.per_mm2 for t in told]) == pytest.approx(sizes.per_mm2, rel=0.1)
    assert np.mean([t.elongation for t in told]) == pytest.approx(sizes.elongation, rel=0.1)


def test_a_field_is_seeded_numbered_and_in_one_piece_each():
    first, again = (pseudo_mask(np.random.default_rng(3), (200, 260), 0.5) for _ in range(2))
    assert np.array_equal(first.instances, again.instances)
    assert np.array_equal(first.channels, again.channels)
    ids = first.instances
    assert ids.shape == (200, 260) and ids.dtype == np.int32
    assert np.array_equal(np.unique(ids), np.arange(len(first.lined) + 1))
    for number in range(1, len(first.lined) + 1):
        assert ndimage.label(ids == number)[1] == 1


def test_the_channels_agree_with_the_numbers():
    field = pseudo_mask(np.random.default_rng(0), 256, 0.5, Sizes(lined=0.5))
    outline, scattered, lined = field.channels
    line = np.concatenate([[False], field.lined])[field.instances]
    assert field.lined.any() and not field.lined.all()
    assert np.array_equal(lined > 0, line)
    assert np.array_equal(scattered > 0, (field.instances > 0) & ~line)
    assert not outline[field.instances == 0].any()
    assert all(outline[field.instances == n].any() for n in range(1, len(field.lined) + 1))
    inside = (scattered + lined)[field.instances > 0]
    assert inside.std() > 0.05 and inside.max() <= 1


def test_another_state_gives_another_field_and_none_gives_none():
    a, b = (pseudo_mask(np.random.default_rng(k), 128, 0.5) for k in range(2))
    assert not np.array_equal(a.instances, b.instances)
    empty = pseudo_mask(np.random.default_rng(0), 64, 0.5, Sizes(per_mm2=0))
    assert not empty.instances.any() and not empty.channels.any()
    assert render(empty, Stains(), np.random.default_rng(0)).shape == (64, 64, 3)


def test_too_many_for_the_field_is_said():
    with pytest.raises(PathotuneError, match="cannot be laid out"):
        pseudo_mask(np.random.default_rng(0), 64, 0.5, Sizes(12, per_mm2=9000))


def far_blobs(picture, ids, stains):
    """Return the share of the field that is as dark as nuclei but far from any."""
    h = ndimage.gaussian_filter(stains.split(picture)[0], 1)
    bar = h[ids > 0].mean()
    far = ~ndimage.binary_dilation(ids > 0, iterations=3)
    return (ndimage.binary_opening(h > bar, iterations=2) & far).mean()


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_nuclei_are_painted_in_their_masks_and_nowhere_else(mpp):
    stains = Stains()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        field = pseudo_mask(rng, 192, mpp)
        picture = render(field, stains, rng)
        h, inside = stains.split(picture)[0], field.instances > 0
        assert h[inside].mean() - h[~inside].mean() >= 0.15
        assert far_blobs(picture, field.instances, stains) <= 0.1
    # the check can fail: the same picture against a mask that lies elsewhere
    moved = np.roll(inside, 96, axis=(0, 1))
    assert h[moved].mean() - h[~moved].mean() < 0.15


def test_a_real_background_stays_where_there_is_no_nucleus():
    rng = np.random.default_rng(0)
    field = pseudo_mask(rng, 96, 0.5)
    back = np.full((96, 96, 3), (226, 190, 214), np.uint8)
    picture = render(field, Stains(), rng, background=back).astype(int)
    far = ndimage.distance_transform_edt(field.instances == 0) > 6
    assert np.abs(picture[far] - (226, 190, 214)).mean() < 6
    with pytest.raises(ValueError, match="background"):
        render(field, Stains(), rng, background=back[:50])
