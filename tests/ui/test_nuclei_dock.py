"""Nuclei in the real window: found, shown, read under the cursor, stopped, found again on disk."""

from __future__ import annotations

import numpy as np
import pytest

from napari_pathotune._nuclei_colours import PLAIN, Colouring, class_colours
from napari_pathotune._nuclei_desk import NucleiDesk
from napari_pathotune._nuclei_dock import NucleiDock, marked
from napari_pathotune._nuclei_words import number, spoken
from napari_pathotune._session import Session


@pytest.fixture
def tissue(shared, tmp_path):
    """Return a part of a real slide as a picture without um/px."""
    from PIL import Image

    from pathotune.slides.slide import open_slide

    path = shared / "data" / "wsi_cmu1_small_region" / "CMU-1-Small-Region.svs"
    with open_slide(path) as slide:
        pixels = slide.read_level(0, 900, 1200, 640, 480)
    Image.fromarray(pixels).save(tmp_path / "skin.png")
    return tmp_path / "skin.png"


def begin(session, path, wait_until):
    session.open(path)
    wait_until(lambda: session.slide is not None and session.tissue is not None)
    session.loop.pause()
    session.set_mpp(0.5)
    session.set_tissue(None)


def test_without_a_slide_or_um_the_button_leads_there(quick, window, patches, wait_until):
    viewer, session = window
    dock = NucleiDock(viewer, session)
    asked = []
    session.dock_wanted.connect(asked.append)
    assert dock.primary.text() == "Go to Slide"
    assert not dock.empty.isHidden()
    dock.primary.click()
    session.open(patches)
    wait_until(lambda: session.tissue is not None)
    assert "µm/px" in dock.hint.text()
    assert dock.primary.text() == "Enter µm/px"
    dock.primary.click()
    assert asked == ["slide", "slide"]
    session.set_mpp(1.0)
    wait_until(lambda: session.tissue is not None)
    assert dock.primary.text() == "Find nuclei"
    assert dock.primary.isEnabled()
    dock.where.setCurrentIndex(2)
    dock.where.activated.emit(2)
    assert not dock.primary.isEnabled()
    assert "No region is marked" in dock.hint.text()


def test_fluorescence_is_refused_with_a_reason(quick, window, patches, wait_until, monkeypatch):
    from pathotune.slides.slide import Slide

    viewer, session = window
    monkeypatch.setattr(Slide, "kind", property(lambda self: "fluorescence"))
    begin(session, patches, wait_until)
    dock = NucleiDock(viewer, session)
    assert not dock.primary.isEnabled()
    assert "fluorescence" in dock.hint.text()


def test_find_show_read_and_open_again(quick, make_napari_viewer, tissue, wait_until, qtbot):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(900, 700)
    session = Session.of(viewer)
    begin(session, tissue, wait_until)
    dock = NucleiDock(viewer, session)
    viewer.window.add_dock_widget(dock, name="Nuclei", area="right")
    dock.primary.click()
    wait_until(lambda: dock.desk.nuclei is not None and not dock.desk.state.running, 60)
    nuclei = dock.desk.nuclei
    assert 80 < len(nuclei) < 1000
    assert nuclei.finished
    assert f"{len(nuclei):,} nuclei" in dock.count.text()
    viewer.scene.camera.zoom *= 2
    wait_until(lambda: dock.view.shown is not None and dock.view.shown.drawn == "outlines")
    qtbot.wait(300)
    pixels = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    yellow = (np.abs(pixels - PLAIN).max(axis=-1) < 12).sum()
    assert yellow > 500  # real outlines on the real screen
    x, y = nuclei.xy[len(nuclei) // 2]
    viewer.cursor.position = ((y - 0.5) * 0.5, (x - 0.5) * 0.5)
    wait_until(lambda: "area" in dock.under.text())
    assert "µm²" in viewer.status

    def colours():
        shown = dock.view.shown.pixels
        return len(np.unique(shown[shown[..., 3] > 0][:, :3], axis=0))

    assert colours() == 1
    dock.view.set_colouring(Colouring("area_um2"))
    wait_until(lambda: colours() > 20)
    assert dock.view.shown.low < dock.view.shown.high
    dock.view.set_style("density")
    wait_until(lambda: dock.view.shown.drawn == "density")
    wait_until(lambda: "per mm²" in dock.look.caption.text())
    count = len(nuclei)
    session.close_slide()
    wait_until(lambda: dock.desk.nuclei is None)
    assert "Nuclei" not in viewer.layers
    begin(session, tissue, wait_until)
    wait_until(lambda: dock.desk.nuclei is not None, what="opening what was found")
    assert len(dock.desk.nuclei) == count


def test_cancel_keeps_what_is_there_and_the_next_run_takes_it_up(
    quick, window, tissue, wait_until, monkeypatch
):
    import functools

    from pathotune.nuclei import run

    viewer, session = window
    small = functools.partial(run.segment_slide, tile_um=64.0)
    monkeypatch.setattr(run, "segment_slide", small)
    begin(session, tissue, wait_until)
    dock = NucleiDock(viewer, session)
    dock.primary.click()
    wait_until(lambda: dock.desk.nuclei is not None and len(dock.desk.nuclei) > 0, 60)
    dock.stop.click()
    assert not dock.desk.state.running
    kept = len(dock.desk.nuclei)
    assert kept > 0
    assert dock.primary.text() == "Go on finding nuclei"
    assert "stopped before its end" in dock.count.text()
    wait_until(lambda: session.jobs.idle)
    dock.primary.click()
    wait_until(lambda: not dock.desk.state.running, 60)
    assert len(dock.desk.nuclei) > kept
    assert dock.desk.nuclei.finished


def test_region_colours_and_words(quick, window, patches, wait_until, mark):
    _viewer, session = window
    begin(session, patches, wait_until)
    assert marked(session) is None
    session.annotations.add_class("Tumour")
    mark(session, "Tumour", 100, 120)
    mark(session, "Tumour", 300, 200)
    box = marked(session)
    assert (box.x, box.y, box.x1, box.y1) == (100, 120, 360, 260)
    colours = class_colours(("Nucleus", "A", "Tumour", "B"), (("Tumour", (1, 2, 3)),))
    assert colours["Nucleus"] == PLAIN
    assert colours["Tumour"] == (1, 2, 3)
    assert len(set(colours.values())) == 4
    assert spoken("area_um2", 45.12) == "area 45.1 µm²"
    assert [number(v) for v in (0, 0.1234, 4.5, 12345)] == ["0.00", "0.123", "4.50", "12,345"]
    assert NucleiDesk.of(session) is NucleiDesk.of(session)
