"""Which network reads the slide, and under which terms.

Everything a user should know stands here before anything is downloaded: what
the network was trained on, its licence, whether access is gated, its size and
whether it works offline. A download starts only after a yes. A weight file that
is on this computer already is taken from here as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from napari_pathotune._forms import button, line
from napari_pathotune._import_form import ImportForm

if TYPE_CHECKING:
    from napari_pathotune._session import Session
    from pathotune.models.cards import ModelCard

HERE, TISSUE, PHOTOGRAPHS = "On this computer", "For tissue, not here yet", "Photographs, not here"


def terms(card: ModelCard) -> str:
    """Return a card's facts for the user, a line each."""
    size = f"{card.size_mb:,.0f} MB"
    here = card.here  # looks at the disk
    there = f"{size}, works offline"
    if not here:
        hub = any(w.kind == "hub" for w in card.weights)
        there = f"its weight file ({size}) is not on this computer"
        there = f"needs a download of {size}" if hub else there
    gate = " · access must be asked for at its hub" if card.gated and not here else ""
    lines = [
        card.about,
        f"Made for: {card.made_for}",
        f"Licence: {card.licence}{gate}",
        f"Looks at {card.mpp:g} µm/px · {there}",
    ]
    if card.slower > 1.5:
        lines.append(f"About {card.slower:.0f} times slower than the embedded network")
    return "\n".join(lines)


def group(card: ModelCard) -> str:
    """Return the heading under which a card stands."""
    if card.here:
        return HERE
    return PHOTOGRAPHS if card.made_for.startswith("photographs") else TISSUE


class BackbonePicker(QWidget):
    """The cards, those that are here first; `chosen` carries a card's id.

    The dock puts `form` where it has room to grow.
    """

    chosen = Signal(str)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.box = QComboBox()
        self.box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.box.setMinimumContentsLength(12)
        self.box.setMaxVisibleItems(24)
        self.box.setToolTip("The network that turns the slide into features")
        self.facts = line()
        self.form = ImportForm(session)
        self.form.imported.connect(self.chosen)
        self.own = button(
            "Use a weight file...",
            "Weights that you have on this computer or on a share",
            self.form.ask,
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.box, self.facts, self.own):
            column.addWidget(widget)
        self.box.activated.connect(self._on_activated)

    def set_cards(self, cards: dict[str, ModelCard], current: str) -> None:
        """Show these cards under their headings and mark the one in use."""
        from pathotune.models.cards import DEFAULT_ID

        groups: dict[str, list[ModelCard]] = {HERE: [], TISSUE: [], PHOTOGRAPHS: []}
        for card in cards.values():
            groups[group(card)].append(card)
        with QSignalBlocker(self.box):
            self.box.clear()
            for title, members in groups.items():
                if members:
                    self._add_heading(title)
                for card in sorted(members, key=lambda c: (c.id != DEFAULT_ID, c.size_mb, c.name)):
                    self.box.addItem(f"   {card.name}", card.id)
                    self.box.setItemData(
                        self.box.count() - 1, terms(card), Qt.ItemDataRole.ToolTipRole
                    )
            self.box.setCurrentIndex(max(0, self.box.findData(current)))
        used = cards.get(current)
        self.facts.setText("" if used is None else terms(used))
        doubt = "" if used is None or not used.unverified else f"Not verified: {used.unverified}"
        self.facts.setToolTip(doubt)

    def _add_heading(self, title: str) -> None:
        self.box.addItem(title)
        model = self.box.model()
        item = model.item(self.box.count() - 1) if hasattr(model, "item") else None
        if item is not None:
            item.setEnabled(False)

    def _on_activated(self, index: int) -> None:
        card_id = self.box.itemData(index)
        if card_id:
            self.chosen.emit(card_id)
