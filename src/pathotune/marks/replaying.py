"""Reading journals: what a slide's edits add up to, however the last session ended.

A journal is read line by line up to the first that is torn or damaged. A second
window on the same slide wrote a journal of its own beside the first; when it is
no longer open, what was drawn there joins the rest, so that nothing stays
behind in a file that nobody looks at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pathotune.events import PathotuneError
from pathotune.marks.annotations import Annotation, AnnotationClass, AnnotationSet, Patch
from pathotune.marks.claims import free
from pathotune.marks.features import from_feature, to_feature

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 1
HEADER = "pathotune-journal"


@dataclass(frozen=True, slots=True)
class Read:
    """What reading a journal showed: `whole` if nothing in it was damaged."""

    path: Path
    size: int
    lines: int
    whole: bool
    revision: int
    joined: tuple[Path, ...] = ()


_READ: WeakKeyDictionary[AnnotationSet, Read] = WeakKeyDictionary()


def header(path: Path) -> dict[str, Any]:
    """Return the first line of a journal: the format, and whose slide's it is."""
    return {HEADER: FORMAT, "slide": path.stem.partition("~")[0]}


def line(patch: Patch, classes: tuple[AnnotationClass, ...]) -> bytes:
    """Return an edit as one line of a journal; `classes` give the colours."""
    known = {c.name: c for c in classes}
    said: dict[str, Any] = {"do": patch.kind}
    if patch.goes_on:
        said["goes_on"] = True
    changed = [(at, to_feature(after, known)) for _, _, after, at in patch.items if after]
    removed = [id_ for id_, _, after, _ in patch.items if after is None]
    if changed:
        said["put"] = changed
    if removed:
        said["drop"] = removed
    if patch.classes is not None:
        said["classes"] = [[c.name, list(c.colour)] for c in patch.classes[1]]
    return encode(said)


def encode(said: dict[str, Any]) -> bytes:
    """Return one line."""
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _patch(said: dict[str, Any], annotations: AnnotationSet) -> Patch:
    classes = None
    if "classes" in said:
        new = tuple(
            AnnotationClass(str(name), (int(rgb[0]), int(rgb[1]), int(rgb[2])))
            for name, rgb in said["classes"]
        )
        classes = (annotations.classes, new)
    known = {c.name: c for c in (classes[1] if classes else annotations.classes)}
    gone = [a.id for a in annotations.items] if said.get("drop_all") else said.get("drop", [])
    items: list[tuple[str, Annotation | None, Annotation | None, int]]
    items = [(str(id_), None, None, 0) for id_ in gone]
    for at, feature in said.get("put", []):
        item = from_feature(feature, known)[0]
        items.append((item.id, None, item, int(at)))
    return Patch(str(said.get("do", "edit")), tuple(items), classes, bool(said.get("goes_on")))


def _undoable(patch: Patch, annotations: AnnotationSet) -> Patch:
    """Return a patch with what stood before it, read from the state it is applied to."""
    removes = any(after is None for _, _, after, _ in patch.items)
    places = {a.id: at for at, a in enumerate(annotations.items)} if removes else {}
    items = []
    for id_, _, after, at in patch.items:
        try:
            before = annotations.get(id_)
        except KeyError:
            before = None
        items.append((id_, before, after, places.get(id_, at) if after is None else at))
    return Patch(patch.kind, tuple(items), patch.classes)


def _together(edits: list[Patch], patch: Patch, goes_on: bool) -> None:
    """Add an edit to the list, to the one before where it is a piece of it."""
    if goes_on and edits:
        old = edits[-1]
        edits[-1] = Patch(old.kind, old.items + patch.items, old.classes or patch.classes)
    else:
        edits.append(patch)


def _lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield whole lines, and None for the first that cannot be read."""
    with path.open("rb") as file:
        for raw in file:
            try:
                found = json.loads(raw) if raw.endswith(b"\n") else None
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                yield None
                return
            yield found


def _replay(path: Path, annotations: AnnotationSet, ever: set[str]) -> tuple[int, bool]:
    """Apply a journal; returns how many lines were read, and whether all could be."""
    edits: list[Patch] = []
    try:
        return _replayed(path, annotations, ever, edits)
    finally:
        annotations.remember(edits)


def _replayed(
    path: Path, annotations: AnnotationSet, ever: set[str], edits: list[Patch]
) -> tuple[int, bool]:
    count = 0
    for said in _lines(path):
        if said is None:
            return count, False
        if HEADER in said:
            if said[HEADER] > FORMAT:
                raise PathotuneError(
                    "The saved marks of this slide come from a newer version.",
                    "Update napari-pathotune to go on with them.",
                )
        else:
            try:
                patch = _patch(said, annotations)
            except (PathotuneError, AttributeError, KeyError, TypeError, ValueError, IndexError):
                return count, False
            ever.update(i[0] for i in patch.items)
            if patch.kind == "state":
                edits.clear()  # what led to it was left out when the file was written anew
            else:
                _together(edits, _undoable(patch, annotations), patch.goes_on)
            annotations.apply(patch)
        count += 1
    return count, True


def _join(path: Path, annotations: AnnotationSet, ever: set[str]) -> tuple[Path, ...]:
    """Add what other windows drew that this journal never held."""
    joined = []
    for other in sorted(path.parent.glob(f"{path.stem}~*.jsonl")):
        if not free(other):
            continue
        theirs = AnnotationSet()
        try:
            _replay(other, theirs, set())
        except PathotuneError:
            continue
        known = {c.name for c in annotations.classes}
        new = tuple(c for c in theirs.classes if c.name not in known)
        if new:
            both = (annotations.classes, (*annotations.classes, *new))
            annotations.apply(Patch("join", classes=both))
        items = [a for a in theirs.items if a.id not in ever]
        start = len(annotations)
        puts = tuple((a.id, None, a, start + i) for i, a in enumerate(items))
        annotations.apply(Patch("join", puts))
        ever.update(a.id for a in items)
        joined.append(other)
    return tuple(joined)


def replay(path: Path) -> AnnotationSet:
    """Return what a journal holds; a damaged tail is left out.

    What closed second windows wrote about the same slide comes with it.

    Raises
    ------
    PathotuneError
        A newer version of this program wrote it, or the disk cannot be read.
    """
    annotations = AnnotationSet()
    ever: set[str] = set()
    try:
        lines, whole, size = 0, True, 0
        if path.exists() or not list(path.parent.glob(f"{path.stem}~*.jsonl")):
            size = path.stat().st_size
            lines, whole = _replay(path, annotations, ever)
        joined = _join(path, annotations, ever)
    except OSError as error:
        raise PathotuneError(
            f"The saved marks of this slide cannot be read ({error.strerror}).",
            "Check that your home folder's disk is connected.",
        ) from error
    _READ[annotations] = Read(path, size, lines, whole, annotations.revision, joined)
    return annotations


def how_read(annotations: AnnotationSet) -> Read | None:
    """Return what `replay` learnt about a set, or None if it came from elsewhere."""
    return _READ.get(annotations)
