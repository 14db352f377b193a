"""Every key the plugin binds, in one table, and the sheet that shows them.

Keys live on our own layer *instances*, where they go before napari's; so a digit
chooses a class on a layer of regions (napari's `3` would delete there) and keeps
its meaning on every other layer. Only what must work whatever layer is active is
bound on the viewer, where any layer's own key still goes first. `docs/keys.md` is
written from this table and a test holds the two, and napari's own table, together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QFrame, QLabel, QShortcut, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

REGIONS, POINTS, SLIDE = "regions", "points", "slide"
VIEWER, WINDOW = "viewer", "window"
NUCLEI = "nuclei"
BOTH = (REGIONS, POINTS)


@dataclass(frozen=True, slots=True)
class Binding:
    """Keys that do one thing: `action` names it, `where` says on what they are bound.

    `instead_of` tells what napari does with the same key there and how that is still
    reached, and is empty when napari leaves the key alone. Without `action` the key is
    napari's own (`naparis` names its action there) and stands here to be shown.
    """

    keys: tuple[str, ...]
    does: str
    where: tuple[str, ...] = ()
    action: str = ""
    instead_of: str = ""
    naparis: str = ""


DIGITS = tuple(str(n) for n in range(1, 10))

BINDINGS: tuple[tuple[str, tuple[Binding, ...]], ...] = (
    (
        "Classes",
        (
            Binding(
                DIGITS,
                "class of the next region, or of the selected ones",
                BOTH,
                "choose_class",
                "tools, each of which keeps its letter",
            ),
        ),
    ),
    (
        "Drawing",
        (
            Binding(
                ("P",),
                "polygon: click the corners, Enter or double-click ends it",
                naparis="activate_add_polygon_mode",
            ),
            Binding(
                ("Shift+P",),
                "lasso: draw round a region freehand",
                naparis="activate_add_polygon_lasso_mode",
            ),
            Binding(
                ("B",),
                "brush: paint over a region",
                (*BOTH, SLIDE),
                "brush",
                "send to the back; here the newest mark lies on top",
            ),
            Binding(("[",), "smaller brush", BOTH, "brush_smaller"),
            Binding(("]",), "larger brush", BOTH, "brush_larger"),
            Binding(("R",), "rectangle", naparis="activate_add_rectangle_mode"),
            Binding(("E",), "ellipse", naparis="activate_add_ellipse_mode"),
            Binding(
                ("Escape",),
                "throw away the polygon being drawn",
                (REGIONS,),
                "discard",
                "end the polygon, as Enter and a double-click do",
            ),
        ),
    ),
    (
        "Changing",
        (
            Binding(("S",), "select, move and resize regions", naparis="activate_select_mode"),
            Binding(("D",), "move corners", naparis="activate_direct_mode"),
            Binding(("I",), "insert a corner", naparis="activate_vertex_insert_mode"),
            Binding(("X",), "remove a corner", naparis="activate_vertex_remove_mode"),
            Binding(
                ("Delete", "Backspace"),
                "delete the selected regions",
                naparis="delete_selected_shapes",
            ),
            Binding(("Ctrl+Z",), "undo", (*BOTH, VIEWER), "undo"),
            Binding(("Ctrl+Shift+Z",), "redo", (*BOTH, VIEWER), "redo"),
        ),
    ),
    (
        "Nuclei (while the layer Nuclei is selected)",
        (
            Binding(
                DIGITS,
                "class of the chosen nuclei",
                (NUCLEI,),
                "name_nuclei",
                "modes of a picture: moving, which the dock's Move does, and transforming",
            ),
            Binding(("S",), "choose: click a nucleus, Shift adds", (NUCLEI,), "choose_nuclei"),
            Binding(("A",), "add: draw round a nucleus", (NUCLEI,), "draw_nucleus"),
            Binding(("K",), "cut: draw a line through a nucleus", (NUCLEI,), "cut_nucleus"),
            Binding(("M",), "make one of the chosen nuclei", (NUCLEI,), "merge_nuclei"),
            Binding(("Delete", "Backspace"), "delete them", (NUCLEI,), "delete_nuclei"),
            Binding(("N",), "the next nucleus whose class is uncertain", (NUCLEI,), "next_nucleus"),
            Binding(("Ctrl+Z",), "undo", (NUCLEI,), "undo_nuclei"),
            Binding(("Ctrl+Shift+Z",), "redo", (NUCLEI,), "redo_nuclei"),
        ),
    ),
    (
        "Looking",
        (
            Binding(
                ("Space",),
                "hold to move the slide, also while drawing",
                (REGIONS,),
                "hold_to_pan",
                "the same, but it ends the polygon being drawn",
            ),
            Binding(
                ("Z",), "move the slide with the mouse", naparis="activate_shapes_pan_zoom_mode"
            ),
            Binding(
                ("C",),
                "class map on and off",
                (*BOTH, SLIDE, VIEWER),
                "toggle_map",
                "contrast, which a colour slide has not",
            ),
            Binding(("?", "F1"), "this sheet", (WINDOW,), "show_sheet"),
        ),
    ),
)


def bindings(where: str) -> list[Binding]:
    """Return the bindings made on a place: regions, points, slide, viewer or window."""
    return [b for _, group in BINDINGS for b in group if where in b.where]


def bind(target: Any, where: str, actions: Mapping[str, Callable[..., Any]]) -> None:
    """Bind the keys of a place on a layer instance or a viewer.

    Actions are called without arguments, but for ``choose_class``, which gets the digit,
    and ``hold_to_pan``, a generator that napari goes on with when the key is released.
    Actions that are not in `actions` are left unbound.
    """
    for binding in bindings(where):
        action = actions.get(binding.action)
        if action is None:
            continue
        for key in binding.keys:
            target.bind_key(key, _callback(binding.action, key, action), overwrite=True)


def _callback(name: str, key: str, action: Callable[..., Any]) -> Callable[[Any], Any]:
    if name in ("choose_class", "name_nuclei"):
        return lambda _target: _quiet(action, int(key))
    if name == "hold_to_pan":

        def hold(_target: Any) -> Any:
            yield from action()

        return hold
    return lambda _target: _quiet(action)


def _quiet(action: Callable[..., Any], *args: Any) -> None:
    """Call the action; napari would take a callable it returns for one to call on release."""
    action(*args)


def bind_window(window: QWidget, actions: Mapping[str, Callable[[], Any]]) -> list[QShortcut]:
    """Bind the keys that napari's canvas cannot see (`?` has no key code there)."""
    made = []
    for binding in bindings(WINDOW):
        for key in binding.keys:
            shortcut = QShortcut(QKeySequence(key), window)
            shortcut.activated.connect(actions[binding.action])
            made.append(shortcut)
    return made


