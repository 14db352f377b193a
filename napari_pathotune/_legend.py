"""The legend of the class map: colour, name, area and share of every class.

A class is never told by its colour alone, so each row has its name; its box
hides the class on the map. Numbers come from the whole map so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QLabel, QSizePolicy, QWidget

from napari_pathotune._forms import Elided, area_text, swatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Legend(QWidget):
    """One row a class, and one for what the model is unsure of.

    `hidden_changed` carries the names of the classes that are not shown.
    """

    hidden_changed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        self._shown: Any = None
        self.boxes: dict[str, QCheckBox] = {}
        self.areas: dict[str, QLabel] = {}
        self.shares: dict[str, QLabel] = {}
        self.unsure = QLabel("~ unsure")
        self.unsure_area = QLabel()
        self.unsure_share = QLabel()

    def set_classes(
        self,
        classes: Sequence[tuple[str, tuple[int, int, int]]],
        hidden: frozenset[str] = frozenset(),
        meanings: Mapping[str, str] | None = None,
    ) -> None:
        """Show these classes, each with its colour; `meanings` spell out short names.

        Numbers stay while the classes do.
        """
        now = (list(classes), hidden, dict(meanings or {}))
        if now == self._shown:
            return
        self._shown = now
        while self._grid.count():
            item = self._grid.takeAt(0)
            widget = item.widget() if item is not None else None
            if widget is not None and widget not in self._lasting():
                widget.hide()  # deleting waits for the event loop
                widget.deleteLater()
        self.boxes, self.areas, self.shares = {}, {}, {}
        for row, (name, colour) in enumerate(classes):
            box = QCheckBox()
            box.setIcon(swatch(colour))
            box.setToolTip(f"Show {name} on the map")
            box.setAccessibleName(name)
            box.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            with QSignalBlocker(box):
                box.setChecked(name not in hidden)
            box.toggled.connect(self._on_toggled)
            meaning = (meanings or {}).get(name)
            label = Elided(meaning or name, Qt.TextElideMode.ElideRight)
            if meaning:
                label.setToolTip(f"{name}: {meaning}")
            area, share = _number(), _number()
            for column, widget in enumerate((box, label, area, share)):
                self._grid.addWidget(widget, row, column)
            self.boxes[name], self.areas[name], self.shares[name] = box, area, share
        last = len(classes)
        for column, widget in enumerate(self._lasting(), start=1):
            widget.setVisible(bool(classes))
            self._grid.addWidget(widget, last, column)
        self.unsure.setToolTip("Where no class is more likely than 60 %: worth a mark")
        for number in (self.unsure_area, self.unsure_share):
            number.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def _lasting(self) -> tuple[QLabel, QLabel, QLabel]:
        return (self.unsure, self.unsure_area, self.unsure_share)

    def set_areas(self, mm2: Mapping[str, float], unsure_mm2: float) -> None:
        """Show areas, and shares of all that has a class."""
        total = sum(mm2.values())
        for name, label in self.areas.items():
            area = mm2.get(name, 0.0)
            label.setText(area_text(area))
            self.shares[name].setText(f"{area / total:.0%}" if total else "")
        self.unsure_area.setText(area_text(unsure_mm2))
        self.unsure_share.setText(f"{unsure_mm2 / total:.0%}" if total else "")

    def _on_toggled(self) -> None:
        hidden = frozenset(n for n, box in self.boxes.items() if not box.isChecked())
        self._shown = (self._shown[0], hidden, self._shown[2])
        self.hidden_changed.emit(hidden)


def _number() -> QLabel:
    label = QLabel()
    label.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    label.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Preferred)
    return label
