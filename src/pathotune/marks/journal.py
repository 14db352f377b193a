"""Every edit on disk as it is made, so that a killed program loses nothing drawn.

One line of JSON an edit, appended and handed to the system at once; a thread of
its own asks the disk to keep it, so the hand never waits. Opening a slide
replays its journal, and a line torn by a crash is left out. A second window on
the same slide writes a journal of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from pathotune import places
from pathotune.events import PathotuneError
from pathotune.marks.annotations import Annotation, AnnotationClass, AnnotationSet, Patch
from pathotune.marks.features import from_feature, to_feature
from pathotune.marks.geojson import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FORMAT = 1


def journal_for(fingerprint: str) -> Path:
    """Return where the journal of a slide lies, by the slide's fingerprint."""
    folder = places.data_dir() / "journals"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{fingerprint}.jsonl"


def _header() -> dict[str, Any]:
    return {"pathotune-journal": FORMAT, "at": time.time()}


def _line(patch: Patch, annotations: AnnotationSet) -> dict[str, Any]:
    known = {c.name: c for c in annotations.classes}
    line: dict[str, Any] = {"do": patch.kind, "at": time.time()}
    changed = [(at, to_feature(after, known)) for _, _, after, at in patch.items if after]
    removed = [id_ for id_, _, after, _ in patch.items if after is None]
    if changed:
        line["put"] = changed
    if removed:
        line["drop"] = removed
    if patch.classes is not None:
        line["classes"] = [[c.name, list(c.colour)] for c in patch.classes[1]]
    return line


def _state(annotations: AnnotationSet) -> dict[str, Any]:
    items = tuple((a.id, None, a, at) for at, a in enumerate(annotations.items))
    patch = Patch("state", items, ((), annotations.classes))
    return _line(patch, annotations) | {"drop_all": True}


