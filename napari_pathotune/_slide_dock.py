"""The Slide dock: which slide, how large its pixels are, where its tissue lies.

It is the start of the work, so its empty state offers the two ways in, and once
a slide is open its button leads to the marks. What the computer uses (device,
network) stands here too, since both belong to the slide's features.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QProgressBar,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from napari_pathotune import _forms as forms
from napari_pathotune import _slide_facts as facts
from napari_pathotune._backbone_picker import BackbonePicker
from napari_pathotune._mpp_form import MppForm
from napari_pathotune._notice import Notice
from napari_pathotune._picture_choice import PictureChoice
from napari_pathotune._session import Session
from napari_pathotune._tissue_view import TissueView
from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtCore import QSize

    from napari_pathotune._bus import Activity, Failure
    from pathotune.models.cards import ModelCard
    from pathotune.slides.view import View

DEVICES = {"auto": "Automatic", "cpu": "CPU", "cpu-f32": "CPU, exact", "cuda": "CUDA"}


class SlideDock(QWidget):
    """The slide of a viewer's session."""

    def __init__(self, viewer: Viewer, session: Session | None = None) -> None:
        super().__init__()
        self.session = session or Session.of(viewer)
        self.tissue = TissueView(self.session)
        self._carded: tuple[str, bool] | None = None
        self._build()
        s = self.session
        forms.listen(
            self,
            (s.slide_changed, self._refresh),
            (s.mpp_needed, self._refresh),
            (s.mpp_changed, self._refresh),
            (s.tissue_changed, self._refresh),
            (s.model_changed, self._refresh_model),
            (s.device_changed, self._refresh),
            (s.device_known, self._refresh),
            (s.activity_changed, self._on_activity),
            (s.failed, self._on_failed),
            (s.note, self._on_note),
        )
        self._refresh()
        self._refresh_model()

    def sizeHint(self) -> QSize:
        """Return the size the dock is made for."""
        return forms.preferred_size()

    def _build(self) -> None:
        self.notice = Notice()
        self.name = forms.Elided()
        font = self.name.font()
        font.setBold(True)
        self.name.setFont(font)
        self.size_line, self.origin_line, self.stain_line = (forms.line() for _ in range(3))
        self.picture = PictureChoice(self.session)
        self.picture.chosen.connect(self._on_picture)
        self.mpp = MppForm()
        self.mpp.changed.connect(self._refresh)
        self.mpp.hide()
        self.tissue_line = forms.line()
        self.tissue_line.setToolTip("Area, and share of the slide")
        self.show_tissue = forms.small("Show", "Draw the border of the tissue", self._show_tissue)
        self.show_tissue.setCheckable(True)
        self.redo = forms.small("Redo", "Find the tissue again", self.session.find_tissue)
        tissue = QHBoxLayout()
        tissue.addWidget(self.tissue_line, 1)
        tissue.addWidget(self.show_tissue)
        tissue.addWidget(self.redo)
        self.device_line = forms.line()
        self.device = QComboBox()
        for key, text in DEVICES.items():
            self.device.addItem(text, key)
        self.device.setToolTip(
            "Where features are computed. Exact: in 32 bits, slower; otherwise in 16 where the "
            "features hardly change."
        )
        self.device.activated.connect(lambda i: self.session.set_device(self.device.itemData(i)))
        device = QHBoxLayout()
        device.addWidget(self.device_line, 1)
        device.addWidget(self.device)
        self.picker = BackbonePicker(self.session)
        self.picker.chosen.connect(self._on_card)
        self.network = forms.fold("Network that reads the slide")
        self.network.addWidget(self.picker)
        self.other = forms.button("Open another slide...", "Ctrl+O works as well", self.open_dialog)
        tip = "OME-Zarr, a folder of DICOM files, the folder beside an MRXS"
        self.folder = forms.button("Open a folder...", tip, self.open_folder)

        there = QWidget()
        column = QVBoxLayout(there)
        column.setContentsMargins(0, 0, 0, 0)
        for line in (self.name, self.size_line, self.origin_line, self.stain_line):
            column.addWidget(line)
        column.addWidget(self.picture)
        column.addWidget(self.mpp)
        column.addLayout(tissue)
        column.addLayout(device)
        column.addWidget(self.network)
        column.addWidget(self.picker.form)
        column.addStretch(1)
        both = QHBoxLayout()
        both.addWidget(self.other)
        both.addWidget(self.folder)
        column.addLayout(both)

        empty = QWidget()
        column = QVBoxLayout(empty)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(forms.heading("No slide is open."))
        column.addWidget(
            forms.line(
                "Open a slide, or try the sample. Slides can also be dropped on the canvas.\n\n"
                "Then mark a few regions of each tissue you want to tell apart; a map of the "
                "whole slide follows every stroke.\n\nNothing leaves this computer."
            )
        )
        self.sample = forms.button(
            "Try the sample", "Open the small slide that ships with PathoTune", self._open_sample
        )
        column.addWidget(self.sample)
        folder = forms.button("Open a folder...", tip, self.open_folder)
        column.addWidget(folder)
        column.addStretch(1)

        self.pages = QStackedWidget()
        self.pages.addWidget(empty)
        self.pages.addWidget(there)
        self.hint = forms.line()
        self.bar = QProgressBar()
        self.bar.hide()
        self.primary = forms.primary(self._do_next)
        forms.assemble(self, self.notice, self.pages, self.bar, self.hint, self.primary)

    # -- what the user does ----------------------------------------------------------

    def open_dialog(self) -> None:
        """Ask for a file and open it."""
        path, _ = QFileDialog.getOpenFileName(self, "Open a slide", "", facts.FILTER)
        if path:
            self.open(Path(path))

    def open(self, path: Path) -> None:
        """Open a slide; the dock says what is happening."""
        self.notice.clear()
        self.session.open(path)

    def _open_sample(self) -> None:
        self.notice.clear()
        self.session.open_sample()

    def _do_next(self) -> None:
        slide = self.session.slide
        if slide is None:
            self.open_dialog()
        elif slide.mpp is None:
            self._on_mpp(self.mpp.value)
        else:
            self.session.dock_wanted.emit("annotate")

    def _on_mpp(self, mpp: float) -> None:
        try:
            self.session.set_mpp(mpp)
        except PathotuneError as error:
            self.notice.warn(error.message, error.hint)

    def open_folder(self) -> None:
        """Ask for a folder that is a slide and open it."""
        path = QFileDialog.getExistingDirectory(self, "Open a folder: OME-Zarr, DICOM, MRXS")
        if path:
            self.open(Path(path))

    def _on_picture(self, view: View) -> None:
        slide = self.session.slide
        if slide is not None:
            slide.keep_view(view)
            self.open(slide.source)

    def _show_tissue(self) -> None:
        self.tissue.set_visible(self.show_tissue.isChecked())

    def _on_card(self, card_id: str) -> None:
        from pathotune.models.cards import cards

        card = cards()[card_id]
        self._carded = None
        self._refresh_model()  # stays on the one in use until there is a yes
        if not card.here and not card.needs_download and card.shipped:
            self.notice.warn(
                f"{card.name} lies on no hub; its owners hand the file out themselves.",
                f"Fetch it from {card.url}, then choose Use a weight file...",
            )
        elif not card.needs_download:
            self.session.set_card(card_id)
        elif facts.offline():
            self.notice.warn(
                f"{card.name} is not on this computer, and downloads are switched off.",
                "Switch offline off in Preferences, Plugins, PathoTune.",
            )
        else:
            self._offer(card)

    def _offer(self, card: ModelCard) -> None:
        gate = " Access must be asked for at its hub first." if card.gated else ""
        self.notice.offer(
            f"Download {card.name} ({card.size_mb:,.0f} MB, licence {card.licence})?{gate} "
            "Only the network is fetched; your slide stays here.",
            ("Download", lambda: self.session.set_card(card.id, allow_download=True)),
            ("Not now", None),
        )

    # -- what the session says ---------------------------------------------------------

    def _refresh(self, *_: Any) -> None:
        slide = self.session.slide
        self.pages.setCurrentIndex(0 if slide is None else 1)
        self.primary.setEnabled(True)
        if slide is None:
            self.hint.setText("")
            self.primary.setText("Open a slide...")
            self.primary.setToolTip("Whole-slide formats, TIFF, PNG, JPEG")
            return
        self.name.say(slide.name)
        self.size_line.setText(facts.size(slide))
        self.origin_line.setText(facts.origin(slide))
        stain = facts.stain(slide)
        self.picture.show_slide(slide)
        self.stain_line.setText(stain)
        self.stain_line.setVisible(bool(stain))
        needs = slide.mpp is None
        if needs and self.mpp.isHidden():
            self.mpp.show()
            self.mpp.ask(slide.mpp_problem)
        self.mpp.setVisible(needs)
        self.tissue_line.setText(facts.tissue(slide, self.session.tissue))
        has = self.session.tissue is not None
        self.show_tissue.setEnabled(has)
        self.redo.setEnabled(has)
        self.device_line.setText(f"Device: {self.session.device_name or 'not used yet'}")
        self.device.setCurrentIndex(max(0, self.device.findData(self.session.device)))
        if needs:
            ready = self.mpp.value > 0
            self.primary.setText("Use this µm/px")
            self.primary.setEnabled(ready)
            why = "Type µm/px or pick the objective; the map waits for it."
            self.hint.setText("" if ready else why)
            self.primary.setToolTip("Remembered for this slide" if ready else why)
        else:
            self.primary.setText("Mark regions")
            self.primary.setToolTip("Go to the Annotate dock")
            self.hint.setText("Next: mark what you want to tell apart.")
        self.hint.setVisible(bool(self.hint.text()))

    def _refresh_model(self, *_: Any) -> None:
        from pathotune.models.cards import cards

        now = (self.session.card_id, self.session.loop.plan is not None)
        if now != self._carded:  # the cards are files, and a stroke changes the model too
            self._carded = now
            self.picker.set_cards(cards(), self.session.card_id)

    def _on_activity(self, activity: Activity | None) -> None:
        self.bar.setVisible(activity is not None)
        if activity is None:
            return
        left = forms.time_left(activity.seconds_left)
        text = activity.what if not left else f"{activity.what}, {left}"
        forms.set_bar(self.bar, activity.done, activity.total, text)

    def _on_failed(self, failure: Failure) -> None:
        if failure.where == "slide":
            self.notice.warn(failure.message, failure.hint)

    def _on_note(self, note: Any) -> None:
        if note.level == "warning":
            self.notice.warn(note.text)
        else:
            self.notice.say(note.text)
