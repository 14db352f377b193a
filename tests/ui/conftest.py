"""Fixtures for the tests that need Qt; they skip where there is no screen.

napari draws with OpenGL, for which Qt's offscreen platform is not enough: on a
machine without a display these tests run under xvfb-run.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest

from pathotune.events import Progress, TilesDone

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
            map_changed = Signal(object)
            card_id = "pathotune-small"
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
                self.loop.plan = self.loop.classmap = self.loop.fitted = None
                self.view = SimpleNamespace(toggle=lambda: self.toggled.append(True))
                self.toggled = []
                self.slide = SimpleNamespace(mpp=0.5, mpp_x=0.5, mpp_y=0.5, name="slide.svs")
                self.slide.fingerprint = "desk"
                self.take(AnnotationSet())

            def take(self, marks):
                if self.annotations is not None:
                    self._stop()
                self.annotations = marks
                self._stop = marks.subscribe(self.annotations_changed.emit)
                self.annotations_replaced.emit(marks)

            def run(self, lane, start, **how):  # nothing is computed at the desk
                return None

            def use_bundle(self, bundle):
                self.bundle = bundle
                self.model_changed.emit()

        self.viewer = viewer
        self.session = Session()
        self.session.viewer = viewer
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
    from unittest.mock import patch

    from app_model import Application
    from napari import Viewer
    from napari._app_model._app import NapariApplication, _napari_names
    from napari._qt._qapp_model.qactions import init_qactions
    from napari.plugins import _initialize_plugins

    # An application of its own, as napari's fixtures make one a test: theirs forget that
    # the real one has its commands already, and would register them twice.
    app = NapariApplication("desk")
    app.injection_store.namespace = _napari_names
    for registered in (_initialize_plugins, init_qactions):
        registered.cache_clear()
    with patch.object(NapariApplication, "get_app_model", return_value=app):
        viewer = Viewer(show=True, show_welcome_screen=False)
        made = _Desk(viewer)
        yield made
        made.board.close()
        viewer.close()
        del made, viewer
        for _ in range(3):
            qapp.processEvents()
            gc.collect()
        Application.destroy("desk")
        for registered in (_initialize_plugins, init_qactions):
            registered.cache_clear()


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
def window(qapp):
    """Return a viewer without its main window, which takes a second each, and its session."""
    from napari.components import ViewerModel

    from napari_pathotune._session import Session

    viewer = ViewerModel()
    session = Session.of(viewer)
    yield viewer, session
    session.close()


CARD = """
id = "colour"
name = "Colours"
about = "mean colours, for tests"
mpp = 1.0
tile_px = 64
token_px = 8
halo = 0
neighbourhood = 1
dims = 6
licence = "none"
gated = false
size_mb = 0.1
url = ""
made_for = "tests"

[[parts]]
timm = "resnet18"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
taps = [0]
weights = { kind = "file", where = "none.safetensors", sha256 = "%s" }
""" % ("0" * 64)
SLOW = 0.0


def colour_features(slide, card, grid, store, cells, *, focus=None, **_):
    """Do what the engine's job does with the mean and spread of colours for a network."""
    from pathotune.slides.tiles import read_tile

    todo = store.missing(cells)
    before = len(cells) - len(todo)
    yield Progress(before, len(cells), "Reading the tissue")
    for n, cell in enumerate(grid.order(todo, focus() if focus else None), 1):
        tile = read_tile(slide, grid, cell).astype(np.float32) / 255 - 0.5
        side = card.tokens
        parts = tile.reshape(side, card.token_px, side, card.token_px, 3)
        tokens = np.concatenate([parts.mean((1, 3)), parts.std((1, 3))], axis=-1)
        store.put(cell, tokens)
        time.sleep(SLOW)
        yield TilesDone(*grid.token_box(cell))
        yield Progress(before + n, len(cells), "Reading the tissue", 1.0)


@pytest.fixture
def quick(monkeypatch):
    """Use colours as features, so that the loop runs in full without torch."""
    from napari_pathotune import _settings, _working
    from pathotune.maps import predict
    from pathotune.models import features
    from pathotune.places import data_dir

    folder = data_dir() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "colour.toml").write_text(CARD)
    for module in (features, predict):  # each has the name, whichever was loaded first
        monkeypatch.setattr(module, "compute_features", colour_features)
    monkeypatch.setattr(_settings, "backbone", lambda: "colour")
    monkeypatch.setattr(
        _working, "_device", lambda work, card: _working.DeviceFound("CPU, 2 cores")
    )


@pytest.fixture
def patches(tmp_path):
    """Return a made slide without um/px: red left, blue right, on white glass."""
    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = np.full((600, 800, 3), 245, np.uint8)
    pixels[100:500, 100:400] = (200, 90, 140)
    pixels[100:500, 400:700] = (110, 70, 160)
    noise = rng.integers(-25, 25, pixels.shape)
    path = tmp_path / "patches.png"
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def opened(quick, window, patches, wait_until):
    """Return viewer and session with the made slide open at 1 um/px and its features done."""
    viewer, session = window
    session.open(patches)
    wait_until(lambda: session.slide is not None and session.tissue is not None, what="opening")
    session.set_mpp(1.0)
    wait_until(lambda: session.loop.plan is not None and not session.loop.status.computing)
    return viewer, session


@pytest.fixture
def mark():
    """Return a function that marks a square of a class on the session's slide."""
    from shapely.geometry import box

    from pathotune.marks.annotations import Annotation, new_id

    def mark(session, name, x, y, side=60):
        session.annotations.add(
            Annotation(new_id(), name, "rectangle", box(x, y, x + side, y + side))
        )

    return mark
