"""A file that is either the old one or the whole new one.

An export may be written to a network drive or a full disk; writing beside the
target and moving it there leaves the earlier file untouched when it fails.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name to write to, and move what was written to `path` when the block is done.

    Raises
    ------
    PathotuneError
        The folder is not there, may not be written to, or the disk is full.
    """
    draft: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=f".{path.name}")
        os.close(handle)
        draft = Path(name)
        yield draft
        mode = path.stat().st_mode if path.exists() else 0o666 & ~_umask()
        draft.chmod(mode & 0o777)
        draft.replace(path)
    except OSError as error:
        raise PathotuneError(
            f"{path.name} could not be written: {error.strerror or error}.",
            "Choose another folder, or make room on the disk.",
        ) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def can_write(path: Path, *inputs: Path) -> Path:
    """Make sure that a result can be written before hours go into computing it.

    Parameters
    ----------
    path : Path
        Where the result will go.
    inputs : Path
        What it is computed from; none of it may be overwritten.

    Raises
    ------
    PathotuneError
        The folder is not there or may not be written to, or a slide would be lost.
    """
    if path.is_dir():
        raise PathotuneError(f"{path} is a folder.", "Give the name of a file to write.")
    if not path.parent.is_dir():
        raise PathotuneError(
            f"There is no folder {path.parent} for {path.name}.", "Make it, or choose another."
        )
    for given in inputs:
        if path.exists() and given.exists() and path.samefile(given):
            raise PathotuneError(
                f"{path.name} would overwrite what it is made from.", "Choose another name."
            )
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix="."):
            return path
    except OSError as error:
        raise PathotuneError(
            f"{path.name} cannot be written to {path.parent}: {error.strerror or error}.",
            "Choose a folder that you may write to.",
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
