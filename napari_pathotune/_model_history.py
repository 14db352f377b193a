"""Which models of a slide are kept, when, and how to go back to one.

The fast model is another one after every stroke, so not every one is worth a line. A
point is set when somebody may want to come back to it:

- the hand rests (the verdict has come) and the marks have grown or changed by a quarter
  since the last point, so that a long session gives some ten points, not hundreds;
- before a large change: a quarter of the regions goes or changes class, all are cleared,
  a class is deleted; and before another model takes the map, or the slide is left;
- the user says so: *Keep this model*, saving it, loading one.

Going back touches no mark and throws no model away: the map is drawn by the chosen
model until another line is clicked, and the first line is always the model that follows.
"""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import Signal

from napari_pathotune import _model_file
from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_pathotune._session import Session
    from pathotune.models.history import Kept, Why

SHARE, LEAST = 0.25, 2  # of the regions, and at least so many, make a point


class ModelHistory:
    """The models of a session's slide; get it with `ModelHistory.of`.

    Signals
    -------
    changed()
        Another list, or another model in use.
    """

    changed = Signal()

    _all: ClassVar[weakref.WeakKeyDictionary[Any, ModelHistory]] = weakref.WeakKeyDictionary()

    def __init__(self, session: Session) -> None:
        self._session = weakref.ref(session)
        self.entries: tuple[Kept, ...] = ()
        self._folder: Path | None = None
        self._latest: Any = None
        self._marks: dict[str, str | None] = {}
        self._point: dict[str, str | None] = {}
        self._in_use: dict[int, Path] = {}
        self._held: Any = None
        session.slide_changed.connect(self._on_slide)
        session.validation_changed.connect(self._on_verdict)
        session.annotations_changed.connect(self._on_marks)
        session.model_changed.connect(self._on_model)
        session.closed.connect(self._on_closed)
        self._on_slide(session.slide)

    @classmethod
    def of(cls, session: Session) -> ModelHistory:
        """Return the history of a session, made on first use."""
        found = cls._all.get(session)
        if found is None:
            found = cls._all[session] = cls(session)
        return found

    @property
    def session(self) -> Session:
        """The session."""
        session = self._session()
        assert session is not None, "asked after the end of the session"
        return session

    @property
    def current(self) -> Path | None:
        """The entry whose model draws the map; None while the fast model does."""
        bundle = self.session.bundle
        return None if bundle is None else self._in_use.get(id(bundle))

    # ---- what the user does ---------------------------------------------------------------

    def keep(self, why: Why = "kept", name: str = "") -> bool:
        """Keep the model in use; returns whether there is one."""
        try:
            bundle = _model_file.model_in_use(self.session)
        except PathotuneError:
            return False
        self._keep(bundle, why, name)
        return True

    def saved(self, bundle: Any, name: str) -> None:
        """Keep a model that was saved to a file."""
        if hasattr(bundle, "card_id"):
            self._keep(bundle, "saved", name)

    def loaded(self, bundle: Any, name: str) -> None:
        """Keep a model that comes from a file."""
        if hasattr(bundle, "card_id"):
            self._keep(bundle, "loaded", name)

    def go_back(self, entry: Kept | None) -> None:
        """Let a model draw the map; None: the one that follows the marks."""
        if entry is None:
            if self.session.bundle is not None:
                self.session.use_bundle(None)
            return
        if entry.path == self.current:
            return

        def use(bundle: Any) -> None:
            self._hold(bundle, entry.path)
            self.session.use_bundle(bundle)

        self.session.run(
            "files",
            lambda: _model_file.load(entry.path),
            what="Going back",
            where="tune",
            key="history",
            replace=True,
            quiet=True,
            on_done=use,
        )

    # ---- what happened --------------------------------------------------------------------

    def _on_slide(self, slide: Any) -> None:
        self._keep_latest("before")
        self._latest, self._marks, self._point, self.entries = None, {}, {}, ()
        self._in_use.clear()
        self._folder = None
        if slide is not None:
            from pathotune.models.history import folder_of

            self._folder = folder_of(slide.fingerprint)
            self._list()
        self.changed.emit()

    def _on_verdict(self, evaluation: Any) -> None:
        session = self.session
        if evaluation is None or session.bundle is not None or session.loop.head is None:
            return
        try:
            bundle = _model_file.model_in_use(session)
        except PathotuneError:
            return
        if session.loop.status.reading:
            return  # some marks have no features yet: a model on the way
        self._latest = bundle
        self._marks = {r["id"]: r["class"] for r in self._latest.meta["regions"]}
        if self._large(self._point, self._marks):
            self._keep_latest("rest")

    def _on_marks(self, change: Any) -> None:
        if self._latest is None:
            return
        now = {a.id: a.class_name for a in self.session.annotations.items}
        kept = {id_: name for id_, name in now.items() if id_ in self._marks}
        if (change.classes_changed and change.kind == "delete class") or self._large(
            self._marks, kept
        ):
            self._keep_latest("before")

    def _on_model(self) -> None:
        bundle = self.session.bundle
        if bundle is not None:
            self._keep_latest("before")
            if getattr(bundle, "method", "linear") != "linear" and id(bundle) not in self._in_use:
                self._keep(bundle, "tuned")  # it took minutes to learn
        self.changed.emit()

    def _on_closed(self) -> None:
        folder, bundle = self._folder, self._latest
        if folder is not None and bundle is not None:
            from pathotune.models.history import keep

            try:
                keep(folder, bundle, "before")
            except PathotuneError:
                return  # the window is gone; the marks, which are safe, give the model again

    @staticmethod
    def _large(before: dict[str, str | None], after: dict[str, str | None]) -> bool:
        """Tell whether so many regions came, went or changed class that a point is due."""
        other = sum(1 for k in before.keys() | after.keys() if before.get(k, k) != after.get(k, k))
        return other >= max(LEAST, SHARE * max(len(before), 1)) if before else bool(after)

    # ---- the disk -------------------------------------------------------------------------

    def _keep_latest(self, why: Why) -> None:
        bundle, self._latest = self._latest, None if why == "before" else self._latest
        self._point = dict(self._marks)
        if bundle is not None:
            self._keep(bundle, why)

    def _keep(self, bundle: Any, why: Why, name: str = "") -> None:
        folder = self._folder
        if folder is None:
            return
        from pathotune.models.history import entries, keep

        def write() -> Any:
            return keep(folder, bundle, why, name), entries(folder)

        def done(found: Any) -> None:
            if folder != self._folder:
                return
            made, self.entries = found
            if bundle is self.session.bundle:
                self._hold(bundle, made.path)
            self.changed.emit()

        self.session.run(
            "files", write, what="Keeping the model", where="tune", quiet=True, on_done=done
        )

    def _list(self) -> None:
        folder = self._folder
        assert folder is not None
        from pathotune.models.history import entries

        def done(found: Any) -> None:
            if folder == self._folder:
                self.entries = found
                self.changed.emit()

        self.session.run(
            "files",
            lambda: entries(folder),
            what="Looking for earlier models",
            where="tune",
            quiet=True,
            on_done=done,
        )

    def _hold(self, bundle: Any, path: Path) -> None:
        """Remember which entry a model came from, for as long as it is the one."""
        self._held = bundle
        self._in_use = {id(bundle): path}


