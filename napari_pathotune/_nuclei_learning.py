"""Learn nuclei on this slide: look at its stain and sizes, correct them, learn, use the result.

What was measured stands beside real tissue and painted pairs, so that a wrong size is seen before
minutes are spent on it. The learning runs behind everything else, gives way to what the user
does, and is taken up where it was stopped, also after the program was closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_pathotune import _forms as forms
from napari_pathotune import _nuclei_segmenters as segmenters
from napari_pathotune._nuclei_pairs import Pairs
from pathotune.events import Note, NucleiJudged, Progress

if TYPE_CHECKING:
    from pathlib import Path

    from napari_pathotune._jobs import Task
    from napari_pathotune._nuclei_desk import NucleiDesk
    from pathotune.events import Event, PathotuneError
    from pathotune.nuclei.unpaired.estimate import Estimate
    from pathotune.nuclei.unpaired.learn import Shown

KEY = "learn-nuclei"
MINUTES, LONG = 10.0, 120.0
ANY_HEIGHT = (1 << 24) - 1  # what Qt takes for no limit
ADVERSARIAL = "Also learn to paint like the slide"


@dataclass(frozen=True, eq=False)
class Looked:
    """What was measured on the slide, and pairs to look at."""

    estimate: Estimate
    pairs: Shown


class LearnNuclei(QWidget):
    """The form of a learning; `learnt` carries the file of a new segmenter."""

    learnt = Signal(str)

    def __init__(self, desk: NucleiDesk) -> None:
        super().__init__()
        self.desk, self.session = desk, desk.session
        self.looked: Looked | None = None
        self._task: Task | None = None
        self._looking: Task | None = None
        self._build()
        s = self.session
        forms.listen(
            self,
            (s.slide_changed, self._on_slide),
            (s.mpp_changed, self._on_slide),
            (s.tissue_changed, self._refresh),
            (desk.state_changed, self._refresh),
        )
        self._refresh()

    def _build(self) -> None:
        self.words = forms.line(
            "Nobody has to outline a nucleus: masks are drawn in the size and painted in the stain "
            "of your slide, and a small network learns from these pairs."
        )
        self.look = forms.button(
            "Measure stain and size", "Look at up to 16 fields of the tissue", self.start_looking
        )
        self.nucleus, self.tissue = QLabel(), QLabel()
        self.diameter = QDoubleSpinBox()
        self.diameter.setRange(3.0, 30.0)
        self.diameter.setDecimals(1)
        self.diameter.setSingleStep(0.5)
        self.diameter.setSuffix(" µm")
        self.diameter.setToolTip("Correct it if the painted nuclei are larger or smaller")
        self.density = QSpinBox()
        self.density.setRange(100, 20_000)
        self.density.setSingleStep(250)
        self.density.setSuffix(" per mm²")
        self.density.setToolTip("Correct it if the painted nuclei are too many or too few")
        for box in (self.diameter, self.density):
            box.setKeyboardTracking(False)
            box.valueChanged.connect(self._on_corrected)
        self.measured = QWidget()
        self.measured.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        grid = QGridLayout(self.measured)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(forms.line("Nuclei", wrap=False), 0, 0)
        grid.addWidget(self.nucleus, 0, 1)
        grid.addWidget(forms.line("Other tissue", wrap=False), 1, 0)
        grid.addWidget(self.tissue, 1, 1)
        grid.addWidget(forms.line("Size", wrap=False), 2, 0)
        grid.addWidget(self.diameter, 2, 1)
        grid.addWidget(forms.line("How many", wrap=False), 3, 0)
        grid.addWidget(self.density, 3, 1)
        grid.setColumnStretch(1, 1)
        self.pairs = Pairs()
        self.long = QCheckBox(ADVERSARIAL)
        self.long.setToolTip(
            "A second network learns to paint tissue from real fields. It takes up to two hours "
            "without a graphics card, and is refused if it paints nuclei where there are none."
        )
        self.long.toggled.connect(self._refresh)
        self.go = forms.button("", "", self.start)
        self.bar = QProgressBar()
        self.stop = forms.small(
            "Cancel", "Stop now; what was learnt is kept and can be gone on with", self.cancel
        )
        row = QHBoxLayout()
        row.addWidget(self.bar, 1)
        row.addWidget(self.stop)
        self.told = forms.line()
        self.told.setVisible(False)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.words, self.look, self.measured, self.pairs, self.long, self.go):
            column.addWidget(part)
        column.addLayout(row)
        column.addWidget(self.told)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(400)
        self._soon.timeout.connect(self._repaint)
        self._fits = QTimer(self)
        self._fits.setSingleShot(True)
        self._fits.setInterval(0)
        self._fits.timeout.connect(self._on_fit)

    # -- looking ------------------------------------------------------------------------

    def start_looking(self) -> None:
        """Measure stain, size and density, and paint a few pairs."""
        slide, tissue = self.session.slide, self.session.tissue
        if slide is None or tissue is None or self.desk.why_not:
            return

        def look() -> Looked:
            from pathotune.nuclei.unpaired.estimate import estimate_nuclei
            from pathotune.nuclei.unpaired.learn import preview

            found = estimate_nuclei(slide, tissue)
            return Looked(found, preview(found))

        self._looking = self._run("files", look, "Measuring the nuclei", self._on_looked)
        self._refresh()

    def _on_looked(self, looked: Looked) -> None:
        self._looking = None
        self.looked = looked
        sizes = looked.estimate.sizes
        for box, value in ((self.diameter, sizes.diameter_um), (self.density, sizes.per_mm2)):
            box.blockSignals(True)
            box.setValue(round(value, 1) if box is self.diameter else round(value))
            box.blockSignals(False)
        self._tell(" ".join(looked.estimate.notes))
        self._show_stains(looked.estimate)
        self.pairs.show_pairs(looked.pairs)
        self._refresh()

    def _show_stains(self, seen: Estimate) -> None:
        stains, dark = seen.stains, seen.look
        for label, vector, amounts in (
            (self.nucleus, stains.haematoxylin, dark.nucleus),
            (self.tissue, stains.eosin, dark.eosin),
        ):
            middle = sum(amounts) / 2
            red, green, blue = (round(255 * 10.0 ** (-middle * v)) for v in vector)
            label.setPixmap(forms.swatch((red, green, blue), 40).pixmap(40, 16))

    def _on_corrected(self, _: Any) -> None:
        self._soon.start()

    def _repaint(self) -> None:
        """Paint the pairs anew, with the user's size and density."""
        if self.looked is None or self._task is not None:
            return
        seen = self._estimate()
        self._run("files", lambda: _previewed(seen), "Painting nuclei", self.pairs.show_pairs)

    def _estimate(self) -> Estimate:
        assert self.looked is not None
        return self.looked.estimate.corrected(self.diameter.value(), float(self.density.value()))

    # -- learning -----------------------------------------------------------------------

    def place(self) -> Path | None:
        """Return the file of this slide's segmenter."""
        slide = self.session.slide
        if slide is None:
            return None
        return segmenters.learnt_folder() / f"{slide.path.stem}.safetensors"

    def start(self) -> None:
        """Learn, or go on learning."""
        slide, tissue, out = self.session.slide, self.session.tissue, self.place()
        if slide is None or tissue is None or out is None or self.looked is None:
            return
        seen, device, long = self._estimate(), self.session.device, self.long.isChecked()

        def begin() -> Any:
            from pathotune.models import runtime
            from pathotune.nuclei.unpaired.learn import learn_nuclei
            from pathotune.nuclei.unpaired.settings import Settings

            out.parent.mkdir(parents=True, exist_ok=True)
            where = runtime.split(runtime.pick_device(device))[0]
            settings = Settings.for_device(where, long, LONG if long else MINUTES)
            return learn_nuclei(slide, out, settings, tissue=tissue, estimate=seen)

        self._tell("")
        self._task = self.session.run(
            "engine",
            begin,
            what="Learning nuclei",
            where="nuclei",
            key=KEY,
            replace=True,
            background=True,
            quiet=True,
            on_event=self._on_event,
            on_done=self._on_done,
            on_error=self._on_error,
        )
        forms.set_bar(self.bar, 0, 0, "Getting ready")
        self._refresh()

    def cancel(self) -> None:
        """Stop; what was learnt so far stays on disk."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            self._tell("Stopped. What was learnt is kept; go on at any time.")
        self._refresh()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Progress):
            forms.set_bar(self.bar, event.done, event.total, event.what)
        elif isinstance(event, NucleiJudged):
            self._tell(
                f"On painted nuclei kept apart: {event.agreement:.2f} of 1. "
                "How it does on your tissue, judge by the outlines above."
            )
            self.pairs.show_pairs(event.pairs)
            self._fit()
        elif isinstance(event, Note):
            self._tell(event.text)

    def _on_done(self, told: dict[str, Any]) -> None:
        self._task = None
        text = "Learnt. It is chosen under Found by; press Find nuclei to use it."
        if told["refused"]:
            text += f" The painting network was not used: {told['refused']}."
        self._tell(text)
        self._refresh()
        self.learnt.emit(told["out"])

    def _on_error(self, error: PathotuneError) -> None:
        self._task = self._looking = None
        self._refresh()
        self.session.fail("nuclei", error)

    # -- what there is to say -----------------------------------------------------------

    def _run(self, lane: Any, start: Any, what: str, done: Any) -> Task:
        return self.session.run(
            lane,
            start,
            what=what,
            where="nuclei",
            key=f"{KEY}-look",
            replace=True,
            quiet=True,
            on_done=done,
            on_error=self._on_error,
        )

    def _on_slide(self, *_: Any) -> None:
        for task in (self._task, self._looking):
            if task is not None:
                task.cancel()
        self._task = self._looking = self.looked = None
        self.pairs.show_pairs(())
        self._tell("")
        self._refresh()

    def _refresh(self, *_: Any) -> None:
        slide = self.session.slide
        why = self.desk.why_not
        if not why and slide is not None and slide.kind != "brightfield":
            why = "This works on stained, brightfield slides."
        running, seen = self._task is not None, self.looked is not None
        self.look.setEnabled(not why and not running and self._looking is None)
        self.look.setText("Measuring..." if self._looking else "Measure stain and size")
        self.look.setToolTip(why or "Look at up to 16 fields of the tissue")
        self.measured.setVisible(seen)
        for box in (self.diameter, self.density, self.long):
            box.setEnabled(not running)
        self.long.setVisible(seen)
        self.go.setVisible(seen and not running)
        out = self.place()
        begun = out is not None and out.with_name(out.name + ".part").exists()
        time = "up to 2 hours" if self.long.isChecked() else "about 10 minutes"
        self.go.setText(f"{'Go on learning' if begun else 'Learn nuclei'} ({time})")
        self.go.setEnabled(not self.desk.state.running)
        self.go.setToolTip("In the background; you can go on working")
        self.bar.setVisible(running)
        self.stop.setVisible(running)
        self._fit()

    def _tell(self, text: str) -> None:
        self.told.setText(text)
        self.told.setVisible(bool(text))
        self._fit()

    def resizeEvent(self, event: Any) -> None:
        """Ask for room for lines that wrap."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        """Let the section around give room for what is said; its own guess cuts wrapped lines."""
        self.updateGeometry()
        self._fits.start()

    def _on_fit(self) -> None:
        above = self.parentWidget()
        while above is not None and not isinstance(above, QCollapsible):
            above = above.parentWidget()
        if above is not None and above.isExpanded():
            above.content().setMaximumHeight(ANY_HEIGHT)


def _previewed(seen: Estimate) -> Shown:
    from pathotune.nuclei.unpaired.learn import preview

    return preview(seen)
