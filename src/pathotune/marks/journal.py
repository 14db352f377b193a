"""Every edit on disk as it is made, so that a killed program loses nothing drawn.

One line of JSON an edit, appended and handed to the system at once; a thread of
its own asks the disk to keep it, so the hand never waits. Only a large import
is written by that thread alone, in pieces. Opening a slide replays its journal,
and a line torn by a crash is left out. A second window on the same slide writes
a journal of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from pathotune import places
from pathotune.events import PathotuneError
from pathotune.marks.annotations import AnnotationClass, AnnotationSet, Patch
from pathotune.marks.claims import Claim, claim
from pathotune.marks.geojson import write_atomically
from pathotune.marks.replaying import FORMAT, Read, encode, header, how_read, line, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["FORMAT", "Journal", "journal_for", "replay"]

PIECE = 100  # regions a line at most: a torn line loses no more, and nobody waits for one
PATIENCE_S = 0.003  # of the hand; what takes longer is left to the thread
LONG = 500  # lines from which a history is replaced by the state it led to


def journal_for(fingerprint: str) -> Path:
    """Return where the journal of a slide lies, by the slide's fingerprint."""
    folder = places.data_dir() / "journals"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{fingerprint}.jsonl"


def _pieces(patch: Patch) -> Iterator[Patch]:
    """Yield patches that come to the same: what goes first, then what comes, in order."""
    if len(patch.items) <= PIECE:
        yield patch
        return
    gone = tuple(i for i in patch.items if i[2] is None)
    come = sorted((i for i in patch.items if i[2] is not None), key=lambda i: i[3])
    starts = bool(gone) or patch.classes is not None
    if starts:
        yield Patch(patch.kind, gone, patch.classes)
    for first in range(0, len(come), PIECE):
        piece = tuple(come[first : first + PIECE])
        yield Patch(patch.kind, piece, goes_on=starts or first > 0)


