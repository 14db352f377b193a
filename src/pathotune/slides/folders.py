"""Slides that are folders, or come in folders: which file opens them.

A pathologist drops what the scanner wrote. That may be the data folder beside
an MRXS file, a folder of DICOM files that are levels of one or several slides,
or an OME-Zarr. What is none of these is declined after a look at a few names
and first bytes.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathotune.slides.fingerprint import fingerprint
from pathotune.slides.view import Scene, View, largest, number, remembered

if TYPE_CHECKING:
    from pathlib import Path

_MOST = 2000  # entries looked at; a slide's folder has fewer
_HEAD = 1 << 14  # where a DICOM file has said what it is
_SERIES = b"\x20\x00\x0e\x00UI"
_COLUMNS, _ROWS = b"\x48\x00\x06\x00UL\x04\x00", b"\x48\x00\x07\x00UL\x04\x00"


@dataclass(frozen=True, slots=True)
class Found:
    """What opens a folder; `scenes` where it holds several slides."""

    path: Path
    scenes: tuple[Scene, ...] = ()
    scene: int = 1


def inside(path: Path, view: View | None = None) -> Found:
    """Return what to open for a path; the path itself for files and for folders of no kind.

    Raises
    ------
    PathotuneError
        The view asks for a scene that the folder lacks.
    """
    if not path.is_dir():
        return Found(path)
    for suffix in (".mrxs", ".MRXS"):
        index = path.with_name(path.name + suffix)
        if index.is_file():
            return Found(index)
    series = _series(path)
    if not series:
        indexes = [
            p for p in itertools.islice(path.iterdir(), _MOST) if p.suffix.lower() == ".mrxs"
        ]
        return Found(indexes[0] if len(indexes) == 1 else path)
    scenes = tuple(Scene(i, f"Slide {i}", w, h) for i, (w, h, _) in enumerate(series, start=1))
    chosen = number((view or View()).scene, len(scenes), "scene", largest(scenes))
    return Found(series[chosen - 1][2], scenes if len(scenes) > 1 else (), chosen)


def _series(folder: Path) -> list[tuple[int, int, Path]]:
    """Return width, height and largest file of each slide among DICOM files, sorted by series."""
    found: dict[bytes, tuple[int, int, Path]] = {}
    for path in sorted(itertools.islice(folder.iterdir(), _MOST)):
        if path.suffix.lower() not in {".dcm", ""} or not path.is_file():
            continue
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if head[128:132] != b"DICM":
            continue
        width, height = _number(head, _COLUMNS), _number(head, _ROWS)
        at = head.find(_SERIES)
        if at < 0 or not width or not height:
            continue
        (length,) = struct.unpack_from("<H", head, at + len(_SERIES))
        uid = head[at + 8 : at + 8 + length].strip(b"\0 ")
        if uid not in found or width > found[uid][0]:
            found[uid] = (width, height, path)
    return [found[uid] for uid in sorted(found)]


def _number(head: bytes, tag: bytes) -> int:
    at = head.find(tag)
    if at < 0 or at + 12 > len(head):
        return 0
    return int(struct.unpack_from("<I", head, at + 8)[0])


def chosen(path: Path, view: View) -> tuple[str, View]:
    """Return the key of a file's choice, and the view filled up by it where it still fits."""
    if path.is_dir():
        first = inside(path)
        key = fingerprint(first.path)
        key = f"{key}-{len(first.scenes)}" if first.scenes else key
    else:
        key = fingerprint(path)
    return key, view.over(remembered(key))
