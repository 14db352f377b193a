"""The hand on the nuclei: choose, draw, cut, join, delete, name.

It works while the layer *Nuclei* is the active one, so that a click on the slide
never changes a nucleus by accident. Every edit goes through the engine's journal
in a lane; what it changes is on the screen with the next picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QObject

from napari_pathotune import _keys, _layers
from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_pathotune._nuclei_view import NucleiView
    from pathotune.nuclei.edits import Edits

Tool = Literal["move", "choose", "draw", "redraw", "cut"]
MOST_CHOSEN = 200


class NucleiHand(QObject):
    """What the mouse and the keys do on nuclei; get it with `NucleiHand.of(view)`.

    Signals
    -------
    tool_changed(str), chosen_changed()
    edited()
        An edit was made, taken back or made again.
    said(str)
        Why something was not done.
    class_asked(int)
        A digit was pressed: give the chosen nuclei this class, counted from 1.
    next_asked()
        The next uncertain nucleus is wanted.
    """

    tool_changed = Signal(str)
    chosen_changed = Signal()
    edited = Signal()
    said = Signal(str)
    class_asked = Signal(int)
    next_asked = Signal()

    def __init__(self, view: NucleiView) -> None:
        super().__init__(view)
        self.view, self.desk = view, view.desk
        self.tool: Tool = "move"
        self.busy = False
        self._bound: Any = None
        viewer = self.desk.session.viewer
        if viewer is not None:
            viewer.mouse_drag_callbacks.append(self._on_drag)
        self.desk.replaced.connect(self._on_replaced)
        self.desk.session.closed.connect(self._let_go)
        self._on_replaced()

    @classmethod
    def of(cls, view: NucleiView) -> NucleiHand:
        """Return the one of a view, made on first use."""
        found = view.findChild(cls)
        return cls(view) if found is None else found

    @property
    def chosen(self) -> tuple[int, ...]:
        """Rows of the chosen nuclei."""
        return self.view.chosen

    def take(self, tool: Tool) -> None:
        """Take a tool; the layer becomes the active one."""
        viewer, layer = self.desk.session.viewer, self.view.layer
        if layer is None or viewer is None:
            tool = "move"
        else:
            viewer.layers.selection.active = layer
            layer.mouse_pan = tool in ("move", "choose")
        self.tool = tool
        self.tool_changed.emit(tool)

    def choose(self, rows: tuple[int, ...]) -> None:
        """Choose these nuclei instead."""
        self.view.set_chosen(rows[:MOST_CHOSEN])
        self.chosen_changed.emit()

    # -- edits --------------------------------------------------------------------------

    def delete(self) -> None:
        """Delete the chosen nuclei."""
        rows = self.chosen
        self._edit(lambda e: e.delete(rows), need=1)

    def merge(self) -> None:
        """Make one of the chosen nuclei."""
        rows = self.chosen
        self._edit(lambda e: e.merge(rows), need=2)

    def name(self, class_name: str) -> None:
        """Say which class the chosen nuclei are of."""
        rows = self.chosen
        self._edit(lambda e: e.name(rows, class_name), need=1, keep=True)

    def name_rows(self, rows: tuple[int, ...], class_name: str) -> None:
        """Say which class these nuclei are of, whatever is chosen."""
        self._edit(lambda e: e.name(rows, class_name), keep=True)

    def undo(self) -> None:
        """Take the last edit back."""
        self._edit(lambda e: e.undo())

    def redo(self) -> None:
        """Make it again."""
        self._edit(lambda e: e.redo())

    def _edit(self, act: Callable[[Edits], Any], need: int = 0, keep: bool = False) -> None:
        edits = self.desk.edits
        if edits is None:
            running = self.desk.state.running
            self.said.emit("Corrections wait until the search ends or is cancelled." * running)
            return
        if len(self.chosen) < need:
            one, two = "Click a nucleus first.", "Click two nuclei, the second with Shift."
            self.said.emit(two if need > 1 else one)
            return

        def start() -> tuple[Any, PathotuneError | None]:
            change = act(edits)
            return change, edits.problem

        self.busy = True
        self.desk.session.run(
            "files",
            start,
            what="Correcting nuclei",
            where="nuclei",
            quiet=True,
            on_done=lambda told: self._edited(*told, keep=keep),
            on_error=self._failed,
        )

    def _edited(self, change: Any, problem: PathotuneError | None, *, keep: bool) -> None:
        self.busy = False
        if problem is not None:
            self.desk.session.fail("nuclei", problem)
        nuclei = self.desk.nuclei
        if change is None or nuclei is None:
            self.said.emit("There is nothing more to take back or to make again.")
            return
        if not keep:
            new = change.come if change.done else change.gone
            self.choose(tuple(int(r) for r in new if nuclei.alive[r]))
        self.desk.grown.emit()
        self.edited.emit()

    def _failed(self, error: PathotuneError) -> None:
        self.busy = False
        self.desk.session.fail("nuclei", error)

    # -- the mouse ----------------------------------------------------------------------

    def _on_drag(self, viewer: Any, event: Any) -> Any:
        """Follow the mouse from press to release."""
        layer, slide = self.view.layer, self.desk.session.slide
        if layer is None or slide is None or viewer.layers.selection.active is not layer:
            return
        if self.tool == "move" or event.button != 1:
            return
        path = [_layers.world_to_pixel(slide, event.position)]
        more = "Shift" in event.modifiers
        yield
        while event.type == "mouse_move":
            path.append(_layers.world_to_pixel(slide, event.position))
            if self.tool != "choose":
                self.view.trace(path)
            yield
        self.view.trace([])
        if self.tool == "choose":
            if len(path) < 4:  # a click: the mouse hardly moved
                self._click(path[-1], more)
            return
        self._drawn(np.array(path))

    def _click(self, at: tuple[float, float], more: bool) -> None:
        nuclei, before = self.desk.nuclei, self.chosen
        if nuclei is None:
            return

        def done(row: int | None) -> None:
            if row is None:
                self.choose(before if more else ())
            elif more:
                rest = tuple(r for r in before if r != row)
                self.choose(rest if row in before else (*before, row))
            else:
                self.choose((row,))

        self.desk.session.run(
            "fast",
            lambda: nuclei.at(*at),
            what="Choosing a nucleus",
            where="nuclei",
            quiet=True,
            on_done=done,
        )

    def _drawn(self, path: Any) -> None:
        if len(path) < 3:
            self.said.emit("Hold the button down while you draw.")
        elif self.tool == "draw":
            self._edit(lambda e: e.add(path))
        elif self.tool == "redraw":
            if len(self.chosen) != 1:
                self.said.emit("Choose the nucleus to draw anew first.")
                return
            row = self.chosen[0]
            self._edit(lambda e: e.redraw(row, path))
        else:
            nuclei = self.desk.nuclei
            if nuclei is not None:
                self._edit(lambda e: e.split(_crossed(nuclei, path), path))

    # -- the layer ----------------------------------------------------------------------

    def _on_replaced(self) -> None:
        layer = self.view.layer
        if layer is None or layer is self._bound:
            return
        self._bound = layer
        _keys.bind(
            layer,
            _keys.NUCLEI,
            {
                "name_nuclei": self.class_asked.emit,
                "choose_nuclei": lambda: self.take("choose"),
                "draw_nucleus": lambda: self.take("draw"),
                "cut_nucleus": lambda: self.take("cut"),
                "merge_nuclei": self.merge,
                "delete_nuclei": self.delete,
                "next_nucleus": self.next_asked.emit,
                "undo_nuclei": self.undo,
                "redo_nuclei": self.redo,
            },
        )

    def _let_go(self) -> None:
        viewer = self.desk.session.viewer
        if viewer is not None and self._on_drag in viewer.mouse_drag_callbacks:
            viewer.mouse_drag_callbacks.remove(self._on_drag)


def _crossed(nuclei: Any, path: Any) -> int:
    """Return the row of the nucleus that a line runs through for longest (any thread)."""
    import shapely

    low, high = path.min(axis=0), path.max(axis=0)
    rows = nuclei.within(*low.tolist(), *high.tolist())
    line = shapely.linestrings(path)
    rings = nuclei.outlines(rows)
    inside = [
        shapely.make_valid(shapely.polygons(rings.ring(i).astype(float))).intersection(line).length
        for i in range(len(rows))
    ]
    if not inside or max(inside) <= 0:
        raise PathotuneError("The line crosses no nucleus.", "Draw it right through one.")
    return int(rows[int(np.argmax(inside))])
