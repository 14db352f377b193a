"""How good the model is, painted with plain Qt: a bar for each class, and what is mixed up.

A score is drawn with its interval, because from a few regions the interval is the message.
The matrix says in how many of a hundred marked places of a class which class was found;
its columns carry the numbers of the rows, so that names never have to be read sideways.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPalette, QPen
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RGB = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Score:
    """F1 of one class with its interval, each 0 to 1, from so many regions."""

    name: str
    colour: RGB
    f1: float | None
    low: float
    high: float
    regions: int


class _Painted(QWidget):
    """What both views share: they grow with their rows and explain a row on hover."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    @property
    def row_px(self) -> int:
        """Height of a row."""
        return int(self.fontMetrics().height()) + 8

    def rows(self) -> int:
        """Return how many rows there are."""
        raise AttributeError

    def sizeHint(self) -> QSize:
        """Ask for all rows."""
        return QSize(260, self.rows() * self.row_px)

    def minimumSizeHint(self) -> QSize:
        """Ask for all rows, narrow."""
        return QSize(180, self.rows() * self.row_px)

    def explain(self, x: float, y: float) -> str:
        """Return what stands at a place, in words."""
        raise AttributeError

    def mouseMoveEvent(self, event: Any) -> None:
        """Say in words what is under the mouse."""
        place = event.position() if hasattr(event, "position") else event.pos()
        text = self.explain(place.x(), place.y())
        QToolTip.showText(self.mapToGlobal(QPointF(place).toPoint()), text, self)


class ScoreBars(_Painted):
    """A row for each class: swatch, name, F1 on a scale from 0 to 1 with its interval, regions."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.scores: tuple[Score, ...] = ()

    def show_scores(self, scores: Sequence[Score]) -> None:
        """Show these scores."""
        self.scores = tuple(scores)
        self.setAccessibleDescription("; ".join(score_text(s) for s in self.scores))
        self.updateGeometry()
        self.update()

    def rows(self) -> int:
        """Return how many classes there are."""
        return len(self.scores)

    def explain(self, x: float, y: float) -> str:
        """Return the score of the class in this row, in words."""
        row = int(y // self.row_px)
        return score_text(self.scores[row]) if 0 <= row < len(self.scores) else ""

    def paintEvent(self, _event: Any) -> None:
        """Paint the rows."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        faint = QColor(text)
        faint.setAlpha(60)
        metrics, height = self.fontMetrics(), self.row_px
        number = metrics.horizontalAdvance("0.00 (0.00–0.00) ")
        widest = max((metrics.horizontalAdvance(s.name) for s in self.scores), default=0)
        name_to = int(min(widest + 24, (self.width() - number) * 0.66))
        bar_from, bar_to = name_to + 6, self.width() - number - 6
        for row, score in enumerate(self.scores):
            top = row * height
            _square(painter, QRectF(1, top + height / 2 - 6, 12, 12), score.colour)
            painter.setPen(text)
            name = metrics.elidedText(score.name, Qt.TextElideMode.ElideRight, name_to - 18)
            middle = Qt.AlignmentFlag.AlignVCenter
            painter.drawText(QRectF(18, top, name_to - 18, height), middle, name)
            value = "no score" if score.f1 is None else f"{score.f1:.2f} {_range(score)}"
            where = QRectF(self.width() - number, top, number, height)
            painter.drawText(where, middle | Qt.AlignmentFlag.AlignRight, value)
            if bar_to - bar_from < 20:
                continue
            y = top + height / 2
            painter.setPen(QPen(faint, 4))
            painter.drawLine(QPointF(bar_from, y), QPointF(bar_to, y))
            if score.f1 is None:
                continue
            at = [bar_from + v * (bar_to - bar_from) for v in (score.low, score.high, score.f1)]
            painter.setPen(QPen(text, 2))
            painter.drawLine(QPointF(at[0], y), QPointF(at[1], y))
            painter.setBrush(QColor(*score.colour))
            painter.setPen(QPen(text, 1))
            painter.drawEllipse(QPointF(at[2], y), 4, 4)
        painter.end()


