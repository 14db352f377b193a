"""The models of a slide as a list in the Tune dock: one click, and the map is drawn by that one.

The first line is always the model that follows the marks, so that the way back is in
sight whichever is chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QHBoxLayout, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from napari_pathotune import _forms as forms
from napari_pathotune._model_history import ModelHistory, line_of, tip_of

if TYPE_CHECKING:
    from napari_pathotune._session import Session

FOLLOWS = "Now: follows your marks"
KEEP_TIP = "Put the model as it is now on the list, to come back to it"
ROWS = 5  # seen at once; more scroll
GAP = 2


class ModelList(QWidget):
    """The history of a session's slide."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self.history = ModelHistory.of(session)
        self.rows = QListWidget()
        self.rows.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.rows.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.rows.setSpacing(GAP)
        self.rows.setAccessibleName("Models of this slide")
        self.rows.itemClicked.connect(self._on_chosen)
        self.rows.itemActivated.connect(self._on_chosen)
        self.keep = forms.small("Keep this model", KEEP_TIP, self.history.keep)
        head = QHBoxLayout()
        head.addWidget(forms.heading("Models of this slide"))
        head.addStretch(1)
        head.addWidget(self.keep)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(head)
        column.addWidget(self.rows)
        self._shown: Any = None
        forms.listen(
            self,
            (self.history.changed, self.refresh),
            (session.validation_changed, self.refresh),
            (session.status_changed, self.refresh),
        )
        self.refresh()

    def refresh(self, *_: Any) -> None:
        """Show the list as it is."""
        session, entries = self.session, self.history.entries
        bundle, current = session.bundle, self.history.current
        ready = bundle is None and session.loop.head is not None
        self.keep.setEnabled(ready)
        self.keep.setToolTip(KEEP_TIP if ready else "There is no model of yours in use.")
        self.setVisible(bool(entries) or ready)
        new = (entries, bundle is None, current)
        if new == self._shown:
            return
        self._shown = new
        with QSignalBlocker(self.rows):
            self.rows.clear()
            for entry in (None, *entries):
                row = QListWidgetItem(FOLLOWS if entry is None else line_of(entry))
                row.setData(Qt.ItemDataRole.UserRole, entry)
                tip = "Draw the map with the model that follows your marks"
                row.setToolTip(tip if entry is None else tip_of(entry))
                self.rows.addItem(row)
                if bundle is None if entry is None else entry.path == current:
                    self.rows.setCurrentItem(row)
        height = max(self.rows.sizeHintForRow(0), self.fontMetrics().height() + 4)
        lines = min(self.rows.count(), ROWS)
        self.rows.setFixedHeight(lines * (height + 2 * GAP) + 2 * self.rows.frameWidth() + 2 * GAP)

    def _on_chosen(self, row: QListWidgetItem) -> None:
        self.history.go_back(row.data(Qt.ItemDataRole.UserRole))
