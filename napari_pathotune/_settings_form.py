"""A form for the settings of a tuning method, made from what the method says of them.

Every method describes its settings once (default, label, help, range, choices);
the command line and this form read the same description, so that they cannot
differ. Nobody has to open it: the defaults are meant to be left alone.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QSpinBox,
    QWidget,
)


class SettingsForm(QWidget):
    """Fields for the settings of one or several dataclasses."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows = QFormLayout(self)
        self._rows.setContentsMargins(0, 0, 0, 0)
        self._fields: dict[str, tuple[QWidget, Any]] = {}

    def show_settings(self, *configs: type[Any]) -> None:
        """Show the settings of these dataclasses with their defaults."""
        while self._rows.rowCount():
            self._rows.removeRow(0)
        self._fields.clear()
        for config in configs:
            for field in dataclasses.fields(config):
                if field.name in self._fields or "label" not in field.metadata:
                    continue
                widget = _widget(field)
                widget.setToolTip(str(field.metadata.get("help", "")))
                self._fields[field.name] = (widget, field.default)
                label = QLabel(str(field.metadata["label"]))
                label.setWordWrap(True)  # a long one must not widen the dock
                self._rows.addRow(label, widget)

    def values(self) -> dict[str, Any]:
        """Return what differs from the defaults."""
        found = {name: _value(widget) for name, (widget, _) in self._fields.items()}
        return {n: v for n, v in found.items() if not _same(v, self._fields[n][1])}


def _same(value: Any, default: Any) -> bool:
    """Whether a value is the default, as far as a field can show it."""
    if isinstance(default, float):
        return math.isclose(value, default, rel_tol=1e-6)
    return bool(value == default)


def _widget(field: dataclasses.Field[Any]) -> QWidget:
    facts: Any = field.metadata
    default: Any = field.default
    if facts.get("choices"):
        box = QComboBox()
        box.addItems([str(c) for c in facts["choices"]])
        box.setCurrentText(str(default))
        return box
    if isinstance(default, bool):
        check = QCheckBox()
        check.setChecked(default)
        return check
    if isinstance(default, int):
        whole = QSpinBox()
        whole.setRange(int(facts.get("min", 0)), int(facts.get("max", 1_000_000)))
        whole.setValue(default)
        if default == whole.minimum() and default <= 0:
            whole.setSpecialValueText("auto")
        return whole
    number = QDoubleSpinBox()
    size = abs(float(default))
    number.setDecimals(max(2, 1 - math.floor(math.log10(size))) if size else 4)  # 0.00001 too
    number.setSingleStep(size / 10 or 0.01)
    number.setRange(float(facts.get("min", 0.0)), float(facts.get("max", 1e6)))
    number.setValue(float(default))
    return number


def _value(widget: QWidget) -> Any:
    if isinstance(widget, QComboBox):
        return widget.currentText()
    if isinstance(widget, QCheckBox):
        return widget.isChecked()
    assert isinstance(widget, QSpinBox | QDoubleSpinBox)
    return widget.value()
