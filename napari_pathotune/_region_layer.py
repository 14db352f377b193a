"""The Shapes layer of regions: shows what the annotation set holds, hears what the hand does.

napari's shapes have an index and nothing else, so this file remembers which outline of
which annotation each of them is. What began on the screen is taken over at once and the
layer is left alone, because napari is still in the middle of its mouse event; if the two
then differ, they are settled a moment later. What began elsewhere (undo, import, another
dock) redraws the annotations it names. Nothing half drawn ever reaches the set.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from qtpy.QtCore import QTimer

from napari_pathotune._annotation_geometry import Outline, drawn, edited, is_points, outlines
from napari_pathotune._region_feed import Feed
from napari_pathotune._region_rows import Row, by_hand, is_detection, mend_colours, same_outline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from napari_pathotune._annotation_layers import AnnotationLayers
    from pathotune.marks.annotations import Annotation

#: Beyond this many annotations napari needs longer than a frame for every edit.
MOST_DRAWN = 2000
#: From so many on, all are drawn anew, which is then no slower.
MANY = 100
#: A region smaller than this on the screen was a slip of the hand.
SMALLEST_SCREEN_PX = 4.0
EDGE_SCREEN_PX = 3.0
FILL = 0.12
LABEL = {"string": "{class}", "size": 9, "color": "black", "anchor": "upper_left"}


class RegionLayer:
    """Regions as napari shapes; `board` is the `AnnotationLayers` it belongs to."""

    def __init__(self, board: AnnotationLayers) -> None:
        self.board = board
        self.layer: Any | None = None
        self.undrawn = 0
        self.drawing_mode = ""
        self.discard_next = False
        self._rows: list[Row | None] = []
        self._ours = False
        self._stale: set[str] = set()
        self._settling = QTimer()
        self._settling.setSingleShot(True)
        self._settling.timeout.connect(self.settle)
        self._feed = Feed(
            self._put, self._show, lambda: not self.drawing_mode and self.layer is not None
        )

    def make(self) -> Any:
        """Return the layer; made when it is first needed, or was thrown away."""
        if self.layer is None:
            self._rows = []
            self._feed.drop()
            self.drawing_mode = ""
            self.layer = layer = self.board.add_layer(
                "add_shapes", "Regions", features={"class": np.array([], dtype=object)}
            )
            layer.events.data.connect(self._on_data)
            layer.events.features.connect(self._on_features)
            layer.selected_data.events.items_changed.connect(self._on_selection)
            self.show_pen_colour()
            self.show_labels()
        return self.layer

    def forget(self) -> None:
        """Go on without the layer: the user threw it away, the annotations stay."""
        self.layer = None

    def close(self) -> None:
        """Stop the timers and let go of the layer's events."""
        self._settling.stop()
        self._feed.stop()
        if self.layer is not None:
            self.layer.events.data.disconnect(self._on_data)
            self.layer.events.features.disconnect(self._on_features)
            self.layer.selected_data.events.items_changed.disconnect(self._on_selection)
            self.layer = None

    def selected(self) -> list[str]:
        """Return the ids of the selected annotations."""
        if self.layer is None:
            return []
        rows = (self._rows[i] for i in sorted(self.layer.selected_data) if i < len(self._rows))
        return list(dict.fromkeys(row.id for row in rows if row is not None))

    def id_at(self, index: int) -> str:
        """Return the id of the annotation that a shape belongs to, or nothing."""
        row = self._row(index)
        return "" if row is None else row.id

    @contextmanager
    def ours(self) -> Iterator[None]:
        """Change the layer without hearing it as the user's edit."""
        before, self._ours = self._ours, True
        try:
            yield
        finally:
            self._ours = before

    # ---- from the set to the screen -------------------------------------------------------

    def redraw(self, items: list[Annotation], ids: Iterable[str] | None = None) -> None:
        """Draw the annotations named by `ids` anew (all for None); `items` is the whole set."""
        wanted = None if ids is None else set(ids)
        if self.drawing_mode:
            # napari holds on to the index of the shape under the pen: wait for its end.
            self._stale |= {a.id for a in items} | self._known() if wanted is None else wanted
            return
        if wanted is not None and len(wanted) > MANY:
            wanted = None
        self._feed.drop(wanted)
        regions = [a for a in items if not is_points(a) and (wanted is None or a.id in wanted)]
        if wanted is None:
            regions = self._drawable(regions)
        if self.layer is None and not regions:
            return
        layer = self.make()
        rows = {r.id: r for r in self._rows if r is not None}
        same = {a.id for a in regions if a.id in rows and rows[a.id].shows(a)}
        gone = [
            i
            for i, r in enumerate(self._rows)
            if r is None or ((wanted is None or r.id in wanted) and r.id not in same)
        ]
        if len(gone) > MANY:
            # napari is slow to take many out from between others: all go, and the rest comes back.
            if wanted is not None:
                self.redraw(items)
                return
            gone, same = list(range(len(self._rows))), set()
        if gone:
            with self.ours():
                layer.remove(gone)
                dead = set(gone)
                self._rows = [r for i, r in enumerate(self._rows) if i not in dead]
        self._feed.add([a for a in regions if a.id not in same])
        self.paint()

    def _put(self, regions: list[Annotation]) -> None:
        """Take some regions into the layer, above the others, without drawing it yet."""
        assert self.layer is not None
        rows = [Row(a.id, outline, a) for a in regions for outline in outlines(a)]
        if not rows:
            return
        edge, face = self._colours([*rows])
        mend_colours(self.layer)
        with self.ours(), self.layer.events.set_data.blocker():
            self.layer.add(
                [r.outline.vertices for r in rows],
                shape_type=[r.outline.shape_type for r in rows],
                edge_width=self.edge_width(),
                edge_color=edge,
                face_color=face,
            )
            self._rows += rows
            self._name()

    def _show(self) -> None:
        if self.layer is not None:
            with self.ours():
                self.layer.refresh()

    def _colours(self, rows: list[Row | None]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return colours of edges and faces, (n, 4) each."""
        names = [None if r is None else self.board.class_of(r.id) for r in rows]
        known = {name: self.board.colour(name) for name in set(names)}
        edge = np.array([(*known[n], 1.0) for n in names]).reshape(-1, 4)
        face = edge.copy()
        face[:, 3] = [FILL if r is not None and r.outline.filled else 0 for r in rows]
        return edge, face

    def _name(self) -> None:
        """Write the classes into the layer's table, for the labels and the hover."""
        assert self.layer is not None
        shown = []
        for r in self._rows:
            first = r is not None and r.outline.ring == r.outline.part == 0
            name = self.board.class_of(r.id) if r is not None and first else None
            shown.append((name or "no class") if first else "")
        if list(self.layer.features["class"]) != shown:
            self.layer.features = {"class": np.array(shown, dtype=object)}

    def paint(self) -> None:
        """Give every shape the colour of its class, and its name for the label and the hover."""
        layer = self.layer
        if layer is None or self.drawing_mode or len(self._rows) != layer.nshapes:
            return
        mend_colours(layer)
        with self.ours(), layer.block_update_properties():
            if self._rows:
                edge, face = self._colours(self._rows)
                if not np.array_equal(layer.edge_color, edge.astype(np.float32)):
                    layer.edge_color = edge
                if not np.array_equal(layer.face_color, face.astype(np.float32)):
                    layer.face_color = face
            self._name()

    def show_pen_colour(self) -> None:
        """Set what napari draws the next region with."""
        if self.layer is None:
            return
        rgb = self.board.colour(self.board.active_class)
        with self.ours():
            keep = self.layer.block_update_properties
            if self.drawing_mode:
                # The region under the pen is the selected one, and takes the new class too.
                self.layer.current_edge_color = (*rgb, 1.0)
                self.layer.current_face_color = (*rgb, FILL)
            with keep():
                self.layer.current_edge_color = (*rgb, 1.0)
                self.layer.current_face_color = (*rgb, FILL)
                self.layer.current_edge_width = self.edge_width()
            self.layer.feature_defaults = {"class": self.board.active_class or "no class"}

    def select(self, ids: Iterable[str]) -> None:
        """Select the regions of these ids."""
        wanted = set(ids)
        if self.layer is not None:
            self.layer.selected_data = {
                i for i, r in enumerate(self._rows) if r is not None and r.id in wanted
            }

    def show_labels(self) -> None:
        """Write the class beside every region, if the board says so."""
        if self.layer is not None:
            self.layer.text = LABEL if self.board.labels else None

    def zoomed(self) -> None:
        """Keep outlines equally thin on the screen."""
        layer, width = self.layer, self.edge_width()
        if layer is None or self.drawing_mode:
            return
        if layer.nshapes and abs(layer.edge_width[0] / width - 1) > 0.1:
            with self.ours():
                layer.edge_width = width
                layer.refresh(thumbnail=False, extent=False)
        self.show_pen_colour()

    def edge_width(self) -> float:
        """Return how wide an outline is in level-0 px, to be thin on the screen."""
        return EDGE_SCREEN_PX * self.board.screen_px

    def _drawable(self, regions: list[Annotation]) -> list[Annotation]:
        """Leave out what napari could not carry: detections first, then the oldest."""
        kept = regions
        if len(regions) > MOST_DRAWN:
            kept = [a for a in regions if not is_detection(a)][-MOST_DRAWN:]
        undrawn = len(regions) - len(kept)
        if undrawn and undrawn != self.undrawn:
            self.board.note.emit(
                f"{undrawn:,} of {len(regions):,} objects are kept but not drawn: "
                "so many outlines would slow the window down."
            )
        self.undrawn = undrawn
        return kept

    def _known(self) -> set[str]:
        return {r.id for r in self._rows if r is not None} | self._feed.ids()

    # ---- from the screen to the set -------------------------------------------------------

    def _on_data(self, event: Any) -> None:
        if self._ours or self.layer is None:
            return
        action = str(getattr(event.action, "value", event.action))
        if action == "adding":
            self.drawing_mode = str(self.layer.mode)
        elif action == "added":
            mode, self.drawing_mode = self.drawing_mode, ""
            self._take_drawn(mode)
        elif action == "changed":
            self._take_edited([int(i) for i in event.data_indices])
        elif action == "removed":
            self._take_removed([int(i) for i in event.data_indices])
        if not self.drawing_mode:
            self._feed.go_on()
            if self._stale:
                self._settling.start()

    def _on_features(self, *_: Any) -> None:
        # Pasting tells of itself only here.
        if not self._ours and not self.drawing_mode and self.layer is not None:
            if self.layer.nshapes > len(self._rows):
                self._take_drawn("paste")

    def _take_drawn(self, mode: str) -> None:
        layer = self.layer
        assert layer is not None
        discard, self.discard_next = self.discard_next, False
        types = layer.shape_type
        for index in range(len(self._rows), layer.nshapes):
            vertices, kind = np.array(layer.data[index], np.float64), types[index]
            if mode in {"add_polygon", "add_polygon_lasso"} and str(layer.mode) != mode:
                # Another tool was chosen before the polygon was ended; its last corner
                # still hung on the mouse.
                vertices, kind = vertices[:-1], "polygon"
            too_small = np.ptp(vertices, axis=0).max() < SMALLEST_SCREEN_PX * self.board.screen_px
            found = None if discard or too_small else drawn(vertices, kind, self.board.pen_px)
            self._rows.append(None)
            if found is None:
                self._stale.add("")
                continue
            new = self.board.new_annotation(*found)
            fits = same_outline(new, kind, vertices)
            self._rows[index] = Row(new.id, by_hand(kind, vertices), new if fits else None)
            if not fits:
                self._stale.add(new.id)
            with self.board.editing():
                self.board.annotations.add(new)
        if self._stale:
            self._settling.start()

    def _take_edited(self, indices: list[int]) -> None:
        layer = self.layer
        assert layer is not None
        if layer.nshapes < len(self._rows):
            # Taking away one corner too many removes the shape, and napari calls it a change.
            self._take_removed(indices)
            return
        touched = dict.fromkeys(r.id for i in indices if (r := self._row(i)) is not None)
        types, changed = layer.shape_type, []
        for id_ in touched:
            mine = [i for i, r in enumerate(self._rows) if r is not None and r.id == id_]
            before = [r.outline for i in mine if (r := self._rows[i]) is not None]
            after = [np.array(layer.data[i], np.float64) for i in mine]
            old = self.board.annotations.get(id_)
            new = None if old.locked else edited(old, before, after)
            fits = new is not None and [len(o.vertices) for o in outlines(new)] == [
                len(v) for v in after
            ]
            for i, outline, vertices in zip(mine, before, after, strict=True):
                moved = Outline(outline.part, outline.ring, types[i], vertices, outline.filled)
                self._rows[i] = Row(id_, moved, new if fits else None)
            if not fits:
                self._stale.add(id_)
            if new is None:
                continue
            if not (new.kind == old.kind and shapely.equals_identical(new.geometry, old.geometry)):
                changed.append(new)
        self.board.replace(changed)

    def _take_removed(self, indices: list[int]) -> None:
        dead = set(indices)
        ids = dict.fromkeys(r.id for i in dead if (r := self._row(i)) is not None)
        self._rows = [r for i, r in enumerate(self._rows) if i not in dead]
        for row in self._rows:
            if row is not None and row.id in ids:
                row.mark = None  # an outline of it is missing
        locked = [i for i in ids if self.board.annotations.get(i).locked]
        self._stale.update(ids)
        gone = [i for i in ids if i not in locked]
        if locked:
            self.board.note.emit("Locked regions stay. Unlock them in QuPath first.")
        if gone:
            with self.board.editing():
                self.board.annotations.remove(gone)

    def _row(self, index: int) -> Row | None:
        return self._rows[index] if 0 <= index < len(self._rows) else None

    def _on_selection(self, *_: Any) -> None:
        layer = self.layer
        if layer is None or self.drawing_mode or self._ours:
            return
        ids = set(self.selected())
        rings = {i for i, r in enumerate(self._rows) if r is not None and r.id in ids}
        if missing := rings - set(layer.selected_data):
            # A region with holes is several outlines, which move together.
            layer.selected_data.update(missing)
            return
        self.board.selection_changed.emit()

    def settle(self) -> None:
        """Make the screen agree with the set, now that napari's mouse event is over."""
        if self.layer is None or self.drawing_mode:
            return
        stale, self._stale = self._stale, set()
        self.redraw(list(self.board.annotations.items), stale)
        self._feed.go_on()
