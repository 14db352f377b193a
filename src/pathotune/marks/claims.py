"""One window a journal: a lock beside the file says that it is taken.

The system gives the lock back when a program ends, however it ends, so a killed
window never leaves a slide locked.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

Claim = IO[bytes]


def _lock(file: Claim) -> None:
    if os.name == "nt":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def claim(path: Path) -> Claim | None:
    """Take a journal for this window; None if another window has it.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    file = path.with_name(path.name.removesuffix(".jsonl") + ".lock").open("ab")
    try:
        _lock(file)
    except OSError:
        file.close()
        return None
    return file


def free(path: Path) -> bool:
    """Whether no window has a journal open."""
    try:
        taken = claim(path)
    except OSError:
        return False
    if taken is not None:
        taken.close()
    return taken is not None
