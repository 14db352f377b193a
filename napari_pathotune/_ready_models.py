"""Choosing a model that runs without a single mark.

Each says what it was made for before it runs; on another tissue its map looks
just as sure and means nothing, so the warning stays while such a model is in
use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from napari_pathotune._forms import button, line, listen
from napari_pathotune._ready import ready_models, warning

if TYPE_CHECKING:
    from napari_pathotune._session import Session


class ReadyModels(QWidget):
    """Choose a ready-made model, or go back to one's own."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self.box = QComboBox()
        self.box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.box.setMinimumContentsLength(12)
        self.facts = line()
        self.use = button("Use", "Draw the map with this model", self._use)
        self.back = button(
            "Back to my marks", "Draw the map with the model that follows your marks", self._back
        )
        self.now = line()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.box, self.facts, self.use, self.now, self.back):
            column.addWidget(widget)
        self._models = ready_models()
        for model in self._models:
            self.box.addItem(model.name)
        self.box.currentIndexChanged.connect(self._refresh)
        listen(self, (session.model_changed, self._refresh), (session.slide_changed, self._refresh))
        self._refresh()

    def _refresh(self, *_: Any) -> None:
        index = self.box.currentIndex()
        if 0 <= index < len(self._models):
            model = self._models[index]
            self.facts.setText(f"Made for: {model.made_for}. Elsewhere its map means nothing.")
        usable = self.session.slide is not None and self.session.slide.mpp is not None
        self.use.setEnabled(usable and bool(self._models))
        self.use.setToolTip(
            "Draw the map with this model" if usable else "Open a slide with µm/px first"
        )
        text = warning(self.session.bundle)
        self.now.setText(text)
        self.now.setVisible(bool(text))
        self.back.setVisible(bool(text))

    def _use(self) -> None:
        self.session.use_ready(self._models[self.box.currentIndex()])

    def _back(self) -> None:
        self.session.use_bundle(None)
