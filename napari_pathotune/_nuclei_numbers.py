"""Counts and densities of nuclei by region, tissue and class, with bars to compare them.

The sums are made in a lane while the section is open, and anew when names or
corrections change them. A figure without an area to divide by is left empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QRectF, Qt, QTimer
from qtpy.QtGui import QColor, QPainter
from qtpy.QtWidgets import (
    QHeaderView,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_pathotune import _forms as forms
from napari_pathotune._nuclei_colours import class_colours

if TYPE_CHECKING:
    from napari_pathotune._nuclei_desk import NucleiDesk

WAIT_MS = 600
BAR, GAP = 16, 6
Row = dict[str, Any]


class Bars(QWidget):
    """One bar a place: nuclei per mm2, in the colours of the classes."""

    def __init__(self) -> None:
        super().__init__()
        self._bars: list[tuple[str, list[tuple[float, tuple[int, int, int], str]]]] = []

    def show_bars(
        self, bars: list[tuple[str, list[tuple[float, tuple[int, int, int], str]]]]
    ) -> None:
        """Show (place, [(per mm2, colour, class), ...]), the longest over the whole width."""
        self._bars = bars
        line = self.fontMetrics().height()
        self.setFixedHeight(len(bars) * (line + BAR + GAP))
        told = [f"{p}: " + ", ".join(f"{c} {v:,.0f} per mm²" for v, _, c in b) for p, b in bars]
        self.setToolTip("\n".join(told))
        self.update()

    def paintEvent(self, _event: Any) -> None:
        """Draw the bars."""
        painter = QPainter(self)
        painter.setPen(self.palette().windowText().color())
        line = self.fontMetrics().height()
        most = max((sum(v for v, _, _ in b) for _, b in self._bars), default=0.0)
        for i, (place, parts) in enumerate(self._bars):
            top = i * (line + BAR + GAP)
            total = sum(v for v, _, _ in parts)
            painter.drawText(0, top + line - 3, f"{place}  {total:,.0f} per mm²")
            left = 0.0
            for value, colour, _name in parts:
                wide = self.width() * value / most if most else 0.0
                painter.fillRect(QRectF(left, top + line, wide, BAR), QColor(*colour))
                left += wide


class NucleiNumbers(QWidget):
    """A table and bars over a desk's nuclei."""

    def __init__(self, desk: NucleiDesk) -> None:
        super().__init__()
        self._desk = desk
        self.rows: list[Row] = []
        self.table = QTreeWidget()
        self.table.setHeaderLabels(["Where and what", "Count", "per mm²", "%"])
        self.table.setRootIsDecorated(True)
        self.table.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.table.setAccessibleName("Numbers of nuclei")
        header = self.table.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in (1, 2, 3):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.bars = Bars()
        self.said = forms.line("Counting...")
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.table)
        outer.addWidget(self.bars)
        outer.addWidget(self.said)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(WAIT_MS)
        self._soon.timeout.connect(self.count)
        s = desk.session
        forms.listen(
            self,
            (desk.replaced, self._later),
            (desk.grown, self._later),
            (desk.classes_changed, self._later),
            (s.annotations_changed, self._later),
            (s.status_changed, self._later),
        )

    def showEvent(self, event: Any) -> None:
        """Count when the section is opened."""
        super().showEvent(event)
        self.count()

    def _later(self, *_: Any) -> None:
        if self.isVisible() and not self._soon.isActive():
            self._soon.start()

    def count(self) -> None:
        """Sum anew."""
        nuclei, session = self._desk.nuclei, self._desk.session
        if nuclei is None or self._desk.state.running or not self.isVisible():
            return
        shapes: dict[str, list[Any]] = {}
        for mark in session.annotations.items:
            if not mark.area().is_empty:
                shapes.setdefault(mark.class_name or "No class", []).append(mark.area())
        ground = session.loop.classmap

        def start() -> list[Row]:
            import shapely

            from pathotune.nuclei.summaries import summarise

            regions = {f"Marked {n}": shapely.union_all(s) for n, s in shapes.items()}
            return summarise(nuclei, regions, ground)

        session.run(
            "files",
            start,
            what="Counting nuclei",
            where="nuclei",
            key="nuclei-numbers",
            replace=True,
            quiet=True,
            on_done=self._show,
        )

    def _show(self, rows: list[Row]) -> None:
        from pathotune.nuclei.summaries import ALL

        nuclei = self._desk.nuclei
        if nuclei is None:
            return
        self.rows = rows
        colours = class_colours(nuclei.classes, self._desk.own_colours)
        self.table.clear()
        bars: list[tuple[str, list[tuple[float, tuple[int, int, int], str]]]] = []
        parent: QTreeWidgetItem | None = None
        for row in rows:
            place = row["region"] if row["tissue"] == ALL else f"{row['region']}: {row['tissue']}"
            if row["class"] == ALL:
                if not row["count"] and row["tissue"] != ALL:
                    parent = None
                    continue
                parent = _item(self.table, place, row)
                bars.append((place, []))
            elif parent is not None:
                child = _item(parent, row["class"], row)
                child.setIcon(0, forms.swatch(colours[row["class"]]))
                if row["per_mm2"] is not None:
                    bars[-1][1].append((row["per_mm2"], colours[row["class"]], row["class"]))
        if self.table.topLevelItemCount():
            top = self.table.topLevelItem(0)
            if top is not None:
                top.setExpanded(True)
        shown = sum(1 + _open(self.table, i) for i in range(self.table.topLevelItemCount()))
        height = self.fontMetrics().height() + 6
        self.table.setFixedHeight(min(9, shown + 1) * height + 14)
        self.bars.show_bars([b for b in bars if b[1]][:6])
        self.said.setText("" if len(rows) > 2 else "Mark regions to compare them.")
        self.said.setVisible(bool(self.said.text()))


def _open(table: QTreeWidget, index: int) -> int:
    item = table.topLevelItem(index)
    return item.childCount() if item is not None and item.isExpanded() else 0


def _item(parent: QTreeWidget | QTreeWidgetItem, name: str, row: Row) -> QTreeWidgetItem:
    density, share = row["per_mm2"], row["fraction"]
    texts = [
        name,
        f"{row['count']:,}",
        "" if density is None else f"{density:,.0f}",
        "" if share is None else f"{100 * share:.0f}",
    ]
    item = QTreeWidgetItem(parent, texts)
    item.setToolTip(0, name)
    for column in (1, 2, 3):
        item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return item
