"""Pictures of the tools, drawn in the colour of the text so that every theme suits them.

napari's own icons stand for its modes and lack a brush; these show what each tool
leaves on the slide. They are drawn on a square of 16 units with plain Qt, at the
sharpness of the screen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPainterPath, QPen, QPixmap, QPolygonF

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 16


def _corners(*xy: tuple[float, float]) -> QPolygonF:
    return QPolygonF([QPointF(x, y) for x, y in xy])


def _brush(p: QPainter) -> None:
    p.setPen(QPen(p.pen().color(), 4.5, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
    path = QPainterPath(QPointF(3.5, 12))
    path.cubicTo(5, 3, 10, 14, 12.5, 4)
    p.drawPath(path)


def _polygon(p: QPainter) -> None:
    shape = _corners((2.5, 6), (8.5, 2.5), (13.5, 7), (10.5, 13.5), (4, 12.5))
    p.drawPolygon(shape)
    p.setBrush(p.pen().color())
    for corner in shape:
        p.drawEllipse(corner, 1.2, 1.2)


def _lasso(p: QPainter) -> None:
    path = QPainterPath(QPointF(4, 5))
    path.cubicTo(7, 0.5, 11, 5, 13.5, 4.5)
    path.cubicTo(16, 8, 11, 8.5, 12, 12)
    path.cubicTo(9, 15.5, 7.5, 11, 4.5, 12.5)
    path.cubicTo(0.5, 11, 4, 8.5, 4, 5)
    p.drawPath(path)


def _rectangle(p: QPainter) -> None:
    p.drawRect(QRectF(2.5, 4, 11, 8.5))


def _ellipse(p: QPainter) -> None:
    p.drawEllipse(QRectF(2, 3.5, 12, 9))


def _point(p: QPainter) -> None:
    p.drawEllipse(QPointF(8, 8), 4.5, 4.5)
    p.setBrush(p.pen().color())
    p.drawEllipse(QPointF(8, 8), 1.3, 1.3)


def _select(p: QPainter) -> None:
    p.setBrush(p.pen().color())
    p.drawPolygon(
        _corners((4, 2), (4, 12.5), (6.8, 10), (8.8, 14), (10.4, 13.2), (8.5, 9.4), (12, 9))
    )


def _edit(p: QPainter) -> None:
    ends = _corners((2.5, 12.5), (6, 4), (13, 9))
    p.drawPolyline(ends)
    p.setBrush(p.pen().color())
    for end in ends:
        p.drawRect(QRectF(end.x() - 1.6, end.y() - 1.6, 3.2, 3.2))


def _pan(p: QPainter) -> None:
    p.drawLine(QPointF(8, 2.5), QPointF(8, 13.5))
    p.drawLine(QPointF(2.5, 8), QPointF(13.5, 8))
    p.setBrush(p.pen().color())
    for x, y in ((0, -1), (0, 1), (-1, 0), (1, 0)):
        tip, back = QPointF(8 + 6.8 * x, 8 + 6.8 * y), QPointF(8 + 4.2 * x, 8 + 4.2 * y)
        side = QPointF(2.0 * y, 2.0 * x)
        p.drawPolygon(QPolygonF([tip, back + side, back - side]))


_DRAW: dict[str, Callable[[QPainter], None]] = {
    "brush": _brush,
    "polygon": _polygon,
    "lasso": _lasso,
    "rectangle": _rectangle,
    "ellipse": _ellipse,
    "point": _point,
    "select": _select,
    "corners": _edit,
    "pan": _pan,
}


def icon(tool: str, colour: QColor, ratio: float = 1.0) -> QIcon:
    """Return the picture of a tool, fainter where its button is switched off.

    Parameters
    ----------
    tool : str
        A key of the pen's modes.
    colour : QColor
        Of the text beside it.
    ratio : float
        Pixels of the screen a unit.
    """
    made = QIcon()
    for mode, alpha in ((QIcon.Mode.Normal, 255), (QIcon.Mode.Disabled, 90)):
        pixmap = QPixmap(round(SIDE * ratio), round(SIDE * ratio))
        pixmap.setDevicePixelRatio(ratio)
        pixmap.fill(Qt.GlobalColor.transparent)
        ink = QColor(colour)
        ink.setAlpha(alpha)
        painter = QPainter(pixmap)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(ink, 1.3, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
        _DRAW[tool](painter)
        painter.end()
        made.addPixmap(pixmap, mode)
    return made
