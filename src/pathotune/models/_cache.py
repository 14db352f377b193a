"""The folder of all feature stores: what they take, and which go when it is too much.

Features can always be computed again, so the folder is bounded and the slides
that were not looked at for longest go first, whole. A store in use stays, in
this process or in another.
"""

from __future__ import annotations

import errno
import shutil
from typing import TYPE_CHECKING

from pathotune import places
from pathotune.models._blockfile import FolderLock

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

_WHY = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your share of the disk is full",
    errno.EROFS: "the disk cannot be written to",
    errno.EACCES: "you may not write there",
}


def why(error: OSError) -> str:
    """Return the reason of a failed write in the user's words."""
    return _WHY.get(error.errno or 0, f"the folder cannot be used ({error})")


def root(chosen: Path | None) -> Path:
    """Return the folder that holds one folder a store."""
    return places.cache_dir() / "features" if chosen is None else chosen


def stores(chosen: Path | None) -> list[tuple[float, int, Path]]:
    """Return (last opened, bytes, folder) of every store, oldest first."""
    found = []
    for about in root(chosen).absolute().glob("*/about.json"):
        try:
            size = sum(f.stat().st_size for f in about.parent.iterdir())
            found.append((about.stat().st_mtime, size, about.parent))
        except OSError:  # another process is removing it
            continue
    return sorted(found)


def evict(limit_bytes: int, chosen: Path | None, in_use: Container[Path]) -> int:
    """Remove the oldest stores until all fit; returns the bytes freed."""
    known = stores(chosen)
    excess, freed = sum(size for _, size, _ in known) - limit_bytes, 0
    for _, size, folder in known:
        if freed >= excess:
            break
        if folder in in_use or not _free(folder):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            freed += size
    return freed


def _free(folder: Path) -> bool:
    """Tell whether no other process has a store open."""
    try:
        lock = FolderLock(folder)
    except OSError:
        return False
    if lock.held:
        lock.release()
        return True
    return False
