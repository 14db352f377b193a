"""The Classify dock: what the map shows, what it measures, where it goes.

The map draws itself; this dock is where it is read. Areas are of what is
mapped so far, and the dock says how much of the slide that is, so that no
number is taken for more than it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QMenu,
    QProgressBar,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_pathotune import _exporting, _layers
from napari_pathotune import _forms as forms
from napari_pathotune._colour_bar import ColourBar
from napari_pathotune._legend import Legend
from napari_pathotune._notice import Notice
from napari_pathotune._ready_models import ReadyModels
from napari_pathotune._session import Session

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_pathotune._bus import Failure
    from napari_pathotune._loop import LoopStatus
    from napari_pathotune._map_view import Shown

_SUM_MS = 300  # areas are summed when the map rests


class ClassifyDock(QWidget):
    """The map of a viewer's session."""

    def __init__(self, viewer: Viewer, session: Session | None = None) -> None:
        super().__init__()
        self.session = session or Session.of(viewer)
        self._sum = QTimer(self)
        self._sum.setSingleShot(True)
        self._sum.setInterval(_SUM_MS)
        self._sum.timeout.connect(self._measure)
        self._listed: Any = None
        self._build()
        s = self.session
        forms.listen(
            self,
            (s.map_changed, self._on_map),
            (s.status_changed, self._on_status),
            (s.slide_changed, self._refresh),
            (s.mpp_changed, self._refresh),
            (s.model_changed, self._refresh),
            (s.annotations_changed, self._on_marks),
            (s.annotations_replaced, self._refresh),
            (s.view.changed, self._on_view),
            (s.failed, self._on_failed),
            (viewer.cursor.events.position, self._on_cursor),
        )
        self._refresh()

    def sizeHint(self) -> QSize:
        """Return the size the dock is made for."""
        return forms.preferred_size()

    def _build(self) -> None:
        self.notice = Notice()
        self.shown = QComboBox()
        self.shown.setToolTip("What lies over the slide (C switches it on and off)")
        self.shown.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.shown.setMinimumContentsLength(12)
        self.shown.activated.connect(self._on_shown)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(5, 100)
        self.opacity.setToolTip("How strongly the map covers the slide")
        self.opacity.valueChanged.connect(lambda v: self.session.view.set_opacity(v / 100))
        self.empty = forms.line(
            "No map yet.\n\nThe map appears as soon as two classes are marked, and follows every "
            "stroke. Or take a ready-made model below, if one was made for this tissue."
        )
        self.controls = QWidget()
        top = QGridLayout(self.controls)
        top.setContentsMargins(0, 0, 0, 0)
        top.addWidget(forms.line("Shown", wrap=False), 0, 0)
        top.addWidget(self.shown, 0, 1)
        top.addWidget(forms.line("Opacity", wrap=False), 1, 0)
        top.addWidget(self.opacity, 1, 1)
        top.setColumnStretch(1, 1)
        self.colours = ColourBar()
        self.legend = Legend()
        self.legend.hidden_changed.connect(self.session.view.set_hidden)
        self.under = forms.line()
        self.bar = QProgressBar()
        self.pause = forms.small("Pause", "", self._toggle_pause)
        progress = QHBoxLayout()
        progress.addWidget(self.bar, 1)
        progress.addWidget(self.pause)
        self.ready = ReadyModels(self.session)
        self.models = forms.fold("Ready-made models")
        self.models.addWidget(self.ready)

        middle = QWidget()
        column = QVBoxLayout(middle)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.empty)
        column.addWidget(self.controls)
        column.addWidget(self.colours)
        column.addWidget(self.legend)
        column.addWidget(self.under)
        column.addWidget(self.models)
        column.addStretch(1)
        column.addLayout(progress)
        self.hint = forms.line()
        self.menu = QMenu(self)
        for label, key in _exporting.choices():
            action = self.menu.addAction(label)
            action.triggered.connect(lambda _=False, k=key: self._export(k))
        self.primary = forms.primary(self._do_next)
        foot = forms.line("Research use only.")
        foot.setEnabled(False)
        forms.assemble(self, self.notice, middle, self.hint, self.primary, foot)

    # -- what the user does -------------------------------------------------------------

    def _on_shown(self, index: int) -> None:
        shown, class_index = self.shown.itemData(index)
        self._listed = None
        self.session.view.show(shown, class_index)

    def _toggle_pause(self) -> None:
        loop = self.session.loop
        if loop.paused:
            loop.resume()
        else:
            loop.pause()

    def _do_next(self) -> None:
        if self.session.slide is None or self.session.slide.mpp is None:
            self.session.dock_wanted.emit("slide")
        elif self.session.loop.classmap is None:
            self.session.dock_wanted.emit("annotate")
        else:
            self.menu.exec(self.primary.mapToGlobal(self.primary.rect().topLeft()))

    def _export(self, key: str) -> None:
        path = _exporting.ask(self, self.session, key)
        if path is not None:
            self.notice.clear()
            _exporting.export(self.session, key, path, self._exported)

    def _exported(self, names: list[str]) -> None:
        self.notice.say(f"Saved {' and '.join(names)}.", "Research use only.")

    # -- what the session says ------------------------------------------------------------

    def _refresh(self, *_: Any) -> None:
        self._list_classes()
        self._on_view()
        self._on_status(self.session.loop.status)
        self._measure_soon()

    def _classes(self) -> list[tuple[str, tuple[int, int, int]]]:
        classmap = self.session.loop.classmap
        if classmap is None:
            return []
        now = {c.name: c.colour for c in self.session.annotations.classes}
        pairs = zip(classmap.classes, classmap.colours, strict=True)
        return [(n, now.get(n, c)) for n, c in pairs]

    def _list_shown(self) -> None:
        view = self.session.view
        items: list[tuple[str, tuple[Shown, int]]] = [("Class map", ("classes", 0))]
        for i, (name, _) in enumerate(self._classes()):
            items.append((f"Probability of {name}", ("probability", i)))
        items += [("Uncertainty", ("uncertainty", 0)), ("Nothing", ("nothing", 0))]
        index = view.class_index if view.shown == "probability" else 0
        now = (items, view.shown, index)
        if now == self._listed:
            return
        self._listed = now
        with QSignalBlocker(self.shown):
            self.shown.clear()
            for text, data in items:
                self.shown.addItem(text, data)
            wanted = (view.shown, index)
            at = next((i for i, (_, d) in enumerate(items) if d == wanted), 0)
            self.shown.setCurrentIndex(at)

    def _list_classes(self) -> None:
        meanings = getattr(self.session.bundle, "meta", {}).get("class_meanings", {})
        self.legend.set_classes(self._classes(), self.session.view.hidden, meanings)

    def _on_view(self) -> None:
        view = self.session.view
        self._list_shown()
        with QSignalBlocker(self.opacity):
            self.opacity.setValue(round(view.opacity * 100))
        self.colours.setVisible(view.shown in ("probability", "uncertainty"))
        if view.shown == "uncertainty":
            self.colours.set_words("sure", "", "unsure")
        else:
            self.colours.set_words("0", "0.5", "1")

    def _on_map(self, box: Any) -> None:
        if box is None:
            self.under.setText("Under the cursor: no map")  # of the map that was there before
            self._refresh()
        else:
            self._measure_soon()

    def _on_marks(self, change: Any) -> None:
        if getattr(change, "classes_changed", False):
            self._list_classes()
            self._measure_soon()

    def _measure_soon(self) -> None:
        if not self._sum.isActive():  # while tiles stream in, numbers follow all the same
            self._sum.start()

    def _measure(self) -> None:
        classmap = self.session.loop.classmap
        if classmap is None:
            return
        self.session.run(
            "fast",
            lambda: _exporting.areas(classmap),
            what="Measuring areas",
            where="classify",
            key="areas",
            quiet=True,
            on_done=lambda sums: self.legend.set_areas(*sums),
        )

    def _on_status(self, status: LoopStatus) -> None:
        slide = self.session.slide
        needs_mpp = slide is not None and slide.mpp is None
        if slide is None:
            hint, verb = "Open a slide first, or try the sample.", "Go to Slide"
        elif needs_mpp:
            hint, verb = "The map waits for µm/px.", "Enter µm/px"
        elif not status.has_map:
            hint = status.missing or "The map appears as soon as two classes are marked."
            verb = "Mark regions"
        else:
            reading = "Still reading what you marked; the map is not complete yet."
            hint = status.missing or (reading if status.reading and status.computing else "")
            verb = "Export..."
        self.hint.setText(hint)
        self.hint.setVisible(bool(hint))
        self.primary.setText(verb)
        self.empty.setVisible(not status.has_map)
        self.controls.setVisible(status.has_map)
        self.under.setVisible(status.has_map)
        share = status.done / status.total if status.total else 0.0
        self.bar.setVisible(status.total > 0)
        self.pause.setVisible(status.total > 0 and status.done < status.total)
        left = forms.time_left(status.seconds_left)
        text = "Slide done" if share >= 1 else f"Slide done {share:.0%}"
        text += ", paused" if status.paused and share < 1 else f", {left}" if left else ""
        forms.set_bar(self.bar, status.done, max(1, status.total), text)
        self.pause.setText("Resume" if status.paused else "Pause")
        self.pause.setToolTip(
            "Go on reading the slide"
            if status.paused
            else "Stop reading the slide; what is mapped stays and follows your marks"
        )

    def _on_cursor(self, event: Any) -> None:
        slide, classmap = self.session.slide, self.session.loop.classmap
        found = None
        if slide is not None and classmap is not None and self.isVisible():
            found = classmap.at(*_layers.world_to_pixel(slide, event.value))
        if found is None:
            self.under.setText("Under the cursor: no map")
            return
        self.under.setText(_exporting.under_cursor(found))

    def _on_failed(self, failure: Failure) -> None:
        if failure.where == "classify":
            self.notice.warn(failure.message, failure.hint)
