"""The sentence about the task that a method reads: shown in full, and open to change.

A method that makes prompts from words should show its words. They start from what is
marked, follow the classes, and stay as they are once somebody has changed them; emptied,
they follow again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QPlainTextEdit, QVBoxLayout, QWidget

from napari_pathotune import _forms as forms

if TYPE_CHECKING:
    from napari_pathotune._session import Session

LINES = 4


class TaskWords(QWidget):
    """A few lines of text with their name."""

    def __init__(self) -> None:
        super().__init__()
        self._own = False
        self.edit = QPlainTextEdit()
        self.edit.setTabChangesFocus(True)
        self.edit.setToolTip("Stain, organ, task and classes. The method reads it; change it.")
        self.edit.setAccessibleName("The task in words")
        height = self.edit.fontMetrics().lineSpacing() * LINES + 12
        self.edit.setFixedHeight(height)
        self.edit.textChanged.connect(self._on_changed)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(forms.line("The task in words, for the text prompts (click to change):"))
        column.addWidget(self.edit)

    def text(self) -> str:
        """Return the sentence."""
        return " ".join(self.edit.toPlainText().split())

    def follow(self, session: Session) -> None:
        """Show the sentence about what is marked, unless there is one of the user's own."""
        found = _sentence(session)
        if self._own or self.edit.hasFocus() or found == self.text():
            return
        self.edit.blockSignals(True)
        self.edit.setPlainText(found)
        self.edit.blockSignals(False)

    def _on_changed(self) -> None:
        self._own = bool(self.text())


def _sentence(session: Session) -> str:
    from pathotune.models.text import sentence

    names = sorted({a.class_name for a in session.annotations.items if a.class_name})
    return sentence(names) if names else ""
