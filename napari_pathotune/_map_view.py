"""The class map on the screen: what is shown, how strongly, which classes.

The loop writes arrays in its lanes; this object shows them. It keeps one labels
layer for the class map and one image for the probability of a class or the
uncertainty, refreshes only the one in use, and never takes the pen from the
layer that is being drawn on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from psygnal import Signal

from napari_pathotune import _layers

if TYPE_CHECKING:
    from napari_pathotune._session import Session
    from pathotune.events import TilesDone
    from pathotune.maps.classmap import ClassMap

Shown = Literal["classes", "probability", "uncertainty", "nothing"]
OPACITY = 0.45
MAP_NAME = "Class map"
VALUES_NAME = "Class map values"


class MapView:
    """What a session shows of its map.

    Signals
    -------
    changed()
        What is shown, the opacity or the hidden classes changed.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self.shown: Shown = "classes"
        self.class_index = 0
        self.opacity = OPACITY
        self.hidden: frozenset[str] = frozenset()
        self._labels: Any = None
        self._values: Any = None
        self._place: dict[str, Any] = {}
        self._coloured: Any = None
        session.map_changed.connect(self._on_map)
        session.slide_changed.connect(self._on_slide)
        session.mpp_changed.connect(self._on_scale)
        session.annotations_changed.connect(self._on_marks)

    # -- setters -------------------------------------------------------------------

    def show(self, shown: Shown, class_index: int | None = None) -> None:
        """Show the class map, the probability of one class, the uncertainty, or nothing."""
        self.shown = shown
        if class_index is not None:
            self.class_index = class_index
        self._all()
        self.changed.emit()

    def toggle(self) -> None:
        """Hide the map, or show it again."""
        layer = self._layer()
        if layer is not None:
            layer.visible = not layer.visible

    def set_opacity(self, opacity: float) -> None:
        """Set how strongly the map covers the slide, 0 to 1."""
        self.opacity = opacity
        for layer in (self._labels, self._values):
            if layer is not None:
                layer.opacity = opacity
        self.changed.emit()

    def set_hidden(self, names: frozenset[str]) -> None:
        """Hide these classes in the class map."""
        self.hidden = names
        self._recolour()
        self.changed.emit()

    # -- showing -------------------------------------------------------------------

    @property
    def layer(self) -> Any:
        """The layer in use, or None."""
        return self._layer()

    def _layer(self) -> Any:
        return {"classes": self._labels, "nothing": None}.get(self.shown, self._values)

    def _on_slide(self, _slide: Any) -> None:
        self._drop()

    def _on_scale(self, _mpp: float) -> None:
        self._drop()

    def _drop(self) -> None:
        viewer = self._session.viewer
        for layer in (self._labels, self._values):
            if layer is not None and viewer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)
        self._labels = self._values = None

    def _on_marks(self, change: Any) -> None:
        if getattr(change, "classes_changed", False):
            self._recolour()

    def _on_map(self, box: TilesDone | None) -> None:
        if box is None:
            self._all()
            return
        classmap = self._session.loop.classmap
        layer = self._layer()
        if classmap is None or layer is None:
            return
        if layer is self._values:
            rows, cols = slice(box.row0, box.row1), slice(box.col0, box.col1)
            layer.data[rows, cols] = self._computed(classmap, rows, cols)
        if layer.visible:
            layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _all(self) -> None:
        """Show the whole map anew: another map, another thing to see."""
        session = self._session
        viewer, slide, plan = session.viewer, session.slide, session.loop.plan
        if viewer is None or slide is None or plan is None:
            self._drop()
            return
        self._forget_removed(viewer)
        classmap = session.loop.classmap
        lattice = plan.grid.lattice
        if classmap is None:
            labels = np.zeros((lattice.rows, lattice.cols), np.uint8)
            place = _layers.grid_place(slide, lattice.step, (lattice.x0, lattice.y0))
        else:
            labels = classmap.labels
            place = _layers.grid_place(slide, classmap.step, classmap.origin)
        if self._labels is None or self._place != place:
            self._drop()
            self._place, self._coloured = place, None
            self._labels = _layers.add_labels(
                viewer, slide, labels, name=MAP_NAME, place=place, opacity=self.opacity
            )
        elif self._labels.data is not labels:
            self._labels.data = labels
        self._recolour()
        wants_values = self.shown in ("probability", "uncertainty") and classmap is not None
        if wants_values and classmap is not None:
            values = self._computed(classmap, slice(None), slice(None))
            if self._values is None:
                self._values = _layers.add_values(
                    viewer, slide, values, name=VALUES_NAME, place=place, opacity=self.opacity
                )
            else:
                self._values.data = values
        _set(self._labels, "visible", self.shown == "classes")
        if self._values is not None:
            _set(self._values, "visible", wants_values)
            if wants_values:
                self._values.name = self._title(classmap)

    def _forget_removed(self, viewer: Any) -> None:
        """The user may have taken our layers out of the list; they are made again."""
        if self._labels is not None and self._labels not in viewer.layers:
            self._labels = None
        if self._values is not None and self._values not in viewer.layers:
            self._values = None

    def _title(self, classmap: ClassMap | None) -> str:
        if self.shown == "probability" and classmap is not None:
            return f"Probability of {classmap.classes[self._index(classmap)]}"
        return "Uncertainty" if self.shown == "uncertainty" else VALUES_NAME

    def _index(self, classmap: ClassMap) -> int:
        return min(self.class_index, len(classmap.classes) - 1)

    def _computed(self, classmap: ClassMap, rows: slice, cols: slice) -> Any:
        """Return 0 (no map) or 1..255 for the values shown."""
        labels, probs = classmap.labels[rows, cols], classmap.probs
        if probs is None:
            return np.zeros(labels.shape, np.uint8)
        part = probs[rows, cols]
        if self.shown == "probability":
            value = part[..., self._index(classmap)].astype(np.float32)
        else:
            value = replace(classmap, labels=labels, probs=part).uncertainty()
        out = (1 + 254 * np.clip(value, 0, 1)).astype(np.uint8)
        out[labels == 0] = 0
        return out

    def _recolour(self) -> None:
        if self._labels is None:
            return
        classmap = self._session.loop.classmap
        if classmap is None:
            return
        now = {c.name: c.colour for c in self._session.annotations.classes}
        colours = tuple(
            now.get(n, c) for n, c in zip(classmap.classes, classmap.colours, strict=True)
        )
        hidden = {i for i, n in enumerate(classmap.classes, start=1) if n in self.hidden}
        if self._coloured != (colours, hidden):  # napari takes its time over each new table
            self._coloured = (colours, hidden)
            self._labels.colormap = _layers.class_colours(colours, hidden)


def _set(layer: Any, name: str, value: Any) -> None:
    """Set a layer's attribute if it differs: napari redraws and makes thumbnails either way."""
    if getattr(layer, name) != value:
        setattr(layer, name, value)
