"""What a person corrected on nuclei, kept beside the store and laid over it.

Every edit is one line of JSON, handed to the system as it is made, so that a
killed program loses nothing; a line torn by a crash is left out. An edit says
which outlines go and which come, by their shape and not by their number:
replayed over a new run's store it finds the same nuclei again.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError
from pathotune.nuclei.drawn import closed, halves, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pathotune.nuclei.query import Nuclei

FORMAT = "pathotune-nuclei-edits-1"
SAME = 0.5  # overlap over union from which two outlines are one nucleus
COVERED = 0.5  # of the smaller one: what comes replaces what it covers
_BINARY = getattr(os, "O_BINARY", 0)


@dataclass
class Change:
    """One edit as it was applied.

    Attributes
    ----------
    kind : str
        add, delete, split, merge, redraw or class.
    gone, come : int64 (n,)
        Rows that were hidden and rows that were added.
    rows : int64 (n,)
        Rows that were given the class `name`.
    box : x0, y0, x1, y1
        Level-0 pixels around everything that looks different.
    done : bool
        False while it is undone.
    """

    kind: str
    gone: NDArray[Any]
    come: NDArray[Any]
    rows: NDArray[Any]
    name: str | None
    box: tuple[float, float, float, float]
    key: str
    before: list[tuple[str, float]] = field(default_factory=list)
    done: bool = True


def journal_of(store: Path) -> Path:
    """Return where the edits of a store lie."""
    return store.with_name(store.name + ".edits.jsonl")


class Edits:
    """The edits of one open store; made and asked from one thread.

    Opening replays the journal over `nuclei`.

    Parameters
    ----------
    nuclei : Nuclei
    path : Path, optional
        The journal; by default beside the store.

    Attributes
    ----------
    notes : list of str
        What was found on opening, in the user's words.
    problem : PathotuneError or None
        Why edits could not be written; they stay in memory and go with the next that can.
    """

    def __init__(self, nuclei: Nuclei, path: Path | None = None) -> None:
        if path is None and nuclei.path is None:
            raise ValueError("nuclei that lie in no file need a path for their edits")
        self.nuclei = nuclei
        self.path = path or journal_of(Path(nuclei.path or ""))
        self.notes: list[str] = []
        self.problem: PathotuneError | None = None
        self._changes: list[Change] = []
        self._undone: list[Change] = []
        self._file: int | None = None
        self._waiting = b""
        self._replay()

    def add(self, ring: Any, class_name: str | None = None) -> Change:
        """Add a drawn outline; nuclei that it covers by more than half make way."""
        return self._do("add", [], [closed(ring, self.nuclei.mpp)], class_name)

    def delete(self, rows: Sequence[int]) -> Change:
        """Delete nuclei."""
        return self._do("delete", self._rings(rows), [], None, rows)

    def split(self, row: int, line: Any) -> Change:
        """Cut a nucleus along a line, (k, 2) level-0 pixels."""
        (ring,) = self._rings([row])
        return self._do("split", [ring], halves(ring, line), self._class(row), [row])

    def merge(self, rows: Sequence[int]) -> Change:
        """Make one nucleus of several, of the first one's class."""
        if len(rows) < 2:
            raise PathotuneError("Merging needs two nuclei.", "Choose both.")
        rings = self._rings(rows)
        whole = joined(rings, self.nuclei.mpp)
        return self._do("merge", rings, [whole], self._class(rows[0]), rows)

    def redraw(self, row: int, ring: Any) -> Change:
        """Replace a nucleus' outline."""
        new = closed(ring, self.nuclei.mpp)
        return self._do("redraw", self._rings([row]), [new], self._class(row), [row])

    def name(self, rows: Sequence[int], class_name: str) -> Change:
        """Say which class nuclei are of."""
        points = [self._inside(r) for r in self._rings(rows)]
        key = uuid.uuid4().hex[:12]
        self._write({"do": "class", "key": key, "at": points, "class": class_name})
        return self._named(np.asarray(rows, np.int64), class_name, key)

    def undo(self) -> Change | None:
        """Take the last edit back; None if there is none."""
        if not self._changes:
            return None
        change = self._changes.pop()
        self._undone.append(change)
        self._write({"undo": change.key})
        self._turn(change, False)
        return change

    def redo(self) -> Change | None:
        """Make the edit again that was taken back last; None if there is none."""
        if not self._undone:
            return None
        change = self._undone.pop()
        self._changes.append(change)
        self._write({"redo": change.key})
        self._turn(change, True)
        return change

    @property
    def named(self) -> dict[int, str]:
        """Rows that a person gave a class, and the class; hidden ones left out."""
        told: dict[int, str] = {}
        for change in self._changes:
            if change.name is not None:
                told |= dict.fromkeys(change.rows.tolist(), change.name)
        return {row: name for row, name in told.items() if self.nuclei.alive[row]}

    @property
    def corrected(self) -> NDArray[np.int64]:
        """Boxes, float (n, 4), around the edits of outlines that stand: what can be learnt from."""
        boxes = [c.box for c in self._changes if c.kind != "class"]
        return np.array(boxes, float).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self._changes)

    def close(self) -> None:
        """Have the disk keep everything, and let go of the file."""
        self._flush()
        if self._file is not None:
            try:
                os.fsync(self._file)
            except OSError as error:
                self._failed(error)
            os.close(self._file)
            self._file = None

    def _class(self, row: int) -> str:
        return self.nuclei.classes[int(self.nuclei.codes[row])]

    def _rings(self, rows: Sequence[int] | NDArray[Any]) -> list[NDArray[Any]]:
        found = self.nuclei.outlines(rows)
        return [found.ring(i) for i in range(len(rows))]

    def _inside(self, ring: NDArray[Any]) -> list[float]:
        import shapely

        point = shapely.point_on_surface(shapely.make_valid(shapely.polygons(ring.astype(float))))
        return [round(float(point.x), 2), round(float(point.y), 2)]

    def _do(
        self,
        kind: str,
        gone: list[NDArray[Any]],
        come: list[NDArray[Any]],
        name: str | None,
        rows: Sequence[int] | None = None,
    ) -> Change:
        key = uuid.uuid4().hex[:12]
        told: dict[str, Any] = {"do": kind, "key": key}
        told |= {"gone": [_rounded(r) for r in gone], "come": [_rounded(r) for r in come]}
        if name is not None:
            told["class"] = name
        self._write(told)
        found = None if rows is None else np.asarray(rows, np.int64)
        return self._apply(kind, gone, come, name, key, found)

    def _apply(
        self,
        kind: str,
        gone: list[NDArray[Any]],
        come: list[NDArray[Any]],
        name: str | None,
        key: str,
        rows: NDArray[Any] | None,
    ) -> Change:
        nuclei = self.nuclei
        out = self._same(gone) if rows is None else rows
        nuclei.hide(out)
        covered = self._covered(come)
        nuclei.hide(covered)
        new = nuclei.append(come, None if name is None else [name] * len(come))
        out = np.unique(np.concatenate([out, covered])).astype(np.int64)
        boxes = nuclei.boxes[np.concatenate([out, new])]
        rings = [r for r in (*gone, *come) if len(r)]
        if not len(boxes):  # a new run does not have what was deleted
            boxes = np.array([(*r.min(axis=0), *r.max(axis=0)) for r in rings])
        box = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
        given = new if kind == "add" and name is not None else new[:0]
        change = Change(kind, out, new, given, name if len(given) else None, box, key)
        self._changes.append(change)
        self._undone.clear()
        return change

    def _named(self, rows: NDArray[Any], name: str, key: str) -> Change:
        nuclei = self.nuclei
        before = [(self._class(int(r)), float(nuclei.confidence[r])) for r in rows]
        boxes = nuclei.boxes[rows] if len(rows) else np.zeros((1, 4))
        box = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
        none = np.zeros(0, np.int64)
        change = Change("class", none, none, rows, name, box, key, before)
        self._turn(change, True)
        self._changes.append(change)
        self._undone.clear()
        return change

    def _turn(self, change: Change, done: bool) -> None:
        """Do an edit again, or take it back."""
        nuclei, change.done = self.nuclei, done
        if change.kind == "class" and change.name is not None:
            if done:
                nuclei.set_classes(change.rows, [change.name], np.zeros(len(change.rows)), 1.0)
            else:
                for row, (name, sure) in zip(change.rows, change.before, strict=True):
                    nuclei.set_classes(np.array([row]), [name], [0], sure)
            return
        nuclei.hide(change.gone, hidden=done)
        nuclei.hide(change.come, hidden=not done)

    def _near(self, ring: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], float, NDArray[Any]]:
        """Return rows, their areas, the ring's own area and the areas they share."""
        import shapely

        rows = self.nuclei.within(*ring.min(axis=0).tolist(), *ring.max(axis=0).tolist())
        own = shapely.make_valid(shapely.polygons(ring.astype(float)))
        shapes = shapely.make_valid([shapely.polygons(r.astype(float)) for r in self._rings(rows)])
        shared = shapely.area(shapely.intersection(shapes, own))
        return rows, np.asarray(shapely.area(shapes)), float(own.area), np.asarray(shared)

    def _same(self, rings: list[NDArray[Any]]) -> NDArray[np.int64]:
        found: list[int] = []
        for ring in rings:
            rows, areas, own, shared = self._near(ring)
            if len(rows):
                overlap = shared / np.maximum(areas + own - shared, 1e-9)
                if overlap.max() >= SAME:
                    found.append(int(rows[overlap.argmax()]))
        return np.array(found, np.int64)

    def _covered(self, rings: list[NDArray[Any]]) -> NDArray[np.int64]:
        found = [np.zeros(0, np.int64)]
        for ring in rings:
            rows, areas, own, shared = self._near(ring)
            found.append(rows[shared > COVERED * np.minimum(areas, own)])
        return np.unique(np.concatenate(found))

    def _replay(self) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise PathotuneError(
                f"The edits in {self.path.name} cannot be read ({error.strerror or error}).",
                "Check that you may read the file.",
            ) from error
        torn, unknown = 0, 0
        for line in content.split(b"\n"):
            if not line.strip():
                continue
            try:
                unknown += not self._again(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, PathotuneError):
                torn += 1
        if content and not content.endswith(b"\n"):
            self._waiting = b"\n"  # what comes next begins a line of its own
        if torn:
            self.notes.append(f"{torn} damaged lines of {self.path.name} were left out.")
        if unknown:
            self.notes.append(f"{unknown} edits no longer find their nuclei and are kept aside.")

    def _again(self, told: dict[str, Any]) -> bool:
        """Apply a line; return whether it found what it is about."""
        if "undo" in told or "redo" in told:
            return self._turned(told)
        if "do" not in told:
            return True
        name, key = told.get("class"), str(told["key"])
        if told["do"] == "class":
            rows = [self.nuclei.at(float(x), float(y)) for x, y in told["at"]]
            found = np.array([r for r in rows if r is not None], np.int64)
            self._named(found, str(name), key)
            return len(found) == len(rows)
        gone, come = (
            [np.array(r, np.float32).reshape(-1, 2) for r in told[k]] for k in ("gone", "come")
        )
        come = [closed(r, self.nuclei.mpp) for r in come]
        change = self._apply(told["do"], gone, come, name, key, None)
        return bool(come) or len(change.gone) >= len(gone)

    def _turned(self, told: dict[str, Any]) -> bool:
        done = "redo" in told
        source, target = (self._undone, self._changes) if done else (self._changes, self._undone)
        for change in source:
            if change.key == told["redo" if done else "undo"]:
                source.remove(change)
                target.append(change)
                self._turn(change, done)
                return True
        return False

    def _write(self, told: dict[str, Any]) -> None:
        self._waiting += json.dumps(told, separators=(",", ":")).encode() + b"\n"
        self._flush()

    def _flush(self) -> None:
        try:
            if self._file is None and self._waiting:
                fresh = not self.path.exists()
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY
                self._file = os.open(self.path, flags, 0o666)
                if fresh:
                    self._waiting = json.dumps({"format": FORMAT}).encode() + b"\n" + self._waiting
            while self._waiting and self._file is not None:
                done = os.write(self._file, self._waiting)
                self._waiting = self._waiting[done:]
            self.problem = None
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else error.strerror or str(error)
        self.problem = PathotuneError(
            f"Edits cannot be written to {self.path.name}: {why}.",
            "They stay in memory and are written with the next edit once there is room.",
        )


def _rounded(ring: NDArray[Any]) -> list[list[float]]:
    return [[round(float(x), 2), round(float(y), 2)] for x, y in ring]
