"""Which network reads the slide, and under which terms.

Everything a user should know stands here before anything is downloaded: what
the network was trained on, its licence, whether access is gated, its size and
whether it works offline. A download starts only after a yes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from napari_pathotune._forms import line

if TYPE_CHECKING:
    from pathotune.models.cards import ModelCard


def terms(card: ModelCard) -> str:
    """Return a card's facts for the user, a line each."""
    size = f"{card.size_mb:,.0f} MB"
    there = f"needs a download of {size}" if card.needs_download else f"{size}, works offline"
    if not (card.here or card.needs_download):
        there = f"its weight file ({size}) is not on this computer"
    gate = " · access must be asked for at its hub" if card.gated else ""
    return "\n".join(
        (
            card.about,
            f"Made for: {card.made_for}",
            f"Licence: {card.licence}{gate}",
            f"Looks at {card.mpp:g} µm/px · {there}",
        )
    )


class BackbonePicker(QWidget):
    """The cards, the embedded one first; `chosen` carries a card's id."""

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.box = QComboBox()
        self.box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.box.setMinimumContentsLength(12)
        self.box.setToolTip("The network that turns the slide into features")
        self.facts = line()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.box)
        column.addWidget(self.facts)
        self.box.activated.connect(self._on_activated)

    def set_cards(self, cards: dict[str, ModelCard], current: str) -> None:
        """Show these cards and mark the one in use."""
        from pathotune.models.cards import DEFAULT_ID

        order = sorted(cards.values(), key=lambda c: (c.id != DEFAULT_ID, c.needs_download, c.name))
        with QSignalBlocker(self.box):
            self.box.clear()
            for card in order:
                self.box.addItem(card.name, card.id)
            self.box.setCurrentIndex(max(0, self.box.findData(current)))
        used = cards.get(current)
        self.facts.setText("" if used is None else terms(used))

    def _on_activated(self, index: int) -> None:
        self.chosen.emit(self.box.itemData(index))
