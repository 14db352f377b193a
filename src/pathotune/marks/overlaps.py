"""Regions of different classes that overlap: found, so that somebody can be asked.

Tissue under two regions is marked as two things, and which was meant is known only to
who drew them: the inner one of two nested regions, the later one of a correction, or
neither. Nothing here guesses; a seam a few pixels wide, which neighbouring outlines
always have, is not an overlap. The answer is kept for the slide on this computer.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from pathotune import places
from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from shapely.geometry.base import BaseGeometry

    from pathotune.marks.patches import Annotation

ANSWERS = ("leave-out", "smaller", "last", "first")  # what counts where regions overlap
SEAM_PX = 3.0  # half of the width, in level-0 pixels, that an overlap must have to be one
_NAMED = 5  # pairs that a message names


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two regions of different classes on the same tissue; `where` is what they share."""

    first: Annotation
    second: Annotation
    where: BaseGeometry


def overlaps(
    annotations: Sequence[Annotation],
    area: Callable[[Annotation], BaseGeometry] | None = None,
) -> list[Overlap]:
    """Return the pairs of regions of different classes that share tissue.

    Parameters
    ----------
    annotations : sequence of Annotation
        In the order drawn; those without a class are passed over.
    area : callable, optional
        Returns a region's area, where that is known already.

    Returns
    -------
    list of Overlap
        The earlier region first. What lies mostly inside a region of another class counts
        however small it is, and so does a shared part wider than twice `SEAM_PX`.
    """
    used = [a for a in annotations if a.class_name is not None]
    areas = np.array([(area or type(a).area)(a) for a in used], object)
    if len(used) < 2:
        return []
    i, j = shapely.STRtree(areas).query(areas, predicate="intersects")
    kinds = np.array([a.class_name for a in used], object)
    pairs = np.stack([i, j], 1)[(i < j) & (kinds[i] != kinds[j])]
    found = []
    for a, b in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
        shared = _shared(areas[a], areas[b])
        if not shared.is_empty:
            found.append(Overlap(used[a], used[b], shared))
    return found


def _shared(one: BaseGeometry, other: BaseGeometry) -> BaseGeometry:
    """Return what two areas share, or nothing where that is a seam between neighbours."""
    one, other = (g if g.is_valid else shapely.make_valid(g) for g in (one, other))
    shared = one.intersection(other)
    if 2 * shared.area >= min(one.area, other.area):
        return shared
    return shared if not shared.buffer(-SEAM_PX).is_empty else shapely.Point()


def needs_answer(found: Sequence[Overlap], slide: str = "") -> PathotuneError:
    """Return the question, as an error, for where nobody can be asked in the middle."""
    lines = [f"{_told(o.first)} and {_told(o.second)}" for o in found[:_NAMED]]
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    on = f" on {slide}" if slide else ""
    return PathotuneError(
        f"Regions of different classes overlap{on}, so the tissue there is marked as two things: "
        f"{'; '.join(lines)}{more}.",
        "Mend the marks, or say what counts there (overlap): leave-out (neither), smaller (the "
        "inner region), last (the later one) or first.",
    )


def _told(region: Annotation) -> str:
    x, y = region.geometry.centroid.coords[0]
    name = f" {region.name!r}" if region.name else ""
    return f"{region.class_name}{name} at x={x:.0f}, y={y:.0f}"


def check_answer(answer: str | None) -> None:
    """Raise unless this is one of `ANSWERS` or None.

    Raises
    ------
    PathotuneError
        It is something else.
    """
    if answer is not None and answer not in ANSWERS:
        raise PathotuneError(
            f"{answer!r} does not say what counts where regions overlap.",
            f"Choose one of: {', '.join(ANSWERS)}.",
        )


def _file() -> Path:
    return places.data_dir() / "overlaps.json"


def _answers() -> dict[str, str]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(k): str(v) for k, v in found.items() if v in ANSWERS}


def remembered(slide: str) -> str | None:
    """Return what was answered for a slide (its fingerprint), if anything was."""
    return _answers().get(slide)


def remember(slide: str, answer: str | None) -> None:
    """Keep an answer, or forget it (None); a full disk costs only the remembering."""
    answers = {k: v for k, v in _answers().items() if k != slide}
    if answer is not None:
        answers[slide] = answer
    with contextlib.suppress(OSError):
        new = _file().with_suffix(".tmp")
        new.write_text(json.dumps(answers), encoding="utf-8")
        new.replace(_file())
