"""Which picture of a file is meant: its scene, its depth, its channel, its colours.

A file may hold several pictures of different tissue, each at several depths and
in several channels, and may say how its colours are to be corrected. The answer
is kept for the file, so that window and command line see the same pixels; like
the scale it is kept under a hash of the content, never under a name. Numbers
count from 1, as people do.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, fields
from threading import Lock
from typing import TYPE_CHECKING, Any

from pathotune import places
from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_lock = Lock()


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture of a file: its number from 1, its name, its size in pixels."""

    number: int
    name: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class View:
    """What was chosen; None where the default holds.

    Attributes
    ----------
    scene : int or None
        Number of the picture; by default the largest.
    z : int or None
        Depth; by default the first.
    channel : int or None
        One channel, shown in grey; by default the first three as red, green, blue.
    icc : bool or None
        Whether the file's colour profile is applied; by default not, since the
        networks were trained on pixels as scanners wrote them.
    """

    scene: int | None = None
    z: int | None = None
    channel: int | None = None
    icc: bool | None = None

    def over(self, other: View) -> View:
        """Return this choice, filled up from another."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        return View(**{k: getattr(other, k) if v is None else v for k, v in mine.items()})

    def words(self) -> dict[str, int | bool | None]:
        """Return what results carry of it."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def number(asked: int | None, count: int, what: str, default: int = 1) -> int:
    """Return which of `count` was asked for.

    Raises
    ------
    PathotuneError
        There is no such one.
    """
    if asked is None:
        return default
    if not 1 <= asked <= count:
        raise PathotuneError(
            f"There is no {what} {asked} in this file.",
            f"Choose 1 to {count}." if count > 1 else f"It has only one {what}.",
        )
    return asked


def largest(scenes: Sequence[Scene]) -> int:
    """Return the number of the scene with most pixels."""
    return max(scenes, key=lambda s: s.width * s.height).number


def _file() -> Path:
    return places.data_dir() / "views.json"


def _answers() -> dict[str, Any]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remembered(key: str) -> View:
    """Return what was chosen for a file before; empty where nothing was, or it makes no sense."""
    with _lock:
        kept = _answers().get(key)
    if not isinstance(kept, dict):
        return View()
    numbers = {k: kept.get(k) for k in ("scene", "z", "channel")}
    icc = kept.get("icc")
    good = {k: v for k, v in numbers.items() if type(v) is int and v > 0}
    return View(**good, icc=icc if isinstance(icc, bool) else None)


def remember(key: str, view: View) -> None:
    """Keep a choice; a full disk costs only the remembering."""
    with _lock, contextlib.suppress(OSError):
        answers = _answers()
        answers[key] = {f.name: getattr(view, f.name) for f in fields(view)}
        new = _file().with_suffix(".tmp")
        new.write_text(json.dumps(answers), encoding="utf-8")
        new.replace(_file())