def line_of(entry: Kept) -> str:
    """Return an entry in one line: when, from what, how good."""
    regions = "1 region" if entry.regions == 1 else f"{entry.regions} regions"
    score = "no score" if entry.score is None else f"F1 {entry.score:.2f}"
    why = {"kept": "kept", "saved": "saved", "loaded": "loaded", "tuned": "tuned"}.get(entry.why)
    return ", ".join(filter(None, (f"{when(entry.at)}   {regions}", score, why)))


def tip_of(entry: Kept) -> str:
    """Return all there is to say about an entry."""
    why = {
        "rest": "Kept by itself while you marked.",
        "before": "Kept by itself before a large change.",
        "kept": "You kept it.",
        "tuned": "You used it as the better model.",
        "saved": f"You saved it as {entry.name}.",
        "loaded": f"You loaded it from {entry.name}.",
    }.get(entry.why, "")
    if entry.score is None:
        worth = f"No score: {entry.why_not}" if entry.why_not else "No score."
    else:
        span = "" if entry.low is None else f" ({entry.low:.2f}–{entry.high:.2f})"
        worth = f"F1 {entry.score:.2f}{span} on regions it had not seen."
    day = time.strftime("%d %B %Y, %H:%M:%S", time.localtime(entry.at))
    return f"{day}\n{why}\nTells apart {', '.join(entry.classes)}.\n{worth}"


def when(at: float) -> str:
    """Return the time of today, or the day."""
    then, now = time.localtime(at), time.localtime()
    today = then[:3] == now[:3]
    return time.strftime("%H:%M" if today else "%d %b %H:%M", then)