class ConfusionMatrix(_Painted):
    """Rows: what was marked. Columns, by number: what was found there, in percent of the row."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.names: tuple[str, ...] = ()
        self.percent: NDArray[np.float64] = np.zeros((0, 0))

    def show_matrix(self, names: Sequence[str], counts: NDArray[Any]) -> None:
        """Show a (C, C) matrix of counts, rows marked, columns found."""
        counts = np.asarray(counts, float)
        total = counts.sum(axis=1, keepdims=True)
        self.names = tuple(names)
        self.percent = 100 * np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
        rows = range(len(self.names))
        self.setAccessibleDescription("; ".join(self._sentence(r, r) for r in rows))
        self.updateGeometry()
        self.update()

    def rows(self) -> int:
        """Return the classes and the row of numbers above them."""
        return len(self.names) + 1 if self.names else 0

    def explain(self, x: float, y: float) -> str:
        """Return the cell at a place, in words."""
        row = int(y // self.row_px) - 1
        left, cell = self._layout()
        column = int((x - left) // cell) if x >= left else row
        n = len(self.names)
        return self._sentence(row, column) if 0 <= row < n and 0 <= column < n else ""

    def _sentence(self, row: int, column: int) -> str:
        found = "" if row == column else f" for {self.names[column]}"
        verb = "found" if row == column else "taken"
        share = self.percent[row, column]
        return f"{share:.0f} % of what is marked {self.names[row]} is {verb}{found}"

    def _layout(self) -> tuple[float, float]:
        n = max(len(self.names), 1)
        widest = max(
            (self.fontMetrics().horizontalAdvance(f"{n} {x}") for x in self.names), default=0
        )
        room = max(self.width() - widest - 10, 0.55 * self.width())
        cell = min(room / n, 46.0)
        return self.width() - cell * n, cell

    def paintEvent(self, _event: Any) -> None:
        """Paint the matrix."""
        painter = QPainter(self)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        shade = self.palette().color(QPalette.ColorRole.Highlight)
        left, cell = self._layout()
        height, metrics = self.row_px, self.fontMetrics()
        middle = Qt.AlignmentFlag.AlignVCenter
        painter.setPen(text)
        for i, name in enumerate(self.names):
            head = QRectF(left + i * cell, 0, cell, height)
            painter.drawText(head, Qt.AlignmentFlag.AlignCenter, str(i + 1))
            label = metrics.elidedText(
                f"{i + 1} {name}", Qt.TextElideMode.ElideRight, int(left) - 6
            )
            painter.drawText(QRectF(0, (i + 1) * height, left - 6, height), middle, label)
            for j in range(len(self.names)):
                share = float(self.percent[i, j])
                box = QRectF(left + j * cell, (i + 1) * height, cell - 1, height - 1)
                fill = QColor(shade)
                fill.setAlpha(int(30 + 2.0 * share))
                painter.fillRect(box, fill)
                if share >= 0.5:
                    painter.drawText(box, Qt.AlignmentFlag.AlignCenter, f"{share:.0f}")
        painter.end()


def score_text(score: Score) -> str:
    """Return a class's score as a sentence."""
    regions = "1 region" if score.regions == 1 else f"{score.regions} regions"
    if score.f1 is None:
        return f"{score.name}: {regions}, too few to judge"
    return f"{score.name}: F1 {score.f1:.2f} {_range(score)}, {regions}"


def _range(score: Score) -> str:
    return f"({score.low:.2f}–{score.high:.2f})"


def _square(painter: QPainter, box: QRectF, colour: RGB) -> None:
    painter.setPen(QPen(QColor(128, 128, 128), 1))
    painter.setBrush(QColor(*colour))
    painter.drawRect(box)
