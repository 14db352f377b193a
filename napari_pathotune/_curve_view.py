"""How the learning goes, in one small picture: loss on what is learnt and on what is kept apart.

Two lines are enough to see whether it still learns and whether it has begun to
learn by heart. The regions kept apart are the line that counts, so it is the
strong one, and the best pass is marked on it. A dotted line is the F1 on them, from 0 at
the bottom to 1 at the top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QPointF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pathotune.events import EpochDone

HEIGHT = 80
LEARNT, APART = QColor(230, 159, 0), QColor(86, 180, 233)  # Okabe-Ito orange and sky blue
SCORE = QColor(0, 158, 115)  # and bluish green


class CurveView(QWidget):
    """Draws the passes of a training; a repeat begins where the number of passes starts anew."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._runs: list[list[EpochDone]] = []
        self._last: EpochDone | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(HEIGHT)

    def sizeHint(self) -> QSize:
        """Return the size it is made for."""
        return QSize(260, HEIGHT)

    def show_curve(self, passes: Sequence[EpochDone]) -> None:
        """Show these passes."""
        self._runs = split_runs(passes)
        self._last = last = next((p for p in reversed(passes) if p.held_out_f1 is not None), None)
        self.setToolTip(
            "Loss on the regions that are learnt and on those kept apart; lower is better."
            + (f"\nF1 on the regions kept apart: {last.held_out_f1:.2f}" if last else "")
        )
        self.setAccessibleDescription(self.toolTip())
        self.update()

    def paintEvent(self, _event: Any) -> None:
        """Draw the two lines and their names."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        metrics = painter.fontMetrics()
        base = metrics.height() + 4
        x = 2
        names = [(APART, "loss, kept apart"), (LEARNT, "learnt")]
        if self._last is not None:
            names.append((SCORE, f"F1 {self._last.held_out_f1:.2f}"))
        for colour, word in names:
            painter.setPen(QPen(colour, 2.5))
            painter.drawLine(x, base // 2, x + 16, base // 2)
            painter.setPen(text)
            painter.drawText(x + 21, metrics.ascent() + 1, word)
            x += 21 + metrics.horizontalAdvance(word) + 10
        values = [v for run in self._runs for p in run for v in _losses(p) if v is not None]
        total = sum(len(run) for run in self._runs)
        if not values or total < 2:
            return
        low, high = min(values), max(values)
        span = (high - low) or 1.0
        height, width = self.height() - base - 6, self.width() - 8

        def at(place: int, value: float) -> QPointF:
            return QPointF(
                4 + width * place / max(1, total - 1), base + height * (high - value) / span
            )

        place = 0
        for number, run in enumerate(self._runs):
            if number:
                painter.setPen(QPen(text, 0.5, Qt.PenStyle.DotLine))
                across = at(place, high).x() - width / max(1, total - 1) / 2
                painter.drawLine(QPointF(across, base), QPointF(across, base + height))
            for index, colour, thick in ((0, LEARNT, 1.2), (1, APART, 2.4)):
                points = [
                    at(place + i, value)
                    for i, p in enumerate(run)
                    if (value := _losses(p)[index]) is not None
                ]
                painter.setPen(QPen(colour, thick))
                painter.drawPolyline(QPolygonF(points))
            scores = [
                QPointF(at(place + i, low).x(), base + height * (1 - p.held_out_f1))
                for i, p in enumerate(run)
                if p.held_out_f1 is not None
            ]
            painter.setPen(QPen(SCORE, 1.6, Qt.PenStyle.DotLine))
            painter.drawPolyline(QPolygonF(scores))
            judged = [
                (p.held_out_loss, i) for i, p in enumerate(run) if p.held_out_loss is not None
            ]
            if judged:
                best, i = min(judged)
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(APART)
                painter.drawEllipse(at(place + i, float(best)), 3.5, 3.5)
            place += len(run)


def _losses(point: EpochDone) -> tuple[float | None, float | None]:
    """Return the losses of a pass; the start has none on what is learnt."""
    train = point.train_loss
    return (train if train == train else None), point.held_out_loss  # NaN is not itself


def split_runs(passes: Sequence[EpochDone]) -> list[list[EpochDone]]:
    """Return the passes of each training: one begins where nothing has been learnt yet."""
    runs: list[list[EpochDone]] = []
    for point in passes:
        if not runs or point.train_loss != point.train_loss:
            runs.append([])
        runs[-1].append(point)
    return runs
