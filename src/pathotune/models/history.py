"""The models a slide has had, on the disk, so that any of them can draw the map again.

A model that follows the hand is replaced many times a minute, and most of those
are steps on the way. What is kept are the points somebody may want back; who
calls `keep` decides which. Each is a bundle of some kilobytes with its story in
its header, so listing reads headers only. The number is bounded: what was kept
for the user goes before what the user asked for.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pathotune import places
from pathotune.models.bundle import SUFFIX, ModelBundle

if TYPE_CHECKING:
    from pathlib import Path

Why = Literal["rest", "before", "kept", "saved", "loaded", "tuned"]
ASKED = ("kept", "saved", "loaded", "tuned")
MOST = 24
MOST_BYTES = 64_000_000
KEY = "history"


@dataclass(frozen=True, slots=True)
class Kept:
    """One model of a slide.

    Attributes
    ----------
    path : Path
        Its bundle.
    at : float
        When, seconds since 1970.
    why : str
        "rest": the hand rested after the marks had grown; "before": before a large change;
        "kept", "saved", "loaded", "tuned": the user asked for it.
    name : str
        Of the file it was saved to or loaded from, without its folder.
    regions : int
        Marked regions it learned from.
    classes : tuple of str
    score, low, high : float or None
        F1 on regions it had not seen, and its interval.
    why_not : str
        Why there is no score.
    """

    path: Path
    at: float
    why: str
    name: str
    regions: int
    classes: tuple[str, ...]
    score: float | None
    low: float | None
    high: float | None
    why_not: str


def folder_of(fingerprint: str) -> Path:
    """Return where the models of a slide lie, by the slide's fingerprint."""
    return places.data_dir() / "history" / fingerprint


def entries(folder: Path) -> tuple[Kept, ...]:
    """Return the models of a slide, the newest first; a damaged file is passed over."""
    found = (_entry(path) for path in folder.glob(f"*{SUFFIX}"))
    return tuple(sorted((e for e in found if e is not None), key=lambda e: -e.at))


def keep(folder: Path, bundle: ModelBundle, why: Why, name: str = "") -> Kept:
    """Keep a model; one that is there already is not kept twice, only moved up.

    Raises
    ------
    PathotuneError
        It cannot be written.
    """
    at = time.time()
    for old in entries(folder):
        if _same(old, bundle):
            asked = why if why in ASKED else old.why
            if asked == old.why and name in ("", old.name):
                return old
            return _write(folder, bundle, old.at, asked, name or old.name)
    made = _write(folder, bundle, at, why, name)
    _prune(folder, made)
    return made


def _write(folder: Path, bundle: ModelBundle, at: float, why: str, name: str) -> Kept:
    story = {"at": at, "why": why, "name": name}
    path = folder / f"{int(at * 1e6)}{SUFFIX}"
    replace(bundle, meta={**bundle.meta, KEY: story}).save(path)
    made = _entry(path)
    assert made is not None
    return made


def _prune(folder: Path, newest: Kept) -> None:
    """Delete what is too much: the oldest that nobody asked for, then the oldest."""
    there = sorted(entries(folder), key=lambda e: (e.why in ASKED, e.at))
    sizes = {e.path: e.path.stat().st_size for e in there}
    while len(there) > MOST or sum(sizes.values()) > MOST_BYTES:
        gone = next((e for e in there if e.path != newest.path), None)
        if gone is None:
            return
        there.remove(gone)
        sizes.pop(gone.path)
        with contextlib.suppress(OSError):
            gone.path.unlink()


def _same(entry: Kept, bundle: ModelBundle) -> bool:
    if entry.classes != bundle.classes:
        return False
    from pathotune.events import PathotuneError

    try:
        old = ModelBundle.load(entry.path, check=False)
    except PathotuneError:
        return False
    return (
        old.card_hash == bundle.card_hash
        and old.method == bundle.method
        and old.arrays.keys() == bundle.arrays.keys()
        and all(np.array_equal(old.arrays[k], bundle.arrays[k]) for k in old.arrays)
    )


def _entry(path: Path) -> Kept | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})["pathotune"])
        meta: dict[str, Any] = header["meta"]
        story, metrics = meta[KEY], meta.get("metrics") or {}
        numbers = [metrics.get(k) for k in ("macro_f1", "low", "high")]
        score, low, high = (None if n is None else float(n) for n in numbers)
        return Kept(
            path,
            float(story["at"]),
            str(story["why"]),
            str(story["name"]),
            len(meta.get("regions") or ()),
            tuple(map(str, header["classes"])),
            score,
            low,
            high,
            str(metrics.get("why_not") or ""),
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return None
