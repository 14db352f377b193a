"""The one question that a slide may leave open is how large a pixel is.

It stands in the Slide dock, not in a dialog, and is asked once: the answer is
remembered for this slide. Until then areas and models wait for it.
"""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import Signal
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QDoubleSpinBox, QFrame, QGridLayout, QHBoxLayout, QWidget

from napari_pathotune._forms import button, heading, line, small

OBJECTIVES = {"10x": 1.0, "20x": 0.5, "40x": 0.25}


class MppForm(QFrame):
    """A number field and the three usual objectives; `answered` carries um/px."""

    answered = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.title = heading("How large is a pixel?")
        self.why = line()
        self.field = QDoubleSpinBox()
        self.field.setRange(0.0, 40.0)
        self.field.setDecimals(4)
        self.field.setSingleStep(0.05)
        self.field.setSuffix(" µm/px")
        self.field.setSpecialValueText("not known")
        self.field.setToolTip("0.25 for a 40x scan, 0.5 for 20x, 1 for 10x")
        self.field.valueChanged.connect(lambda _: self._mark())
        self.use = button("Use", "Take this number for this slide", self._answer)
        row = QHBoxLayout()
        row.addWidget(self.field, 1)
        row.addWidget(self.use)
        picks = QHBoxLayout()
        picks.addWidget(line("or the objective:", wrap=False))
        for name, mpp in OBJECTIVES.items():
            picks.addWidget(small(name, f"{mpp:g} µm/px", partial(self.field.setValue, mpp)))
        picks.addStretch(1)
        grid = QGridLayout(self)
        grid.setContentsMargins(6, 6, 6, 6)
        grid.addWidget(self.title, 0, 0)
        grid.addWidget(self.why, 1, 0)
        grid.addLayout(row, 2, 0)
        grid.addLayout(picks, 3, 0)
        self._mark()

    def ask(self, problem: str | None) -> None:
        """Ask, with the reason why the file's own number was not taken."""
        self.field.setValue(0.0)
        said = problem or "This slide does not say how large a pixel is."
        self.why.setText(f"{said} Areas and models need it.")
        self.show()

    @property
    def value(self) -> float:
        """The number typed; 0 while there is none."""
        return float(self.field.value())

    def _answer(self) -> None:
        if self.value > 0:
            self.answered.emit(self.value)

    def _mark(self) -> None:
        """Show the question in red until there is an answer."""
        empty = self.value <= 0
        self.use.setEnabled(not empty)
        self.use.setToolTip(
            "Type a number or pick the objective first" if empty else "Take this for this slide"
        )
        palette = QPalette()
        if empty:
            palette.setColor(QPalette.ColorRole.WindowText, "#e5534b")
        self.title.setPalette(palette)
