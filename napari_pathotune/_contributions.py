"""What the manifest names: readers, writer, sample, and the entry that opens the docks.

napari imports this only when one of them is used. Readers decline fast what is
not ours, so that plain files still reach napari's own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QThread, QTimer

from napari_pathotune._annotate_dock import AnnotateDock
from napari_pathotune._classify_dock import ClassifyDock
from napari_pathotune._nuclei_dock import NucleiDock
from napari_pathotune._session import Session
from napari_pathotune._slide_dock import SlideDock
from napari_pathotune._tune_dock import TuneDock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.viewer import Viewer

    from pathotune.marks.annotations import AnnotationSet

LayerTuple = tuple[Any, ...]
_SOON_S = 0.15  # that opening may keep the window; a local slide takes less
NO_LAYER: list[LayerTuple] = [(None,)]  # npe2's way to say: read, but there is no layer to add


class SlideStart(SlideDock):
    """The Slide dock as the menu opens it: the others come with it."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self._viewer = napari_viewer
        self._first = True

    def showEvent(self, event: Any) -> None:
        """Open the other docks once this one is in the window."""
        super().showEvent(event)
        if self._first:
            self._first = False
            QTimer.singleShot(0, self._open_others)

    def _open_others(self) -> None:
        from napari_pathotune._docks import Docks

        Docks.of(self._viewer).open_all()


class AnnotateStart(AnnotateDock):
    """The Annotate dock as the menu opens it: napari gives a viewer by this argument's name."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)


class TuneStart(TuneDock):
    """The Tune dock as the menu opens it."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)


class ClassifyStart(ClassifyDock):
    """The Classify dock as the menu opens it."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)


class NucleiStart(NucleiDock):
    """The Nuclei dock as the menu opens it."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)


def open_docks(viewer: Viewer) -> None:
    """Open the docks in a viewer, for scripts and notebooks."""
    from napari_pathotune._docks import Docks

    Docks.of(viewer).open_all()


def _one(path: str | Sequence[str]) -> Path | None:
    if isinstance(path, str):
        return Path(path)
    return Path(path[0]) if len(path) == 1 else None


def slide_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerTuple]] | None:
    """Return a function that opens a slide, or None when the file is not one."""
    from napari_pathotune import _layers
    from napari_pathotune._opening import look
    from pathotune.slides.slide import is_slide, open_slide

    one = _one(path)
    if one is None or not is_slide(one):
        return None

    def read(_path: Any) -> list[LayerTuple]:
        session = _session_that_can_wait()
        if session is None:
            return [_layers.slide_layer_data(open_slide(one))]
        thread = ThreadPoolExecutor(1, "pathotune-opening")
        opening = thread.submit(lambda: look(open_slide(one)))
        thread.shutdown(wait=False)  # it ends when the slide is open
        try:
            seen = opening.result(_SOON_S)
        except TimeoutError:
            seen = None
        if seen is None or seen.slow:
            session.open(one, opening.result)  # its layer comes when the drive has answered
            return NO_LAYER
        return [_layers.slide_layer_data(seen.slide, seen)]

    return read


def _session_that_can_wait() -> Session | None:
    """Return the session of the window whose user opens a file; None where a script does."""
    import napari

    viewer = napari.current_viewer()
    running = QThread.currentThread().loopLevel() > 0
    return Session.of(viewer) if viewer is not None and running else None


def annotation_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerTuple]] | None:
    """Return a function that takes annotations into the session, or shows them as shapes."""
    one = _one(path)
    if one is None or not one.is_file():
        return None

    def read(_path: Any) -> list[LayerTuple]:
        import napari

        from pathotune.marks.geojson import read_geojson

        session = Session.find(napari.current_viewer())
        if session is not None and session.slide is not None:
            session.load_annotations(one)
            return NO_LAYER
        return as_shapes(read_geojson(one), one.name)

    return read


def as_shapes(marks: AnnotationSet, name: str) -> list[LayerTuple]:
    """Return annotations as one layer of polygons in level-0 pixels, where no slide is open."""
    import numpy as np

    rings, classes, colours = [], [], []
    table = {c.name: c.colour for c in marks.classes}
    for mark in marks.items:
        area = mark.area()
        for part in getattr(area, "geoms", [area]):
            if part.geom_type == "Polygon":
                xy = np.asarray(part.exterior.coords)[:-1]
                rings.append(xy[:, ::-1] - 0.5)
                classes.append(mark.class_name or "")
                rgb = table.get(mark.class_name or "", (160, 160, 160))
                colours.append([v / 255 for v in rgb])
    kwargs = {
        "name": name,
        "shape_type": "polygon",
        "edge_color": colours,
        "face_color": "transparent",
        "edge_width": 4,
        "features": {"class": classes},
    }
    return [(rings, kwargs, "shapes")] if rings else NO_LAYER


def write_annotations(path: str, layers: list[LayerTuple]) -> list[str]:
    """Write the session's annotations, of which the saved layers are the picture."""
    import napari

    from pathotune.events import PathotuneError
    from pathotune.marks.geojson import write_geojson

    session = Session.find(napari.current_viewer())
    if session is None or session.slide is None:
        raise PathotuneError(
            "Only annotations of an open slide can be saved as GeoJSON.",
            "Open the slide with PathoTune and mark there.",
        )
    del layers  # a picture of the annotations, without their classes' names
    write_geojson(Path(path), session.annotations)
    return [path]


def sample() -> list[LayerTuple]:
    """Return the sample slide as a layer."""
    from pathotune.slides.sample import sample_slide

    return _slide_layer(sample_slide())


def skin() -> list[LayerTuple]:
    """Return a region of a real skin slide as a layer."""
    from pathotune.slides.sample import skin_slide

    return _slide_layer(skin_slide())


def _slide_layer(path: Path) -> list[LayerTuple]:
    from napari_pathotune import _layers
    from pathotune.slides.slide import open_slide

    return [_layers.slide_layer_data(open_slide(path))]
