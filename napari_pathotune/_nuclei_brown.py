"""Positive or not, by the brown of DAB: three cuts, the index and the H-score.

A rule needs no named nuclei. The cuts are optical densities, shown and changed by the
user, because no cut holds for two laboratories; moving one counts anew at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QGridLayout, QVBoxLayout, QWidget

from napari_pathotune import _forms as forms

if TYPE_CHECKING:
    from napari_pathotune._nuclei_desk import NucleiDesk
    from pathotune.nuclei.rules import Index

SETTLE_MS = 250


class BrownNuclei(QWidget):
    """Cuts and figures for a desk's nuclei."""

    def __init__(self, desk: NucleiDesk) -> None:
        from pathotune.nuclei.rules import CUTS

        super().__init__()
        self._desk = desk
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(SETTLE_MS)
        self._soon.timeout.connect(self.apply)
        self.on = QCheckBox("Class by DAB")
        self.on.setToolTip("For Ki-67, receptors and the like; replaces other classes while on")
        self.on.toggled.connect(self._on_toggled)
        grid = QGridLayout()
        self.cuts: list[QDoubleSpinBox] = []
        for i, (name, cut) in enumerate(zip(("1+", "2+", "3+"), CUTS, strict=True)):
            box = QDoubleSpinBox()
            box.setRange(0.01, 3.0)
            box.setSingleStep(0.05)
            box.setDecimals(2)
            box.setValue(cut)
            box.setToolTip(f"Mean optical density of DAB from which a nucleus is {name}")
            box.valueChanged.connect(lambda _: self._soon.start())
            grid.addWidget(forms.line(f"{name} from", wrap=False), 0, i)
            grid.addWidget(box, 1, i)
            self.cuts.append(box)
        self.figures = forms.heading("")
        self.figures.setWordWrap(True)
        self.worth = forms.line()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.on)
        outer.addLayout(grid)
        outer.addWidget(self.figures)
        outer.addWidget(self.worth)
        forms.listen(self, (desk.replaced, self._on_replaced))
        self._say(None)

    def _on_replaced(self) -> None:
        self._say(None)
        if self.on.isChecked() and self._desk.edits is not None:
            self._soon.start()

    def _on_toggled(self, on: bool) -> None:
        if on:
            self.apply()
            return
        self._say(None)
        path = None if self._desk.nuclei is None else self._desk.nuclei.path
        if path is not None:
            self._desk.open(path)  # brings the classes back that were there

    def apply(self) -> None:
        """Give every nucleus its grade and show the figures."""
        nuclei = self._desk.nuclei
        if nuclei is None or not self.on.isChecked():
            return
        from pathotune.nuclei.rules import by_dab

        cuts = tuple(box.value() for box in self.cuts)
        self._desk.session.run(
            "files",
            lambda: by_dab(nuclei, cuts),
            what="Reading the brown of nuclei",
            where="nuclei",
            key="nuclei-brown",
            replace=True,
            quiet=True,
            on_done=self._done,
            on_error=self._failed,
        )

    def _done(self, found: Index) -> None:
        if self.on.isChecked():
            self._say(found)
            self._desk.grown.emit()

    def _failed(self, error: object) -> None:
        self._say(None)
        self.worth.setText(str(error))
        self.worth.show()

    def _say(self, found: Index | None) -> None:
        text, worth = "", ""
        if found is not None and found.positive is not None and found.h_score is not None:
            text = f"{found.positive:.1f} % positive, H-score {found.h_score:.0f}"
            names = ("negative", "1+", "2+", "3+")
            each = ", ".join(f"{n} {c:,}" for n, c in zip(names, found.counts, strict=True))
            worth = f"{found.counted:,} nuclei: {each}."
            if found.unknown:
                worth += f" {found.unknown:,} were not measured and are left out."
        elif found is not None:
            worth = "No nucleus was measured for DAB."
        for label, told in ((self.figures, text), (self.worth, worth)):
            label.setText(told)
            label.setVisible(bool(told))
