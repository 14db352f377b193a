"""The Nuclei dock: find them, see them, correct them, name them, count them.

One button leads: it finds the nuclei, the screen first. What was found is shown while
it comes in, and stopping keeps it. Everything below works on what is there already;
sections fold, so that a slide without nuclei shows little more than the button.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QMenu,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from napari_pathotune import _forms as forms
from napari_pathotune import _layers
from napari_pathotune import _nuclei_saving as saving
from napari_pathotune import _nuclei_segmenters as segmenters
from napari_pathotune._notice import Notice
from napari_pathotune._nuclei_brown import BrownNuclei
from napari_pathotune._nuclei_correct import CorrectNuclei
from napari_pathotune._nuclei_desk import NucleiDesk
from napari_pathotune._nuclei_hand import NucleiHand
from napari_pathotune._nuclei_learning import LearnNuclei
from napari_pathotune._nuclei_look import NucleiLook
from napari_pathotune._nuclei_naming import NameNuclei
from napari_pathotune._nuclei_numbers import NucleiNumbers
from napari_pathotune._nuclei_under import UnderCursor
from napari_pathotune._nuclei_view import NucleiView
from napari_pathotune._session import Session

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtCore import QSize
    from superqt import QCollapsible

    from napari_pathotune._bus import Failure
    from pathotune.slides.geometry import Region

NARROWEST = 250  # what is left of the smallest dock beside its scroll bar
WHOLE, SCREEN, MARKED = "whole", "screen", "marked"


class NucleiDock(QWidget):
    """The nuclei of a viewer's slide."""

    def __init__(self, viewer: Viewer, session: Session | None = None) -> None:
        super().__init__()
        self.session = session or Session.of(viewer)
        self.desk = NucleiDesk.of(self.session)
        self.view = NucleiView.of(self.desk)
        self._build()
        s, d = self.session, self.desk
        forms.listen(
            self,
            (s.slide_changed, self._refresh),
            (s.mpp_changed, self._refresh),
            (s.tissue_changed, self._refresh),
            (s.failed, self._on_failed),
            (d.replaced, self._refresh),
            (d.grown, self._count),
            (d.state_changed, self._refresh),
            (d.noted, self._on_noted),
        )
        self._refresh()

    def sizeHint(self) -> QSize:
        """Return the size the dock is made for."""
        return forms.preferred_size()

    def _build(self) -> None:
        self.notice = Notice()
        self.segmenter = _combo("What finds the nuclei")
        self._list_segmenters()
        self.segmenter.activated.connect(self._on_segmenter)
        self.about = forms.line()
        self.where = _combo("Where nuclei are looked for")
        self.where.addItem("Whole slide, screen first", WHOLE)
        self.where.addItem("Only what is on the screen", SCREEN)
        self.where.addItem("Around the marked regions", MARKED)
        self.where.activated.connect(lambda _: self._refresh())
        top = QGridLayout()
        top.setContentsMargins(0, 0, 0, 0)
        top.addWidget(forms.line("Found by", wrap=False), 0, 0)
        top.addWidget(self.segmenter, 0, 1)
        top.addWidget(forms.line("Where", wrap=False), 1, 0)
        top.addWidget(self.where, 1, 1)
        top.setColumnStretch(1, 1)
        self.empty = forms.line(
            "No nuclei yet.\n\nFind nuclei outlines those you look at within seconds and goes on "
            "with the rest of the slide. You can go on working, and stop it at any time: what was "
            "found is kept and opens again with the slide."
        )
        self.count = forms.heading("")
        self.count.setWordWrap(True)
        self.look = NucleiLook(self.view)
        self.under = UnderCursor(self.desk)
        self.learning = LearnNuclei(self.desk)
        self.learning.learnt.connect(self._on_learnt)
        self.learn = forms.fold("Learn nuclei on this slide")
        self.learn.addWidget(self.learning)
        self.hand = NucleiHand.of(self.view)
        self.correct = CorrectNuclei(self.hand)
        self.naming = NameNuclei(self.hand)
        self.folds: dict[str, QCollapsible] = {}
        self.brown, self.numbers = BrownNuclei(self.desk), NucleiNumbers(self.desk)
        for title, content in (
            ("Correct", self.correct),
            ("Classes of nuclei", self.naming),
            ("Positive by DAB", self.brown),
            ("Numbers", self.numbers),
        ):
            fold = self.folds[title] = forms.fold(title)
            fold.addWidget(content)

        middle = QWidget()
        middle.setMinimumWidth(NARROWEST)
        column = QVBoxLayout(middle)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(top)
        column.addWidget(self.about)
        column.addWidget(self.learn)
        column.addWidget(self.empty)
        column.addWidget(self.count)
        column.addWidget(self.look)
        column.addWidget(self.under)
        for fold in self.folds.values():
            column.addWidget(fold)
        self.menu = QMenu(self)
        for label, key in saving.choices():
            action = self.menu.addAction(label)
            action.triggered.connect(lambda _=False, k=key: self._save(k))
        self.export = forms.button("Export...", "Save the nuclei for other programs", self._export)
        column.addWidget(self.export)
        column.addStretch(1)
        self.bar = QProgressBar()
        self.stop = forms.small("Cancel", "Stop now; what was found is kept", self.desk.cancel)
        progress = QHBoxLayout()
        progress.addWidget(self.bar, 1)
        progress.addWidget(self.stop)
        column.addLayout(progress)
        self.hint = forms.line()
        self.primary = forms.primary(self._do_next)
        foot = forms.line("Research use only.")
        foot.setEnabled(False)
        forms.assemble(self, self.notice, middle, self.hint, self.primary, foot)

    # -- what the user does -------------------------------------------------------------

    def _list_segmenters(self) -> None:
        self.segmenter.clear()
        for key, label, _ in segmenters.choices():
            self.segmenter.addItem(label, key)
        self.segmenter.setCurrentIndex(max(0, self.segmenter.findData(self.desk.segmenter)))

    def _on_learnt(self, file: str) -> None:
        self.desk.segmenter = file
        self._list_segmenters()
        self._refresh()

    def _on_segmenter(self, index: int) -> None:
        self.desk.segmenter = self.segmenter.itemData(index)
        self._refresh()

    def _do_next(self) -> None:
        slide = self.session.slide
        if slide is None or slide.mpp is None:
            self.session.dock_wanted.emit("slide")
            return
        self.notice.clear()
        self.desk.start(self._region())

    def _export(self) -> None:
        self.menu.exec(self.export.mapToGlobal(self.export.rect().bottomLeft()))

    def _save(self, key: str) -> None:
        path = saving.ask(self, self.desk, key)
        if path is not None:
            self.notice.clear()
            saving.save(self.desk, key, path, self._saved)

    def _saved(self, name: str) -> None:
        self.notice.say(f"Saved {name}.", "Research use only.")

    def _region(self) -> Region | None:
        viewer, slide = self.session.viewer, self.session.slide
        where = self.where.currentData()
        if where == WHOLE or viewer is None or slide is None:
            return None
        if where == SCREEN:
            return _layers.view_region(viewer, slide)
        return marked(self.session)

    # -- what there is to say -----------------------------------------------------------

    def _refresh(self, *_: Any) -> None:
        desk, slide, state = self.desk, self.session.slide, self.desk.state
        self.about.setText(segmenters.about(desk.segmenter))
        nuclei = desk.nuclei
        why = desk.why_not
        kind = "" if slide is None else slide.kind
        can = not why
        if not why and kind != "brightfield":
            why = "Nuclei are looked for in stained, brightfield slides; this one is fluorescence."
            can = False
        if not why and self.where.currentData() == MARKED and marked(self.session) is None:
            why, can = "No region is marked yet. Mark one, or look on the whole slide.", False
        verb = "Find nuclei"
        if slide is None:
            verb, can = "Go to Slide", True
        elif slide.mpp is None:
            verb, can = "Enter µm/px", True
        elif nuclei is not None and not state.running:
            verb = (
                "Find nuclei again" if nuclei.finished and nuclei.path else "Go on finding nuclei"
            )
        if state.running:
            why, can = "", False
        self.primary.setText(verb)
        self.primary.setEnabled(can)
        self.primary.setToolTip(why or "First what you look at, then the rest in the background")
        if state.running:
            self.primary.setToolTip("Nuclei are being looked for; Cancel stops it")
        self.hint.setText(why)
        self.hint.setVisible(bool(why))
        self.segmenter.setEnabled(not state.running)
        self.where.setEnabled(not state.running)
        self.bar.setVisible(state.running)
        self.stop.setVisible(state.running)
        if state.running:
            left = forms.time_left(state.seconds_left)
            text = (
                "Looking at the stain"
                if not state.total
                else f"{state.done} of {state.total} tiles"
            )
            if state.waiting:
                text = "Waits for the map"
            forms.set_bar(self.bar, state.done, state.total, text + (f", {left}" if left else ""))
        self._count()

    def _count(self) -> None:
        nuclei, state = self.desk.nuclei, self.desk.state
        there = nuclei is not None and bool(len(nuclei))
        self.empty.setVisible(nuclei is None)
        self.look.setVisible(there)
        self.under.setVisible(there)
        for fold in self.folds.values():
            fold.setVisible(there)
        self.export.setVisible(there and not state.running)
        if nuclei is None:
            self.count.setText("")
        elif not there and not state.running:
            self.count.setText("No nuclei were found here.")
        elif there:
            self.count.setText(count_text(nuclei, state.running))
        else:
            self.count.setText("Looking for nuclei...")
        self.count.setVisible(bool(self.count.text()))

    def _on_noted(self, text: str) -> None:
        self.notice.warn(text)

    def _on_failed(self, failure: Failure) -> None:
        if failure.where == "nuclei":
            self.notice.warn(failure.message, failure.hint)