class KeySheet(QFrame):
    """A small sheet of all keys that stays out of the way: it takes no focus and blocks nothing."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent, Qt.WindowType.Tool)
        self.setWindowTitle("Keys")
        self.setAttribute(Qt.WidgetAttribute.WA_ShowWithoutActivating)
        # One label: napari's theme gives every label the height of a button.
        self.label = QLabel(as_html())
        self.label.setTextFormat(Qt.TextFormat.RichText)
        outer = QVBoxLayout(self)
        outer.addWidget(self.label)

    def toggle(self) -> None:
        """Show the sheet, or put it away when it is there."""
        self.setVisible(not self.isVisible())


def shown_keys(keys: Iterable[str]) -> str:
    """Return the keys as they are written for a reader."""
    keys = tuple(keys)
    return "1 – 9" if keys == DIGITS else " or ".join(keys)


def as_html() -> str:
    """Return the table for the sheet."""
    rows = []
    for title, group in BINDINGS:
        rows.append(f"<tr><td colspan=2><b>{title}</b></td></tr>")
        rows += [
            f"<tr><td align=right>{shown_keys(b.keys)}&nbsp;&nbsp;</td><td>{b.does}</td></tr>"
            for b in group
        ]
    foot = "Keys for drawing and changing work while Regions or Points is selected."
    return f"<table cellspacing=1>{''.join(rows)}</table><p>{foot}</p>"


def as_markdown() -> str:
    """Return the table of docs/keys.md."""
    lines = []
    for title, group in BINDINGS:
        lines += [
            f"## {title}",
            "",
            "| key | does | napari's own on these layers |",
            "|---|---|---|",
        ]
        lines += [f"| `{shown_keys(b.keys)}` | {b.does} | {b.instead_of} |" for b in group]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