def _patch(line: dict[str, Any], annotations: AnnotationSet) -> Patch:
    classes = None
    if "classes" in line:
        new = tuple(
            AnnotationClass(str(name), (int(rgb[0]), int(rgb[1]), int(rgb[2])))
            for name, rgb in line["classes"]
        )
        classes = (annotations.classes, new)
    known = {c.name: c for c in (classes[1] if classes else annotations.classes)}
    old = {a.id: a for a in annotations.items}
    gone = list(old) if line.get("drop_all") else line.get("drop", [])
    items: list[tuple[str, Annotation | None, Annotation | None, int]]
    items = [(id_, old.get(id_), None, 0) for id_ in gone]
    for at, feature in line.get("put", []):
        new_item = from_feature(feature, known)[0]
        items.append((new_item.id, old.get(new_item.id), new_item, int(at)))
    return Patch(str(line.get("do", "edit")), tuple(items), classes)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield whole lines up to the first that cannot be read."""
    with path.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            try:
                found = json.loads(raw)
            except ValueError:
                return
            if isinstance(found, dict):
                yield found


def replay(path: Path) -> AnnotationSet:
    """Return what a journal holds; a damaged tail is left out.

    Raises
    ------
    PathotuneError
        A newer version of this program wrote it.
    """
    annotations = AnnotationSet()
    try:
        for line in _lines(path):
            if "pathotune-journal" in line:
                if line["pathotune-journal"] > FORMAT:
                    raise PathotuneError(
                        "The saved marks of this slide come from a newer version.",
                        "Update napari-pathotune to go on with them.",
                    )
                continue
            try:
                patch = _patch(line, annotations)
            except (PathotuneError, KeyError, TypeError, ValueError, IndexError):
                break
            annotations.apply(patch)
    except OSError as error:
        raise PathotuneError(
            f"The saved marks of this slide cannot be read ({error.strerror}).",
            "Check that your home folder's disk is connected.",
        ) from error
    return annotations


class Journal:
    """The file behind one annotation set.

    Parameters
    ----------
    path : Path
        Usually `journal_for(slide.fingerprint)`. If another window holds it, a
        neighbouring name is used.
    on_problem : callable, optional
        Called with a `PathotuneError` when an edit could not be written; edits
        stay in memory and are written with the next one that can be.
    """

    def __init__(
        self, path: Path, on_problem: Callable[[PathotuneError], None] | None = None
    ) -> None:
        self.path = path
        self.saved_at: float | None = None
        self.problem: PathotuneError | None = None
        self.on_problem = on_problem
        self._file: Any = None
        self._lock_file: Any = None
        self._waiting: list[bytes] = []
        self._lines = 0
        self._end: Callable[[], None] | None = None
        self._annotations: AnnotationSet | None = None
        self._dirty = threading.Event()
        self._closing = False
        self._syncer: threading.Thread | None = None

    def attach(self, annotations: AnnotationSet) -> None:
        """Write every edit of `annotations` from now on.

        What the file held before is kept when it says the same, and replaced
        by the state of `annotations` otherwise.
        """
        self.detach()
        if self._file is None:
            self._claim()
        self._annotations = annotations
        try:
            same = self.path.exists() and _state_equal(replay(self.path), annotations)
        except PathotuneError:
            same = False
        if not same or not self._whole():
            self._keep_damaged_aside()
            self._rewrite()
        else:
            self._lines = sum(1 for _ in _lines(self.path))
            self._open()
        self._end = annotations.record(self._write)
        if self._syncer is None:
            self._syncer = threading.Thread(
                target=self._sync, name="pathotune-journal", daemon=True
            )
            self._syncer.start()

    def detach(self) -> None:
        """Stop listening; the file stays."""
        if self._end is not None:
            self._end()
            self._end = None

    def compact(self) -> None:
        """Replace the history on disk by the present state, atomically."""
        if self._annotations is not None:
            self._rewrite()

    def close(self) -> None:
        """Stop listening, ask the disk to keep everything, and let go of the file."""
        self.detach()
        self._closing = True
        self._dirty.set()
        if self._syncer is not None:
            self._syncer.join(timeout=5)
            self._syncer = None
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.flush()
            self._file.close()
            self._file = None
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    # -- writing ------------------------------------------------------------------

    def _claim(self) -> None:
        """Take the name for this process, or a neighbouring one if a window has it."""
        try:
            import fcntl
        except ImportError:  # Windows keeps open files from being replaced anyway
            return
        for number in range(2, 100):
            lock = self.path.with_suffix(".lock").open("a")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                self.path = self.path.with_name(f"{self.path.stem.split('~')[0]}~{number}.jsonl")
                continue
            self._lock_file = lock
            return

    def _open(self) -> None:
        if self._file is None:
            try:
                self._file = self.path.open("ab", buffering=0)
            except OSError as error:
                self._fail(error)

    def _whole(self) -> bool:
        """Whether the file ends with a whole line and has nothing damaged inside."""
        try:
            read = sum(1 for _ in _lines(self.path))
            with self.path.open("rb") as file:
                return read == sum(1 for _ in file)
        except OSError:
            return False

    def _keep_damaged_aside(self) -> None:
        if self.path.exists() and not self._whole():
            with contextlib.suppress(OSError):
                aside = self.path.with_suffix(f".damaged-{int(time.time())}")
                aside.write_bytes(self.path.read_bytes())

    def _rewrite(self) -> None:
        assert self._annotations is not None
        lines = [_header(), _state(self._annotations)]
        if self._file is not None:
            self._file.close()
            self._file = None
        try:
            write_atomically(self.path, lambda file: [file.write(_encode(line)) for line in lines])
            self._waiting.clear()
            self._lines = len(lines)
            self._saved()
        except PathotuneError as error:
            self._tell(error)
        self._open()

    def _write(self, patch: Patch) -> None:
        assert self._annotations is not None
        self._waiting.append(_encode(_line(patch, self._annotations)))
        self._open()
        if self._file is None:
            return
        try:
            while self._waiting:
                self._put(self._waiting[0])
                self._waiting.pop(0)
                self._lines += 1
        except OSError as error:
            self._fail(error)
            return
        self._saved()
        self._dirty.set()

    def _put(self, line: bytes) -> None:
        """Write a whole line or nothing: half a line would hide all that follow it."""
        assert self._file is not None
        start = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(line)
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(start)
            raise

    def _saved(self) -> None:
        self.saved_at = time.time()
        self.problem = None

    def _fail(self, error: OSError) -> None:
        self._tell(
            PathotuneError(
                f"Your marks cannot be saved just now ({error.strerror or error}).",
                "Free some space on your home folder's disk; they are kept until then.",
            )
        )

    def _tell(self, problem: PathotuneError) -> None:
        self.problem = problem
        if self.on_problem is not None:
            self.on_problem(problem)

    def _sync(self) -> None:
        while not self._closing:
            self._dirty.wait()
            self._dirty.clear()
            file = self._file
            if file is not None:
                with contextlib.suppress(OSError, ValueError):
                    os.fsync(file.fileno())


def _encode(line: dict[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _state_equal(one: AnnotationSet, other: AnnotationSet) -> bool:
    """Whether two sets would be written alike."""
    known = {c.name: c for c in one.classes}
    return one.classes == other.classes and [to_feature(a, known) for a in one.items] == [
        to_feature(a, known) for a in other.items
    ]
