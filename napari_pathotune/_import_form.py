"""What only the user knows of a weight file: which model it is, um/px, normalisation, licence.

It stands in the dock under the choice of networks, as the other question about
um/px does. The file is looked at first, in the background; what it can be is
offered by name, and for a known model nothing has to be typed. The button says
what is still missing.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLineEdit,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_pathotune._forms import Elided, button, heading, line, small
from napari_pathotune._mpp_form import OBJECTIVES
from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from napari_pathotune._session import Session
    from pathotune.models.cards import ModelCard
    from pathotune.models.importing import Answers, Looked

FILTER = "Weights (*.safetensors *.bin *.pth *.pt *.torch *.ckpt);;All files (*)"
OWN = "a model of my own"
NUMBERS = "numbers"
USUAL = {
    "imagenet": "ImageNet's, the usual one",
    "half": "-1 to 1 (mean 0.5, deviation 0.5)",
    "clip": "CLIP's",
    "none": "none: 0 to 1 as it is",
    NUMBERS: "numbers of its own",
}


def _narrow(box: QComboBox) -> QComboBox:
    policy = QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    box.setSizeAdjustPolicy(policy)
    box.setMinimumContentsLength(10)
    return box


class ImportForm(QFrame):
    """Asks for what a weight file does not say; `imported` carries the id of the card."""

    imported = Signal(str)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self.looked: Looked | None = None
        self._known: dict[str, ModelCard] = {}
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.file = Elided()
        self.holds = line()
        self.which = _narrow(QComboBox())
        self.which.setToolTip("Known models whose network this file fills")
        self.terms = line()
        self.name = QLineEdit()
        self.name.setPlaceholderText("what to call it")
        self.mpp = QDoubleSpinBox()
        self.mpp.setRange(0.0, 20.0)
        self.mpp.setDecimals(3)
        self.mpp.setSingleStep(0.05)
        self.mpp.setSuffix(" µm/px")
        self.mpp.setSpecialValueText("not known")
        self.mpp.setToolTip("At what scale it was trained: 0.25 is 40x, 0.5 is 20x")
        self.norm = _narrow(QComboBox())
        self.norm.setToolTip("How pixels were scaled when it was trained")
        self.numbers = QLineEdit()
        self.numbers.setPlaceholderText("three means, three deviations")
        self.numbers.setToolTip("Of pixels from 0 to 1: 0.70 0.54 0.66  0.22 0.26 0.21")
        self.licence = QLineEdit()
        self.licence.setPlaceholderText("MIT, own work, ...")
        self.licence.setToolTip("What its owner allows; it is shown wherever the model is chosen")
        self.why = line()
        self.use = button("Use this file", "", self._use)
        self.stop = button("Cancel", "Forget this file", self.close_form)
        self._build()
        self.which.currentIndexChanged.connect(self._refresh)
        self.norm.currentIndexChanged.connect(self._refresh)
        self.mpp.valueChanged.connect(self._refresh)
        self.name.textChanged.connect(self._refresh)
        self.licence.textChanged.connect(self._refresh)
        self.numbers.textChanged.connect(self._refresh)
        self._laid_out = QTimer(self)
        self._laid_out.setSingleShot(True)
        self._laid_out.timeout.connect(self._come_into_view)
        self.hide()

    def _build(self) -> None:
        picks = QHBoxLayout()
        for label, mpp in OBJECTIVES.items():
            picks.addWidget(small(label, f"{mpp:g} µm/px", partial(self.mpp.setValue, mpp)))
        picks.addStretch(1)
        self.own = QWidget()
        rows = QFormLayout(self.own)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        rows.addRow("Name", self.name)
        rows.addRow("Scale", self.mpp)
        rows.addRow("", picks)
        rows.addRow("Pixels", self.norm)
        rows.addRow("", self.numbers)
        rows.addRow("Licence", self.licence)
        foot = QHBoxLayout()
        foot.addWidget(self.use)
        foot.addWidget(self.stop)
        foot.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        for widget in (heading("A weight file"), self.file, self.holds):
            column.addWidget(widget)
        column.addWidget(line("It is"))
        for widget in (self.which, self.terms, self.own, self.why):
            column.addWidget(widget)
        column.addLayout(foot)

    def ask(self) -> None:
        """Let the user choose a file, then look at it."""
        path, _ = QFileDialog.getOpenFileName(self, "A weight file", "", FILTER)
        if path:
            self.look(Path(path))

    def look(self, path: Path) -> None:
        """Look at a file in the background; the form opens when it is known what it is."""

        def start() -> Any:
            from pathotune.models.importing import look

            return look(path)

        what = f"Looking at {path.name}"
        key = "import"
        self.session.run("files", start, what=what, where="slide", key=key, on_done=self.show_found)

    def show_found(self, looked: Looked) -> None:
        """Say what a file holds and ask for the rest."""
        from pathotune.models.cards import cards

        self.looked = looked
        self.file.say(f"{looked.path.name} · {looked.size_mb:,.0f} MB")
        self.holds.setText(f"It holds {looked.words}.")
        known = self._known = cards()
        self.which.clear()
        self.which.addItem("choose...", "")
        for card_id in looked.cards:
            self.which.addItem(known[card_id].name, card_id)
        if looked.network is not None:
            self.which.addItem(OWN, OWN)
        if self.which.count() == 2:
            self.which.setCurrentIndex(1)
        self.norm.clear()
        self.norm.addItem("choose...", "")
        if looked.mean is not None:
            self.norm.addItem("as the file's folder says", "told")
        for key, text in USUAL.items():
            self.norm.addItem(text, key)
        self.norm.setCurrentIndex(1 if looked.mean is not None else 0)
        self.name.setText(looked.path.parent.name if looked.mean else looked.path.stem)
        self.mpp.setValue(0.0)
        self.licence.clear()
        self.show()
        self._refresh()
        self._laid_out.start(50)  # when it has its height

    def _come_into_view(self) -> None:
        around = self.parentWidget()
        while around is not None and not isinstance(around, QScrollArea):
            around = around.parentWidget()
        if around is not None:
            around.ensureWidgetVisible(self)

    def close_form(self) -> None:
        """Forget the file."""
        self.looked = None
        self.hide()

    def missing(self) -> str:
        """Return what is still to be said, or nothing."""
        chosen = self.which.currentData()
        if not chosen:
            return "Choose which model it is."
        if chosen != OWN:
            return ""
        if not self.name.text().strip():
            return "Give it a name."
        if self.mpp.value() <= 0:
            return "Say at how many µm/px it was trained; 0.5 is a 20x scan."
        if not self.norm.currentData():
            return "Choose how its pixels were scaled; its maker says so."
        if self.norm.currentData() == NUMBERS and len(self.numbers.text().split()) != 6:
            return "Type its three means and three deviations, with spaces between."
        if not self.licence.text().strip():
            return "Say under which licence you may use it."
        return ""

    def _refresh(self, *_: Any) -> None:
        chosen = self.which.currentData()
        self.own.setVisible(chosen == OWN)
        self.numbers.setVisible(self.norm.currentData() == NUMBERS)
        card = self._known.get(chosen or "")
        self.terms.setVisible(card is not None)
        if card is not None:
            gate = " Use it only if its owners gave you access." if card.gated else ""
            self.terms.setText(f"{card.mpp:g} µm/px · Licence: {card.licence}.{gate}")
        why = self.missing()
        self.why.setText(why)
        self.why.setVisible(bool(why))
        self.use.setEnabled(not why)
        self.use.setToolTip(why or "The file stays where it is")

    def _answers(self) -> Answers:
        from pathotune.models.importing import Answers
        from pathotune.models.own_cards import normalisation

        chosen = self.which.currentData()
        if chosen != OWN or self.looked is None:
            return Answers(like=chosen)
        key = self.norm.currentData()
        mean, std = self.looked.mean, self.looked.std
        if key != "told":
            mean, std = normalisation(self.numbers.text() if key == NUMBERS else key)
        name, licence = self.name.text().strip(), self.licence.text().strip()
        return Answers(name=name, mpp=self.mpp.value(), mean=mean, std=std, licence=licence)

    def _use(self) -> None:
        looked = self.looked
        if looked is None:
            return
        try:
            answers = self._answers()
        except PathotuneError as error:
            self.why.setText(str(error))
            self.why.show()
            return

        def start() -> Any:
            from pathotune.models.importing import import_weights

            return import_weights(looked, answers)

        what = f"Reading {looked.path.name} once through"
        self.session.run("files", start, what=what, where="slide", on_done=self._done)

    def _done(self, card: Any) -> None:
        self.close_form()
        self.imported.emit(card.id)
