"""Weights that came to this computer by another way than the hub's own download.

In many hospitals no program may fetch anything: somebody brings a file on a disk or
puts a folder on a share. Such a file is remembered here under the name by which a
card asks for it, and folders are searched that are laid out as the hub's command
line leaves them. The file stays where it is; nothing is copied.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from pathotune import places

SHARED = "PATHOTUNE_MODELS"
"""The variable that names a folder of models for everybody, a share for example."""

_read: dict[Path, tuple[int, dict[str, str]]] = {}


def _book() -> Path:
    return places.data_dir() / "models" / "weights.json"


def _digests() -> Path:
    return places.cache_dir() / "digests.json"


def _entries(book: Path) -> dict[str, str]:
    try:
        when = book.stat().st_mtime_ns
        if _read.get(book, (0, {}))[0] != when:
            raw = json.loads(book.read_text(encoding="utf-8"))
            known = {str(k): str(v) for k, v in raw.items()} if isinstance(raw, dict) else {}
            _read[book] = (when, known)
    except (OSError, ValueError):  # none yet, or not ours: then nothing is remembered
        return {}
    return _read[book][1]


def _write(book: Path, key: str, value: str) -> None:
    book.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_entries(book) | {key: value}, indent=2, sort_keys=True)
    beside = book.with_suffix(".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(book)
    _read.pop(book, None)


def remembered(where: str) -> Path | None:
    """Return the file that stands for a card's `where`, if it was imported and is there."""
    found = _entries(_book()).get(where)
    path = None if found is None else Path(found)
    return path if path is not None and path.is_file() else None


def remember(where: str, path: Path) -> None:
    """Let a card find its weights in this file from now on."""
    _write(_book(), where, str(path.resolve()))


def noted_digest(key: tuple[str, int, int]) -> str | None:
    """Return the sha256 noted for a file of this path, size and time."""
    return _entries(_digests()).get(" ".join(map(str, key)))


def note_digest(key: tuple[str, int, int], digest: str) -> None:
    """Note a large file's sha256 for the next start; where that cannot be, it is read again."""
    with suppress(OSError):
        _write(_digests(), " ".join(map(str, key)), digest)


def shelves(repo: str) -> list[Path]:
    """Return the folders where a hub's model may lie: ``owner/name`` or ``owner--name``."""
    folders = [places.data_dir() / "models"]
    if shared := os.environ.get(SHARED):
        folders = [Path(f).expanduser() for f in shared.split(os.pathsep)] + folders
    return [f / name for f in folders for name in (repo, repo.replace("/", "--"))]
