"""Annotations in and out as GeoJSON, the way QuPath exchanges them.

A file may hold a FeatureCollection, a bare list of features or one feature,
plain or gzipped. Features are read one at a time, so a file with a hundred
thousand detections needs memory for the annotations only. Writing is atomic:
either the whole new file is there or the old one still is.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import os
import secrets
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathotune.events import PathotuneError
from pathotune.marks.annotations import Annotation, AnnotationClass, AnnotationSet
from pathotune.marks.features import flat, from_feature, is_root, to_feature, with_fresh_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BLOCK = 1 << 20
_SPACE = " \t\r\n"
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would turn line ends


class _Stream:
    """Text with a window that moves on, for a decoder that wants whole values."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._decoder = json.JSONDecoder()

    def _more(self) -> bool:
        # The share that is read grows, so that one huge feature is not decoded again and again.
        new = self._file.read(max(_BLOCK, len(self._text) - self._at))
        self._text, self._at = self._text[self._at :] + new, 0
        return bool(new)

    def peek(self) -> str:
        """Return the next character that is not white space, or an empty string at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self, wanted: str) -> bool:
        """Step over a character if it is the next one."""
        if self.peek() == wanted:
            self._at += 1
            return True
        return False

    def value(self) -> Any:
        """Read one whole value."""
        self.peek()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # what is wrong before the end of the window stays wrong with more text
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - 16
                if not cut or not self._more():
                    raise
                continue
            # a number at the very end of the window may go on
            if end == len(self._text) and self._more():
                continue
            self._at = end
            return found


def _features(stream: _Stream, members: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield features; what a collection says beside them goes into `members`."""
    first = stream.peek()
    if first == "[":
        yield from _list(stream)
        return
    if not stream.skip("{"):
        raise ValueError("it does not begin as GeoJSON")
    found_list = False
    while not stream.skip("}"):
        key = stream.value()
        if not stream.skip(":"):
            raise ValueError("a value is missing")
        if key == "features" and stream.peek() == "[":
            found_list = True
            yield from _list(stream)
        else:
            members[key] = stream.value()
        if not stream.skip(",") and stream.peek() != "}":
            raise ValueError("it ends too early")
    if found_list:
        return
    one = dict(members)
    members.clear()
    if one.get("type") == "Feature":
        yield one
    elif "coordinates" in one or "geometries" in one:
        yield {"type": "Feature", "geometry": one, "properties": {}}
    else:
        raise ValueError("there are no features in it")


def _list(stream: _Stream) -> Iterator[Any]:
    stream.skip("[")
    while not stream.skip("]"):
        feature = stream.value()
        if not isinstance(feature, dict):
            raise ValueError("a feature is not an object")
        yield feature
        if not stream.skip(",") and stream.peek() != "]":
            raise ValueError("it ends too early")


def _open(path: Path) -> io.TextIOWrapper:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    if zipped:
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig")
    return path.open("r", encoding="utf-8-sig")


def read_geojson(path: str | Path) -> AnnotationSet:
    """Read annotations.

    Parameters
    ----------
    path : path-like
        ``.geojson``, ``.json`` or ``.geojson.gz``; coordinates in level-0 pixels.

    Returns
    -------
    AnnotationSet
        Its `notes` say what was mended.

    Raises
    ------
    PathotuneError
        There is no such file, or it is not GeoJSON.
    """
    path = Path(path)
    classes: dict[str, AnnotationClass] = {}
    items: list[Annotation] = []
    notes: list[str] = []
    members: dict[str, Any] = {}
    empty, refused, first_refused = 0, 0, None
    try:
        with _open(path) as file:
            nested = _features(_Stream(file), members)
            for feature in (f for outer in nested for f in flat(outer)):
                if feature.get("geometry") is None:
                    empty += not is_root(feature)
                    continue
                try:
                    item, new_class, note = from_feature(feature, classes)
                except PathotuneError as error:
                    refused, first_refused = refused + 1, first_refused or error
                    continue
                if item.geometry.is_empty:
                    empty += 1
                    continue
                if new_class is not None:
                    classes[new_class.name] = new_class
                if note is not None:
                    notes.append(note)
                items.append(item)
        if first_refused is not None and not items:
            raise first_refused
    except FileNotFoundError as error:
        raise PathotuneError(f"There is no file {path}.", "Check the name.") from error
    except OSError as error:
        raise PathotuneError(
            f"{path.name} cannot be read ({error.strerror or error}).",
            "Check that you may read it and that it is complete.",
        ) from error
    except (ValueError, EOFError, zlib.error, RecursionError) as error:
        raise PathotuneError(
            f"{path.name} is not a complete GeoJSON file ({error}).",
            "Export the annotations again as GeoJSON.",
        ) from error
    if empty:
        notes.append(f"{empty} regions without a shape were left out.")
    if refused:
        notes.append(f"{refused} entries that are not regions were left out.")
    return AnnotationSet(classes.values(), with_fresh_ids(items), notes, members)


def stream_features(path: str | Path) -> Iterator[Mapping[str, Any]]:
    """Yield the features of a file one at a time, nested ones too, in bounded memory.

    Raises
    ------
    PathotuneError
        There is no such file, or it is not GeoJSON.
    """
    path = Path(path)
    try:
        with _open(path) as file:
            for outer in _features(_Stream(file), {}):
                yield from flat(outer)
    except FileNotFoundError as error:
        raise PathotuneError(f"There is no file {path}.", "Check the name.") from error
    except OSError as error:
        raise PathotuneError(
            f"{path.name} cannot be read ({error.strerror or error}).",
            "Check that you may read it and that it is complete.",
        ) from error
    except (ValueError, EOFError, zlib.error, RecursionError) as error:
        raise PathotuneError(
            f"{path.name} is not a complete GeoJSON file ({error}).",
            "Export the detections again as GeoJSON.",
        ) from error


def write_atomically(path: Path, write: Any) -> None:
    """Call ``write(binary file)`` on a neighbour of `path`, then put it in its place.

    Raises
    ------
    PathotuneError
        The disk is full or the folder cannot be written; the old file stays.
    """
    name = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        # as any new file: the user's own permissions apply, and no other's draft is taken
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            name.chmod(path.stat().st_mode & 0o777)
        name.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PathotuneError(
                f"The disk is full; {path.name} was not saved.",
                "Free some space or save elsewhere; nothing is lost meanwhile.",
            ) from error
        raise PathotuneError(
            f"{path.name} cannot be saved ({error.strerror or error}).",
            "Check that the folder exists and that you may write there.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            name.unlink(missing_ok=True)


def write_geojson(path: str | Path, annotations: AnnotationSet) -> None:
    """Write annotations as a FeatureCollection; ``.gz`` at the end compresses.

    Raises
    ------
    PathotuneError
        It cannot be saved; an old file of that name stays as it was.
    """
    path = Path(path)
    classes = {c.name: c for c in annotations.classes}

    def dump(file: Any) -> None:
        head = json.dumps({"type": "FeatureCollection", **annotations.members}, ensure_ascii=False)
        file.write(head[:-1].encode("utf-8") + b', "features": [')
        for number, item in enumerate(annotations.items):
            file.write(b",\n" if number else b"\n")
            text = json.dumps(to_feature(item, classes), ensure_ascii=False)
            file.write(text.encode("utf-8"))
        file.write(b"\n]}\n")

    def write(file: Any) -> None:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as zipped:
                dump(zipped)
        else:
            dump(file)

    write_atomically(path, write)
