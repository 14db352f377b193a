"""The board the pen writes on: napari's layers of regions and points of one session.

The session's `AnnotationSet` is the truth: it has undo, the journal and everything that
was imported. The layers only mirror it, and an edit by hand becomes an edit of the set
when the pen is lifted. Here is what the two layers share: the class and the width of the
pen, the colours, where a level-0 pixel lies in napari's world, and which layer is active.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_pathotune import _forms as forms
from napari_pathotune import _layers
from napari_pathotune._point_layer import PointLayer
from napari_pathotune._region_layer import RegionLayer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_pathotune._pen import Pen
    from napari_pathotune._session import Session
    from pathotune.marks.annotations import Annotation, AnnotationSet, Change

#: Colour of what has no class yet.
NO_CLASS = (0.45, 0.45, 0.45)
READY_MS = 300  # after a slide is shown


class AnnotationLayers:
    """The regions and points of one session on the screen; get it with `AnnotationLayers.of`.

    Signals
    -------
    note(str)
        A sentence for the user.
    class_chosen(str | None)
        The class of the next region.
    pen_changed()
        The width of the brush.
    selection_changed()
    layer_made(layer, str)
        A layer of "regions" or "points" was made (it may be thrown away and made again).
    """

    note = Signal(str)
    class_chosen = Signal(object)
    pen_changed = Signal()
    selection_changed = Signal()
    layer_made = Signal(object, str)

    _all: ClassVar[weakref.WeakKeyDictionary[Any, AnnotationLayers]] = weakref.WeakKeyDictionary()

    def __init__(self, viewer: Any, session: Session) -> None:
        # Weakly, because this object is found through a table that must not keep them alive.
        self._viewer, self._session = weakref.ref(viewer), weakref.ref(session)
        self.pen: Pen | None = None
        self.active_class: str | None = None
        self.labels = False
        self._pen_um = 60.0
        self._mine = False
        self.regions = RegionLayer(self)
        self.points = PointLayer(self)
        self._zooming = QTimer()
        self._zooming.setSingleShot(True)
        self._zooming.setInterval(120)
        self._zooming.timeout.connect(self._zoomed)
        self._readying = QTimer()
        self._readying.setSingleShot(True)
        self._readying.setInterval(READY_MS)
        self._readying.timeout.connect(self._make_ready)
        session.slide_changed.connect(self._on_slide)
        session.mpp_changed.connect(self._on_place)
        session.annotations_replaced.connect(self._on_replaced)
        session.annotations_changed.connect(self._on_change)
        session.closed.connect(self.close)
        viewer.scene.camera.events.zoom.connect(self._on_zoom)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        self._on_replaced()

    @classmethod
    def of(cls, viewer: Any, session: Session) -> AnnotationLayers:
        """Return the one board of a session, made on first use."""
        board = cls._all.get(session)
        if board is None:
            board = cls._all[session] = cls(getattr(viewer, "__wrapped__", viewer), session)
        return board

    def close(self) -> None:
        """Let go of the session and the viewer; the layers stay."""
        self.session.slide_changed.disconnect(self._on_slide)
        self.session.mpp_changed.disconnect(self._on_place)
        self.session.annotations_replaced.disconnect(self._on_replaced)
        self.session.annotations_changed.disconnect(self._on_change)
        self.session.closed.disconnect(self.close)
        if self.viewer is not None:
            self.viewer.scene.camera.events.zoom.disconnect(self._on_zoom)
            self.viewer.layers.events.removed.disconnect(self._on_layer_removed)
        self.pen = None
        self._zooming.stop()
        self._readying.stop()
        self.regions.close()
        self.points.close()
        type(self)._all.pop(self.session, None)

    # ---- what is asked --------------------------------------------------------------------

    @property
    def viewer(self) -> Any:
        """The viewer."""
        return self._viewer()

    @property
    def session(self) -> Session:
        """The session."""
        session = self._session()
        assert session is not None, "asked after the end of the session"
        return session

    @property
    def annotations(self) -> AnnotationSet:
        """The session's annotations."""
        return self.session.annotations

    @property
    def mpp(self) -> float:
        """Um per level-0 px; 1 where the slide does not tell."""
        slide = self.session.slide
        return float(slide.mpp or 1.0) if slide is not None else 1.0

    @property
    def screen_px(self) -> float:
        """Level-0 px under one pixel of the screen."""
        return 1.0 / max(float(self.viewer.scene.camera.zoom) * self.mpp, 1e-9)

    @property
    def pen_um(self) -> float:
        """Diameter of the brush in um."""
        return self._pen_um

    @pen_um.setter
    def pen_um(self, value: float) -> None:
        self._pen_um = value
        self.pen_changed.emit()

    @property
    def pen_px(self) -> float:
        """Diameter of the brush in level-0 px."""
        return self._pen_um / self.mpp

    @property
    def drawing(self) -> bool:
        """Whether a region is under the pen that is not yet an annotation."""
        return bool(self.regions.drawing_mode)

    def class_names(self) -> list[str]:
        """Return the names of the classes in their order."""
        return [c.name for c in self.annotations.classes]

    def class_of(self, annotation_id: str) -> str | None:
        """Return the class of an annotation, None also for one that is gone."""
        try:
            return self.annotations.get(annotation_id).class_name
        except KeyError:
            return None

    def colour(self, name: str | None) -> tuple[float, float, float]:
        """Return the colour of a class, 0 to 1."""
        for c in self.annotations.classes:
            if c.name == name:
                return (c.colour[0] / 255, c.colour[1] / 255, c.colour[2] / 255)
        return NO_CLASS

    def selected(self) -> list[str]:
        """Return the ids of the annotations selected on the active layer."""
        active = self.viewer.layers.selection.active
        if active is None:
            return []
        if active is self.regions.layer:
            return self.regions.selected()
        return self.points.selected() if active is self.points.layer else []

    # ---- what is done ---------------------------------------------------------------------

    def choose_class(self, name: str | None) -> None:
        """Make `name` the class of the next region."""
        if name == self.active_class:
            return
        self.active_class = name
        self.regions.show_pen_colour()
        self.points.show_pen_colour()
        self.class_chosen.emit(name)

    def describe(self, annotation_id: str) -> str:
        """Return a region in a few words: its class, what it is, how large."""
        try:
            mark = self.annotations.get(annotation_id)
        except KeyError:
            return ""
        words = [mark.class_name or "no class", *([mark.name] if mark.name else [])]
        area = mark.area().area * self.mpp**2 / 1e6
        if area > 0 and self.session.slide is not None and self.session.slide.mpp is not None:
            words.append(forms.area_text(area))
        if mark.locked:
            words.append("locked")
        return ", ".join(words)

    def show_labels(self, on: bool) -> None:
        """Write the class beside every region, or not."""
        self.labels = on
        self.regions.show_labels()

    def redraw(self) -> None:
        """Draw everything anew."""
        items = list(self.annotations.items)
        self.regions.redraw(items)
        self.points.redraw(items)

    def select_unclassified(self) -> None:
        """Select the regions without a class, ready for a digit; points where there are none."""
        known = set(self.class_names())
        ids = [a.id for a in self.annotations.items if a.class_name not in known]
        for ours in (self.regions, self.points):
            if ours.layer is not None:
                self.viewer.layers.selection.active = ours.layer
                ours.layer.mode = "select"
                ours.select(ids)
                if ours.selected():
                    return

    def new_annotation(self, kind: Any, geometry: Any, width: float = 0.0) -> Annotation:
        """Return a new annotation of the class under the pen."""
        from pathotune.marks.annotations import Annotation, new_id

        return Annotation(
            id=new_id(),
            class_name=self.active_class,
            kind=kind,
            geometry=geometry,
            width=width,
        )

    @contextmanager
    def editing(self) -> Iterator[None]:
        """Edit the set for what the screen already shows, so that it is not drawn again."""
        before, self._mine = self._mine, True
        try:
            yield
        finally:
            self._mine = before

    def replace(self, changed: Sequence[Annotation]) -> None:
        """Put edited annotations in the set, for what the screen already shows."""
        if changed:
            with self.editing():
                self.annotations.replace(*changed)

    def add_layer(self, kind: str, name: str, **how: Any) -> Any:
        """Add one of our layers above the rest without taking the hand off the active one."""
        layers = self.viewer.layers
        active = layers.selection.active
        layer = getattr(self.viewer, kind)(
            name=name,
            opacity=1.0,
            metadata={_layers.KEY: {"layer": name.lower()}},
            **self._placement(),
            **how,
        )
        if active is not None:
            layers.selection.active = active
        self.layer_made.emit(layer, name.lower())
        return layer

    # ---- what happened --------------------------------------------------------------------

    def _on_change(self, change: Change) -> None:
        self._keep_class()
        if change.classes_changed:
            self.regions.show_pen_colour()
            self.points.show_pen_colour()
        items = list(self.annotations.items)
        if not self._mine and change.ids:
            self.regions.redraw(items, change.ids)
            self.points.redraw(items)
        if self._mine or change.classes_changed:
            self.regions.paint()
            self.points.paint()

    def _on_replaced(self, *_: Any) -> None:
        self._keep_class()
        self.redraw()
        self.regions.show_pen_colour()
        self.points.show_pen_colour()

    def _keep_class(self) -> None:
        names = self.class_names()
        if self.active_class not in names:
            self.choose_class(names[0] if names else None)

    def _on_slide(self, *_: Any) -> None:
        self._on_place()
        if self.session.slide is None and not self.drawing:
            # The next slide may be scaled in other units, and napari minds a mixture.
            for ours in (self.regions, self.points):
                if ours.layer is not None and ours.layer in self.viewer.layers:
                    self.viewer.layers.remove(ours.layer)

    def _make_ready(self) -> None:
        """Have the layer before the first stroke or import, which would wait for napari."""
        slide = self.session.slide
        if slide is not None and slide.mpp is not None and self.viewer is not None:
            self.regions.make()

    def _on_place(self, *_: Any) -> None:
        for layer in (self.regions.layer, self.points.layer):
            if layer is not None and self.session.slide is not None:
                for name, value in self._placement().items():
                    setattr(layer, name, value)
        if self.session.slide is not None:
            self._readying.start()
        self._zooming.start()
        self.pen_changed.emit()

    def _placement(self) -> dict[str, Any]:
        """Return where napari must put a layer whose data are (y, x) in level-0 px."""
        slide = self.session.slide
        if slide is None:
            return {}
        return {**_layers.grid_place(slide, 1.0, (-0.5, -0.5)), "units": _layers.units(slide)}

    def _on_zoom(self, *_: Any) -> None:
        self._zooming.start()

    def _zoomed(self) -> None:
        self.regions.zoomed()
        self.points.zoomed()

    def _on_layer_removed(self, event: Any) -> None:
        for ours in (self.regions, self.points):
            if event.value is not None and event.value is ours.layer:
                ours.forget()
