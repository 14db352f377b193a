"""Small pieces that the docks share, so that they look and behave as one.

A dock is a notice on top, a scrolling middle, one line that says why or what
next, and one primary button at the foot. No style sheets: napari's theme is
the user's choice.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QFrame,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

if TYPE_CHECKING:
    from collections.abc import Callable

MIN_WIDTH = 280
HEIGHT = 640


class Elided(QLabel):
    """A line that is cut with an ellipsis instead of widening its dock; the tooltip has it all."""

    def __init__(self, text: str = "", mode: Any = Qt.TextElideMode.ElideMiddle) -> None:
        super().__init__()
        self._mode = mode
        self._whole = ""
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.say(text)

    def say(self, text: str) -> None:
        """Set the whole line."""
        self._whole = text
        self.setToolTip(text)
        self._cut()

    @property
    def whole(self) -> str:
        """The line as it was set."""
        return self._whole

    def resizeEvent(self, event: Any) -> None:
        """Cut anew."""
        super().resizeEvent(event)
        self._cut()

    def _cut(self) -> None:
        room = max(0, self.contentsRect().width() - 12)  # napari's themes pad labels
        self.setText(self.fontMetrics().elidedText(self._whole, self._mode, room))


def line(text: str = "", *, wrap: bool = True) -> QLabel:
    """Return a label that wraps and can be copied from."""
    label = QLabel(text)
    label.setWordWrap(wrap)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def heading(text: str) -> QLabel:
    """Return a bold line."""
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    font = label.font()
    font.setBold(True)
    label.setFont(font)
    return label


def button(text: str, tip: str, action: Callable[[], Any]) -> QPushButton:
    """Return a plain button; the keyboard stays with the canvas unless one tabs to it."""
    made = QPushButton(text)
    made.setToolTip(tip)
    made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    made.clicked.connect(lambda _=False: action())
    return made


def small(text: str, tip: str, action: Callable[[], Any]) -> QPushButton:
    """Return a button for the end of a line, no wider than its word."""
    made = button(text, tip, action)
    made.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
    return made


def primary(action: Callable[[], Any]) -> QPushButton:
    """Return the one button a dock leads to."""
    made = button("", "", action)
    made.setDefault(True)
    font = made.font()
    font.setBold(True)
    made.setFont(font)
    return made


def fold(title: str) -> QCollapsible:
    """Return a section that folds; its arrow points to where the content is."""
    return QCollapsible(title, expandedIcon="▼", collapsedIcon="▶")


def swatch(rgb: tuple[int, int, int], side: int = 12) -> QIcon:
    """Return a class's colour as an icon."""
    pixmap = QPixmap(side, side)
    pixmap.fill(QColor(*rgb))
    return QIcon(pixmap)


def assemble(dock: QWidget, top: QWidget, middle: QWidget, *foot: QWidget) -> None:
    """Lay a dock out: what is said on top, what scrolls, what leads on."""
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QFrame.Shape.NoFrame)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(middle)
    outer = QVBoxLayout(dock)
    outer.addWidget(top)
    outer.addWidget(scroll, 1)
    for widget in foot:
        outer.addWidget(widget)
    dock.setMinimumWidth(MIN_WIDTH)


def preferred_size() -> QSize:
    """Return the size a dock is made for."""
    return QSize(320, HEIGHT)


def listen(widget: QWidget, *pairs: tuple[Any, Callable[..., Any]]) -> None:
    """Connect signals of the session or of napari to a dock until Qt destroys the dock."""
    for signal, slot in pairs:
        signal.connect(slot)

    def stop(*_: Any) -> None:
        for signal, slot in pairs:
            with suppress(ValueError, RuntimeError):  # gone already
                signal.disconnect(slot)

    widget.destroyed.connect(stop)


def set_bar(bar: QProgressBar, done: int, total: int, text: str) -> None:
    """Move a progress bar without the repaint of the whole window that `setValue` forces."""
    bar.setUpdatesEnabled(False)
    bar.setRange(0, total)
    bar.setValue(done)
    bar.setFormat(text)
    bar.setToolTip(text)
    bar.setUpdatesEnabled(True)


def time_left(seconds: float | None) -> str:
    """Return "about 2 min left", or nothing when it cannot be known."""
    if seconds is None or seconds < 1:
        return ""
    if seconds < 50:
        return f"about {max(5, round(seconds / 5) * 5)} s left"
    if seconds < 90 * 60:
        return f"about {max(1, round(seconds / 60))} min left"
    return f"about {seconds / 3600:.1f} h left"


def area_text(mm2: float) -> str:
    """Return an area with two significant places or more: "0.041 mm²", "2.31 mm²", "118 mm²"."""
    if mm2 >= 100:
        return f"{mm2:,.0f} mm²"
    if mm2 >= 0.1:
        return f"{mm2:.2f} mm²"
    return f"{mm2:.3f} mm²"
