"""Going back to an earlier model: one click, at once, and nothing is lost on the way."""

from __future__ import annotations

import time

import numpy as np
import pytest

from napari_pathotune._model_history import ModelHistory, line_of, tip_of


@pytest.fixture
def tuned(opened, mark, wait_until):
    """Return a session with two regions a class, judged, and its history."""
    _, session = opened
    history = ModelHistory.of(session)
    for x, y in ((150, 200), (200, 380)):
        mark(session, "Red", x, y)
        mark(session, "Blue", x + 330, y)
    judged(session, wait_until)
    wait_until(lambda: history.entries, what="a first point")
    return session, history


def judged(session, wait_until):
    wait_until(lambda: session.loop.evaluation is not None and session.jobs.idle, what="a verdict")


def labels(session):
    return session.loop.classmap.labels.copy()


def upside_down(session, mark, wait_until):
    """Teach the opposite, so that the map is another one."""
    marks = session.annotations
    before = labels(session)
    marks.reclass([a.id for a in marks.items if a.class_name == "Red"], None)
    for i in range(3):
        mark(session, "Red", 450 + 70 * i, 300)
        mark(session, "Blue", 130 + 70 * i, 300)
    wait_until(lambda: session.loop.head is not None and session.jobs.idle)
    wait_until(lambda: (session.loop.classmap.labels != before).mean() > 0.05)
    judged(session, wait_until)


def test_going_back_draws_the_old_map_at_once_and_forward_again(
    tuned, mark, wait_until, monkeypatch
):
    session, history = tuned
    old, head = labels(session), session.loop.head
    upside_down(session, mark, wait_until)
    new, marks = labels(session), session.annotations.items
    wait_until(lambda: len(history.entries) >= 2)
    entry = history.entries[-1]
    assert entry.regions == 4 and entry.score is not None

    def refuse():
        raise AssertionError("the slide was started over")

    monkeypatch.setattr(session.loop, "restart", refuse)
    began = time.perf_counter()
    history.go_back(entry)
    wait_until(lambda: (labels(session) == old).all(), what="the old map")
    assert time.perf_counter() - began < 5
    assert np.array_equal(session.loop.head.weight, head.weight)
    assert history.current == entry.path and session.annotations.items == marks
    mark(session, "Red", 600, 150)  # it does not follow, and the mark is kept
    wait_until(lambda: session.jobs.idle)
    assert (labels(session) == old).all()
    session.annotations.undo()
    history.go_back(None)
    wait_until(lambda: (labels(session) == new).all(), what="the new map")
    assert history.current is None and session.bundle is None
    judged(session, wait_until)


def test_points_come_with_large_changes_and_not_with_every_stroke(tuned, mark, wait_until):
    session, history = tuned
    for i in range(4):
        mark(session, "Red", 120 + 60 * i, 120, side=30)
    judged(session, wait_until)
    wait_until(lambda: len(history.entries) == 2)
    session.annotations.recolour_class("Red", (9, 9, 9))
    mark(session, "Blue", 620, 120, side=30)  # one of nine
    wait_until(lambda: session.loop.evaluation.n_regions == 9 and session.jobs.idle)
    assert len(history.entries) == 2
    session.annotations.clear()
    wait_until(lambda: len(history.entries) == 3)
    assert history.entries[0].regions == 9 and history.entries[0].why == "before"
    assert history.entries[0].score is not None


def test_the_list_is_there_after_a_restart_and_keeps_what_was_last(tuned, wait_until):
    from napari.components import ViewerModel

    from napari_pathotune._session import Session

    session, history = tuned
    path = session.slide.path
    assert history.keep()
    wait_until(lambda: history.entries[0].why == "kept")
    session.close()
    viewer = ViewerModel()  # a session does not keep its viewer alive
    again = Session.of(viewer)
    later = ModelHistory.of(again)
    again.open(path)
    wait_until(lambda: len(later.entries) == len(history.entries))
    assert later.entries[0] == history.entries[0]
    wait_until(lambda: again.loop.plan is not None and again.loop.head is not None)
    later.go_back(later.entries[0])
    wait_until(lambda: again.bundle is not None and again.jobs.idle)
    assert again.loop.classmap.labels.any()
    again.close()


def test_the_dock_lists_them_and_one_click_goes_back(tuned, qtbot, wait_until):
    from napari_pathotune._tune_dock import TuneDock

    session, history = tuned
    dock = TuneDock(session.viewer, session)
    qtbot.addWidget(dock)
    dock.resize(320, 640)
    dock.show()
    rows = dock.models.rows
    assert [rows.item(i).text() for i in range(rows.count())] == [
        "Now: follows your marks",
        line_of(history.entries[0]),
    ]
    assert rows.currentRow() == 0 and "4 regions" in rows.item(1).text()
    assert "regions it had not seen" in rows.item(1).toolTip()
    rows.itemClicked.emit(rows.item(1))
    wait_until(lambda: session.bundle is not None and session.jobs.idle)
    assert rows.currentRow() == 1 and not dock.models.keep.isEnabled()
    assert "Your model of" in dock.title.text() and "then" in dock.worth.text()
    rows.itemClicked.emit(rows.item(0))
    wait_until(lambda: session.bundle is None and session.jobs.idle)
    assert rows.currentRow() == 0
    judged(session, wait_until)
    dock.models.keep.click()
    wait_until(lambda: "kept" in rows.item(1).text())
    assert "You kept it." in tip_of(history.entries[0])
