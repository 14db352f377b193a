"""The classes of the slide: number, colour, name, how many regions; edited in place.

The number is the key that chooses the class, so it stands in front. The chosen row is
the class of the next region. The list shows the annotation set and sends every edit to
it, so that each is undone with Ctrl+Z like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHeaderView,
    QMenu,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pathotune.marks.annotations import AnnotationClass

KEY, NAME, COUNT = range(3)
ROWS_SHOWN = 6


class ClassList(QTreeWidget):
    """The list; it knows no session. Signals carry names of classes.

    Signals
    -------
    chosen(str), renamed(str, str), recoloured(str, tuple), deleted(str)
    """

    chosen = Signal(str)
    renamed = Signal(str, str)
    recoloured = Signal(str, tuple)
    deleted = Signal(str)

    def __init__(
        self,
        palette: Sequence[tuple[int, int, int]],
        parent: QWidget | None = None,
        units: tuple[str, str] = ("region", "regions"),
    ) -> None:
        super().__init__(parent)
        self._units = units
        self._okabe_ito = list(palette)
        self._shown: list[tuple[str, tuple[int, int, int], int]] = []
        self.setColumnCount(3)
        self.setHeaderHidden(True)
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setIconSize(QSize(14, 14))
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setAccessibleName("Classes")
        # A click leaves the keyboard with the slide: Delete there means a region, not a class.
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        header = self.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(KEY, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(COUNT, QHeaderView.ResizeMode.ResizeToContents)
        self.customContextMenuRequested.connect(self._open_menu)
        self.itemDoubleClicked.connect(self._on_double_click)
        self.itemChanged.connect(self._on_edited)
        self.currentItemChanged.connect(self._on_current)

    def show_classes(
        self, classes: Sequence[AnnotationClass], counts: dict[str, int], active: str | None
    ) -> None:
        """Show the classes in their order; only what changed is touched, so an edit goes on."""
        now = [(c.name, c.colour, counts.get(c.name, 0)) for c in classes]
        self.blockSignals(True)
        while self.topLevelItemCount() > len(now):
            self.takeTopLevelItem(self.topLevelItemCount() - 1)
        for row, (name, colour, n) in enumerate(now):
            item = self.topLevelItem(row)
            if item is None:
                item = QTreeWidgetItem(self)
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
            if row >= len(self._shown) or self._shown[row] != (name, colour, n):
                item.setText(KEY, str(row + 1) if row < 9 else "")
                item.setText(NAME, name)
                item.setIcon(NAME, swatch(colour))
                item.setText(COUNT, f"{n:,} {self._units[n != 1]}")
                item.setData(NAME, Qt.ItemDataRole.UserRole, name)
                item.setToolTip(KEY, f"Press {row + 1} on the slide to choose {name}")
                item.setToolTip(
                    NAME, "Double-click to rename; right-click for the colour and to delete"
                )
            if name == active:
                self.setCurrentItem(item)
        if active is None:
            self.setCurrentItem(None)
        self._shown = now
        self.blockSignals(False)
        rows = min(max(len(now), 2), ROWS_SHOWN)
        height = self.sizeHintForRow(0) if now else self.fontMetrics().height() + 8
        self.setFixedHeight(rows * height + 2 * self.frameWidth() + 2)

    def names(self) -> list[str]:
        """Return the names that are shown."""
        return [name for name, _, _ in self._shown]

    def begin_rename(self, name: str) -> None:
        """Put the cursor into the name of a class."""
        item = self._item(name)
        if item is not None:
            self.setCurrentItem(item)
            self.editItem(item, NAME)

    def _item(self, name: str) -> QTreeWidgetItem | None:
        names = self.names()
        return self.topLevelItem(names.index(name)) if name in names else None

    def _on_double_click(self, item: QTreeWidgetItem, column: int) -> None:
        if column == COUNT:
            return
        self.editItem(item, NAME)

    def _on_edited(self, item: QTreeWidgetItem, column: int) -> None:
        old = item.data(NAME, Qt.ItemDataRole.UserRole)
        new = item.text(NAME).strip()
        if column != NAME or old is None:
            return
        self.blockSignals(True)
        item.setText(NAME, old)  # the set decides; it shows the new name when it has it
        self.blockSignals(False)
        if new and new != old:
            self.renamed.emit(old, new)

    def _on_current(self, item: QTreeWidgetItem | None, _before: Any) -> None:
        if item is not None:
            self.chosen.emit(item.data(NAME, Qt.ItemDataRole.UserRole))

    def keyPressEvent(self, event: Any) -> None:
        """Delete the chosen class with Delete, rename with F2; digits go on to the slide."""
        item = self.currentItem()
        if item is not None and event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self.deleted.emit(item.data(NAME, Qt.ItemDataRole.UserRole))
        elif item is not None and event.key() == Qt.Key.Key_F2:
            self.editItem(item, NAME)
        elif event.text().isdigit():
            event.ignore()
        else:
            super().keyPressEvent(event)

    def menu_for(self, name: str) -> QMenu:
        """Return the menu of one class: rename, colours, delete."""
        menu = QMenu(self)
        menu.addAction("Rename", lambda: self.begin_rename(name))
        colours = menu.addMenu("Colour")
        for rgb in self._okabe_ito:
            action = colours.addAction(swatch(rgb), "#{:02x}{:02x}{:02x}".format(*rgb))
            action.triggered.connect(lambda _=False, c=rgb: self.recoloured.emit(name, tuple(c)))
        colours.addAction("Another colour...", lambda: self._ask_colour(name))
        menu.addAction("Delete", lambda: self.deleted.emit(name))
        return menu

    def _open_menu(self, position: Any) -> None:
        item = self.itemAt(position)
        if item is not None:
            self.menu_for(item.data(NAME, Qt.ItemDataRole.UserRole)).popup(
                self.viewport().mapToGlobal(position)
            )

    def _ask_colour(self, name: str) -> None:
        dialog = QColorDialog(self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.colorSelected.connect(
            lambda c: self.recoloured.emit(name, (c.red(), c.green(), c.blue()))
        )
        dialog.show()


def swatch(rgb: tuple[int, int, int], size: int = 14) -> QIcon:
    """Return a small square of a colour, with an edge that shows on light and dark."""
    pixmap = QPixmap(size, size)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setBrush(QColor(*rgb))
    painter.setPen(QColor(128, 128, 128))
    painter.drawRect(0, 0, size - 1, size - 1)
    painter.end()
    icon = QIcon(pixmap)
    # The style would tint the colour of the chosen row.
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon
