"""How a slide is made ready to be shown.

Opening a slide also opens its journal: marks drawn before, even by a program
that was killed, come back with it. That reads disks, so it happens in the
files lane.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from pathotune.marks.annotations import Annotation, AnnotationSet
    from pathotune.slides.slide import Slide


@dataclass(frozen=True, slots=True)
class Opened:
    """A slide ready to be shown; `recovered` regions came back from its journal."""

    slide: Slide
    annotations: AnnotationSet
    journal: Any
    recovered: int


@dataclass(slots=True)
class NoJournal:
    """Stands where no journal can be kept; the slide opens all the same."""

    problem: PathotuneError
    saved_at: Any = None
    on_problem: Any = None

    def close(self) -> None:
        """Nothing is open."""


def added(present: AnnotationSet, new: AnnotationSet) -> list[Annotation]:
    """Return the annotations of `new` that `present` lacks, under ids that are free."""
    from pathotune.marks.annotations import new_id

    there = {a.id: a for a in present.items}
    fresh = []
    for item in new.items:
        old = there.get(item.id)
        if old is None:
            fresh.append(item)
        elif not (old.class_name == item.class_name and old.geometry.equals(item.geometry)):
            fresh.append(replace(item, id=new_id()))
    return fresh


def prepare(slide: Slide) -> Opened:
    """Attach the slide's journal and bring back what it holds (files lane)."""
    from pathotune.marks.annotations import AnnotationSet
    from pathotune.marks.journal import Journal, journal_for, replay

    _ = slide.kind  # judged from a thumbnail, here and not in the GUI thread
    try:
        path = journal_for(slide.fingerprint)
        marks = replay(path) if path.exists() else AnnotationSet()
        journal = Journal(path)
        journal.attach(marks)
    except OSError as error:
        why = error.strerror or str(error)
        problem = PathotuneError(
            f"Your marks cannot be kept as you draw them: {why}.",
            "Save them yourself before you close, or mend the folder for the program's data.",
        )
        return Opened(slide, AnnotationSet(), NoJournal(problem), 0)
    except PathotuneError as error:
        return Opened(slide, AnnotationSet(), NoJournal(error), 0)
    return Opened(slide, marks, journal, len(marks.items))
