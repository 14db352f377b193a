"""A strip that says which colour is which value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtGui import QImage, QPainter
from qtpy.QtWidgets import QWidget

from napari_pathotune._layers import value_colours

if TYPE_CHECKING:
    from collections.abc import Sequence

STRIP = 12


class ColourBar(QWidget):
    """The colours of the values layer from 0 to 1, with a word at each end."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._words: Sequence[str] = ("0", "0.5", "1")
        rgba = value_colours().map(np.linspace(1 / 255, 1, 256))
        row = np.ascontiguousarray((rgba[np.newaxis] * 255).round().astype(np.uint8))
        self._image = QImage(row.data, 256, 1, 1024, QImage.Format.Format_RGBA8888).copy()
        self.setFixedHeight(STRIP + self.fontMetrics().height() + 4)

    def set_words(self, *words: str) -> None:
        """Set what stands below the strip, from left to right."""
        self._words = words
        self.setToolTip(" to ".join((words[0], words[-1])))
        self.update()

    def paintEvent(self, _event: Any) -> None:
        """Draw the strip and its words."""
        painter = QPainter(self)
        strip = self.rect()
        strip.setHeight(STRIP)
        painter.drawImage(strip, self._image)
        metrics = self.fontMetrics()
        base = STRIP + metrics.ascent() + 2
        for i, word in enumerate(self._words):
            width = metrics.horizontalAdvance(word)
            at = (self.width() - width) * i / max(1, len(self._words) - 1)
            painter.drawText(int(at), base, word)
