"""How a slide is made ready to be shown.

Opening a slide also opens its journal: marks drawn before, even by a program
that was killed, come back with it. The coarsest level is read too, which is
what the window shows first. That reads disks, so it happens in the files lane.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.marks.annotations import Annotation, AnnotationSet
    from pathotune.slides.slide import Slide


@dataclass(frozen=True, slots=True)
class Seen:
    """A slide, its coarsest level, which is drawn first, and whether its drive is slow."""

    slide: Slide
    coarsest: NDArray[np.uint8]
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """A slide ready to be shown; `recovered` regions came back from its journal."""

    slide: Slide
    annotations: AnnotationSet
    journal: Any
    recovered: int
    seen: Seen


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


def look(slide: Slide) -> Seen:
    """Read what the window shows first, and how long the drive takes (files lane)."""
    from napari_pathotune._drive import is_slow

    try:
        slow = is_slow(slide)
        return Seen(slide, np.asarray(slide.pyramid()[-1]), slow)
    except BaseException:
        slide.close()
        raise


def prepare(seen: Seen) -> Opened:
    """Attach the slide's journal and bring back what it holds (files lane)."""
    from pathotune.marks.annotations import AnnotationSet
    from pathotune.marks.journal import Journal, journal_for, replay

    slide = seen.slide
    _ = slide.kind  # judged from a thumbnail, here and not in the GUI thread
    try:
        path = journal_for(slide.fingerprint)
        marks = replay(path) if path.exists() else AnnotationSet()
        journal: Any = Journal(path)
        journal.attach(marks)
    except OSError as error:
        why = error.strerror or str(error)
        problem = PathotuneError(
            f"Your marks cannot be kept as you draw them: {why}.",
            "Save them yourself before you close, or mend the folder for the program's data.",
        )
        marks, journal = AnnotationSet(), NoJournal(problem)
    except PathotuneError as error:
        marks, journal = AnnotationSet(), NoJournal(error)
    return Opened(slide, marks, journal, len(marks.items), seen)