class Journal:
    """The file behind one annotation set.

    Parameters
    ----------
    path : Path
        Usually `journal_for(slide.fingerprint)`. If another window holds it, a
        neighbouring name is used.
    on_problem : callable, optional
        Called with a `PathotuneError` when an edit could not be written, in the
        thread that tried; edits stay in memory and are written with the next
        one that can be.
    """

    def __init__(
        self, path: Path, on_problem: Callable[[PathotuneError], None] | None = None
    ) -> None:
        self.path = path
        self.saved_at: float | None = None
        self.problem: PathotuneError | None = None
        self.on_problem = on_problem
        self._file: Any = None
        self._claim: Claim | None = None
        self._waiting: deque[tuple[Patch, tuple[AnnotationClass, ...]]] = deque()
        self._writing = threading.RLock()
        self._rewrite_due = False
        self._end: Callable[[], None] | None = None
        self._annotations: AnnotationSet | None = None
        self._dirty = threading.Event()
        self._closing = False
        self._syncer: threading.Thread | None = None

    def attach(self, annotations: AnnotationSet) -> None:
        """Write every edit of `annotations` from now on.

        A set that `replay` read from this file goes on where it ended. Otherwise
        the file starts anew with the state of `annotations`, and what stood in
        it is kept aside.
        """
        self.detach()
        if self._claim is None:
            self._take()
        self._annotations = annotations
        read = how_read(annotations)
        if read is not None and read.path != self.path:
            read = None
        if read is not None and self._up_to_date(read):
            with self._writing:
                self._open()
        else:
            if read is None or not read.whole:
                self._keep_aside("damaged" if read is not None else "earlier")
            self._rewrite()
            if read is not None and self.problem is None:
                for other in read.joined:
                    with contextlib.suppress(OSError):
                        other.replace(other.with_suffix(f".joined-{time.time_ns()}"))
        self._end = annotations.record(self._write)
        if self._syncer is None:
            self._closing = False
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
        """Stop listening, write what waits, have the disk keep it, and let go of the file."""
        self.detach()
        self._closing = True
        self._dirty.set()
        if self._syncer is not None:
            self._syncer.join(timeout=30)
            self._syncer = None
        with self._writing:
            if self._waiting or self._rewrite_due:
                self._drain(float("inf"))
            if self._file is not None:
                with contextlib.suppress(OSError):
                    os.fsync(self._file.fileno())
                self._file.close()
                self._file = None
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    # -- the file -----------------------------------------------------------------

    def _take(self) -> None:
        """Take the name for this window, or a neighbouring one if a window has it."""
        stem = self.path.name.removesuffix(".jsonl").partition("~")[0]
        for number in range(2, 100):
            try:
                self._claim = claim(self.path)
            except OSError as error:
                self._fail(error)
                return
            if self._claim is not None:
                return
            self.path = self.path.with_name(f"{stem}~{number}.jsonl")

    def _up_to_date(self, read: Read) -> bool:
        """Whether the file says what the set does, in few enough lines."""
        assert self._annotations is not None
        try:
            same = self.path.stat().st_size == read.size > 0
        except OSError:
            return False
        long = read.lines > max(LONG, 2 * len(self._annotations))
        unchanged = self._annotations.revision == read.revision and not read.joined
        return same and unchanged and read.whole and not long

    def _open(self) -> None:
        if self._file is None:
            self._file = self.path.open("ab", buffering=0)

    def _keep_aside(self, why: str) -> None:
        with contextlib.suppress(OSError):
            if self.path.stat().st_size:
                aside = self.path.with_suffix(f".{why}-{time.time_ns()}")
                aside.write_bytes(self.path.read_bytes())

    def _rewrite(self) -> None:
        with self._writing:
            try:
                self._replace()
            except PathotuneError as error:
                self._rewrite_due = True
                cause = error.__cause__
                self._fail(cause if isinstance(cause, OSError) else OSError(str(error)))

    def _replace(self) -> None:
        """Write the present state as a new file, in the place of the old one."""
        assert self._annotations is not None
        self._waiting.clear()
        classes, items = self._annotations.classes, self._annotations.items
        puts = tuple((a.id, None, a, at) for at, a in enumerate(items))
        state = Patch("state", puts, ((), classes))

        def write(file: Any) -> None:
            file.write(encode(header(self.path)))
            for piece in _pieces(state):
                file.write(line(piece, classes))

        if self._file is not None:
            self._file.close()
            self._file = None
        write_atomically(self.path, write)
        self._rewrite_due = False
        self._open()
        self._saved()

    # -- writing ------------------------------------------------------------------

    def _write(self, patch: Patch) -> None:
        assert self._annotations is not None
        classes = self._annotations.classes
        self._waiting.extend((piece, classes) for piece in _pieces(patch))
        if self._writing.acquire(timeout=PATIENCE_S):
            try:
                self._drain(time.perf_counter() + PATIENCE_S)
            finally:
                self._writing.release()
        self._dirty.set()

    def _drain(self, until: float) -> None:
        """Write what waits, at least one line, until the time is up."""
        try:
            if self._rewrite_due:
                self._replace()
            self._open()
            while self._waiting:
                self._put(line(*self._waiting[0]))
                self._waiting.popleft()
                self._saved()
                if time.perf_counter() > until:
                    break
        except PathotuneError as error:
            cause = error.__cause__
            self._fail(cause if isinstance(cause, OSError) else OSError(str(error)))
        except OSError as error:
            self._fail(error)

    def _put(self, said: bytes) -> None:
        """Write a whole line or nothing: half a line would hide all that follow it."""
        start = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(said)
            while written < len(said):
                written += self._file.write(said[written:])
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(start)
            raise

    def _saved(self) -> None:
        self.saved_at = time.time()
        self.problem = None

    def _fail(self, error: OSError) -> None:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else error.strerror or str(error)
        self.problem = PathotuneError(
            f"Your marks cannot be saved just now ({why}).",
            "Free some space on your home folder's disk; they are kept until then."
            if full
            else "Check your home folder's disk; they are kept until then. Saving them as GeoJSON "
            "elsewhere is safe.",
        )
        if self.on_problem is not None:
            self.on_problem(self.problem)

    def _sync(self) -> None:
        while not self._closing:
            self._dirty.wait()
            self._dirty.clear()
            while self._waiting and not self._rewrite_due and self.problem is None:
                with self._writing:
                    self._drain(0.0)
            handle = self._handle()
            if handle is not None:
                with contextlib.suppress(OSError):
                    os.fsync(handle)
                os.close(handle)

    def _handle(self) -> int | None:
        """Return a handle of our own, which stays good when the file is closed meanwhile.

        Taken without the lock: an edit that found it taken would be left to the
        thread, and be lost if the program was killed in that instant.
        """
        file = self._file
        try:
            return None if file is None else os.dup(file.fileno())
        except (OSError, ValueError):
            return None
