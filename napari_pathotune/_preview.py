"""A look at what a model in training has learnt: a square of its map on the screen.

While it is shown the fast model's map is hidden, since two maps through one another
show neither; it comes back with the last look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_pathotune import _layers

if TYPE_CHECKING:
    from napari_pathotune._session import Session

NAME = "Preview of the better model"


class Preview:
    """The layer of the look, and what it hides."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._layer: Any = None
        self._hidden: Any = None

    def show(self, classmap: Any) -> None:
        """Show this map in place of the last look; None: take it away."""
        viewer, slide = self._session.viewer, self._session.slide
        layer, self._layer = self._layer, None
        if viewer is None:
            return
        if layer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)
        if classmap is None or slide is None:
            if self._hidden is not None:
                self._hidden.visible = True
            self._hidden = None
            return
        self._layer = _layers.add_labels(
            viewer,
            slide,
            classmap.labels,
            name=NAME,
            place=_layers.grid_place(slide, classmap.step, classmap.origin),
            opacity=self._session.view.opacity,
        )
        self._layer.colormap = _layers.class_colours(tuple(classmap.colours))
        base = self._session.view.layer
        if base is not None and base.visible:
            base.visible, self._hidden = False, base
