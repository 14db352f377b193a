"""One marked region, and one edit of what is marked.

An edit says what stood before and what stands after, so that it can be taken back,
made again, written to a journal and read from it, all in the same form.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shapely.geometry.base import BaseGeometry

    from pathotune.marks.classes import AnnotationClass

KINDS = (
    "polygon",
    "multipolygon",
    "rectangle",
    "ellipse",
    "stroke",
    "point",
    "multipoint",
    "line",
    "other",
)


def new_id() -> str:
    """Return a fresh id, as QuPath uses them."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Annotation:
    """One marked region, stroke or set of points.

    Attributes
    ----------
    id : str
        A UUID, kept through import and export.
    class_name : str or None
        None while unclassified.
    kind : str
        How it was drawn; one of `KINDS`.
    geometry : shapely geometry
        Level-0 pixels. The middle line for a stroke.
    width : float
        Diameter of a stroke, level-0 pixels; 0 for everything else.
    name : str or None
        A name given by hand.
    extra : mapping
        What a GeoJSON file said beside all this, kept word for word.
    locked : bool
        May not be edited.
    """

    id: str
    class_name: str | None
    kind: str
    geometry: BaseGeometry
    width: float = 0.0
    name: str | None = None
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    locked: bool = False

    def area(self) -> BaseGeometry:
        """Return the marked area: a stroke as wide as its pen, anything else as it is."""
        if self.kind == "stroke" and self.width > 0:
            return self.geometry.buffer(self.width / 2)
        return self.geometry


@dataclass(frozen=True, slots=True)
class Change:
    """What an edit touched: ids of annotations, and whether the class list changed."""

    kind: str
    ids: tuple[str, ...] = ()
    classes_changed: bool = False


@dataclass(frozen=True, slots=True)
class Patch:
    """One edit. `items` holds (id, before, after, place in the order).

    `goes_on` marks a piece of a large edit that belongs to the piece before it.
    """

    kind: str
    items: tuple[tuple[str, Annotation | None, Annotation | None, int], ...] = ()
    classes: tuple[tuple[AnnotationClass, ...], tuple[AnnotationClass, ...]] | None = None
    goes_on: bool = False

    def inverse(self) -> Patch:
        """Return the patch that takes this one back."""
        items = tuple((i, after, before, at) for i, before, after, at in reversed(self.items))
        classes = None if self.classes is None else (self.classes[1], self.classes[0])
        return Patch(self.kind, items, classes)

    def says_what(self, other: Patch) -> bool:
        """Whether another patch leads to the same, in whatever order it is written down."""
        mine, theirs = ({i[0]: i[2] for i in p.items} for p in (self, other))
        new = None if self.classes is None else self.classes[1]
        return mine == theirs and new == (None if other.classes is None else other.classes[1])
