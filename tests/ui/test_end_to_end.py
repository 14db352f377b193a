"""The whole job in the real window, with the real backbone and a real hand on the mouse.

Open the sample, draw two classes, the map appears, correct it, the map follows,
save, close, open again: everything is there.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from pathotune.slides.sample import sample_annotations

SECONDS = 150.0  # two busy cores and no graphics card


@pytest.fixture
def hand(qtbot):
    """Return a function that makes a hand for a viewer with the slide on it."""
    from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    from napari_pathotune import _layers

    class Hand:
        """Draws in level-0 pixels on the canvas."""

        def __init__(self, viewer, slide):
            self.viewer, self.slide = viewer, slide
            self.canvas = viewer.window._qt_viewer.canvas.native

        def look_at(self, x, y, width):
            sy, sx = _layers.pixel_scale(self.slide)
            self.viewer.scene.camera.center = (y * sy, x * sx)
            self.viewer.scene.camera.zoom = self.canvas.width() / (width * sx)
            qtbot.wait(50)

        def at(self, x, y):
            camera = self.viewer.scene.camera
            sy, sx = _layers.pixel_scale(self.slide)
            row = ((y - 0.5) * sy - camera.center[-2]) * camera.zoom + self.canvas.height() / 2
            column = ((x - 0.5) * sx - camera.center[-1]) * camera.zoom + self.canvas.width() / 2
            return QPoint(round(column), round(row))

        def move(self, x, y, held):
            place = self.at(x, y)
            event = QMouseEvent(
                QEvent.Type.MouseMove,
                QPointF(place),
                QPointF(self.canvas.mapToGlobal(place)),
                Qt.MouseButton.NoButton,
                Qt.MouseButton.LeftButton if held else Qt.MouseButton.NoButton,
                Qt.KeyboardModifier.NoModifier,
            )
            QApplication.instance().sendEvent(self.canvas, event)
            QTest.qWait(8)

        def stroke(self, *places):
            self.move(*places[0], held=False)
            QTest.mousePress(self.canvas, Qt.MouseButton.LeftButton, pos=self.at(*places[0]))
            for place in places[1:]:
                self.move(*place, held=True)
            QTest.mouseRelease(self.canvas, Qt.MouseButton.LeftButton, pos=self.at(*places[-1]))
            QTest.qWait(30)

    return Hand


def middle_of(name, number=0):
    """Return a point well inside one of the sample's own marks."""
    import shapely

    from pathotune.marks.geojson import read_geojson

    marks = [a for a in read_geojson(sample_annotations()).items if a.class_name == name]
    centre = shapely.maximum_inscribed_circle(marks[number].area()).coords[0]
    return float(centre[0]), float(centre[1])


def open_everything(viewer, wait_until):
    from napari_pathotune._docks import Docks
    from napari_pathotune._session import Session

    docks = Docks.of(viewer)
    docks.open_all()
    session = Session.of(viewer)
    slide_dock = docks.find("slide").widget()
    slide_dock.sample.click()
    wait_until(lambda: session.slide is not None and session.tissue is not None, SECONDS)
    return docks, session


def test_from_an_empty_window_to_a_map_and_back(
    make_napari_viewer, hand, wait_until, tmp_path, monkeypatch
):
    from qtpy.QtWidgets import QFileDialog

    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1200, 740)
    docks, session = open_everything(viewer, wait_until)
    loop = session.loop
    assert docks.find("slide").widget().primary.text() == "Mark regions"
    docks.find("slide").widget().primary.click()

    # two classes, one stroke each, drawn with the brush on the canvas
    session.annotations.add_class("Fat")
    session.annotations.add_class("Muscle")
    annotate = docks.find("annotate").widget()
    annotate.board.pen_um = 60.0
    fat, muscle = middle_of("Fat"), middle_of("Muscle")
    pen = hand(viewer, session.slide)
    for name, (x, y) in (("Fat", fat), ("Muscle", muscle)):
        pen.look_at(x, y, 1200)
        annotate.board.choose_class(name)
        annotate.pen.take("brush")
        pen.stroke((x - 60, y), (x, y), (x + 60, y))
    assert session.annotations.counts() == {"Fat": 1, "Muscle": 1}
    assert all(a.kind == "stroke" for a in session.annotations.items)

    # the map appears, right where it was marked
    def classes_at(*places):
        found = [loop.classmap.at(*p) if loop.classmap is not None else None for p in places]
        return [f and f[0] for f in found]

    wait_until(lambda: classes_at(fat, muscle) == ["Fat", "Muscle"], SECONDS, "the map")
    layer = viewer.layers["Class map"]
    assert np.shares_memory(layer.data, loop.classmap.labels) and layer.visible

    # a correction, as a third class: the map follows
    lymph = middle_of("Lymphocytes")
    session.annotations.add_class("Lymphocytes")
    pen.look_at(*lymph, 1200)
    annotate.board.choose_class("Lymphocytes")
    annotate.pen.take("brush")
    pen.stroke((lymph[0] - 40, lymph[1]), (lymph[0] + 40, lymph[1]))
    wait_until(
        lambda: classes_at(fat, muscle, lymph) == ["Fat", "Muscle", "Lymphocytes"],
        SECONDS,
        "the corrected map",
    )
    assert docks.find("classify").widget().primary.text() == "Export..."

    # saved: the marks and the model
    marks_file, model_file = tmp_path / "marks.geojson", tmp_path / "model.safetensors"
    session.save_annotations(marks_file)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(model_file), ""))
    docks.find("tune").widget().save()
    wait_until(lambda: marks_file.exists() and model_file.exists(), SECONDS, "saving")
    features = json.loads(marks_file.read_text())["features"]
    names = {f["properties"]["classification"]["name"] for f in features}
    assert names == {"Fat", "Muscle", "Lymphocytes"}
    before = loop.classmap.probs.copy()
    marks = session.annotations.items
    viewer.close()
    assert session.jobs.closed

    # a new window: marks and map are back without a stroke
    again = make_napari_viewer(show=True)
    docks, session = open_everything(again, wait_until)
    assert session.recovered == 3
    assert [a.id for a in session.annotations.items] == [a.id for a in marks]
    loop = session.loop
    wait_until(
        lambda: classes_at(fat, muscle, lymph) == ["Fat", "Muscle", "Lymphocytes"], SECONDS, "it"
    )
    for x, y in (fat, muscle, lymph):
        lattice = loop.grid.lattice
        r, c = int((y - lattice.y0) // lattice.step), int((x - lattice.x0) // lattice.step)
        np.testing.assert_allclose(loop.classmap.probs[r, c], before[r, c], atol=0.02)

    # and the saved model draws the same slide
    from pathotune.models.bundle import ModelBundle

    session.use_bundle(ModelBundle.load(model_file))
    wait_until(lambda: classes_at(fat, muscle) == ["Fat", "Muscle"], SECONDS, "the model's map")
    session.close()
