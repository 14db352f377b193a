"""The session: one a viewer, owner of slide, marks and map, and it leaves nothing behind."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_pathotune._session import Session
from pathotune.events import PathotuneError, Progress, TilesDone


def test_one_session_a_viewer(qapp):
    a, b = ViewerModel(), ViewerModel()
    one, two = Session.of(a), Session.of(b)
    assert Session.of(a) is one and one is not two
    assert Session.find(a) is one and Session.find(None) is None
    one.close()
    assert Session.find(a) is None
    two.close()


def test_a_slide_opens_off_the_gui_thread_and_asks_for_um_once(
    quick, window, patches, wait_until, monkeypatch
):
    from pathotune.slides import slide as slides

    viewer, session = window
    threads, asked, opened = [], [], []
    real = slides.open_slide

    def spy(path, mpp=None):
        threads.append(threading.current_thread())
        return real(path, mpp)

    monkeypatch.setattr(slides, "open_slide", spy)
    session.mpp_needed.connect(asked.append)
    session.slide_changed.connect(opened.append)
    session.open(patches)
    wait_until(lambda: session.tissue is not None)
    assert threads[0] is not threading.main_thread()
    assert opened == [session.slide] and asked == [session.slide]
    assert len(viewer.layers) == 1 and session.slide_layer is viewer.layers[0]
    assert session.loop.plan is None  # nothing is computed without um/px
    session.set_mpp(0.5)
    wait_until(lambda: session.loop.plan is not None)
    session.close_slide()
    assert session.slide is None and not viewer.layers

    session.open(patches)  # the answer is remembered
    wait_until(lambda: session.slide is not None)
    assert session.slide.mpp == 0.5 and len(asked) == 1


def test_an_impossible_um_is_refused_in_words(opened):
    _, session = opened
    with pytest.raises(PathotuneError):
        session.set_mpp(900.0)


def test_what_is_no_slide_is_told_in_the_slide_dock(window, tmp_path, wait_until):
    _, session = window
    path = tmp_path / "letter.svs"
    path.write_text("Dear colleague")
    failures = []
    session.failed.connect(failures.append)
    session.open(path)
    wait_until(lambda: failures)
    assert failures[0].where == "slide" and failures[0].hint
    assert session.slide is None


def test_two_marks_make_a_map_and_a_third_changes_it(opened, mark, wait_until):
    viewer, session = opened
    loop = session.loop
    assert loop.classmap is None and loop.status.missing
    mark(session, "Red", 150, 200)
    wait_until(lambda: "Red" in (loop.status.missing or "") or loop.status.missing)
    assert loop.classmap is None
    mark(session, "Blue", 500, 200)
    wait_until(lambda: loop.classmap is not None and loop.classmap.labels.any(), what="a map")
    wait_until(lambda: session.jobs.idle)
    labels = loop.classmap.labels
    red, blue = (loop.classmap.classes.index(n) + 1 for n in ("Red", "Blue"))
    assert np.mean(labels[20:55, 20:45] == red) > 0.95
    assert np.mean(labels[20:55, 55:80] == blue) > 0.95
    assert labels[2, 2] == 0  # glass
    layer = viewer.layers["Class map"]
    assert layer.data is labels
    assert layer.opacity == pytest.approx(0.45)

    before = session.loop.classmap.probs.copy()
    mark(session, "Red", 560, 380)  # a correction changes the map that is there
    wait_until(lambda: (session.loop.classmap.probs != before).any(), what="a change")


def test_undoing_the_second_class_takes_the_map_away(opened, mark, wait_until):
    viewer, session = opened
    mark(session, "Red", 150, 200)
    mark(session, "Blue", 500, 200)
    wait_until(lambda: session.loop.classmap is not None)
    session.annotations.undo()
    wait_until(lambda: session.loop.classmap is None)
    assert not np.asarray(viewer.layers["Class map"].data).any()


def test_what_is_drawn_on_glass_takes_the_mask_off(opened, mark, wait_until):
    _, session = opened
    notes = []
    session.note.connect(lambda n: notes.append(n.text))
    mark(session, "Tissue", 200, 200)
    mark(session, "Glass", 720, 20, 70)

    def found():
        classmap = session.loop.classmap
        return classmap is not None and classmap.at(755, 55)

    wait_until(found, what="a map of glass")
    assert found()[0] == "Glass"
    assert session.tissue.source == "off"
    assert any("Glass is marked where no tissue" in n for n in notes)


def test_pause_keeps_the_map_and_resume_goes_on(quick, window, patches, wait_until, monkeypatch):
    import sys

    conftest = sys.modules[colour_features_module()]
    monkeypatch.setattr(conftest, "SLOW", 0.02)
    _, session = window
    session.open(patches)
    wait_until(lambda: session.tissue is not None)
    session.set_mpp(1.0)
    wait_until(lambda: session.loop.status.done >= 4)
    session.loop.pause()
    assert session.loop.status.paused
    wait_until(lambda: session.jobs.idle)
    done = session.loop.status.done
    total = session.loop.status.total
    assert done < total
    session.loop.resume()
    wait_until(lambda: session.loop.status.done == total)
    assert not session.loop.status.computing or session.jobs.idle


def colour_features_module():
    from pathotune.models import features

    return features.compute_features.__module__


def test_features_are_kept_for_the_next_time(opened, patches, wait_until):
    _, session = opened
    total = session.loop.status.total
    assert session.loop.status.done == total > 0
    session.close_slide()
    seen = []
    session.status_changed.connect(lambda s: seen.append(s.done))
    session.open(patches)
    wait_until(lambda: session.loop.plan is not None and session.loop.status.done == total)
    assert set(seen) <= {0, total}  # nothing was computed again


def test_marks_come_back_after_a_crash(opened, mark, patches, wait_until):
    _, session = opened
    mark(session, "Red", 150, 200)
    mark(session, "Blue", 500, 200)
    session.close()  # the journal has them; nothing was saved
    viewer = ViewerModel()
    again = Session.of(viewer)
    try:
        again.open(patches)
        wait_until(lambda: again.slide is not None)
        assert again.recovered == 2
        assert again.annotations.counts() == {"Red": 1, "Blue": 1}
        wait_until(lambda: again.loop.classmap is not None)
    finally:
        again.close()


def test_taking_the_slide_layer_away_closes_the_slide(opened, mark, wait_until):
    viewer, session = opened
    slide = session.slide
    mark(session, "Red", 150, 200)
    mark(session, "Blue", 500, 200)
    wait_until(lambda: session.loop.classmap is not None)
    viewer.layers.remove(session.slide_layer)
    assert session.slide is None and session.loop.plan is None
    assert not session.annotations.items
    assert "Class map" not in viewer.layers
    wait_until(lambda: session.jobs.idle)
    with pytest.raises(PathotuneError):
        slide.read_level(0, 0, 0, 4, 4)


def test_a_slide_opened_by_napari_itself_is_taken_over(quick, window, patches, wait_until):
    from napari_pathotune import _contributions

    viewer, session = window
    data, kwargs, _ = _contributions.slide_reader(str(patches))(str(patches))[0]
    layer = viewer.add_image(data, **kwargs)
    wait_until(lambda: session.slide is not None and session.tissue is not None)
    assert session.slide_layer is layer and len(viewer.layers) == 1


@pytest.fixture
def threads_before():
    """Return the threads of pools that outlive sessions, if an earlier test needed them."""
    return set(threading.enumerate())


def test_closing_leaves_no_thread_and_no_open_slide(threads_before, opened, mark):
    _, session = opened
    mark(session, "Red", 150, 200)
    mark(session, "Blue", 500, 200)
    slide = session.slide
    session.close()
    names = [t.name for t in threading.enumerate() if t not in threads_before]
    # The decoders belong to the process, like the cache they fill; they hold no slide.
    assert not any("pathotune" in n and not n.startswith("pathotune-decoder") for n in names)
    with pytest.raises(PathotuneError):
        slide.read_level(0, 0, 0, 4, 4)
    assert session.jobs.closed
    session.close()  # twice is once


def test_closing_the_window_closes_the_session(make_napari_viewer):
    from napari_pathotune._docks import Docks

    viewer = make_napari_viewer()
    session = Session.of(viewer)
    Docks.of(viewer).open("slide")
    viewer.close()
    assert session.jobs.closed


def test_another_backbone_means_other_features(opened, wait_until):
    _, session = opened
    from pathotune.places import data_dir

    text = (data_dir() / "models" / "colour.toml").read_text()
    other = text.replace('id = "colour"', 'id = "other"').replace("token_px = 8", "token_px = 16")
    (data_dir() / "models" / "other.toml").write_text(other)
    old = session.loop.plan
    session.set_card("other")
    wait_until(lambda: session.loop.plan is not None and session.loop.plan is not old)
    assert session.loop.plan.card.id == "other"


def test_a_network_with_a_map_of_its_own_is_shown_while_it_draws(opened, wait_until):
    from types import SimpleNamespace

    from pathotune.events import TilesDone
    from pathotune.maps.classmap import ClassMap

    _, session = opened
    boxes, asked = [], {}

    def empty(slide):
        colours = ((1, 2, 3), (4, 5, 6))
        return ClassMap.empty(("A", "B"), colours, (0.0, 0.0), 100.0, 100.0, 6, 8)

    def predict(slide, *, tissue, device, focus, into):
        asked.update(tissue=tissue, focus=focus)
        for row in range(6):
            into.labels[row] = 1 + row % 2
            yield TilesDone(row, 0, row + 1, 8)
        return into

    session.map_changed.connect(boxes.append)
    network = SimpleNamespace(
        classes=("A", "B"), colours=(), empty=empty, predict=predict, MADE_FOR="tests"
    )
    session.use_bundle(network)
    wait_until(lambda: session.loop.classmap is not None and session.loop.classmap.labels[5, 0])
    wait_until(lambda: not session.loop.status.computing)
    assert session.loop.classmap.labels.shape == (6, 8) and session.loop.status.has_map
    assert any(isinstance(b, TilesDone) for b in boxes)
    assert asked["tissue"] is session.tissue and callable(asked["focus"])


class Halves:
    """A network with a map of its own: left and right."""

    NAME, MADE_FOR = "Halves", "tests"

    @staticmethod
    def empty(slide):
        from pathotune.maps.classmap import ClassMap

        return ClassMap.empty(("L", "R"), ((1, 2, 3), (4, 5, 6)), (0.0, 0.0), 10.0, 10.0, 60, 80)

    @staticmethod
    def predict(slide, tissue="auto", device="auto", focus=None, into=None):
        for c in range(0, 80, 8):
            into.labels[:, c : c + 8] = 1 if c < 40 else 2
            into.probs[:, c : c + 8, 0 if c < 40 else 1] = 1
            yield TilesDone(0, c, 60, c + 8)
            yield Progress(c + 8, 80, "Looking")
        return into


def test_a_network_of_its_own_draws_on_its_own_lattice_and_the_marks_come_back(
    opened, mark, wait_until
):
    viewer, session = opened
    mark(session, "Red", 150, 200)
    mark(session, "Blue", 500, 200)
    wait_until(lambda: session.loop.classmap is not None)
    session.use_bundle(Halves)
    wait_until(lambda: session.loop.classmap is not None and session.loop.classmap.step == 10.0)
    wait_until(lambda: session.jobs.idle)
    layer = viewer.layers["Class map"]
    assert layer.data.shape == (60, 80) and layer.data[5, 5] == 1 and layer.data[5, 75] == 2
    np.testing.assert_allclose(layer.scale, (10.0, 10.0))
    np.testing.assert_allclose(layer.translate, (4.5, 4.5))
    assert session.loop.status.has_map
    session.use_bundle(None)
    wait_until(lambda: session.loop.classmap is not None and session.loop.classmap.labels.any())
    assert session.loop.classmap.classes == ("Blue", "Red")


def test_progress_is_in_naparis_activity_area(window, wait_until, qtbot):
    from napari._qt.dialogs.qt_activity_dialog import ActivityToggleItem, QtActivityDialog
    from napari._qt.widgets.qt_progress_bar import QtLabeledProgressBar
    from napari.utils import progress
    from qtpy.QtCore import QTimer

    from napari_pathotune import _activity_area
    from napari_pathotune._bus import Activity

    _, session = window
    toggle = ActivityToggleItem()
    area = QtActivityDialog(toggle_button=toggle)
    qtbot.addWidget(toggle)
    qtbot.addWidget(area)

    def bars():
        return [p for p in progress._all_instances if p.desc.startswith(_activity_area.NAME)]

    session.activity_changed.emit(Activity("Opening", 1, 2))
    session.activity_changed.emit(None)
    session.activity_changed.emit(Activity("Reading the tissue", 3, 10))
    assert not bars()  # what is over at once needs none
    wait_until(bars)
    (bar,) = bars()
    assert bar.n / bar.total == pytest.approx(0.3, abs=0.01)
    turns = []
    QTimer.singleShot(0, lambda: turns.append(1))
    session.activity_changed.emit(Activity("Reading the tissue", 7, 10, 120.0))
    assert not turns  # no turn of the event loop, and no redrawing, in the midst of a call
    assert bar.n / bar.total == pytest.approx(0.7, abs=0.01)
    (widget,) = area.findChildren(QtLabeledProgressBar)
    assert "Reading the tissue, about 2 min left" in widget.eta_label.text()
    at = widget.qt_progress_bar
    assert at.value() / at.maximum() == pytest.approx(0.7, abs=0.01)
    session.activity_changed.emit(Activity("Waiting", 0, 0))
    session.activity_changed.emit(Activity("Reading the tissue", 10, 10))
    assert at.value() / at.maximum() == pytest.approx(1, abs=0.01)
    session.activity_changed.emit(None)
    assert not bars()


def test_an_overview_is_too_coarse_for_a_map_and_says_so(quick, window, patches, wait_until):
    _, session = window
    failures = []
    session.failed.connect(failures.append)
    session.open(patches)
    wait_until(lambda: session.tissue is not None)
    session.set_mpp(29.0)  # a real DICOM overview has as much
    wait_until(lambda: failures)
    assert failures[0].where == "slide" and "29 µm" in failures[0].message
    assert session.loop.plan is None and session.jobs.idle


def test_a_slide_opens_where_marks_cannot_be_kept(quick, window, patches, wait_until, monkeypatch):
    def refuse(_fingerprint):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathotune.marks.journal.journal_for", refuse)
    _, session = window
    failed = []
    session.failed.connect(failed.append)
    session.open(patches)
    wait_until(lambda: session.slide is not None)
    assert failed[0].where == "annotate" and "Read-only" in failed[0].message
    assert session.journal.problem is not None


def test_a_model_is_saved_with_todays_colours_and_with_what_it_was_learnt_from(
    opened, mark, wait_until
):
    from napari_pathotune._model_file import model_in_use

    _, session = opened
    for x in (120, 220):
        mark(session, "Red", x, 200)
        mark(session, "Blue", x + 350, 200)
    wait_until(lambda: session.loop.evaluation is not None and session.jobs.idle)
    session.annotations.recolour_class("Red", (1, 2, 3))
    wait_until(lambda: session.jobs.idle)
    bundle = model_in_use(session)
    assert dict(zip(bundle.classes, bundle.colours, strict=True))["Red"] == (1, 2, 3)
    assert len(bundle.meta["regions"]) == 4 == bundle.meta["metrics"]["n_regions"]
    assert all(r["places"] for r in bundle.meta["regions"])  # known again when it is judged
    session.annotations.rename_class("Red", "Rose")  # the model has not heard of it yet
    bundle = model_in_use(session)
    assert {r["class"] for r in bundle.meta["regions"]} == set(bundle.classes)
    assert len(bundle.meta["regions"]) == bundle.meta["metrics"]["n_regions"]
