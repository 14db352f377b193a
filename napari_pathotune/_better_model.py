"""The better model in the Tune dock: learn it, see how it does, compare, take it or leave it.

The fast model answers at once; a method that trains a network may do better and
takes minutes. This part of the dock starts it, shows how it goes, tells the
verdict with its numbers, and lets the eye compare both maps. Nothing switches
by itself: the map changes when "Use it" is pressed, and back with one press.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_pathotune import _forms as forms
from napari_pathotune._compare import Comparison
from napari_pathotune._curve_view import CurveView
from napari_pathotune._overlaps import OverlapRow
from napari_pathotune._preview import Preview
from napari_pathotune._settings_form import SettingsForm
from napari_pathotune._task_words import TaskWords
from napari_pathotune._tuning import Asked, Tuning

if TYPE_CHECKING:
    from napari_pathotune._session import Session

FIRST = "pathotune"  # the method that stands first in the list
MODES = (
    ("swipe", "Swipe: fast model left, better one right"),
    ("better", "The better model's map"),
    ("differences", "Only where they differ"),
)


@dataclass(frozen=True, slots=True)
class Method:
    """What the list says of a method; `reason` why it cannot tune the backbone, or None."""

    key: str
    label: str
    about: str
    configs: tuple[type[Any], ...]
    reason: str | None
    reads_words: bool


def methods(card_id: str) -> list[Method]:
    """Return the methods that train a network, for a backbone (files lane)."""
    from pathotune import plugins
    from pathotune.learn.settings import Training
    from pathotune.models.cards import card
    from pathotune.models.tuned import METHODS

    parts = card(card_id).parts
    found = []
    for key in plugins.names(METHODS):
        module = plugins.load(METHODS, key)
        if key == "linear" or not hasattr(module, "serves"):
            continue
        reason = module.serves(parts[0].timm)
        words = bool(getattr(module, "READS_WORDS", False))
        configs = (module.Config, Training)
        found.append(Method(key, module.LABEL, module.ABOUT, configs, reason, words))
    return sorted(found, key=lambda m: (m.reason is not None, m.key != FIRST, m.label))


class BetterModel(QWidget):
    """The part of the Tune dock for the second speed."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.tuning = Tuning(session)
        self.comparison = Comparison(session)
        self._methods: list[Method] = []
        self._listed_for = ""
        self._seen_state = "idle"
        self._preview = Preview(session)
        self._build()
        forms.listen(
            self,
            (self.tuning.changed, self.refresh),
            (self.tuning.previewed, self._preview.show),
            (self.comparison.changed, self.refresh),
            (session.model_changed, self.refresh),
            (session.annotations_changed, self.refresh),
            (session.annotations_replaced, self.refresh),
            (session.validation_changed, self.refresh),
            (session.slide_changed, self.refresh),
            (self.overlap.overlaps.changed, self.refresh),
        )
        self.refresh()

    def _build(self) -> None:
        self.method = QComboBox()
        self.method.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.method.currentIndexChanged.connect(self._on_method)
        self.about = forms.line()
        self.words = TaskWords()
        self.form = SettingsForm()
        self.settings = forms.fold("Settings (none need touching)")
        self.settings.addWidget(self.form)
        self.settings.collapse(animate=False)
        self.overlap = OverlapRow(self.session)
        self.curve = CurveView()
        self.state = forms.line()
        self.preview = QCheckBox("Show on the screen what it has learnt")
        self.preview.setToolTip(
            "A square in the middle of the screen, drawn now and then by the best so far, "
            "which has not seen the regions kept apart; the fast model's map is hidden meanwhile"
        )
        self.preview.toggled.connect(self._on_wants_preview)
        self.improve = forms.small("Improve with", "", self.start)
        self.stop = forms.button(
            "Stop and keep the best", "The best model so far is kept", self.tuning.stop
        )
        self.cancel = forms.button("Cancel", "Stop at once", self.tuning.cancel)
        self.use = forms.button(
            "Use it", "Draw the map with it; Back to the fast model undoes it", self._use
        )
        self.compare = forms.button("Compare", "See both maps", self._compare)
        self.forget = forms.button("Discard", "Take it off the list", self._forget)
        self.mode = QComboBox()
        self.mode.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        for key, text in MODES:
            self.mode.addItem(text, key)
        self.mode.currentIndexChanged.connect(self._on_mode)
        self.split = QSlider(Qt.Orientation.Horizontal)
        self.split.setRange(0, 100)
        self.split.setValue(50)
        self.split.setToolTip("Where the fast model's map ends and the better one's begins")
        self.split.valueChanged.connect(lambda v: self.comparison.set_split(v / 100))
        self.differing = QLabel()
        self.differing.setWordWrap(True)

        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(forms.heading("Better model"))
        rows = (self.improve, self.method), (self.stop, self.cancel)
        offers = (self.use, self.compare, self.forget)
        _add_row(column, *rows[0])
        for widget in (self.overlap, self.about, self.words, self.settings, self.curve, self.state):
            column.addWidget(widget)
        column.addWidget(self.preview)
        _add_row(column, *rows[1])
        _add_row(column, *offers)
        for widget in (self.mode, self.split, self.differing):
            column.addWidget(widget)

    # ---- what the user does ---------------------------------------------------------------

    def start(self) -> None:
        """Learn with the chosen method."""
        chosen = self._chosen()
        if chosen is not None and chosen.reason is None:
            self.comparison.end()
            words = self.words.text() if chosen.reads_words else ""
            self.tuning.start(Asked(chosen.key, self.form.values(), words))

    def _use(self) -> None:
        if self.tuning.bundle is None:
            self.tuning.recover()
        elif self.session.bundle is self.tuning.bundle:
            self.session.use_bundle(None)
        else:
            self.comparison.end()
            self.session.use_bundle(self.tuning.bundle)

    def _compare(self) -> None:
        if self.comparison.on:
            self.comparison.end()
        else:
            self.comparison.begin(self.tuning.bundle)

    def _forget(self) -> None:
        self.comparison.end()
        if self.session.bundle is not None and self.session.bundle is self.tuning.bundle:
            self.session.use_bundle(None)
        self.tuning.forget()

    def _on_method(self, _index: int) -> None:
        chosen = self._chosen()
        if chosen is not None:
            self.about.setText(chosen.reason or chosen.about)
            self.form.show_settings(*chosen.configs)
        self.refresh()

    def _on_mode(self, _index: int) -> None:
        self.comparison.set_mode(self.mode.currentData())
        self.refresh()

    def _on_wants_preview(self, on: bool) -> None:
        self.tuning.wants_preview = on
        if not on:
            self._preview.show(None)

    # ---- what happened --------------------------------------------------------------------

    def _chosen(self) -> Method | None:
        index = self.method.currentIndex()
        return self._methods[index] if 0 <= index < len(self._methods) else None

    def _list(self) -> None:
        """List the methods for the backbone in use, off the GUI thread."""
        card_id = self.session.card_id
        if card_id == self._listed_for or self.session.slide is None:
            return
        self._listed_for = card_id
        self.session.run(
            "files",
            lambda: methods(card_id),
            what="Looking for methods",
            where="tune",
            key="methods",
            replace=True,
            quiet=True,
            on_done=self._on_listed,
        )

    def _on_listed(self, found: list[Method]) -> None:
        before = self._chosen()
        self._methods = found
        self.method.blockSignals(True)
        self.method.clear()
        for place, one in enumerate(found):
            self.method.addItem(one.label)
            self.method.setItemData(place, one.reason or one.about, Qt.ItemDataRole.ToolTipRole)
            if one.reason is not None:
                self.method.setItemData(place, 0, Qt.ItemDataRole.UserRole - 1)  # greyed out
        keys = [m.key for m in found]
        if before is not None and before.key in keys:
            self.method.setCurrentIndex(keys.index(before.key))
        self.method.blockSignals(False)
        self._on_method(self.method.currentIndex())

    def refresh(self, *_: Any) -> None:
        """Show what can be done now and what came of it."""
        session, tuning = self.session, self.tuning
        self.setVisible(session.slide is not None)
        if session.slide is None:
            return
        self._list()
        chosen = self._chosen()
        busy = tuning.state in ("learning", "stopping")
        there = tuning.bundle is not None or tuning.left_behind is not None
        using = tuning.bundle is not None and session.bundle is tuning.bundle
        self.method.setEnabled(not busy)
        self.words.setVisible(chosen is not None and chosen.reads_words)
        self.words.setEnabled(not busy)
        self.words.follow(session)
        self.settings.setEnabled(not busy)
        self.curve.setVisible(bool(tuning.curve))
        self.curve.show_curve(tuning.curve)
        self.preview.setVisible(busy)
        why = self._why_not(chosen)
        self.improve.setVisible(not busy)
        self.improve.setEnabled(not why)
        self.about.setVisible(not busy)
        self.settings.setVisible(not busy)
        self.improve.setToolTip(why or "Learn from the marked regions in the background")
        self.stop.setVisible(busy)
        self.stop.setEnabled(tuning.state == "learning" and bool(tuning.curve))
        self.stop.setToolTip(
            "The best model so far is kept" if tuning.curve else "Nothing has been learnt yet"
        )
        self.cancel.setVisible(busy)
        self.use.setVisible(there and not busy)
        self.use.setText(
            "Back to the fast model" if using else "Use it" if tuning.bundle else "Take it up"
        )
        comparing = self.comparison.on
        self.compare.setVisible(there and not busy and tuning.bundle is not None and not using)
        self.compare.setText("Done" if comparing else "Compare")
        self.compare.setToolTip("End the comparison" if comparing else "See both maps")
        self.forget.setVisible(there and not busy and not using)
        self.mode.setVisible(comparing)
        self.split.setVisible(comparing and self.comparison.mode == "swipe")
        self.differing.setVisible(comparing)
        self.differing.setText(self.comparison.words)
        self.state.setText(self._state_text(why))
        if tuning.state != self._seen_state:
            self._seen_state = tuning.state
            QTimer.singleShot(0, self._reveal)

    def _reveal(self) -> None:
        """Scroll to what is going on: the buttons that stop it, or the verdict."""
        parent = self.parentWidget()
        while parent is not None and not isinstance(parent, QScrollArea):
            parent = parent.parentWidget()
        if parent is not None and self._seen_state != "idle":
            for widget in (self.state, self.stop, self.use):
                if widget.isVisible():
                    parent.ensureWidgetVisible(widget, 0, 8)

    def _why_not(self, chosen: Method | None) -> str:
        """Return why learning cannot begin now, in a sentence, or nothing."""
        session = self.session
        if chosen is not None and chosen.reason is not None:
            return chosen.reason
        if session.loop.plan is None:
            return "The slide is being looked at."
        if session.bundle is None and session.loop.head is None:
            return session.loop.missing or "Mark two classes first."
        if self.overlap.overlaps.open_question:
            return "Say first which region counts where they overlap."
        return "" if chosen is not None else "The methods are being listed."

    def _state_text(self, why: str) -> str:
        tuning = self.tuning
        if tuning.state == "stopping":
            return "Stopping; the best so far is kept."
        if tuning.state == "learning":
            what = tuning.progress.what if tuning.progress is not None else "Getting ready"
            left = forms.time_left(tuning.seconds_left)
            return f"{what}{', ' + left if left else '...'}"
        if tuning.error is not None:
            return f"{tuning.error.message} {tuning.error.hint}".strip()
        if tuning.left_behind is not None:
            return "A model that was learnt here before is kept. Take it up, or learn anew."
        if tuning.bundle is not None:
            found = tuning.verdict
            text = str(found["text"]) if found else "Stopped before it could be judged."
            return f"{text} {_size(tuning.bundle)}".strip()
        if why:
            return why
        n = sum(a.class_name is not None for a in self.session.annotations.items)
        return (
            f"Learns from your {n} regions in the background. It can be stopped at any time; "
            "the best is kept and nothing is switched."
        )


def _add_row(column: QVBoxLayout, *widgets: QWidget) -> None:
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget, int(isinstance(widget, QComboBox)))
    column.addLayout(row)


def _size(bundle: Any) -> str:
    """Return how much of the network was trained and how large the model's file is."""
    share = bundle.meta.get("tuning", {}).get("share_percent")
    if share is None:
        return ""
    size = sum(a.nbytes for a in bundle.arrays.values()) / 1e6
    return f"It trained {share:.2f} % of the network; its file takes {size:.1f} MB."
