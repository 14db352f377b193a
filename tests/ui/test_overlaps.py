"""Regions of different classes on the same tissue are asked about, and the answer is kept."""

from __future__ import annotations

import numpy as np
import pytest

from napari_pathotune._model_file import model_in_use
from napari_pathotune._overlaps import OverlapRow, Overlaps


@pytest.fixture
def crossed(opened, mark, qtbot, wait_until):
    """Return session and question on a slide where a Red and a Blue region cross."""
    _, session = opened
    row = OverlapRow(session)
    qtbot.addWidget(row)
    mark(session, "Red", 150, 200)
    mark(session, "Blue", 500, 200)
    wait_until(lambda: session.loop.classmap is not None and session.jobs.idle)
    assert not Overlaps.of(session).found and not row.isVisibleTo(None)
    mark(session, "Blue", 180, 200)  # over the right half of the first
    wait_until(lambda: Overlaps.of(session).found and session.jobs.idle)
    return session, row


def tokens(session) -> dict[str, int]:
    """Return how many tokens of each class were learnt."""
    marked = session.loop._live._marked
    names, found = session.loop._live.classes, {}
    for key, c in marked.stats.region_class.items():
        found[names[c]] = found.get(names[c], 0) + marked.counts[key]
    return found


def test_until_it_is_said_the_overlap_teaches_neither(crossed, wait_until):
    session, row = crossed
    assert "Blue and Red overlap" in row.told.text() and "neither" in row.told.text()
    assert not row.isHidden() and row.answer.currentData() is None
    before = tokens(session)
    for answer, more in (("last", "Blue"), ("first", "Red")):
        row.answer.setCurrentIndex(row.answer.findData(answer))
        row.answer.activated.emit(row.answer.currentIndex())
        wait_until(lambda m=more: tokens(session)[m] > before[m] and session.jobs.idle)
        other = "Red" if more == "Blue" else "Blue"
        assert tokens(session)[other] == before[other]
    assert model_in_use(session).meta["overlap"] == "first"
    last = session.annotations.items[-1]
    session.annotations.remove([last.id])
    wait_until(lambda: not Overlaps.of(session).found)
    assert row.isHidden()


def test_a_class_that_lies_wholly_under_another_is_named(opened, mark, wait_until):
    _, session = opened
    mark(session, "Red", 150, 200, 100)
    mark(session, "Blue", 180, 230, 40)
    wait_until(lambda: session.loop.missing and "Blue is marked only" in session.loop.missing)
    wait_until(lambda: Overlaps.of(session).found)
    Overlaps.of(session).choose("smaller")
    wait_until(lambda: session.loop.head is not None and session.loop.missing is None)


def test_the_answer_is_kept_for_the_slide(crossed, patches, wait_until):
    session, row = crossed
    Overlaps.of(session).choose("smaller")
    assert row.answer.currentData() == "smaller" and "neither" not in row.told.text()
    session.close_slide()
    wait_until(lambda: session.slide is None and session.jobs.idle)
    assert Overlaps.of(session).answer is None
    session.open(patches)
    wait_until(lambda: session.slide is not None and Overlaps.of(session).found)
    assert Overlaps.of(session).answer == "smaller"


def test_it_is_shown_in_the_middle_of_the_screen(crossed):
    session, row = crossed
    session.viewer.scene.camera.zoom = 0.1
    row.look.click()
    camera = session.viewer.scene.camera
    assert np.allclose(camera.center[-2:], (230, 195), atol=2)
    assert camera.zoom > 1


def test_nothing_better_is_learnt_before_it_is_said(crossed, qtbot, monkeypatch, wait_until):
    from napari_pathotune import _better_model

    session, _ = crossed
    for_real = _better_model.methods
    monkeypatch.setattr(_better_model, "methods", lambda _: for_real("pathotune-small"))
    panel = _better_model.BetterModel(session)
    qtbot.addWidget(panel)
    wait_until(lambda: panel._methods)
    assert not panel.improve.isEnabled() and "which region counts" in panel.state.text()
    asked = {}

    def train(sources, **how):
        asked.update(how)
        yield from ()

    monkeypatch.setattr("pathotune.learn.train.train", train)
    Overlaps.of(session).choose("leave-out")
    assert panel.improve.isEnabled()
    panel.improve.click()
    wait_until(lambda: asked)
    assert asked["overlap"] == "leave-out"
