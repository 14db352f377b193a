"""One line in a dock for what went wrong or is offered: never a dialog, never in the way.

It says what happened and what to do, can carry one or two buttons, and goes away by a
click or when what it spoke of is over. A notice that only informs leaves by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QStyle,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class Notice(QFrame):
    """A strip with a sentence, some buttons and a cross; hidden while it has nothing to say."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._icon = QLabel()
        self._icon.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.label = QLabel()
        self.label.setWordWrap(True)
        self.label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._cross = QToolButton()
        self._cross.setText("×")
        self._cross.setAutoRaise(True)
        self._cross.setToolTip("Close this message")
        self._cross.clicked.connect(self.clear)
        top = QHBoxLayout()
        top.addWidget(self._icon)
        top.addWidget(self.label, 1)
        top.addWidget(self._cross, 0, Qt.AlignmentFlag.AlignTop)
        self._buttons = QHBoxLayout()
        self._buttons.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(6, 4, 6, 4)
        outer.setSpacing(4)
        outer.addLayout(top)
        outer.addLayout(self._buttons)
        self._made: list[QPushButton] = []
        self._gone = QTimer(self)
        self._gone.setSingleShot(True)
        self._gone.timeout.connect(self.clear)
        self.hide()

    def say(self, text: str, hint: str = "", *, for_s: float = 10.0) -> None:
        """Inform; the strip leaves by itself after `for_s` seconds."""
        self._show(text, hint, QStyle.StandardPixmap.SP_MessageBoxInformation, ())
        self._gone.start(int(for_s * 1000))

    def warn(self, text: str, hint: str = "") -> None:
        """Tell what went wrong and what to do; it stays until it is closed."""
        self._show(text, hint, QStyle.StandardPixmap.SP_MessageBoxWarning, ())

    def offer(self, text: str, *choices: tuple[str, Callable[[], object] | None]) -> None:
        """Offer something; each choice is a label and what it does (None: nothing but close)."""
        self._show(text, "", QStyle.StandardPixmap.SP_MessageBoxInformation, choices)

    def clear(self) -> None:
        """Say nothing."""
        self._gone.stop()
        self.label.clear()
        self.hide()

    @property
    def text(self) -> str:
        """What it says now; empty when it is hidden."""
        return str(self.label.text())

    def _show(
        self,
        text: str,
        hint: str,
        icon: QStyle.StandardPixmap,
        choices: tuple[tuple[str, Callable[[], object] | None], ...],
    ) -> None:
        self._gone.stop()
        for button in self._made:
            self._buttons.removeWidget(button)
            button.deleteLater()
        self._made = []
        for label, action in choices:
            button = QPushButton(label)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.clicked.connect(self.clear)
            if action is not None:
                button.clicked.connect(lambda _=False, call=action: call())
            self._buttons.addWidget(button)
            self._made.append(button)
        size = self.fontMetrics().height()
        self._icon.setPixmap(self.style().standardIcon(icon).pixmap(size, size))
        self.label.setText(f"{text} {hint}".strip())
        self.show()
