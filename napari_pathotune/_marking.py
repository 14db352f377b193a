"""The marks of a session: the set, its journal, and files that come and go.

The set is replaced when another slide is opened and edited in place otherwise.
Every edit is in the journal before anything else hears of it, and what cannot
be written there is told in the Annotate dock.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_pathotune._bus import Bus
from napari_pathotune._opening import added
from pathotune.events import Note

if TYPE_CHECKING:
    from collections.abc import Callable

    from pathotune.marks.annotations import AnnotationSet


class Marking(Bus):
    """The part of a session that holds the annotations."""

    def __init__(self) -> None:
        from pathotune.marks.annotations import AnnotationSet

        super().__init__()
        self.annotations: AnnotationSet = AnnotationSet()
        self.recovered = 0
        self._journal: Any = None
        self._unsubscribe: Callable[[], None] = self.annotations.subscribe(self._on_marks)

    def _follow_marks(self) -> None:
        """Let the map follow; the session does."""

    def load_annotations(self, path: str | Path) -> None:
        """Add the marks of a GeoJSON file to those that are there; undo takes them back."""
        from pathotune.marks.geojson import read_geojson

        self.run(
            "files",
            lambda: read_geojson(Path(path)),
            what="Reading annotations",
            where="annotate",
            on_done=self._add_annotations,
        )

    def _add_annotations(self, marks: AnnotationSet) -> None:
        known = {c.name for c in self.annotations.classes}
        for new in marks.classes:
            if new.name not in known:
                self.annotations.add_class(new.name, new.colour)
        items = added(self.annotations, marks)
        if items:
            self.annotations.add(*items)
        for text in marks.notes:
            self.note.emit(Note(text, "warning"))

    def save_annotations(self, path: str | Path) -> None:
        """Write the marks as GeoJSON that QuPath reads."""
        from pathotune.marks.geojson import write_geojson

        marks = self.annotations
        self.run(
            "files",
            lambda: write_geojson(Path(path), marks),
            what="Saving annotations",
            where="annotate",
            on_done=lambda _: self.note.emit(Note(f"Saved {Path(path).name}.")),
        )

    def _take_annotations(self, marks: AnnotationSet, journal: Any) -> None:
        self._unsubscribe()
        self.annotations, self._journal = marks, journal
        if journal is not None:
            journal.on_problem = lambda e: self.jobs.post(lambda: self.fail("annotate", e))
            if journal.problem is not None:
                self.fail("annotate", journal.problem)
        self._unsubscribe = marks.subscribe(self._on_marks)
        self.annotations_replaced.emit(marks)
        self._follow_marks()

    def _on_marks(self, change: Any) -> None:
        self.annotations_changed.emit(change)
        self._follow_marks()

    def _close_journal(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()
