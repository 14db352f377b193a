"""How nuclei look: outline, filled or density, and what their colour tells.

The legend follows: classes with their colours and counts, or a strip with the
numbers at its ends. Zoomed far out the density is shown whatever is chosen, and
the strip says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, QTimer
from qtpy.QtWidgets import QComboBox, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_pathotune import _forms as forms
from napari_pathotune._colour_bar import ColourBar
from napari_pathotune._nuclei_colours import class_colours
from napari_pathotune._nuclei_words import number, short

if TYPE_CHECKING:
    from napari_pathotune._nuclei_view import NucleiView

STYLES = (("outline", "Outlines"), ("filled", "Filled"), ("density", "Density"))


class NucleiLook(QWidget):
    """Two choices and a legend over a `NucleiView`."""

    def __init__(self, view: NucleiView) -> None:
        super().__init__()
        self._view = view
        self._listed: Any = None
        self._legend_now: Any = None
        self.style_box = QComboBox()
        for key, label in STYLES:
            self.style_box.addItem(label, key)
        self.style_box.setToolTip("Zoomed far out, the density is shown")
        self.style_box.activated.connect(lambda i: view.set_style(self.style_box.itemData(i)))
        self.by = QComboBox()
        self.by.setToolTip("What the colours tell")
        self.by.activated.connect(self._on_by)
        for box in (self.style_box, self.by):
            box.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            box.setMinimumContentsLength(10)
        grid = QGridLayout()
        grid.addWidget(forms.line("Shown", wrap=False), 0, 0)
        grid.addWidget(self.style_box, 0, 1)
        grid.addWidget(forms.line("Colour", wrap=False), 1, 0)
        grid.addWidget(self.by, 1, 1)
        grid.setColumnStretch(1, 1)
        self.bar = ColourBar()
        self.caption = forms.line()
        self._rows = QGridLayout()
        self._rows.setColumnStretch(1, 1)
        self._rows.setVerticalSpacing(2)
        self.legend = QWidget()
        self.legend.setLayout(self._rows)
        self._rows.setContentsMargins(0, 0, 0, 0)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addLayout(grid)
        outer.addWidget(self.legend)
        outer.addWidget(self.bar)
        outer.addWidget(self.caption)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(200)
        self._soon.timeout.connect(self.refresh)
        forms.listen(
            self,
            (view.changed, self._refresh_soon),
            (view.desk.replaced, self._refresh_soon),
            (view.desk.grown, self._refresh_soon),
            (view.desk.classes_changed, self._refresh_soon),
        )
        self.refresh()

    def _refresh_soon(self) -> None:
        if not self._soon.isActive():
            self._soon.start()

    def _on_by(self, index: int) -> None:
        self._view.set_colouring(replace(self._view.colouring, by=self.by.itemData(index)))

    def refresh(self) -> None:
        """Show what the view shows."""
        nuclei, view = self._view.desk.nuclei, self._view
        if nuclei is None:
            return
        keys = ["class", "confidence", *self._view.desk.measures]
        with QSignalBlocker(self.by):
            if keys != self._listed:
                self._listed = keys
                self.by.clear()
                for key in keys:
                    self.by.addItem(short(key), key)
            self.by.setCurrentIndex(max(0, self.by.findData(view.colouring.by)))
        with QSignalBlocker(self.style_box):
            self.style_box.setCurrentIndex(self.style_box.findData(view.style))
        shown = view.shown
        dense = shown is not None and shown.drawn == "density"
        classes = view.colouring.by == "class" and not dense
        self.legend.setVisible(classes)
        self.bar.setVisible(not classes)
        self.caption.setVisible(not classes)
        if classes:
            self._list_classes(nuclei)
        elif shown is not None:
            self.bar.set_words(number(shown.low), number(shown.high))
            far = "" if view.style == "density" else " Zoom in for single nuclei."
            told = f"Nuclei per mm².{far}" if dense else short(view.colouring.by)
            self.caption.setText(told)

    def _list_classes(self, nuclei: Any) -> None:
        counts = nuclei.counts()
        colours = class_colours(nuclei.classes, self._view.desk.own_colours)
        now = [(n, colours[n], c) for n, c in counts.items()]
        if now == self._legend_now:
            return
        self._legend_now = now
        while self._rows.count():
            item = self._rows.takeAt(0)
            widget = None if item is None else item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        for row, (name, colour, n) in enumerate(now):
            icon = QLabel()
            icon.setPixmap(forms.swatch(colour).pixmap(12, 12))
            self._rows.addWidget(icon, row, 0)
            self._rows.addWidget(forms.Elided(name), row, 1)
            self._rows.addWidget(QLabel(f"{n:,}"), row, 2)
