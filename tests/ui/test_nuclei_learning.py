"""Learn nuclei on this slide, in the real window: measured, corrected, learnt, stopped, used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_pathotune._nuclei_dock import NucleiDock
from napari_pathotune._nuclei_pairs import LINE, Pairs, picture
from pathotune.events import NucleiJudged
from pathotune.nuclei.stains import Stains
from pathotune.nuclei.synth.masks import Sizes
from pathotune.nuclei.unpaired import pairs
from pathotune.nuclei.unpaired.estimate import Estimate
from pathotune.nuclei.unpaired.settings import Settings


@pytest.fixture
def painted(tmp_path):
    """A slide of painted tissue."""
    plain = Estimate(Stains(), Sizes(), ())
    data = pairs.batch(plain, 256, 2, (5,), recolour=0.0)
    path = tmp_path / "painted.tif"
    row = np.concatenate([pairs.unscaled(p) for p in data.painted], 1)
    tifffile.imwrite(path, row, photometric="rgb")
    return path


def test_measured_corrected_learnt_stopped_and_used(
    quick, window, painted, wait_until, monkeypatch
):
    tiny = Settings(tile_px=64, batch=1, micro=1, steps=3, judge_every=2, judged=1)
    monkeypatch.setattr(
        Settings, "for_device", staticmethod(lambda d, a, m, s=0: replace(tiny, adversarial=a))
    )
    viewer, session = window
    session.open(painted)
    wait_until(lambda: session.slide is not None and session.tissue is not None)
    session.loop.pause()
    session.set_mpp(0.5)
    session.set_tissue(None)
    wait_until(lambda: session.tissue is not None)
    dock = NucleiDock(viewer, session)
    form = dock.learning
    assert form.measured.isHidden() and form.go.isHidden()
    form.look.click()
    wait_until(lambda: form.looked is not None, 60)
    assert form.pairs.names == ["your slide", "painted"] * 4
    assert 5 < form.diameter.value() < 11
    assert "10 minutes" in form.go.text() and not form.go.isHidden()
    form.long.setChecked(True)
    assert "hours" in form.go.text()
    form.long.setChecked(False)
    before = form.pairs._shown[1][1]
    form.diameter.setValue(form.diameter.value() + 4)
    wait_until(lambda: form.pairs._shown[1][1] != before, what="painting anew")
    form.start()
    wait_until(lambda: form.bar.maximum() > 1, 60)
    form.cancel()
    assert form.bar.isHidden() and "kept" in form.told.text()
    wait_until(lambda: session.jobs.idle)
    events = []
    monkeypatch.setattr(form, "_on_event", lambda e, old=form._on_event: (events.append(e), old(e)))
    form.start()
    wait_until(lambda: dock.desk.segmenter.endswith(".safetensors"), 60)
    assert any(isinstance(e, NucleiJudged) for e in events)
    assert "Learnt" in form.told.text()
    assert dock.segmenter.currentText() == "Learnt: painted"
    assert dock.segmenter.currentData() == str(form.place())
    session.close_slide()
    wait_until(lambda: form.looked is None)
    assert form.measured.isHidden() and not form.look.isEnabled()


def test_outlines_are_drawn_where_labels_change(qtbot):
    labels = np.zeros((8, 8), np.int32)
    labels[2:6, 2:6] = 1
    image = picture(np.zeros((8, 8, 3), np.uint8), labels)
    assert image.pixelColor(2, 3).getRgb()[:3] == LINE
    assert image.pixelColor(4, 4).getRgb()[:3] == (0, 0, 0)
    grid = Pairs()
    qtbot.addWidget(grid)
    grid.show_pairs([("real", np.zeros((8, 8, 3), np.uint8), labels)])
    assert grid.names == ["your slide"] and not grid.isHidden()
    grid.show_pairs(())
    assert grid.isHidden()
