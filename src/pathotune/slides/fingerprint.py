"""Knows a slide again after it was moved or renamed, without keeping its name.

The answer to a missing um/px, the journal of marks and the cache of features
belong to the picture, not to a path, and a path may hold a patient's name. So
the size and a few samples of the content are hashed; never the name, never the
date.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_SAMPLE = 1 << 16
_PLACES = 16
_FOLDERS = 64


def fingerprint(path: Path, quickhash: str = "") -> str:
    """Hash a file's size and sixteen samples of it, in no time whatever the size.

    Parameters
    ----------
    path : Path
        The file.
    quickhash : str
        What the reader itself knows of the content; tells slides apart whose
        small index file is alike while their pixels lie in other files.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    if path.is_dir():
        return _of_folder(path, quickhash)
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size} {quickhash}".encode())
    with path.open("rb") as file:
        for i in range(_PLACES):
            file.seek(max(0, size - _SAMPLE) * i // (_PLACES - 1))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:32]


def _of_folder(folder: Path, quickhash: str) -> str:
    """Hash what a folder's groups and arrays say, and the first files of each array."""
    digest = hashlib.sha256(f"folder {quickhash}".encode())
    groups = [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]
    arrays = [p for g in groups[1:] for p in sorted(g.iterdir()) if p.is_dir()]
    for place in [*groups, *arrays][:_FOLDERS]:
        for name in ("zarr.json", ".zattrs", ".zarray"):
            if (place / name).is_file():
                digest.update((place / name).read_bytes())
    samples = 0
    for base, names, files in os.walk(folder):
        names.sort()
        for name in sorted(files):
            if samples < _PLACES and not name.startswith(".z") and name != "zarr.json":
                samples += 1
                with (Path(base) / name).open("rb") as file:
                    digest.update(file.read(_SAMPLE))
        if samples >= _PLACES:
            break
    return digest.hexdigest()[:32]
