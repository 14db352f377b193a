"""The second speed in the window: it learns, can be stopped, is judged, switches nothing."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest
from shapely.geometry import LineString

from napari_pathotune import _better_model, _model_file
from napari_pathotune._better_model import BetterModel, methods
from napari_pathotune._curve_view import split_runs
from napari_pathotune._preview import NAME as PREVIEW
from napari_pathotune._settings_form import SettingsForm
from pathotune.events import EpochDone, PathotuneError, Progress
from pathotune.learn.settings import Training
from pathotune.marks.annotations import Annotation, new_id
from pathotune.models.bundle import ModelBundle
from pathotune.models.tuning import full
from pathotune.places import data_dir


@pytest.fixture
def panel(opened, qtbot, mark, wait_until, monkeypatch):
    """Return the panel on a slide with two marked classes and a fast model."""
    _, session = opened
    for_real = _better_model.methods
    monkeypatch.setattr(_better_model, "methods", lambda _: for_real("pathotune-small"))
    panel = BetterModel(session)
    panel.resize(320, 640)
    qtbot.addWidget(panel)
    panel.show()
    mark(session, "Red", 150, 200)
    mark(session, "Blue", 500, 200)
    wait_until(lambda: session.loop.classmap is not None and session.jobs.idle)
    wait_until(lambda: panel._methods, what="the list of methods")
    return panel


def other_way_round(session):
    """Return a finished model that takes each class for the other one."""
    fast = _model_file.model_in_use(session)
    arrays = {k: -v if k in ("weight", "bias") else v for k, v in fast.arrays.items()}
    verdict = {"word": "no better", "text": "No better than the fast model: 0.70 against 0.71."}
    tuning = {"verdict": verdict, "share_percent": 3.533}
    return dataclasses.replace(fast, arrays=arrays, meta={**fast.meta, "tuning": tuning})


@pytest.fixture
def taught(panel, monkeypatch):
    """Return what `train` was asked; training takes ten passes and can be stopped."""
    asked = {}
    best = other_way_round(panel.session)

    def train(sources, *, stop, keep, **how):
        asked.update(how, sources=sources, slide=sources[0][0])
        for epoch in range(10):
            loss = float("nan") if epoch == 0 else 1.0 / epoch
            yield EpochDone(epoch, 10, loss, 1.0 / (1 + epoch), 0.7, best)
            best.save(keep)
            try:
                for _ in range(5):
                    if stop():
                        return best
                    time.sleep(asked.get("pause", 0.001))
                    yield Progress(epoch, 10, "Learning")
            except GeneratorExit:
                asked["closed"] = threading.current_thread()
                asked["slide"].read(asked["slide"].bounds)  # it is still open
                raise
        return best

    monkeypatch.setattr("pathotune.learn.train.train", train)
    return asked


def test_every_method_is_offered_and_one_that_cannot_serve_says_why(quick, panel):
    keys = [m.key for m in panel._methods]
    assert {"pathotune", "adapter", "vpt"} <= set(keys) and "linear" not in keys
    assert keys[0] == "pathotune" and panel.improve.isEnabled()
    convolutional = [m for m in methods("colour") if m.reason is not None]
    assert "pathotune" in [m.key for m in convolutional]
    panel._on_listed(convolutional[:1])
    assert not panel.improve.isEnabled() and "transformer" in panel.state.text()
    assert panel.improve.toolTip() == convolutional[0].reason


def test_it_learns_and_tells_and_switches_nothing(panel, taught, wait_until):
    session = panel.session
    assert "Blue, Red" in panel.words.text()  # until it is changed it follows the marks
    panel.words.edit.setPlainText("A task in my\nown words.")
    panel.method.setCurrentIndex([m.key for m in panel._methods].index("pathotune"))
    panel.form._fields["prompts"][0].setValue(5)
    panel.improve.click()
    assert panel.stop.isVisible() and not panel.improve.isVisible()
    wait_until(lambda: panel.tuning.state == "done")
    assert taught["method"] == "pathotune" and taught["config"].prompts == 5
    assert taught["sentence"] == "A task in my own words."
    assert len(panel.tuning.curve) == 10 and panel.curve.isVisible()
    assert "No better than the fast model" in panel.state.text()
    assert "trained 3.53 % of the network" in panel.state.text()
    assert session.bundle is None  # nothing switches by itself
    panel.use.click()
    assert session.bundle is panel.tuning.bundle
    panel.use.click()
    assert session.bundle is None


def test_stopping_keeps_the_best(panel, taught, wait_until):
    taught["pause"] = 0.05
    panel.improve.click()
    wait_until(lambda: panel.tuning.curve)
    panel.stop.click()
    assert panel.tuning.state == "stopping" and "kept" in panel.state.text()
    wait_until(lambda: panel.tuning.state == "done")
    assert len(panel.tuning.curve) < 10 and panel.use.isVisible()


def test_cancel_is_at_once_and_leaves_what_was_learnt_on_offer(panel, taught, wait_until):
    taught["pause"] = 0.05
    panel.improve.click()
    wait_until(lambda: panel.tuning.curve)
    began = time.monotonic()
    panel.cancel.click()
    assert panel.tuning.state == "done" and time.monotonic() - began < 0.2
    assert panel.tuning.bundle is not None and panel.improve.isVisible()
    panel.forget.click()
    assert panel.tuning.state == "idle" and not panel.use.isVisible()


def test_the_slide_may_go_while_it_learns(panel, taught, patches, wait_until):
    session, taught["pause"] = panel.session, 0.05
    panel.improve.click()
    wait_until(lambda: panel.tuning.curve)
    session.close_slide()
    assert panel.tuning.state == "idle" and panel.tuning.bundle is None
    wait_until(lambda: "closed" in taught and session.jobs.idle)
    assert taught["closed"] is not threading.main_thread()
    session.open(patches)  # what had been learnt is offered again
    wait_until(lambda: session.slide is not None and panel.tuning.left_behind is not None)
    panel.use.click()
    wait_until(lambda: panel.tuning.bundle is not None)
    assert session.bundle is None


def test_the_window_may_be_closed_while_it_learns(panel, taught, wait_until):
    session, taught["pause"] = panel.session, 0.05
    panel.improve.click()
    wait_until(lambda: panel.tuning.curve)
    kept = data_dir() / "tuned" / f"{session.slide.fingerprint}.safetensors"
    began = time.monotonic()
    session.close()
    assert time.monotonic() - began < 2 and "closed" in taught  # its thread has ended
    assert ModelBundle.load(kept, check=False).classes == ("Blue", "Red")


def test_strokes_and_regions_are_learnt_from_together(panel, taught, wait_until):
    session = panel.session
    line = LineString([(560, 400), (640, 420)])
    session.annotations.add(Annotation(new_id(), "Blue", "stroke", line, width=20.0))
    wait_until(lambda: session.loop.fitted and len(session.loop.fitted.regions) == 3)
    kinds = {a.kind for a in session.annotations.items}
    assert kinds == {"rectangle", "stroke"}
    assert all(n > 0 for n in session.loop._live._marked.counts.values())
    panel.improve.click()
    wait_until(lambda: panel.tuning.state == "done")
    assert {a.kind for a in taught["sources"][0][1].items} == kinds


def test_stopping_waits_for_something_to_keep(panel, taught, monkeypatch, wait_until):
    taught["pause"] = 0.05
    panel.improve.click()
    assert panel.stop.isVisible() and not panel.stop.isEnabled() and panel.cancel.isEnabled()
    wait_until(lambda: panel.stop.isEnabled())
    panel.cancel.click()


def test_a_look_at_what_it_has_learnt_hides_the_other_map(panel, taught, wait_until):
    session, taught["pause"] = panel.session, 0.1
    panel.preview.setChecked(True)
    # what is looked at is the middle of the screen, as far as it is tissue
    wait_until(lambda: session.tissue is not None and session.loop.focus() is not None)
    wait_until(lambda: session.jobs.idle)
    panel.improve.click()
    wait_until(lambda: PREVIEW in session.viewer.layers or panel.tuning.error, what="the look")
    assert panel.tuning.error is None
    assert not session.view.layer.visible
    panel.cancel.click()
    assert PREVIEW not in session.viewer.layers and session.view.layer.visible


def test_settings_show_what_they_are(panel):
    form = SettingsForm()
    form.show_settings(full.Config, Training)
    assert float(form._fields["rate"][0].text()) == 1e-5 and form.values() == {}
    assert form._fields["epochs"][0].text() == "auto"
    form._fields["rate"][0].setValue(2e-5)
    assert form.values() == {"rate": 2e-5}


def test_an_error_is_told_in_the_panel(panel, monkeypatch, wait_until):
    def train(*_, **__):
        yield Progress(0, 1, "Learning")
        raise PathotuneError("There is too little memory.", "Choose a smaller backbone.")

    monkeypatch.setattr("pathotune.learn.train.train", train)
    panel.improve.click()
    wait_until(lambda: panel.tuning.error is not None)
    assert "too little memory" in panel.state.text() and panel.improve.isVisible()


def test_what_a_crash_left_behind_is_offered(panel, taught, patches, wait_until):
    session = panel.session
    kept = data_dir() / "tuned" / f"{session.slide.fingerprint}.safetensors"
    kept.parent.mkdir(parents=True, exist_ok=True)
    other_way_round(session).save(kept)
    session.open(patches)
    wait_until(lambda: session.slide is not None and panel.tuning.left_behind is not None)
    panel.refresh()
    assert "learnt here before" in panel.state.text()
    panel.use.click()
    wait_until(lambda: panel.tuning.bundle is not None)
    assert panel.tuning.state == "done" and session.bundle is None


def test_both_maps_can_be_compared(panel, taught, wait_until):
    session = panel.session
    panel.improve.click()
    wait_until(lambda: panel.tuning.state == "done")
    panel.compare.click()
    compared = panel.comparison
    wait_until(lambda: compared.differing is not None and session.jobs.idle)
    assert compared.differing > 0.9  # each class is taken for the other
    assert not session.view.layer.visible and panel.split.isVisible()
    fast, better, shown = session.loop.classmap.labels, compared._better.labels, compared._shown
    wait_until(lambda: (shown[:, -1] == better[:, -1]).all() and session.jobs.idle)
    assert not shown.any(0).all()  # a bare line between the two sides
    columns = (shown == fast).all(0)
    assert columns[: len(columns) // 4].all() and not columns.all()
    panel.mode.setCurrentIndex(2)
    wait_until(lambda: session.jobs.idle and not (shown[fast == better]).any())
    assert (shown > 0).any() and "better model says" in panel.differing.text()
    panel.compare.click()
    assert session.view.layer.visible and not compared.on
    assert "Comparison" not in session.viewer.layers


def test_repeats_are_told_apart_in_the_curve():
    nan = float("nan")
    passes = [EpochDone(i, 6, t, 1.0, 0.5) for i, t in enumerate([nan, 1, 2, nan, 1, 2])]
    assert [len(run) for run in split_runs(passes)] == [3, 3]
    assert np.isnan(split_runs(passes)[1][0].train_loss)
