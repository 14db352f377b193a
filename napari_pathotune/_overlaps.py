"""Regions of different classes on the same tissue: found as they are drawn, and asked about.

Only who drew them knows which was meant, so until there is an answer the shared tissue
teaches neither class and no better model is learnt. The answer is kept for the slide and
can be changed as long as regions overlap.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import Signal
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QVBoxLayout, QWidget

from napari_pathotune import _forms as forms

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_pathotune._session import Session

WORDS = (
    ("leave-out", "Neither: it teaches nothing"),
    ("smaller", "The smaller region"),
    ("last", "The region drawn later"),
    ("first", "The region drawn first"),
)
ASK = "Which counts there?"
_REST_MS = 300  # it is looked for when the hand rests
_MARGIN = 4.0  # how much more than the overlap is shown


class Overlaps:
    """The overlapping regions of a session; get it with `Overlaps.of(session)`.

    Attributes
    ----------
    found : list of Overlap
    answer : str or None
        What counts there; None until it is said.

    Signals
    -------
    changed()
    """

    changed = Signal()
    _all: ClassVar[weakref.WeakKeyDictionary[Any, Overlaps]] = weakref.WeakKeyDictionary()

    def __init__(self, session: Session) -> None:
        self._session = weakref.ref(session)
        self.found: list[Any] = []
        self.answer: str | None = None
        self._areas: dict[str, tuple[Any, Any]] = {}
        self._shown = -1
        self._rest = QTimer()
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)
        self._rest.timeout.connect(self._look)
        session.annotations_changed.connect(self._on_marks)
        session.annotations_replaced.connect(self._on_marks)
        session.slide_changed.connect(self._on_slide)
        session.closed.connect(self._on_closed)
        self._on_slide(session.slide)

    @classmethod
    def of(cls, session: Session) -> Overlaps:
        """Return the overlaps of a session, looked for from the first use on."""
        made = cls._all.get(session)
        if made is None:
            made = cls._all[session] = cls(session)
        return made

    @property
    def open_question(self) -> bool:
        """Whether regions overlap and nobody has said what counts."""
        return bool(self.found) and self.answer is None

    def choose(self, answer: str | None) -> None:
        """Say what counts; the map follows, and the answer is kept for the slide."""
        from pathotune.marks.overlaps import check_answer, remember

        check_answer(answer)
        session = self._session()
        if session is None or answer == self.answer:
            return
        self.answer = answer
        if session.slide is not None:
            remember(session.slide.fingerprint, answer)
        self.changed.emit()
        session.loop.marks_changed()

    def show_next(self) -> None:
        """Bring the next overlap to the middle of the screen."""
        session = self._session()
        viewer = None if session is None else session.viewer
        slide = None if session is None else session.slide
        if viewer is None or slide is None or not self.found:
            return
        self._shown = (self._shown + 1) % len(self.found)
        left, top, right, bottom = self.found[self._shown].where.bounds
        scale_y, scale_x = slide.mpp_y or 1.0, slide.mpp_x or 1.0
        side = max((right - left) * scale_x, (bottom - top) * scale_y, 32 * scale_x)
        camera = viewer.scene.camera
        camera.center = ((top + bottom) / 2 * scale_y, (left + right) / 2 * scale_x)
        camera.zoom = min(viewer.canvas.size) / (_MARGIN * side)

    def _on_slide(self, slide: Any) -> None:
        from pathotune.marks.overlaps import remembered

        self.answer = None if slide is None else remembered(slide.fingerprint)
        self._areas.clear()
        self._on_marks()

    def _on_marks(self, *_: Any) -> None:
        self._rest.start()

    def _on_closed(self) -> None:
        self._rest.stop()

    def _area(self, region: Any) -> Any:
        known = self._areas.get(region.id)
        if known is None or known[0] is not region:
            known = self._areas[region.id] = (region, region.area())
        return known[1]

    def _look(self) -> None:
        session = self._session()
        if session is None:
            return
        marks = session.annotations.items

        def start() -> list[Any]:
            from pathotune.marks.overlaps import overlaps

            return overlaps(marks, self._area)

        session.run(
            "fast",
            start,
            what="Looking for overlaps",
            where="annotate",
            key="overlaps",
            replace=True,
            quiet=True,
            on_done=self._on_found,
        )

    def _on_found(self, found: list[Any]) -> None:
        if found or self.found:
            self.found, self._shown = found, -1
            self.changed.emit()


class OverlapRow(QWidget):
    """The question in a dock: what overlaps, what shall count, and a look at it."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.overlaps = Overlaps.of(session)
        self.told = forms.line()
        self.answer = QComboBox()
        self.answer.addItem(ASK, None)
        for key, text in WORDS:
            self.answer.addItem(text, key)
        self.answer.activated.connect(self._on_answer)
        self.look = forms.button(
            "Show me", "Bring the next overlap to the middle of the screen", self._next
        )
        row = QHBoxLayout()
        row.addWidget(self.answer, 1)
        row.addWidget(self.look)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.told)
        column.addLayout(row)
        forms.listen(self, (self.overlaps.changed, self.refresh))
        self.refresh()

    @property
    def _next(self) -> Callable[[], None]:
        return self.overlaps.show_next

    def _on_answer(self, _index: int) -> None:
        self.overlaps.choose(self.answer.currentData())

    def refresh(self, *_: Any) -> None:
        """Show the question while there is something to ask about."""
        overlaps = self.overlaps
        self.setVisible(bool(overlaps.found))
        self.answer.setCurrentIndex(self.answer.findData(overlaps.answer))
        self.told.setText(words(overlaps.found, overlaps.answer is None))


def words(found: list[Any], asked: bool) -> str:
    """Return what overlaps, in a sentence."""
    if not found:
        return ""
    pairs = sorted({" and ".join(sorted((o.first.class_name, o.second.class_name))) for o in found})
    which = pairs[0] if len(pairs) == 1 else f"{pairs[0]}, and other classes,"
    times = "" if len(found) == 1 else f" in {len(found)} places"
    text = f"{which} overlap{times}: tissue marked as two things."
    return f"{text} Until you say which counts, it teaches neither." if asked else text
