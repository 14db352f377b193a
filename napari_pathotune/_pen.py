"""The tools in the hand: which one, how wide, of which class, and what the keys do to it.

Polygon, lasso, rectangle and point are napari's own tools. The brush is ours: it takes the
place of napari's free-hand line, so that a stroke has the width of the tissue under it and
ends when the pen is lifted. Holding Space while a polygon is drawn moves the slide without
ending the polygon, Ctrl+Z takes back its last corner, and Escape throws it away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_pathotune import _keys
from napari_pathotune._annotation_geometry import painted, stroke

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_pathotune._annotation_layers import AnnotationLayers

#: Our tools and napari's mode for each, on the layer of regions but for the point.
MODES = {
    "pan": "pan_zoom",
    "select": "select",
    "corners": "direct",
    "polygon": "add_polygon",
    "lasso": "add_polygon_lasso",
    "brush": "add_path",
    "rectangle": "add_rectangle",
    "ellipse": "add_ellipse",
    "point": "add",
}
TOOLS = {mode: tool for tool, mode in MODES.items()}
SELECTING = {"select", "direct", "vertex_insert", "vertex_remove"}
#: Fill of a stroke while it is painted, so that the eye can follow the pen.
WET = 0.35
PEN_SIZES_UM = (5, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200, 300, 500, 800)


class Pen:
    """The tools of one board; get it with `Pen.of`.

    Signals
    -------
    tool_changed(str)
        A key of `MODES`, or empty while a layer that is not ours is active.
    pointed_at(str)
        What the selecting hand points at, in words; empty for nothing.
    """

    tool_changed = Signal(str)
    pointed_at = Signal(str)

    def __init__(self, board: AnnotationLayers) -> None:
        self.board = board
        self.viewer = board.viewer
        self._stroke: object | None = None
        for name, layer in (("regions", board.regions.layer), ("points", board.points.layer)):
            if layer is not None:
                self._on_layer(layer, name)
        board.layer_made.connect(self._on_layer)
        board.pen_changed.connect(self._show_brush)
        self.viewer.layers.selection.events.active.connect(self._on_active)
        self.viewer.mouse_drag_callbacks.append(self._reach)
        self.viewer.mouse_move_callbacks.append(self._point)
        self.actions: dict[str, Callable[..., Any]] = {
            "choose_class": self.choose_class,
            "brush": lambda: self.take("brush"),
            "brush_smaller": lambda: self._resize(-1),
            "brush_larger": lambda: self._resize(1),
            "discard": self.discard,
            "undo": self.undo,
            "redo": self.redo,
            "hold_to_pan": self.hold_to_pan,
            "toggle_map": self.toggle_map,
        }
        _keys.bind(self.viewer, _keys.VIEWER, self.actions)
        board.session.slide_changed.connect(self._on_slide)
        self._on_slide()
        for name, layer in (("regions", board.regions.layer), ("points", board.points.layer)):
            if layer is not None:
                _keys.bind(layer, name, self.actions)

    @classmethod
    def of(cls, board: AnnotationLayers) -> Pen:
        """Return the one pen of a board, made on first use."""
        if board.pen is None:
            board.pen = cls(board)
        return board.pen

    @property
    def tool(self) -> str:
        """The tool in the hand: a key of `MODES`, or empty on a layer that is not ours."""
        active = self.viewer.layers.selection.active
        if active is None or active not in (self.board.regions.layer, self.board.points.layer):
            return ""
        return TOOLS.get(str(active.mode), str(active.mode))

    def take(self, tool: str) -> None:
        """Take a tool in the hand; its layer becomes the active one."""
        if tool == "point":
            layer = self.board.points.make()
        elif tool in {"pan", "select"} and self.tool in {"point", "select", "pan"}:
            layer = self.viewer.layers.selection.active
            if layer is not self.board.points.layer or layer is None:
                layer = self.board.regions.make()
        else:
            layer = self.board.regions.make()
        layer.visible = True
        if self.viewer.layers.selection.active is not layer:
            self.viewer.layers.selection.active = layer
        layer.mode = MODES[tool]

    def choose_class(self, number: int) -> None:
        """Give the selected regions the class with this number, or else the next region."""
        names = self.board.class_names()
        if number > len(names):
            self.board.note.emit(f"There is no class {number} yet.")
            return
        name = names[number - 1]
        active = self.viewer.layers.selection.active
        ids = self.board.selected()
        if ids and active is not None and str(active.mode) in SELECTING:
            free = [i for i in ids if not self.board.annotations.get(i).locked]
            if len(free) < len(ids):
                self.board.note.emit("Locked regions keep their class.")
            with self.board.editing():
                self.board.annotations.reclass(free, name)
        else:
            self.board.choose_class(name)

    def undo(self) -> None:
        """Take back the last edit, or the last corner of the polygon being drawn."""
        if self._stroke is not None:
            return
        if self.board.drawing:
            self._undo_corner()
        elif self.board.annotations.can_undo:
            self.board.annotations.undo()

    def redo(self) -> None:
        """Make the edit again that was taken back last."""
        if not self.board.drawing and self.board.annotations.can_redo:
            self.board.annotations.redo()

    def toggle_map(self) -> None:
        """Hide the class map, or show it again."""
        self.board.session.view.toggle()

    def discard(self) -> None:
        """Throw away the region being drawn, or put the tool away when there is none."""
        layer = self.board.regions.layer
        if layer is None:
            return
        mode = layer.mode
        if self._stroke is not None:
            self._drop_stroke(layer)
        elif self.board.drawing:
            self.board.regions.discard_next = True
            layer.mode = "pan_zoom"  # napari ends the drawing, and we do not keep it
            layer.mode = mode
        else:
            layer.selected_data.clear()
            layer.mode = "pan_zoom"

    def hold_to_pan(self) -> Iterator[None]:
        """Move the slide while the key is held, and go on drawing afterwards."""
        layer = self.board.regions.layer
        if layer is None:
            return
        mode = str(layer.mode)
        if not self.board.drawing:
            layer.mode = "pan_zoom"
            yield
            layer.mode = mode
            return
        # A change of mode would end the polygon: let the mouse through to the camera instead.
        callbacks = list(layer.mouse_drag_callbacks)
        layer.mouse_drag_callbacks.clear()
        layer.mouse_pan = True
        yield
        if str(layer.mode) == mode:
            layer.mouse_drag_callbacks.extend(callbacks)
            layer.mouse_pan = False

    # ---- the brush ------------------------------------------------------------------------

    def _resize(self, step: int) -> None:
        sizes, now = PEN_SIZES_UM, self.board.pen_um
        nearest = min(range(len(sizes)), key=lambda i: abs(sizes[i] - now))
        self.board.pen_um = float(sizes[min(max(nearest + step, 0), len(sizes) - 1)])

    def _paint(self, layer: Any, event: Any) -> Iterator[None]:
        """Follow the mouse from press to release and add what it painted as one stroke."""
        if event.button != 1 or self._stroke is not None:
            return
        mine = self._stroke = object()
        regions, width = self.board.regions, self.board.pen_px
        colour = self.board.colour(self.board.active_class)
        path = [np.array(layer.world_to_data(event.position), float)]
        index = layer.nshapes
        with regions.ours():
            layer.add(
                [painted(path, width)],
                shape_type="polygon",
                edge_width=regions.edge_width(),
                edge_color=[(*colour, 1.0)],
                face_color=[(*colour, WET)],
                gui=True,
            )
        regions.drawing_mode = "brush"
        yield
        step = max(0.03 * width, self.board.screen_px)
        while event.type == "mouse_move":
            here = np.array(layer.world_to_data(event.position), float)
            if self._stroke is mine and np.hypot(*(here - path[-1])) >= step:
                path.append(here)
                # napari has no public way to change one shape; its own tools do the same.
                layer._data_view.edit(index, painted(path, width))
                layer.refresh(thumbnail=False, highlight=False, extent=False)
            yield
        if self._stroke is not mine:
            return
        self._drop_stroke(layer)
        found = stroke(np.array(path), width)
        if found is not None:
            self.board.annotations.add(self.board.new_annotation(*found))

    def _drop_stroke(self, layer: Any) -> None:
        """Take the stroke under the pen off the screen."""
        self._stroke = None
        with self.board.regions.ours():
            layer.remove([layer.nshapes - 1])
        self.board.regions.drawing_mode = ""
        self.board.regions.settle()

    def _undo_corner(self) -> None:
        layer = self.board.regions.layer
        if layer is None or self.board.regions.drawing_mode != "add_polygon":
            return
        index = layer.nshapes - 1
        vertices = np.array(layer.data[index])
        if len(vertices) <= 3:
            self.discard()
            return
        # The last vertex hangs on the mouse; napari counts it in these two.
        layer._data_view.edit(index, np.delete(vertices, -2, axis=0))
        layer._value = layer._moving_value = (index, len(vertices) - 2)
        layer.refresh(thumbnail=False, extent=False)

    # ---- the layers -----------------------------------------------------------------------

    def _reach(self, _viewer: Any, event: Any) -> None:
        """Let the hand that selects take what it points at, be it a point or a region."""
        if self.tool != "select" or event.button != 1:
            return
        ours, _ = self._under(event)
        active = self.viewer.layers.selection.active
        if ours is not None and ours is not active:
            # napari asks which layer is active only after this, so it gets the press.
            active.selected_data.clear()
            self.viewer.layers.selection.active = ours
            ours.mode = "select"

    def _point(self, _viewer: Any, event: Any) -> None:
        """Tell what lies under the selecting hand."""
        if self.tool == "select" and not event.is_dragging:
            _, id_ = self._under(event)
            self.pointed_at.emit(self.board.describe(id_) if id_ else "")

    def _under(self, event: Any) -> tuple[Any, str]:
        """Return our layer and the annotation under the mouse, points first."""
        for ours in (self.board.points, self.board.regions):
            if ours.layer is not None and ours.layer.visible:
                hit = ours.layer.get_value(event.position, world=True)
                index = hit[0] if isinstance(hit, tuple) else hit
                if index is not None:
                    return ours.layer, ours.id_at(int(index))
        return None, ""

    def _on_slide(self, *_: Any) -> None:
        """Put the tool down: what was half drawn belonged to the slide before."""
        if self.board.drawing:
            self.discard()
        for ours in (self.board.regions.layer, self.board.points.layer):
            if ours is not None:
                ours.mode = "pan_zoom"
        layer = self.board.session.slide_layer
        if layer is not None:
            _keys.bind(layer, _keys.SLIDE, self.actions)

    def _on_layer(self, layer: Any, name: str) -> None:
        layer.events.mode.connect(self._on_mode)
        if hasattr(self, "actions"):
            _keys.bind(layer, name, self.actions)

    def _on_mode(self, event: Any) -> None:
        layer: Any = event.source
        on_regions = layer is self.board.regions.layer
        if on_regions:
            if str(layer.mode) == "transform":
                # It would move the whole layer off the slide.
                layer.mode = "select"
                return
            if self._stroke is not None:
                self._drop_stroke(layer)
            callbacks = layer.mouse_drag_callbacks
            while self._paint in callbacks:
                callbacks.remove(self._paint)
            if str(layer.mode) == MODES["brush"]:
                for theirs in [c for c in callbacks if _is_naparis(c)]:
                    callbacks.remove(theirs)
                callbacks.append(self._paint)
            self._show_brush()
            self.board.regions.show_pen_colour()
        self.tool_changed.emit(self.tool)

    def _show_brush(self) -> None:
        layer = self.board.regions.layer
        if layer is not None and str(layer.mode) == MODES["brush"]:
            layer.cursor = "circle"
            layer.cursor_size = max(round(self.board.pen_um), 1)

    def _on_active(self, *_: Any) -> None:
        self.tool_changed.emit(self.tool)


def _is_naparis(callback: Any) -> bool:
    return str(getattr(callback, "__module__", "")).startswith("napari.layers.shapes")