def count_text(nuclei: Any, running: bool) -> str:
    """Return "12,345 nuclei, 3,200 per mm²", with what it is worth."""
    n = len(nuclei)
    text = "1 nucleus" if n == 1 else f"{n:,} nuclei"
    if running:
        return f"{text} so far"
    area = nuclei.about.get("area_mm2")
    if not nuclei.finished or nuclei.path is None:
        return f"{text}; the run was stopped before its end"
    if area:
        text += f", {n / area:,.0f} per mm² of tissue"
    return text


def marked(session: Session) -> Region | None:
    """Return the box around all marked regions, level-0 pixels; None if there are none."""
    from pathotune.slides.geometry import Region

    slide = session.slide
    boxes = [a.area().bounds for a in session.annotations.items if not a.area().is_empty]
    if slide is None or not boxes:
        return None
    x0, y0 = min(b[0] for b in boxes), min(b[1] for b in boxes)
    x1, y1 = max(b[2] for b in boxes), max(b[3] for b in boxes)
    box = Region(int(x0), int(y0), max(1, int(x1 - x0)), max(1, int(y1 - y0)))
    return slide.bounds.intersect(box)


def _combo(tip: str) -> QComboBox:
    made = QComboBox()
    made.setToolTip(tip)
    made.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    made.setMinimumContentsLength(12)
    return made
