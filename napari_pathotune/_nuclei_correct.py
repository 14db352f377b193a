"""Tools to correct nuclei: choose, add, redraw, cut, join, delete, and take it back.

The buttons show the tool that is really in the hand, also when it was taken by
key. What cannot be done now says why in one line, and nothing asks back: every
edit is undone with a click.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QButtonGroup, QGridLayout, QPushButton, QVBoxLayout, QWidget

from napari_pathotune import _forms as forms

if TYPE_CHECKING:
    from napari_pathotune._nuclei_hand import NucleiHand, Tool

TOOLS: tuple[tuple[Tool, str, str], ...] = (
    ("move", "Move", "Drag to move the slide; nothing is changed"),
    ("choose", "Choose", "Click a nucleus (S); Shift-click adds another"),
    ("draw", "Add", "Draw round a nucleus with the button held (A)"),
    ("redraw", "Redraw", "Draw the chosen nucleus anew"),
    ("cut", "Cut", "Draw a line through a nucleus that is really two (K)"),
)
COLUMNS = 3
NARROW = 60  # three fit beside the scroll bar of the smallest dock


class CorrectNuclei(QWidget):
    """Buttons over a `NucleiHand`."""

    def __init__(self, hand: NucleiHand) -> None:
        super().__init__()
        self._hand = hand
        self.tools: dict[str, QPushButton] = {}
        self._group = QButtonGroup(self)
        self._group.setExclusive(True)
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        for i, (key, label, tip) in enumerate(TOOLS):
            button = forms.button(label, tip, partial(hand.take, key))
            button.setCheckable(True)
            self._group.addButton(button)
            self.tools[key] = button
            grid.addWidget(button, i // COLUMNS, i % COLUMNS)
        self.join = forms.button("Join", "Make one of the chosen nuclei (M)", hand.merge)
        self.delete = forms.button("Delete", "Delete the chosen nuclei (Delete)", hand.delete)
        self.undo = forms.button("Undo", "Take back the last correction (Ctrl+Z)", hand.undo)
        self.redo = forms.button("Redo", "Make it again (Ctrl+Shift+Z)", hand.redo)
        for i, button in enumerate((self.join, self.delete, self.undo, self.redo), len(TOOLS)):
            grid.addWidget(button, i // COLUMNS, i % COLUMNS)
        for made in (*self.tools.values(), self.join, self.delete, self.undo, self.redo):
            made.setMinimumWidth(NARROW)
        self.said = forms.line()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addLayout(grid)
        outer.addWidget(self.said)
        forms.listen(
            self,
            (hand.tool_changed, self._refresh),
            (hand.chosen_changed, self._refresh),
            (hand.edited, self._refresh),
            (hand.said, self._say),
            (hand.desk.replaced, self._refresh),
            (hand.desk.state_changed, self._refresh),
        )
        self._refresh()

    def _say(self, text: str) -> None:
        self.said.setText(text)
        self.said.setVisible(bool(text))

    def _refresh(self, *_: object) -> None:
        hand = self._hand
        can = hand.desk.edits is not None
        for key, button in self.tools.items():
            button.setEnabled(can or key == "move")
            button.setChecked(hand.tool == key)
        n = len(hand.chosen)
        self.join.setEnabled(can and n > 1)
        self.delete.setEnabled(can and n > 0)
        self.undo.setEnabled(can)
        self.redo.setEnabled(can)
        if not can:
            self.said.setText("Corrections wait until the search ends or is cancelled.")
        elif n:
            self.said.setText("1 nucleus is chosen." if n == 1 else f"{n} nuclei are chosen.")
        else:
            told = {
                "move": "",
                "choose": "Click a nucleus; Shift-click adds another.",
                "draw": "Draw round a nucleus with the button held.",
                "redraw": "Choose a nucleus first, then draw it anew.",
                "cut": "Draw a line through a nucleus that is really two.",
            }
            self.said.setText(told[hand.tool])
        self.said.setVisible(bool(self.said.text()))
