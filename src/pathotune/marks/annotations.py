"""What was drawn on a slide, and every edit of it undoable.

An edit is a patch: for each annotation it touches, what stood before and what
stands after, and the class list before and after if that changed. Undo applies
the patch backwards, and the journal writes the same patches to disk, so there
is one mechanism for undo, redo, autosave and recovery. Geometries are shapely's
in level-0 pixels, x to the right and y down.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from pathotune.events import PathotuneError
from pathotune.marks.classes import AnnotationClass, Colour, next_colour
from pathotune.marks.patches import KINDS, Annotation, Change, Patch, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "KINDS",
    "Annotation",
    "AnnotationClass",
    "AnnotationSet",
    "Change",
    "Patch",
    "new_id",
]

_COLLECTION = ("type", "features")


def _colour(colour: Iterable[int]) -> Colour:
    """Return plain numbers, whatever a colour dialog or an array gave."""
    red, green, blue = (min(255, max(0, int(c))) for c in colour)
    return red, green, blue


class AnnotationSet:
    """An ordered set of annotations and the classes they belong to.

    Where two regions overlap, the later one counts.
    """

    def __init__(
        self,
        classes: Iterable[AnnotationClass] = (),
        items: Iterable[Annotation] = (),
        notes: Iterable[str] = (),
        members: Mapping[str, Any] | None = None,
    ) -> None:
        self._classes = tuple(classes)
        self._items = {item.id: item for item in items}
        self.revision = 0
        """Counts edits, undo and redo included."""
        self._done: list[Patch] = []
        self._undone: list[Patch] = []
        self._listeners: list[Callable[[Change], None]] = []
        self._recorders: list[Callable[[Patch], None]] = []
        self.notes = tuple(notes)
        """Sentences about what was mended while reading a file."""
        self.members = {k: v for k, v in (members or {}).items() if k not in _COLLECTION}
        """What a GeoJSON file said beside its features, written out again."""

    # -- looking ------------------------------------------------------------------

    @property
    def classes(self) -> tuple[AnnotationClass, ...]:
        """Return the classes in the user's order."""
        return self._classes

    @property
    def items(self) -> tuple[Annotation, ...]:
        """Return the annotations in the order they were drawn."""
        return tuple(self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def get(self, id_: str) -> Annotation:
        """Return one annotation; KeyError if there is none."""
        return self._items[id_]

    def counts(self) -> dict[str, int]:
        """Return the number of annotations of every class, zeros included."""
        found = {c.name: 0 for c in self._classes}
        for item in tuple(self._items.values()):
            if item.class_name in found:
                found[item.class_name] += 1
        return found

    @property
    def bounds(self) -> tuple[float, float, float, float] | None:
        """Return (x0, y0, x1, y1) of everything drawn, or None."""
        boxes = [i.geometry.bounds for i in self.items if not i.geometry.is_empty]
        if not boxes:
            return None
        x0, y0, x1, y1 = zip(*boxes, strict=True)
        return min(x0), min(y0), max(x1), max(y1)

    # -- listening ----------------------------------------------------------------

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call back after every edit; returns the function that ends it."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback) if callback in self._listeners else None

    def record(self, recorder: Callable[[Patch], None]) -> Callable[[], None]:
        """Hand every patch to a journal before anybody hears of it; returns the end of it."""
        self._recorders.append(recorder)
        return lambda: self._recorders.remove(recorder) if recorder in self._recorders else None

    # -- classes ------------------------------------------------------------------

    def add_class(self, name: str, colour: Iterable[int] | None = None) -> AnnotationClass:
        """Add a class at the end.

        Raises
        ------
        PathotuneError
            The name is empty or taken.
        """
        name = self._free_name(name)
        free = next_colour(c.colour for c in self._classes)
        new = AnnotationClass(name, free if colour is None else _colour(colour))
        self._edit(Patch("add class", classes=(self._classes, (*self._classes, new))))
        return new

    def rename_class(self, old: str, new: str) -> None:
        """Rename a class and everything marked with it, in one step."""
        self._class(old)
        if new.strip() == old:
            return
        new = self._free_name(new)
        classes = tuple(replace(c, name=new) if c.name == old else c for c in self._classes)
        self._edit(Patch("rename class", self._recast(old, new), (self._classes, classes)))

    def recolour_class(self, name: str, colour: Iterable[int]) -> None:
        """Give a class another colour."""
        self._class(name)
        new = _colour(colour)
        classes = tuple(replace(c, colour=new) if c.name == name else c for c in self._classes)
        self._edit(Patch("recolour class", classes=(self._classes, classes)))

    def delete_class(self, name: str) -> None:
        """Delete a class; what was marked with it stays, unclassified."""
        self._class(name)
        classes = tuple(c for c in self._classes if c.name != name)
        self._edit(Patch("delete class", self._recast(name, None), (self._classes, classes)))

    def _recast(
        self, old: str, new: str | None
    ) -> tuple[tuple[str, Annotation | None, Annotation | None, int], ...]:
        return tuple(
            (item.id, item, replace(item, class_name=new), at)
            for at, item in enumerate(self.items)
            if item.class_name == old
        )

    def _class(self, name: str) -> AnnotationClass:
        found = next((c for c in self._classes if c.name == name), None)
        if found is None:
            raise PathotuneError(f"There is no class {name!r}.", "Add it first.")
        return found

    def _free_name(self, name: str) -> str:
        name = name.strip()
        if not name:
            raise PathotuneError("A class needs a name.", "Type what you want to tell apart.")
        if any(c.name == name for c in self._classes):
            raise PathotuneError(f"There already is a class {name!r}.", "Choose another name.")
        return name

    # -- annotations --------------------------------------------------------------

    def add(self, *new: Annotation) -> None:
        """Add annotations.

        A class that is not in the list yet is added with them, and an id that is
        taken gives way to a fresh one.
        """
        taken = set(self._items)
        items: list[tuple[str, Annotation | None, Annotation | None, int]] = []
        for item in new:
            kept = replace(item, id=new_id()) if item.id in taken else item
            taken.add(kept.id)
            items.append((kept.id, None, kept, len(self._items) + len(items)))
        self._edit(Patch("add", tuple(items), self._with_classes_of(new)))

    def _with_classes_of(
        self, new: Iterable[Annotation]
    ) -> tuple[tuple[AnnotationClass, ...], tuple[AnnotationClass, ...]] | None:
        """Return the class list before and after annotations of other classes come in."""
        known = {c.name for c in self._classes}
        classes = list(self._classes)
        for name in dict.fromkeys(a.class_name for a in new):
            if name is not None and name not in known:
                classes.append(AnnotationClass(name, next_colour(c.colour for c in classes)))
        return None if len(classes) == len(known) else (self._classes, tuple(classes))

    def remove(self, ids: Iterable[str]) -> None:
        """Delete annotations, in one step."""
        wanted = set(ids)
        self._edit(
            Patch(
                "remove",
                tuple(
                    (item.id, item, None, at)
                    for at, item in enumerate(self.items)
                    if item.id in wanted
                ),
            )
        )

    def replace(self, *changed: Annotation) -> None:
        """Put new versions in the place of those with the same ids, in one step."""
        places = {id_: at for at, id_ in enumerate(self._items)}
        self._edit(
            Patch(
                "change",
                tuple((new.id, self._items[new.id], new, places[new.id]) for new in changed),
                self._with_classes_of(changed),
            )
        )

    def reclass(self, ids: Iterable[str], class_name: str | None) -> None:
        """Give annotations another class, in one step."""
        wanted = set(ids)
        if class_name is not None:
            self._class(class_name)
        self._edit(
            Patch(
                "reclass",
                tuple(
                    (item.id, item, replace(item, class_name=class_name), at)
                    for at, item in enumerate(self.items)
                    if item.id in wanted and item.class_name != class_name
                ),
            )
        )

    def clear(self) -> None:
        """Delete all annotations; classes stay."""
        self.remove(self._items)

    # -- undo ---------------------------------------------------------------------

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether there is an edit to make again."""
        return bool(self._undone)

    @property
    def undo_text(self) -> str:
        """Return what `undo` would take back, or an empty string."""
        return self._done[-1].kind if self._done else ""

    def undo(self) -> None:
        """Take the last edit back; nothing happens when there is none."""
        if self._done:
            patch = self._done.pop()
            self._undone.append(patch)
            self.apply(patch.inverse())

    def redo(self) -> None:
        """Make the last undone edit again."""
        if self._undone:
            patch = self._undone.pop()
            self._done.append(patch)
            self.apply(patch)

    def remember(self, edits: Iterable[Patch]) -> None:
        """Take edits that led to the present state as done, so that they can be undone.

        What takes the edit before it back was an undo, and one made again a redo.
        """
        self._done, self._undone = [], []
        for patch in edits:
            if self._done and patch.says_what(self._done[-1].inverse()):
                self._undone.append(self._done.pop())
            elif self._undone and patch.says_what(self._undone[-1]):
                self._done.append(self._undone.pop())
            else:
                self._done.append(patch)
                self._undone.clear()

    def _edit(self, patch: Patch) -> None:
        if not patch.items and patch.classes is None:
            return
        self._done.append(patch)
        self._undone.clear()
        self.apply(patch)

    def apply(self, patch: Patch) -> None:
        """Apply a patch without remembering it for undo; journals replay with this."""
        items = dict(self._items)
        inserted = []
        for id_, _, after, at in patch.items:
            if after is None:
                items.pop(id_, None)
            elif id_ in items:
                items[id_] = after
            else:
                inserted.append((at, after))
        inserted.sort(key=lambda pair: pair[0])
        if inserted and inserted[0][0] < len(items):
            rest = iter(items.values())
            items = {}
            for at, item in inserted:
                items.update((other.id, other) for other in islice(rest, at - len(items)))
                items[item.id] = item
            items.update((other.id, other) for other in rest)
        else:
            items.update((item.id, item) for _, item in inserted)
        self._items = items
        if patch.classes is not None:
            self._classes = patch.classes[1]
        self.revision += 1
        for recorder in tuple(self._recorders):
            recorder(patch)
        change = Change(patch.kind, tuple(i[0] for i in patch.items), patch.classes is not None)
        for listener in tuple(self._listeners):
            listener(change)
