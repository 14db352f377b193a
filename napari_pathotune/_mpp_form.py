"""The one question that a slide may leave open is how large a pixel is.

It stands in the Slide dock, not in a dialog, and is asked once: the answer is
remembered for this slide. Until then areas and models wait for it.
"""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QDoubleSpinBox, QFrame, QGridLayout, QHBoxLayout, QWidget

from napari_pathotune._forms import heading, line, small

RED = "#ff6f61"  # readable on napari's dark and light themes
OBJECTIVES = {"10x": 1.0, "20x": 0.5, "40x": 0.25}


class MppForm(QFrame):
    """A number field and the three usual objectives; the dock's button takes the answer."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.title = heading("")
        self.title.setTextFormat(Qt.TextFormat.RichText)
        self.why = line()
        self.field = QDoubleSpinBox()
        self.field.setRange(0.0, 40.0)
        self.field.setDecimals(4)
        self.field.setSingleStep(0.05)
        self.field.setSuffix(" µm/px")
        self.field.setSpecialValueText("not known")
        self.field.setToolTip("0.25 for a 40x scan, 0.5 for 20x, 1 for 10x")
        self.field.valueChanged.connect(lambda _: self._mark())
        picks = QHBoxLayout()
        picks.addWidget(line("or the objective:", wrap=False))
        for name, mpp in OBJECTIVES.items():
            picks.addWidget(small(name, f"{mpp:g} µm/px", partial(self.field.setValue, mpp)))
        picks.addStretch(1)
        grid = QGridLayout(self)
        grid.setContentsMargins(6, 6, 6, 6)
        grid.addWidget(self.title, 0, 0)
        grid.addWidget(self.why, 1, 0)
        grid.addWidget(self.field, 2, 0)
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

    def _mark(self) -> None:
        """Show the question in red until there is an answer."""
        question = "How large is a pixel?"
        self.title.setText(
            question if self.value > 0 else f'<span style="color:{RED}">{question}</span>'
        )
        self.changed.emit()
