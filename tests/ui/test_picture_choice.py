"""The Slide dock offers what a file holds, opens it as chosen, keeps marks in place."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_pathotune import _contributions
from napari_pathotune._slide_dock import SlideDock


@pytest.fixture
def dock(quick, window, qtbot):
    viewer, _session = window
    dock = SlideDock(viewer)
    dock.resize(320, 640)
    qtbot.addWidget(dock)
    dock.show()
    return dock


@pytest.fixture
def many(tmp_path):
    path = tmp_path / "many.ome.tif"
    stack = np.random.default_rng(0).integers(0, 255, (3, 2, 300, 400), np.uint8)
    scale = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    channels = {"Channel": {"Name": ["DAPI", "CD3"]}}
    with tifffile.TiffWriter(path, ome=True) as out:
        out.write(stack, metadata={"axes": "ZCYX", "Name": "stack", **scale, **channels})
        colour = np.full((200, 200, 3), (200, 100, 150), np.uint8)
        out.write(colour, photometric="rgb", metadata={"axes": "YXS", "Name": "small", **scale})
    return path


def test_rows_stand_only_where_there_is_a_choice(dock, skin, wait_until):
    dock.open(skin)
    wait_until(lambda: dock.session.slide is not None)
    rows = dock.picture.rows
    for widget in (dock.picture.scene, dock.picture.depth, dock.picture.channel):
        assert not rows.isRowVisible(widget)
    assert rows.isRowVisible(dock.picture.icc) == dock.session.slide.has_icc


def test_depth_channel_and_scene_open_the_slide_that_way(dock, many, wait_until):
    session = dock.session
    dock.open(many)
    wait_until(lambda: session.slide is not None and session.tissue is not None)
    picture, first = dock.picture, session.slide
    assert picture.isVisible() and picture.channel.currentText() == "Together: DAPI, CD3"
    wait_until(lambda: not picture.scene.itemIcon(1).isNull(), what="a thumbnail")
    picture.depth.setValue(3)
    wait_until(lambda: session.slide is not first and session.slide is not None)
    assert session.slide.view.z == 3 and session.slide.fingerprint == first.fingerprint
    second = session.slide
    picture.channel.setCurrentIndex(2)
    picture.channel.activated.emit(2)
    wait_until(lambda: session.slide is not second and session.slide is not None)
    assert session.slide.view.channel == 2 and session.slide.view.z == 3
    third = session.slide
    picture.scene.setCurrentIndex(1)
    picture.scene.activated.emit(1)
    wait_until(lambda: session.slide is not third and session.slide is not None)
    assert session.slide.width == 200 and session.slide.fingerprint != first.fingerprint
    assert not picture.rows.isRowVisible(picture.depth)


def test_napari_hands_folders_to_the_reader_which_declines_what_is_no_slide(tmp_path):
    assert _contributions.slide_reader(str(tmp_path)) is None
