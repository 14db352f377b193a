"""Correcting and naming nuclei with a real mouse and real keys on the real window."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_pathotune import _nuclei_files as files
from napari_pathotune._nuclei_dock import NucleiDock
from napari_pathotune._session import Session


def ring(x, y, r, n=24):
    t = np.linspace(0, 2 * np.pi, n + 1)
    out = np.stack([x + r * np.cos(t), y + r * np.sin(t)], 1)
    out[-1] = out[0]
    return out.astype(np.float32)


SPOTS = [(150, 150), (250, 150), (350, 150), (150, 300), (250, 300), (350, 300)]
TWO_KINDS = [(100 + 60 * i, 120 + 90 * j) for i in range(10) for j in range(5)]


def write_store(slide, spots=SPOTS, kinds=None):
    """Write round nuclei as the store of a slide; those of kind 1 are larger and brown."""
    import pyarrow.parquet as pq

    from pathotune.nuclei.measure import MEASURES
    from pathotune.nuclei.store import to_arrow

    kinds = [0] * len(spots) if kinds is None else kinds
    rings = [ring(x, y, 16 + 6 * k) for (x, y), k in zip(spots, kinds, strict=True)]
    n = len(rings)
    rows = {m: np.linspace(1, 2, n) for m in MEASURES} | {"confidence": np.ones(n)}
    rows |= {"x": np.array([s[0] for s in spots]), "y": np.array([s[1] for s in spots])}
    rows["area_um2"] = np.array([np.pi * (16 + 6 * k) ** 2 for k in kinds])
    rows["dab_mean"] = np.where(kinds, 0.7, 0.05) + np.linspace(0, 0.01, n)
    boxes = np.array([(*r.min(0), *r.max(0)) for r in rings])
    rows |= dict(zip(("x0", "y0", "x1", "y1"), boxes.T, strict=True)) | {"outline": rings}
    about = {"mpp": 1.0, "segmenter": "made", "area_mm2": 0.5}
    path = files.place(slide, "made", None)
    pq.write_table(to_arrow(rows, about), path)
    return path


class Bench:
    """A window with six nuclei under the mouse."""

    def __init__(self, viewer, session, dock, wait_until):
        self.viewer, self.session, self.dock, self.wait = viewer, session, dock, wait_until
        self.canvas = viewer.window._qt_viewer.canvas.native

    @property
    def nuclei(self):
        return self.dock.desk.nuclei

    def at(self, x, y):
        camera = self.viewer.scene.camera
        row = ((y - 0.5) - camera.center[-2]) * camera.zoom + self.canvas.height() / 2
        column = ((x - 0.5) - camera.center[-1]) * camera.zoom + self.canvas.width() / 2
        return QPoint(round(column), round(row))

    def hover(self, x, y, held=False):
        place = self.at(x, y)
        none, left = Qt.MouseButton.NoButton, Qt.MouseButton.LeftButton
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(place),
            QPointF(self.canvas.mapToGlobal(place)),
            none,
            left if held else none,
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.instance().sendEvent(self.canvas, event)
        QTest.qWait(8)

    def click(self, x, y, shift=False):
        self.hover(x, y)
        held = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
        QTest.mouseClick(self.canvas, Qt.MouseButton.LeftButton, held, self.at(x, y))
        self.settle()

    def drag(self, *places):
        self.hover(*places[0])
        QTest.mousePress(self.canvas, Qt.MouseButton.LeftButton, pos=self.at(*places[0]))
        for place in places[1:]:
            self.hover(*place, held=True)
        QTest.mouseRelease(self.canvas, Qt.MouseButton.LeftButton, pos=self.at(*places[-1]))
        self.settle()

    def key(self, code, held=Qt.KeyboardModifier.NoModifier):
        self.canvas.setFocus()  # a window that opened late may have taken it
        QTest.keyClick(self.canvas, code, held)
        self.settle()

    def counts(self, number):
        self.wait(lambda: len(self.nuclei) == number, 30)

    def settle(self):
        QTest.qWait(20)
        self.wait(lambda: not self.dock.hand.busy and self.session.jobs.idle, 90)


@pytest.fixture
def bench(quick, make_napari_viewer, patches, wait_until):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1000, 700)
    session = Session.of(viewer)
    session.loop.pause()
    session.open(patches)
    wait_until(lambda: session.slide is not None and session.tissue is not None, 90)
    write_store(session.slide)
    session.set_mpp(1.0)
    dock = NucleiDock(viewer, session)
    viewer.window.add_dock_widget(dock, name="Nuclei", area="right")
    wait_until(lambda: dock.desk.edits is not None and session.jobs.idle, 90)
    viewer.reset_view()
    QTest.qWait(50)
    made = Bench(viewer, session, dock, wait_until)
    made.settle()
    return made


def test_choose_delete_draw_cut_join_and_undo(bench):
    dock, hand = bench.dock, bench.dock.hand
    bench.click(*SPOTS[0])
    assert hand.chosen == ()  # no tool in the hand: nothing happens by accident
    dock.correct.tools["choose"].click()
    bench.click(*SPOTS[0])
    assert hand.chosen == (0,)
    bench.click(*SPOTS[1], shift=True)
    assert set(hand.chosen) == {0, 1}
    assert dock.correct.said.text() == "2 nuclei are chosen."
    bench.click(450, 220)
    assert hand.chosen == ()
    bench.click(*SPOTS[0])
    bench.key(Qt.Key.Key_Delete)
    bench.counts(5)
    dock.correct.undo.click()
    bench.settle()
    bench.counts(6)
    dock.correct.redo.click()
    bench.settle()
    bench.counts(5)
    bench.key(Qt.Key.Key_A)
    assert hand.tool == "draw"
    bench.drag(*[tuple(p) for p in ring(450, 300, 25, 14)])
    bench.counts(6)
    (new,) = hand.chosen
    assert np.hypot(*(bench.nuclei.xy[new] - (450, 300))) < 6
    bench.key(Qt.Key.Key_K)
    bench.drag((450, 260), (450, 280), (450, 300), (450, 320), (450, 345))
    bench.counts(7)
    assert len(hand.chosen) == 2
    bench.key(Qt.Key.Key_M)
    bench.counts(6)
    dock.correct.tools["choose"].click()
    bench.click(*SPOTS[4])
    dock.correct.tools["redraw"].click()
    bench.drag(*[tuple(p) for p in ring(*SPOTS[4], 30, 14)])
    bench.counts(6)
    (row,) = hand.chosen
    assert bench.nuclei.values(row)["area_um2"] > 2000
    bench.drag((10, 10), (12, 12), (20, 20), (30, 20))
    assert dock.notice.isVisible() or dock.correct.said.text()


def test_names_by_digit_are_kept_for_the_slide_and_a_new_run(bench):
    dock, session = bench.dock, bench.session
    assert "Add two classes" in dock.naming.said.text()
    dock.naming.add_class("Tumour cell")
    dock.naming.add_class("Lymphocyte")
    bench.settle()
    bench.key(Qt.Key.Key_S) if dock.hand.take("choose") else None
    bench.click(*SPOTS[2])
    bench.key(Qt.Key.Key_2)
    bench.click(*SPOTS[3])
    bench.key(Qt.Key.Key_1)
    assert dock.desk.edits.named == {2: "Lymphocyte", 3: "Tumour cell"}
    assert bench.nuclei.counts() == {"Nucleus": 4, "Lymphocyte": 1, "Tumour cell": 1}
    assert "at least three of Tumour cell" in dock.naming.said.text()
    bench.key(Qt.Key.Key_7)
    assert "no class 7" in dock.correct.said.text()
    slide = session.slide
    write_store(slide)  # another run
    dock.desk.open(files.latest(slide))
    bench.settle()
    assert dock.desk.edits.named == {2: "Lymphocyte", 3: "Tumour cell"}
    assert [c.name for c in dock.desk.classes] == ["Tumour cell", "Lymphocyte"]
    dock.naming._rename("Lymphocyte", "Plasma cell")
    bench.settle()
    assert dock.desk.edits.named[2] == "Plasma cell"
    dock.naming._delete("Plasma cell")
    assert len(dock.desk.classes) == 2  # a class in use is not lost


@pytest.fixture
def two_kinds(bench):
    """Return the bench with fifty nuclei, every other one large and brown."""
    kinds = [(i + j) % 2 for i, j in itertools.product(range(10), range(5))]
    bench.dock.desk.open(write_store(bench.session.slide, TWO_KINDS, kinds))
    bench.wait(lambda: bench.dock.desk.edits is not None and len(bench.nuclei) == 50)
    bench.kinds = np.array(kinds)
    bench.settle()
    return bench


def name(bench, row, digit):
    bench.dock.hand.choose((row,))
    bench.dock.hand.class_asked.emit(digit)
    bench.settle()


def test_a_few_names_give_every_nucleus_a_class(two_kinds):
    bench, dock = two_kinds, two_kinds.dock
    dock.naming.add_class("Small")
    dock.naming.add_class("Large")
    bench.settle()
    small, large = (np.flatnonzero(bench.kinds == k) for k in (0, 1))
    for row in (*small[:2], *small[-2:]):
        name(bench, int(row), 1)
    assert bench.nuclei.counts() == {"Nucleus": 46, "Small": 4}
    for row in (*large[:2], *large[-2:]):
        name(bench, int(row), 2)
    told = dock.naming.classing.told
    assert told is not None
    found = np.array([bench.nuclei.classes[c] for c in bench.nuclei.codes])
    assert (found[bench.kinds == 1] == "Large").mean() > 0.9
    assert "Nucleus" not in bench.nuclei.counts()
    assert "places left out" in dock.naming.verdict.text()
    assert "Small" in dock.naming.verdict.text()
    named = set(dock.desk.edits.named)
    bench.key(Qt.Key.Key_N) if dock.hand.take("choose") else dock.naming.next.click()
    bench.settle()
    (row,) = dock.hand.chosen
    assert row not in named
    camera = bench.viewer.scene.camera
    assert np.allclose(camera.center[-2:], bench.nuclei.xy[row][::-1] - 0.5, atol=1)
    numbers = dock.numbers
    dock.folds["Numbers"].expand(animate=False)
    numbers.setVisible(True)
    numbers.isVisible = lambda: True  # its section may lie below the window's foot
    numbers.count()
    bench.settle()
    top = numbers.table.topLevelItem(0)
    assert top.text(1) == "50"
    assert top.text(2) == "100"  # on 0.5 mm2
    assert {top.child(i).text(0) for i in range(top.childCount())} == {"Small", "Large"}
    assert numbers.bars.height() > 10


def test_grades_by_dab_with_index_and_h_score(two_kinds):
    bench, dock = two_kinds, two_kinds.dock
    dock.brown.on.setChecked(True)
    bench.settle()
    assert bench.nuclei.counts() == {"Negative": 25, "3+": 25}
    assert dock.brown.figures.text() == "50.0 % positive, H-score 150"
    dock.brown.cuts[2].setValue(0.8)
    bench.wait(lambda: "H-score 100" in dock.brown.figures.text())
    dock.brown.cuts[0].setValue(0.5)
    bench.wait(lambda: "rising" in dock.brown.worth.text())
    dock.brown.on.setChecked(False)
    bench.wait(lambda: bench.nuclei is not None and bench.nuclei.counts() == {"Nucleus": 50})


def test_what_is_shown_is_saved(two_kinds, tmp_path):
    import json

    import tifffile

    from napari_pathotune import _nuclei_saving as saving
    from pathotune.nuclei.query import Nuclei

    bench, dock = two_kinds, two_kinds.dock
    dock.hand.choose((0, 1))
    dock.hand.delete()
    bench.settle()
    paths = {k: tmp_path / f"out{saving.KINDS[k][1]}" for k in ("geojson", "csv", "labels")}
    paths["parquet"] = tmp_path / "out.parquet"
    done = []
    for key, path in paths.items():
        saving.save(dock.desk, key, path, done.append)
    bench.wait(lambda: len(done) == 4)
    assert len(json.loads(paths["geojson"].read_text())["features"]) == 48
    assert len(paths["csv"].read_text().splitlines()) == 49
    assert len(np.unique(tifffile.imread(paths["labels"]))) == 49
    with Nuclei.open(paths["parquet"]) as nuclei:
        assert len(nuclei) == 48
    assert set(paths) <= {k for _, k in saving.choices()}
