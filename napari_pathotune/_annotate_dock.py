"""The Annotate dock: classes, tools, undo, and what to mark next.

It leads from an empty slide to a map that follows the hand: at any moment one sentence
says what is missing and one button at the foot does it. Every edit is in the journal
when the pen is lifted, and the dock says so, or why not.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from napari_pathotune import _forms as forms
from napari_pathotune import _keys
from napari_pathotune._annotation_layers import AnnotationLayers
from napari_pathotune._class_list import ClassList
from napari_pathotune._model_history import ModelHistory
from napari_pathotune._next_step import Step, next_step
from napari_pathotune._notice import Notice
from napari_pathotune._overlaps import OverlapRow
from napari_pathotune._pen import Pen
from napari_pathotune._session import Session
from napari_pathotune._tool_bar import ToolBar
from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtCore import QSize
    from superqt import QCollapsible

    from napari_pathotune._bus import Failure

FILES = "Annotations (*.geojson *.geojson.gz *.json)"


class AnnotateDock(QWidget):
    """Classes, tools and marks of the session of a viewer."""

    def __init__(self, viewer: Viewer, session: Session | None = None) -> None:
        super().__init__()
        self.session = session = session or Session.of(viewer)
        self.board = AnnotationLayers.of(viewer, session)
        self.pen = Pen.of(self.board)
        ModelHistory.of(session)  # it listens from the first stroke
        self.step = Step("", "", "open")
        self._last_tool = "brush"
        self._unsaved = False
        self._sheet: _keys.KeySheet | None = None
        self._shortcuts: list[Any] = []
        self._build()
        forms.listen(
            self,
            (session.slide_changed, self._on_slide),
            (session.mpp_changed, self._refresh),
            (session.annotations_replaced, self._refresh),
            (session.annotations_changed, self._refresh),
            (session.model_changed, self._say_next),
            (session.failed, self._on_failed),
            (self.board.class_chosen, self._refresh),
            (self.board.note, self.notice.say),
            (self.pen.tool_changed, self._on_tool),
        )
        self._on_slide(session.slide)

    def sizeHint(self) -> QSize:
        """Return the size the dock is made for."""
        return forms.preferred_size()

    # ---- the widgets ----------------------------------------------------------------------

    def _build(self) -> None:
        from pathotune.marks.classes import palette

        self.notice = Notice()
        self.classes = ClassList(palette())
        self.add_button = forms.button("+", "Add a class", self.add_class)
        head = QHBoxLayout()
        head.addWidget(forms.heading("Classes"))
        head.addStretch(1)
        head.addWidget(self.add_button)
        self.tools = ToolBar(self.pen)
        self.undo_button = forms.button("Undo", "Take back the last edit (Ctrl+Z)", self.pen.undo)
        self.redo_button = forms.button("Redo", "Make it again (Ctrl+Shift+Z)", self.pen.redo)
        self.saved = QLabel()
        self.saved.setToolTip("Every edit is written to this computer's disk as you make it.")
        history = QHBoxLayout()
        history.addWidget(self.undo_button)
        history.addWidget(self.redo_button)
        history.addStretch(1)
        history.addWidget(self.saved)
        self.hint = forms.line()
        self.primary = forms.primary(self.do_next)

        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(head)
        column.addWidget(self.classes)
        column.addWidget(self.tools)
        column.addLayout(history)
        self.overlap = OverlapRow(self.session)
        column.addWidget(self.overlap)
        column.addWidget(self._more())
        column.addStretch(1)
        forms.assemble(self, self.notice, inner, self.hint, self.primary)

        self.classes.chosen.connect(self.board.choose_class)
        self.classes.renamed.connect(lambda old, new: self._try("rename_class", old, new))
        self.classes.recoloured.connect(lambda n, rgb: self._try("recolour_class", n, rgb))
        self.classes.deleted.connect(self._delete_class)

    def _more(self) -> QCollapsible:
        more = forms.fold("Files and view")
        box = QWidget()
        grid = QGridLayout(box)
        grid.setContentsMargins(0, 0, 0, 0)
        self.import_button = forms.button(
            "Import...", "Add the marks of a GeoJSON file", self._import
        )
        self.export_button = forms.button("Export...", "Save as GeoJSON for QuPath", self._export)
        self.keys_button = forms.button("Keys (?)", "Show all keys", self.show_keys)
        self.names_box = QCheckBox("Names on the slide")
        self.names_box.setToolTip("Write the class beside every region")
        self.names_box.toggled.connect(self.board.show_labels)
        grid.addWidget(self.import_button, 0, 0)
        grid.addWidget(self.export_button, 0, 1)
        grid.addWidget(self.keys_button, 0, 2)
        grid.addWidget(self.names_box, 1, 0, 1, 3)
        more.addWidget(box)
        more.collapse(animate=False)
        return more

    # ---- what the user does ---------------------------------------------------------------

    def do_next(self) -> None:
        """Do what the button at the foot says."""
        step = self.step
        if step.action in {"open", "mpp"}:
            self.session.dock_wanted.emit("slide")
        elif step.action == "follow":
            self.session.use_bundle(None)
        elif step.action == "add_class":
            self.add_class()
        elif step.action == "give_class":
            self.board.select_unclassified()
        else:
            self.board.choose_class(step.class_name)
            self.pen.take(self._last_tool)

    def add_class(self) -> None:
        """Add a class and put the cursor into its name."""
        known = set(self.board.class_names())
        name = next(n for i in range(1, 1000) if (n := f"Class {len(known) + i}") not in known)
        if self._try("add_class", name):
            self.board.choose_class(name)
            self.classes.begin_rename(name)

    def show_keys(self) -> None:
        """Show the sheet of keys, or put it away."""
        if self._sheet is None:
            self._sheet = _keys.KeySheet(self)
        self._sheet.toggle()

    def _delete_class(self, name: str) -> None:
        n = self.session.annotations.counts().get(name, 0)
        if self._try("delete_class", name) and n:
            regions = "Its region has" if n == 1 else f"Its {n} regions have"
            self.notice.offer(
                f"{name} is deleted. {regions} no class now.", ("Undo", self.pen.undo)
            )

    def _try(self, command: str, *args: Any) -> bool:
        """Edit the set; what it refuses is said in the dock."""
        try:
            getattr(self.session.annotations, command)(*args)
        except PathotuneError as error:
            self.notice.warn(error.message, error.hint)
            return False
        return True

    def _import(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Import annotations", "", FILES)
        if path:
            self.session.load_annotations(Path(path))

    def _export(self) -> None:
        slide = self.session.slide
        name = f"{Path(slide.name).stem}.geojson" if slide is not None else "regions.geojson"
        path, _ = QFileDialog.getSaveFileName(self, "Export annotations", name, FILES)
        if path:
            self.session.save_annotations(Path(path))

    # ---- what happened --------------------------------------------------------------------

    def _on_slide(self, slide: Any) -> None:
        self.notice.clear()
        n = self.session.recovered if slide is not None else 0
        if n:
            regions = "1 region" if n == 1 else f"{n:,} regions"
            self.notice.offer(
                f"{regions} you marked on this slide before are back.",
                ("Keep", None),
                ("Start afresh", self._start_afresh),
            )
        self._refresh()

    def _start_afresh(self) -> None:
        if self._try("clear"):
            self.notice.offer("All regions are gone.", ("Undo", self.pen.undo))

    def _on_failed(self, failure: Failure) -> None:
        if failure.where == "annotate":
            self.notice.warn(failure.message, failure.hint)

    def _on_tool(self, tool: str) -> None:
        if tool in {"brush", "polygon", "lasso", "rectangle", "ellipse", "point"}:
            self._last_tool = tool
        self._say_next()

    def _refresh(self, *_: Any) -> None:
        marks = self.session.annotations
        counts = marks.counts()
        self.classes.show_classes(marks.classes, counts, self.board.active_class)
        self.undo_button.setEnabled(marks.can_undo)
        self.redo_button.setEnabled(marks.can_redo)
        has_marks = bool(marks.items)
        self.export_button.setEnabled(has_marks)
        self.export_button.setToolTip(
            "Save as GeoJSON for QuPath" if has_marks else "Nothing is marked yet."
        )
        has_slide = self.session.slide is not None
        for button in (self.add_button, self.import_button):
            button.setEnabled(has_slide)
        self._say_saved()
        self._say_next()

    def _say_saved(self) -> None:
        """Say when the last edit reached the disk, or why it has not."""
        journal = self.session.journal
        problem = None if journal is None else journal.problem
        if journal is None:
            self.saved.clear()
        elif problem is not None:
            self.saved.setText("not saved")
            self.notice.warn(problem.message, problem.hint)
        elif not (self.session.annotations.items or self.session.annotations.classes):
            self.saved.setText("nothing to save yet")
        elif journal.saved_at is None:
            self.saved.setText("saved")
        else:
            at = time.localtime(journal.saved_at)
            self.saved.setText(time.strftime("saved %H:%M:%S", at))
            if self._unsaved:
                self.notice.clear()
        self._unsaved = problem is not None

    def _say_next(self) -> None:
        session, marks = self.session, self.session.annotations
        names = self.board.class_names()
        known = set(names)
        self.step = next_step(
            has_slide=session.slide is not None,
            has_mpp=session.slide is not None and session.slide.mpp is not None,
            classes=names,
            counts=marks.counts(),
            unclassified=sum(a.class_name not in known for a in marks.items),
            active=self.board.active_class,
            loaded=session.bundle is not None,
        )
        self.hint.setText(self.step.text)
        self.primary.setText(self.step.button)
        self.primary.setToolTip(self.step.text)
        ready = self.step.action in {"mark", "give_class", "follow"} or (
            self.step.action == "add_class" and bool(names)
        )
        self.tools.allow("" if ready else self.step.text)

    def showEvent(self, event: Any) -> None:
        """Bind the keys of the window, once there is one."""
        super().showEvent(event)
        if not self._shortcuts:
            self._shortcuts = _keys.bind_window(self.window(), {"show_sheet": self.show_keys})
            for shortcut in self._shortcuts:
                self.destroyed.connect(shortcut.deleteLater)
