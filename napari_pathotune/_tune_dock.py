"""The Tune dock: how good the fast model is on this slide, and keeping it.

The fast model follows every stroke, so there is nothing to press to train it. What the
user needs to know is how far to trust it, and that is said with its worth: from regions
the model had not seen, with an interval, for this slide only; and where there are too
few regions to judge, that sentence and no number. A model can be kept and used on other
slides, where how it does is unknown until it is checked there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from napari_pathotune import _forms as forms
from napari_pathotune import _model_file
from napari_pathotune._better_model import BetterModel
from napari_pathotune._model_history import when
from napari_pathotune._model_list import ModelList
from napari_pathotune._next_step import Step, next_step
from napari_pathotune._notice import Notice
from napari_pathotune._session import Session
from napari_pathotune._verdict_view import ConfusionMatrix, Score, ScoreBars
from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtCore import QSize

    from napari_pathotune._bus import Failure

FILES = "Models (*.safetensors)"
GREY = (128, 128, 128)
LOAD_TIP = "Draw the map with a model that was saved before"


class TuneDock(QWidget):
    """The verdict on the fast model of a viewer's session, and models on disk."""

    def __init__(self, viewer: Viewer, session: Session | None = None) -> None:
        super().__init__()
        self.session = session = session or Session.of(viewer)
        self.step = Step("", "", "open")
        self._task: Any = None
        self._build()
        forms.listen(
            self,
            (session.slide_changed, self._on_slide),
            (session.mpp_changed, self._refresh),
            (session.annotations_replaced, self._refresh),
            (session.annotations_changed, self._refresh),
            (session.validation_changed, self._refresh),
            (session.status_changed, self._refresh),
            (session.model_changed, self._refresh),
            (session.device_changed, self._refresh),
            (session.device_known, self._refresh),
            (session.failed, self._on_failed),
        )
        self._refresh()

    def sizeHint(self) -> QSize:
        """Return the size the dock is made for."""
        return forms.preferred_size()

    def _build(self) -> None:
        self.notice = Notice()
        self.title, self.verdict, self.worth = _wrapped(), _wrapped(), _wrapped()
        self.verdict.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.bars = ScoreBars()
        self.matrix = ConfusionMatrix()
        self.mixed = forms.fold("Which classes are taken for which")
        self.mixed.addWidget(_wrapped("Rows: marked. Columns: found, in % of the row."))
        self.mixed.addWidget(self.matrix)
        self.mixed.collapse(animate=False)
        self.better = BetterModel(self.session)
        self.progress = QProgressBar()
        self.progress.setRange(0, 0)
        self.progress.setTextVisible(False)
        self.progress_label = QLabel()
        self.cancel = forms.button("Cancel", "Stop; nothing is changed", self._cancel)
        self.working = QWidget()
        row = QHBoxLayout(self.working)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.progress_label)
        row.addWidget(self.progress, 1)
        row.addWidget(self.cancel)
        self.working.hide()
        self.load_button = forms.button("Load a model...", LOAD_TIP, self.load)
        self.back_button = forms.button(
            "Back to the fast model",
            "Draw the map with the model that follows your marks",
            lambda: self.session.use_bundle(None),
        )
        models = QHBoxLayout()
        models.addWidget(self.load_button)
        models.addWidget(self.back_button)
        self.models = ModelList(self.session)
        self.device = _wrapped()
        self.hint = _wrapped()
        self.primary = forms.primary(self.do_next)

        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.title)
        column.addWidget(self.verdict)
        column.addWidget(self.worth)
        column.addWidget(self.bars)
        column.addWidget(self.mixed)
        column.addWidget(self.models)
        column.addWidget(self.better)
        column.addWidget(self.working)
        column.addStretch(1)
        column.addWidget(forms.heading("Models on this computer"))
        column.addLayout(models)
        column.addWidget(self.device)
        forms.assemble(self, self.notice, inner, self.hint, self.primary)

    # ---- what the user does ---------------------------------------------------------------

    def do_next(self) -> None:
        """Do what the button at the foot says."""
        if self.session.bundle is not None:
            self.session.dock_wanted.emit("classify")
        elif self._can_save() and self.step.enough:
            self.save()
        else:
            self.session.dock_wanted.emit(
                "slide" if self.step.action in {"open", "mpp"} else "annotate"
            )

    def save(self, path: str | Path | None = None) -> None:
        """Save the model in use; asks for a name when none is given."""
        if path is None:
            slide = self.session.slide
            name = (
                f"{Path(slide.name).stem}.safetensors" if slide is not None else "model.safetensors"
            )
            path, _ = QFileDialog.getSaveFileName(self, "Save model", name, FILES)
        if not path:
            return
        target = Path(path).with_suffix(".safetensors")
        try:
            bundle = _model_file.model_in_use(self.session)
        except PathotuneError as error:
            self.notice.warn(error.message, error.hint)
            return
        self._run(
            "Saving the model",
            lambda: bundle.save(target),
            lambda _: self._saved(bundle, target.name),
        )

    def _saved(self, bundle: Any, name: str) -> None:
        self.models.history.saved(bundle, name)
        self.notice.say(f"Saved {name}. On other slides, check it before you trust it.")

    def load(self, path: str | Path | None = None) -> None:
        """Load a model and draw the map with it; asks for the file when none is given."""
        if not path:
            path, _ = QFileDialog.getOpenFileName(self, "Load model", "", FILES)
        if path:
            source = Path(path)
            self._run(
                "Loading the model",
                lambda: _model_file.load(source),
                lambda bundle: self._loaded(bundle, source.name),
            )

    def _loaded(self, bundle: Any, name: str) -> None:
        self.session.use_bundle(bundle)
        self.models.history.loaded(bundle, name)
        classes = ", ".join(bundle.classes)
        self.notice.say(f"{name} draws the map now: {classes}.")

    def _run(self, what: str, start: Any, done: Any) -> None:
        self.notice.clear()
        self.progress_label.setText(what)
        self.working.show()

        def over(call: Any) -> Any:
            def finish(*args: Any) -> None:
                self._task = None
                self.working.hide()
                call(*args)

            return finish

        self._task = self.session.run(
            "files",
            start,
            what=what,
            where="tune",
            on_done=over(done),
            on_error=over(lambda e: self.notice.warn(e.message, e.hint)),
            on_cancelled=over(lambda: None),
        )

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    # ---- what happened --------------------------------------------------------------------

    def _on_slide(self, *_: Any) -> None:
        self.notice.clear()
        self._refresh()

    def _on_failed(self, failure: Failure) -> None:
        if failure.where == "tune":
            self.notice.warn(failure.message, failure.hint)

    def _can_save(self) -> bool:
        return self.session.bundle is not None or self.session.loop.head is not None

    def _refresh(self, *_: Any) -> None:
        session = self.session
        marks, bundle = session.annotations, session.bundle
        names = [c.name for c in marks.classes]
        self.step = next_step(
            has_slide=session.slide is not None,
            has_mpp=session.slide is not None and session.slide.mpp is not None,
            classes=names,
            counts=marks.counts(),
            unclassified=sum(a.class_name not in names for a in marks.items),
        )
        if bundle is not None:
            self._show_bundle(bundle, self.models.history.current)
        else:
            self._show_fast(session.loop.evaluation)
        self.back_button.setVisible(bundle is not None)
        self.device.setText(f"Device: {session.device_name or _device(session.device)}")
        self.load_button.setEnabled(session.slide is not None)
        self.load_button.setToolTip(
            LOAD_TIP if session.slide is not None else "Open a slide first."
        )
        if bundle is not None:
            self.primary.setText("Look at the map")
            self.hint.setText("Compare its map with what you see before you trust it.")
        elif self._can_save() and self.step.enough:
            self.primary.setText("Save model...")
            self.hint.setText("Save it to use it on other slides, or from the command line.")
        else:
            self.primary.setText(self.step.button)
            self.hint.setText(self.step.text)
        self.primary.setToolTip(self.hint.text())

    def _show_bundle(self, bundle: Any, kept: Any) -> None:
        entry = next((e for e in self.models.history.entries if e.path == kept), None)
        loaded = entry is None or entry.why == "loaded"
        if entry is None or loaded:
            self.title.setText("<b>Loaded model</b>: does not follow your marks")
        else:
            self.title.setText(f"<b>Your model of {when(entry.at)}</b>: does not follow your marks")
        self.verdict.setText(f"Tells apart {', '.join(bundle.classes)}.")
        if entry is None or loaded:
            self.worth.setText("How it does on this slide is unknown.")
        elif entry.score is None:
            self.worth.setText(f"It had no score. {entry.why_not}")
        else:
            self.worth.setText(
                f"F1 {entry.score:.2f} then, on regions it had not seen. Your marks are all kept."
            )
        self._show_numbers(None)

    def _show_fast(self, evaluation: Any) -> None:
        self.title.setText("<b>Fast model</b>: follows every stroke")
        session = self.session
        if session.loop.head is None:
            self.verdict.setText(session.loop.missing or "No model yet.")
            self.worth.clear()
            self._show_numbers(None)
        elif evaluation is None:
            self.verdict.setText("Judging it on regions it has not seen...")
            self.worth.clear()
        elif evaluation.macro_f1 is None:
            self.verdict.setText(f"No score yet. {evaluation.why_not}")
            self.worth.setText("The map is drawn all the same; judge it by eye.")
            self._show_numbers(None)
        else:
            self.verdict.setText(verdict_text(evaluation))
            self.worth.setText(worth_text(evaluation))
            self._show_numbers(evaluation)

    def _show_numbers(self, evaluation: Any) -> None:
        there = evaluation is not None
        self.bars.setVisible(there)
        self.mixed.setVisible(there)
        if there:
            colours = {c.name: c.colour for c in self.session.annotations.classes}
            self.bars.show_scores(
                [
                    Score(name, colours.get(name, GREY), f1, lo or 0.0, hi or 0.0, regions)
                    for name, f1, lo, hi, regions, _ in evaluation.per_class
                ]
            )
            self.matrix.show_matrix([row[0] for row in evaluation.per_class], evaluation.confusion)


def verdict_text(evaluation: Any) -> str:
    """Return the score with its interval, its regions and how far it reaches."""
    low, high = evaluation.low, evaluation.high
    span = f" ({low:.2f}–{high:.2f})" if low is not None else ""
    return (
        f"<b>F1 {evaluation.macro_f1:.2f}</b>{span}, {evaluation.n_regions} regions, "
        f"{evaluation.scope} only"
    )


def worth_text(evaluation: Any) -> str:
    """Say what the score does not say."""
    if evaluation.scope == "this slide":
        return "Judged on regions the model had not seen. How it does on another slide is unknown."
    return "Judged on regions the model had not seen."


def _wrapped(text: str = "") -> QLabel:
    label = QLabel(text)
    label.setWordWrap(True)
    return label


def _device(device: str) -> str:
    return {
        "cpu": "processor (CPU)",
        "cuda": "graphics card (CUDA)",
        "auto": "automatic",
    }.get(device, device)
