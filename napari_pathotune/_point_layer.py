"""The Points layer of marked points: shows what the annotation set holds, hears the hand.

Points are few and cheap to draw, so every change from elsewhere draws them all anew.
A symbol for each class goes with its colour, because a class must never be told by
colour alone. A point annotation of several points (as QuPath writes them) is several
dots of one id, which are kept together.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from shapely.geometry import Point

from napari_pathotune._annotation_geometry import DECIMALS, dots, is_points, moved_dots

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari_pathotune._annotation_layers import AnnotationLayers
    from pathotune.marks.annotations import Annotation

SYMBOLS = (
    "disc",
    "square",
    "triangle_up",
    "diamond",
    "star",
    "cross",
    "triangle_down",
    "x",
    "ring",
)
SCREEN_PX = 12


class PointLayer:
    """Points as napari points; `board` is the `AnnotationLayers` it belongs to."""

    def __init__(self, board: AnnotationLayers) -> None:
        self.board = board
        self.layer: Any | None = None
        self._ids: list[str] = []
        self._ours = False

    def make(self) -> Any:
        """Return the layer; made when it is first needed, or was thrown away."""
        if self.layer is None:
            self._ids = []
            self.layer = layer = self.board.add_layer(
                "add_points",
                "Points",
                ndim=2,
                size=SCREEN_PX * self.board.screen_px,
                border_width=0.1,
                border_color="white",
                features={"class": np.array([], dtype=object)},
            )
            layer.events.data.connect(self._on_data)
            layer.selected_data.events.items_changed.connect(self._on_selection)
            self.show_pen_colour()
        return self.layer

    def forget(self) -> None:
        """Go on without the layer: the user threw it away, the annotations stay."""
        self.layer = None

    def close(self) -> None:
        """Let go of the layer's events."""
        if self.layer is not None:
            self.layer.events.data.disconnect(self._on_data)
            self.layer.selected_data.events.items_changed.disconnect(self._on_selection)
            self.layer = None

    def selected(self) -> list[str]:
        """Return the ids of the selected annotations."""
        if self.layer is None:
            return []
        picked = sorted(i for i in self.layer.selected_data if i < len(self._ids))
        return list(dict.fromkeys(self._ids[i] for i in picked))

    def select(self, ids: Iterable[str]) -> None:
        """Select the points of these ids."""
        wanted = set(ids)
        if self.layer is not None:
            self.layer.selected_data = {i for i, id_ in enumerate(self._ids) if id_ in wanted}

    def id_at(self, index: int) -> str:
        """Return the id of the annotation that a point belongs to, or nothing."""
        return self._ids[index] if 0 <= index < len(self._ids) else ""

    @contextmanager
    def ours(self) -> Iterator[None]:
        """Change the layer without hearing it as the user's edit."""
        before, self._ours = self._ours, True
        try:
            yield
        finally:
            self._ours = before

    def redraw(self, items: list[Annotation]) -> None:
        """Draw all points anew; `items` is the whole set."""
        points = [a for a in items if is_points(a)]
        if self.layer is None and not points:
            return
        layer = self.make()
        places = [dots(a) for a in points]
        with self.ours():
            layer.selected_data = set()
            layer.data = np.concatenate(places) if places else np.empty((0, 2))
            self._ids = [a.id for a, p in zip(points, places, strict=True) for _ in p]
        self.paint()

    def paint(self) -> None:
        """Give every point the colour and the symbol of its class."""
        layer = self.layer
        if layer is None or len(self._ids) != len(layer.data) or not self._ids:
            return
        names = [self.board.class_of(i) for i in self._ids]
        order = self.board.class_names()
        with self.ours(), layer.block_update_properties():
            layer.face_color = np.array([(*self.board.colour(n), 1.0) for n in names])
            layer.symbol = [_symbol(order, n) for n in names]
            layer.features = {"class": np.array([n or "no class" for n in names], dtype=object)}

    def show_pen_colour(self) -> None:
        """Set what napari draws the next point with."""
        if self.layer is None:
            return
        name = self.board.active_class
        with self.ours(), self.layer.block_update_properties():
            self.layer.current_face_color = np.array((*self.board.colour(name), 1.0))
            self.layer.current_symbol = _symbol(self.board.class_names(), name)
            self.layer.feature_defaults = {"class": name or "no class"}

    def zoomed(self) -> None:
        """Keep points equally large on the screen."""
        if self.layer is not None:
            size = SCREEN_PX * self.board.screen_px
            with self.ours(), self.layer.block_update_properties():
                self.layer.current_size = size
                if len(self.layer.data):
                    self.layer.size = size

    def _on_data(self, event: Any) -> None:
        if self._ours or self.layer is None:
            return
        action = str(getattr(event.action, "value", event.action))
        if action == "added":
            self._take_drawn()
        elif action == "changed":
            self._take_moved([int(i) for i in event.data_indices])
        elif action == "removed":
            self._take_removed({int(i) for i in event.data_indices})

    def _take_drawn(self) -> None:
        assert self.layer is not None
        places = np.round(np.asarray(self.layer.data[len(self._ids) :], float), DECIMALS)
        new = [self.board.new_annotation("point", Point(x, y)) for y, x in places]
        self._ids += [a.id for a in new]
        with self.board.editing():
            self.board.annotations.add(*new)

    def _take_moved(self, indices: list[int]) -> None:
        assert self.layer is not None
        touched = dict.fromkeys(self._ids[i] for i in indices if i < len(self._ids))
        changed = []
        for id_ in touched:
            mine = [i for i, other in enumerate(self._ids) if other == id_]
            old = self.board.annotations.get(id_)
            if old.locked:
                continue
            changed.append(moved_dots(old, np.asarray(self.layer.data, float)[mine]))
        self.board.replace(changed)
        if len(changed) < len(touched):
            self._put_back()

    def _put_back(self) -> None:
        """Show the points as they are: some are locked, and napari has changed them already."""
        self.redraw(list(self.board.annotations.items))
        self.board.note.emit("Locked points stay as they are. Unlock them where they were made.")

    def _take_removed(self, dead: set[int]) -> None:
        assert self.layer is not None
        held = {i for i in dead if i < len(self._ids) and self._locked(self._ids[i])}
        if held:
            free = {self._ids[i] for i in dead - held if i < len(self._ids)}
            alone = [i for i in free if self._ids.count(i) == 1]
            with self.board.editing():
                self.board.annotations.remove(alone)
            self._put_back()
            return
        ids = dict.fromkeys(self._ids[i] for i in dead if i < len(self._ids))
        self._ids = [id_ for i, id_ in enumerate(self._ids) if i not in dead]
        left = set(self._ids)
        self.board.replace(
            [
                moved_dots(
                    self.board.annotations.get(id_),
                    np.asarray(self.layer.data, float)[[o == id_ for o in self._ids]],
                )
                for id_ in ids
                if id_ in left
            ]
        )
        if gone := [id_ for id_ in ids if id_ not in left]:
            with self.board.editing():
                self.board.annotations.remove(gone)

    def _locked(self, id_: str) -> bool:
        return self.board.annotations.get(id_).locked

    def _on_selection(self, *_: Any) -> None:
        if not self._ours:
            self.board.selection_changed.emit()


def _symbol(order: list[str], name: str | None) -> str:
    return SYMBOLS[order.index(name) % len(SYMBOLS)] if name in order else "disc"
