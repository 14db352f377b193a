"""The tools in the Annotate dock: which is in the hand, how wide the brush is, how to use it.

The buttons show the tool that is really in the hand, also when it was taken by key or in
napari's own controls. They never take the keyboard from the slide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import (
    QButtonGroup,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_pathotune._forms import listen
from napari_pathotune._pen import PEN_SIZES_UM
from napari_pathotune._tool_icons import SIDE, icon

if TYPE_CHECKING:
    from napari_pathotune._pen import Pen

TOOLS = (
    ("brush", "Brush", "B", "Paint over the tissue. [ and ] change the size."),
    (
        "polygon",
        "Polygon",
        "P",
        "Click the corners. Enter or a double-click ends it, Esc drops it.",
    ),
    ("lasso", "Lasso", "Shift+P", "Draw round the region freehand, with the button held."),
    ("rectangle", "Box", "R", "Drag from corner to corner."),
    ("ellipse", "Ellipse", "E", "Drag from corner to corner of its box; with Shift a circle."),
    ("point", "Point", "", "Click on a cell or a small spot."),
    ("select", "Select", "S", "Click a region to move, resize, re-class (1-9) or delete it."),
    (
        "corners",
        "Corners",
        "D",
        "Drag a corner. I inserts one, X takes one away. Ellipses have none.",
    ),
    ("pan", "Move", "Z", "Drag to move the slide, scroll to zoom."),
)
COLUMNS = 3  # drawn by hand, set down, changed: a row each


class ToolBar(QWidget):
    """Buttons for the tools of a `Pen` and a slider for the brush."""

    def __init__(self, pen: Pen, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._pen = pen
        self.buttons: dict[str, QPushButton] = {}
        self._group = QButtonGroup(self)
        grid = QGridLayout()
        grid.setSpacing(3)
        for n, (tool, label, key, how) in enumerate(TOOLS):
            button = QPushButton()
            button.setText(label)
            button.setMinimumWidth(0)
            button.setIconSize(QSize(SIDE, SIDE))
            button.setCheckable(True)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.setToolTip(f"{how}  ({key})" if key else how)
            policy = button.sizePolicy()
            policy.setHorizontalPolicy(policy.Policy.Expanding)
            button.setSizePolicy(policy)
            button.clicked.connect(lambda _=False, t=tool: self._pen.take(t))
            self._group.addButton(button)
            grid.addWidget(button, n // COLUMNS, n % COLUMNS)
            self.buttons[tool] = button
        self.how = QLabel()
        self.how.setWordWrap(True)
        self.how.setMinimumHeight(2 * self.fontMetrics().lineSpacing())
        self.how.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, len(PEN_SIZES_UM) - 1)
        self.slider.setPageStep(1)
        self.slider.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.slider.setToolTip("Diameter of the brush ([ and ])")
        self.slider.setAccessibleName("Brush size")
        self.slider.valueChanged.connect(self._on_slider)
        self.size_label = QLabel()
        self.size_label.setMinimumWidth(self.fontMetrics().horizontalAdvance("800 µm "))
        row = QHBoxLayout()
        row.addWidget(QLabel("Brush"))
        row.addWidget(self.slider, 1)
        row.addWidget(self.size_label)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addLayout(grid)
        outer.addLayout(row)
        outer.addWidget(self.how)
        listen(
            self,
            (pen.tool_changed, self._on_tool),
            (pen.pointed_at, self._on_pointed),
            (pen.board.pen_changed, self._on_pen),
        )
        self._on_tool(pen.tool)
        self._on_pen()

    def changeEvent(self, event: Any) -> None:
        """Draw the icons anew when the theme changes."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):
            self._draw_icons()

    def showEvent(self, event: Any) -> None:
        """Draw the icons once the theme is known."""
        super().showEvent(event)
        self._draw_icons()

    def _draw_icons(self) -> None:
        for tool, button in self.buttons.items():
            colour = button.palette().color(QPalette.ColorRole.ButtonText)
            button.setIcon(icon(tool, colour, self.devicePixelRatioF()))

    def allow(self, why_not: str) -> None:
        """Switch the drawing tools on, or off with the reason in their tooltips."""
        for tool, _, key, how in TOOLS:
            button = self.buttons[tool]
            button.setEnabled(not why_not)
            button.setToolTip(why_not or (f"{how}  ({key})" if key else how))
        self.slider.setEnabled(not why_not)
        self.how.setEnabled(not why_not)

    def _on_tool(self, tool: str) -> None:
        button = self.buttons.get(tool)
        if button is not None:
            button.setChecked(True)
        else:
            self._group.setExclusive(False)
            for other in self.buttons.values():
                other.setChecked(False)
            self._group.setExclusive(True)
        self.how.setText(next((how for t, _, _, how in TOOLS if t == tool), ""))

    def _on_pointed(self, what: str) -> None:
        how = next(how for tool, _, _, how in TOOLS if tool == "select")
        self.how.setText(f"Here: {what}." if what else how)

    def _on_slider(self, index: int) -> None:
        if self._pen.board.pen_um != PEN_SIZES_UM[index]:
            self._pen.board.pen_um = float(PEN_SIZES_UM[index])

    def _on_pen(self, *_: Any) -> None:
        um = self._pen.board.pen_um
        nearest = min(range(len(PEN_SIZES_UM)), key=lambda i: abs(PEN_SIZES_UM[i] - um))
        self.slider.setValue(nearest)
        self.size_label.setText(f"{um:g} µm")
