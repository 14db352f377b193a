"""The Slide dock says at any moment what it knows and the one thing to do next."""

from __future__ import annotations

import numpy as np
import pytest

from napari_pathotune._slide_dock import SlideDock
from napari_pathotune._slide_facts import size


@pytest.fixture
def dock(quick, window, qtbot):
    viewer, _session = window
    dock = SlideDock(viewer)
    dock.resize(320, 640)
    qtbot.addWidget(dock)
    dock.show()
    return dock


def test_empty_it_offers_the_two_ways_in(dock):
    assert dock.pages.currentIndex() == 0
    assert dock.primary.text() == "Open a slide..." and dock.primary.isEnabled()
    assert dock.sample.text() == "Try the sample"


def test_um_are_asked_inline_and_nothing_else_is_in_the_way(dock, patches, wait_until):
    session = dock.session
    dock.open(patches)
    wait_until(lambda: session.tissue is not None)
    assert dock.mpp.isVisible() and "#ff" in dock.mpp.title.text()
    assert not dock.primary.isEnabled() and "objective" in dock.hint.text()
    dock.mpp.field.setValue(0.25)
    assert "#ff" not in dock.mpp.title.text()
    assert dock.primary.isEnabled() and dock.primary.text() == "Use this µm/px"
    dock.primary.click()
    assert session.slide.mpp == 0.25 and not dock.mpp.isVisible()
    assert "0.25 µm/px (typed)" in dock.origin_line.text()
    wanted = []
    session.dock_wanted.connect(wanted.append)
    dock.primary.click()
    assert wanted == ["annotate"]


def test_a_number_that_cannot_be_is_told_in_the_dock(dock, patches, wait_until):
    dock.open(patches)
    wait_until(lambda: dock.session.slide is not None)
    dock.mpp.field.setValue(0.001)
    dock.primary.click()
    assert dock.session.slide.mpp is None and dock.notice.isVisible()


def test_facts_of_a_real_slide(dock, skin, wait_until):
    dock.open(skin)
    wait_until(lambda: dock.session.tissue is not None)
    assert dock.name.whole == "CMU-1-Small-Region.svs"
    assert dock.size_line.text() == "2,220 x 2,967 px · 1.1 x 1.5 mm" == size(dock.session.slide)
    assert dock.origin_line.text() == "0.499 µm/px · 20x · Aperio · 1 level"
    assert "mm²" in dock.tissue_line.text()
    assert dock.primary.text() == "Mark regions"


def test_tissue_is_shown_and_hidden(dock, skin, wait_until):
    dock.open(skin)
    wait_until(lambda: dock.session.tissue is not None)
    viewer = dock.session.viewer
    dock.show_tissue.click()
    layer = viewer.layers["Tissue border"]
    assert np.array_equal(layer.data > 0, dock.session.tissue.mask)
    dock.show_tissue.click()
    assert "Tissue border" not in viewer.layers


def test_a_fluorescence_slide_says_what_models_are_for(dock, shared, wait_until):
    dock.open(shared / "data" / "wsi_ndpi_fluor" / "test3-DAPI-2-(387).ndpi")
    wait_until(lambda: dock.session.slide is not None)
    assert dock.stain_line.isVisible() and "H&E" in dock.stain_line.text()


def test_errors_stand_in_the_dock(dock, tmp_path, wait_until):
    path = tmp_path / "broken.svs"
    path.write_bytes(b"II*\0" + b"\0" * 200)
    dock.open(path)
    wait_until(lambda: dock.notice.isVisible())
    assert str(tmp_path) not in dock.notice.text


def test_nothing_is_wider_than_the_dock(dock, skin, wait_until):
    dock.open(skin)
    wait_until(lambda: dock.session.tissue is not None)
    dock.network.expand(animate=False)
    assert dock.minimumSizeHint().width() <= 320


def test_a_download_is_offered_with_its_terms_and_needs_a_yes(dock, skin, wait_until, monkeypatch):
    from napari_pathotune import _settings

    monkeypatch.setattr(_settings, "offline", lambda: False)
    dock.open(skin)
    wait_until(lambda: dock.session.tissue is not None)
    dock._on_card("dinov2-small")
    assert dock.session.card_id == "colour"
    assert "Apache-2.0" in dock.notice.text and "88 MB" in dock.notice.text
    assert not dock.session.allow_download
    monkeypatch.setattr(_settings, "offline", lambda: True)
    dock._on_card("dinov2-small")
    assert "switched off" in dock.notice.text and dock.session.card_id == "colour"
