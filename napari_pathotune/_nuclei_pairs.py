"""Small pictures beside one another: tissue with the outlines of its nuclei.

What a learning learns from, and what it reads off real tissue so far, is judged at a
glance; numbers on painted nuclei say little about real ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QImage, QPainter
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from qtpy.QtGui import QPaintEvent

LINE = (255, 224, 64)
ACROSS = 4
GAP, WORDS = 3, 16
NAMES = {"real": "your slide", "painted": "painted", "translated": "painted by the network"}


class Pairs(QWidget):
    """A grid of captioned pictures, four across."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: list[tuple[str, QImage]] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setVisible(False)

    def show_pairs(self, pairs: Sequence[tuple[str, Any, Any]]) -> None:
        """Show (what, uint8 (s, s, 3), labels (s, s)) with outlines; nothing hides the grid."""
        self._shown = [(NAMES.get(w, w), picture(p, labels)) for w, p, labels in pairs[:8]]
        told = ", ".join(dict.fromkeys(name for name, _ in self._shown))
        self.setAccessibleName(f"Tissue with outlined nuclei: {told}" if told else "")
        self.setVisible(bool(self._shown))
        self.setFixedHeight(max(1, self._height()))
        self.update()

    @property
    def names(self) -> list[str]:
        """What is shown, in order."""
        return [name for name, _ in self._shown]

    def sizeHint(self) -> QSize:
        """Return a size that fits a dock."""
        return QSize(280, self._height())

    def _side(self) -> int:
        return max(24, (max(240, self.width()) - (ACROSS - 1) * GAP) // ACROSS)

    def _height(self) -> int:
        rows = -(-len(self._shown) // ACROSS)
        return rows * (self._side() + WORDS + GAP)

    def resizeEvent(self, event: Any) -> None:
        """Keep pictures square."""
        if self._shown and self.height() != self._height():
            self.setFixedHeight(self._height())
        super().resizeEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the pictures and their names."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.setPen(self.palette().windowText().color())
        font = painter.font()
        font.setPointSizeF(max(6.0, font.pointSizeF() - 2))
        painter.setFont(font)
        side = self._side()
        for i, (name, image) in enumerate(self._shown):
            x = (i % ACROSS) * (side + GAP)
            y = (i // ACROSS) * (side + WORDS + GAP)
            painter.drawImage(QRect(x, y, side, side), image)
            words = painter.fontMetrics().elidedText(name, Qt.TextElideMode.ElideRight, side)
            painter.drawText(x, y + side + WORDS - 4, words)
        painter.end()


def picture(pixels: NDArray[Any], labels: NDArray[Any]) -> QImage:
    """Return a picture with the outlines of labels drawn in."""
    drawn = np.ascontiguousarray(pixels, np.uint8).copy()
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    drawn[edge] = LINE
    h, w = labels.shape
    return QImage(drawn.tobytes(), w, h, 3 * w, QImage.Format.Format_RGB888).copy()
