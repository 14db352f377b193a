"""Where pixels lie: slide, map and marks meet within a fraction of a slide pixel."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_pathotune import _layers
from pathotune.slides.slide import Region, open_slide


@pytest.fixture
def slide(skin):
    with open_slide(skin) as slide:
        yield slide


def edges(layer, row, col):
    """Return the world's (y, x) of the corner and the far corner of a raster cell."""
    scale, move = np.asarray(layer.scale[-2:]), np.asarray(layer.translate[-2:])
    centre = move + scale * np.array([row, col])
    return centre - scale / 2, centre + scale / 2


def test_the_slide_lies_in_um_with_its_first_pixel_centred_on_zero(slide):
    viewer = ViewerModel()
    layer = _layers.add_slide(viewer, slide)
    np.testing.assert_allclose(layer.scale, (slide.mpp_y, slide.mpp_x))
    assert [str(u) for u in layer.units] == ["micrometer", "micrometer"]
    assert layer.axis_labels == ("y", "x")
    assert viewer.canvas.overlays.scale_bar.visible
    assert _layers.slide_of(layer) is slide


@pytest.mark.parametrize("step", [1.0, 14.0, 14.03, 28.1, 224.0])
@pytest.mark.parametrize("origin", [(0.0, 0.0), (37.5, 112.25)])
def test_a_map_is_aligned_to_less_than_a_slide_pixel(slide, step, origin):
    viewer = ViewerModel()
    image = _layers.add_slide(viewer, slide)
    place = _layers.grid_place(slide, step, origin)
    data = np.zeros((40, 30), np.uint8)
    layer = _layers.add_labels(viewer, slide, data, name="map", place=place)
    near, far = edges(layer, 0, 0)
    pixel = np.asarray(image.scale[-2:])
    corner, _ = edges(image, 0, 0)  # the outer corner of slide pixel (0, 0)
    np.testing.assert_allclose((near - corner) / pixel, origin[::-1], atol=1e-6)
    np.testing.assert_allclose((far - near) / pixel, (step, step), rtol=1e-9)
    near, _ = edges(layer, 39, 29)
    expected = np.array([39 * step + origin[1], 29 * step + origin[0]])
    np.testing.assert_allclose((near - corner) / pixel, expected, atol=1e-3)


def test_world_and_pixels_agree(slide):
    x, y = _layers.world_to_pixel(slide, (0.0, 0.0))
    assert (x, y) == (0.5, 0.5)  # the centre of the first pixel
    x, y = _layers.world_to_pixel(slide, (10 * slide.mpp_y, 20 * slide.mpp_x))
    assert (x, y) == pytest.approx((20.5, 10.5))


def test_the_view_is_the_part_on_the_screen(slide):
    viewer = ViewerModel()
    _layers.add_slide(viewer, slide)
    viewer.canvas.size = (600, 800)
    camera = viewer.scene.camera
    camera.zoom = 2.0 / slide.mpp  # two screen pixels a slide pixel
    camera.center = (1000 * slide.mpp_y, 700 * slide.mpp_x)
    region = _layers.view_region(viewer, slide)
    assert region is not None
    assert abs(region.width - 400) <= 2 and abs(region.height - 300) <= 2
    assert region.contains(700, 1000)
    camera.center = (1e6, 1e6)
    assert _layers.view_region(viewer, slide) is None


def test_um_come_later_and_everything_moves_to_them(shared, tmp_path):
    from PIL import Image

    path = tmp_path / "plain.png"
    Image.fromarray(np.full((60, 80, 3), 200, np.uint8)).save(path)
    viewer = ViewerModel()
    with open_slide(path) as slide:
        assert slide.mpp is None
        layer = _layers.add_slide(viewer, slide)
        assert [str(u) for u in layer.units] == ["pixel", "pixel"]
        slide.with_mpp(0.25)
        _layers.rescale(viewer, slide)
        np.testing.assert_allclose(layer.scale, (0.25, 0.25))
        assert [str(u) for u in layer.units] == ["micrometer", "micrometer"]


def test_adding_a_map_leaves_the_pen_where_it_is(slide):
    viewer = ViewerModel()
    image = _layers.add_slide(viewer, slide)
    shapes = viewer.add_shapes(name="Regions")
    place = _layers.grid_place(slide, 14.0)
    labels = _layers.add_labels(viewer, slide, np.zeros((9, 9), np.uint8), name="m", place=place)
    assert viewer.layers.selection.active is shapes
    assert list(viewer.layers) == [image, labels, shapes]
    assert not labels.editable


def test_class_colours_hide_and_show():
    table = _layers.class_colours(((255, 0, 0), (0, 0, 255)), hidden={2}).color_dict
    np.testing.assert_allclose(table[1], (1, 0, 0, 1))
    assert table[2][3] == 0 and table[0][3] == 0 and table[None][3] == 0


def test_value_colours_leave_zero_clear():
    colours = _layers.value_colours().map(np.array([0.0, 1 / 255, 1.0]))
    assert colours[0, 3] == 0 and colours[1, 3] == 1 and colours[2, 3] == 1


def test_all_levels_of_a_real_pyramid_show_the_same_place(shared):
    """A landmark sits within half a slide pixel of the level's own on every level."""
    path = shared / "data" / "wsi_her2st_sections" / "C2_pyramid.ome.tif"
    with open_slide(path) as slide:
        data, kwargs, _ = _layers.slide_layer_data(slide)
        assert kwargs["multiscale"] and len(data) == len(slide.levels)
        for array, level in zip(data, slide.levels, strict=True):
            # napari stretches a level's shape over level 0
            ratio = np.array([slide.height, slide.width]) / array.shape[:2]
            true = np.array([level.downsample_y, level.downsample_x])
            drift = np.abs(ratio - true) * np.array(array.shape[:2])
            assert (drift < 1.5 * true).all()


def test_region_type_is_the_engines():
    assert Region(0, 0, 4, 4).expand(1) == Region(-1, -1, 6, 6)
