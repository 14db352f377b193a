"""Fixtures for the tests that need Qt; they skip where there is no screen.

napari draws with OpenGL, for which Qt's offscreen platform is not enough: on a
machine without a display these tests run under xvfb-run.
"""

from __future__ import annotations

import os
import sys
import time

import pytest

# The tests must not read or change what the user set in napari.
os.environ.setdefault("NAPARI_CONFIG", "")


def pytest_collection_modifyitems(items):
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        for item in items:
            if "/ui/" in str(item.path):
                item.add_marker(pytest.mark.skip(reason="needs a display (xvfb-run)"))


@pytest.fixture
def wait_until(qtbot):
    """Return a function that runs the event loop until something is true."""

    def wait(check, seconds=20.0, what="it"):
        end = time.monotonic() + seconds
        while not check():
            assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
            qtbot.wait(10)

    return wait


class _Desk:
    """A viewer with a pen and a real annotation set, driven by real mouse and key events."""

    def __init__(self, viewer):
        from types import SimpleNamespace

        import numpy as np
        from psygnal import Signal

        from napari_pathotune._annotation_layers import AnnotationLayers
        from napari_pathotune._pen import Pen
        from pathotune.marks.annotations import AnnotationSet

        viewer.add_image(np.full((1000, 1500, 3), 230, np.uint8), scale=(0.5, 0.5), rgb=True)

        class Session:
            slide_changed = Signal(object)
            mpp_changed = Signal(float)
            annotations_replaced = Signal(object)
            annotations_changed = Signal(object)
            validation_changed = Signal(object)
            status_changed = Signal(object)
            model_changed = Signal()
            device_changed = Signal(str)
            device_known = Signal(str)
            device_name = ""
            failed = Signal(object)
            dock_wanted = Signal(str)
            closed = Signal()
            slide_layer = viewer.layers[0]

            def __init__(self):
                self.annotations = None
                self.renew()

            def renew(self):
                self.journal = SimpleNamespace(saved_at=None, problem=None)
                self.recovered, self.bundle, self.device = 0, None, "cpu"
                self.loop = SimpleNamespace(head=None, evaluation=None, missing=None)
                self.view = SimpleNamespace(toggle=lambda: self.toggled.append(True))
                self.toggled = []
                self.slide = SimpleNamespace(mpp=0.5, mpp_x=0.5, mpp_y=0.5, name="slide.svs")
                self.take(AnnotationSet())

            def take(self, marks):
                if self.annotations is not None:
                    self._stop()
                self.annotations = marks
                self._stop = marks.subscribe(self.annotations_changed.emit)
                self.annotations_replaced.emit(marks)

            def use_bundle(self, bundle):
                self.bundle = bundle
                self.model_changed.emit()

        self.viewer = viewer
        self.session = Session()
        self.board = AnnotationLayers.of(viewer, self.session)
        self.pen = Pen.of(self.board)
        if hasattr(viewer, "window"):
            viewer.window.resize(700, 500)  # drawn in software here, so every pixel costs
            self.canvas = viewer.window._qt_viewer.canvas.native
        self.renew()

    def renew(self):
        """Clear the desk: two classes, nothing marked, no tool in the hand."""
        if self.board.drawing:
            self.pen.discard()
        for layer in (self.board.regions.layer, self.board.points.layer):
            if layer is not None:
                layer.mode = "pan_zoom"
        self.session.renew()
        self.session.slide_changed.emit(self.session.slide)
        self.marks.add_class("Tumour")
        self.marks.add_class("Stroma")
        self.board.pen_um = 60.0
        self.viewer.layers.selection.active = self.session.slide_layer
        self.viewer.reset_view()
        self.settle()

    @property
    def marks(self):
        return self.session.annotations

    def settle(self):
        from qtpy.QtTest import QTest

        for _ in range(3):
            QTest.qWait(5)

    def at(self, x, y):
        """Return the canvas position of a level-0 (x, y)."""
        from qtpy.QtCore import QPoint

        camera = self.viewer.scene.camera
        row = ((y - 0.5) * 0.5 - camera.center[-2]) * camera.zoom + self.canvas.height() / 2
        column = ((x - 0.5) * 0.5 - camera.center[-1]) * camera.zoom + self.canvas.width() / 2
        return QPoint(round(column), round(row))

    def hover(self, x, y, *, held=False):
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtTest import QTest
        from qtpy.QtWidgets import QApplication

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
        QTest.qWait(8)  # napari looks at the mouse every 5 ms

    def click(self, *places):
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        for x, y in places:
            self.hover(x, y)
            QTest.mouseClick(self.canvas, Qt.MouseButton.LeftButton, pos=self.at(x, y))
            self.settle()

    def drag(self, *places, lift=True):
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        self.hover(*places[0])
        QTest.mousePress(self.canvas, Qt.MouseButton.LeftButton, pos=self.at(*places[0]))
        for place in places[1:]:
            self.hover(*place, held=True)
        if lift:
            self.lift(*places[-1])

    def lift(self, x, y):
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        QTest.mouseRelease(self.canvas, Qt.MouseButton.LeftButton, pos=self.at(x, y))
        self.settle()

    def key(self, name, *, press=True, release=True):
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        *modifiers, key = name.split("+")
        held = Qt.KeyboardModifier.NoModifier
        for modifier in modifiers:
            held |= {
                "Ctrl": Qt.KeyboardModifier.ControlModifier,
                "Shift": Qt.KeyboardModifier.ShiftModifier,
            }[modifier]
        code = {"[": Qt.Key.Key_BracketLeft, "]": Qt.Key.Key_BracketRight}.get(key)
        code = code or getattr(Qt.Key, f"Key_{key}")
        if press:
            QTest.keyPress(self.canvas, code, held)
        if release:
            QTest.keyRelease(self.canvas, code, held)
        self.settle()


@pytest.fixture(scope="module")
def _shared_desk(qapp):
    import gc

    from napari import Viewer

    viewer = Viewer(show=True, show_welcome_screen=False)
    made = _Desk(viewer)
    yield made
    made.board.close()
    viewer.close()
    del made, viewer
    for _ in range(3):
        qapp.processEvents()
        gc.collect()


@pytest.fixture
def desk(_shared_desk):
    """Return a viewer with a pen, one a module, cleared: two classes, 0.5 um/px."""
    _shared_desk.renew()
    return _shared_desk


@pytest.fixture
def new_desk(qapp):
    """Return the class of desks, for a test that ends one itself."""
    return _Desk


@pytest.fixture
def bare_desk(qapp):
    """Return a desk without a window: nothing is drawn and there is no mouse."""
    from napari.components import ViewerModel

    made = _Desk(ViewerModel())
    yield made
    made.board.close()


@pytest.fixture(autouse=True)
def plugin_home(monkeypatch):
    """Keep napari's settings of this plugin out of the tests."""
    monkeypatch.setenv("NAPARI_ASYNC", "0")


@pytest.fixture
def skin(shared):
    """Return the path of a small real slide with um/px."""
    return shared / "data" / "wsi_cmu1_small_region" / "CMU-1-Small-Region.svs"


@pytest.fixture
def window(make_napari_viewer):
    """Return a viewer and its session; the session is closed before the viewer."""
    from napari_pathotune._session import Session

    viewer = make_napari_viewer()
    session = Session.of(viewer)
    yield viewer, session
    session.close()
