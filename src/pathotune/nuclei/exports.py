"""Nuclei for other programs: QuPath's detections and a table.

Both are streamed from the store one tile at a time, so half a million nuclei
need no more memory than one tile, and both are whole or not there at all.
"""

from __future__ import annotations

import gzip
import io
import json
import uuid
from typing import TYPE_CHECKING, Any

from pathotune.marks.geojson import write_atomically
from pathotune.nuclei.measure import MEASURES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pathotune.nuclei.store import NucleusStore

COLUMNS = ("id", "x", "y", "class", "confidence", *MEASURES)


def write_geojson(path: Path, store: NucleusStore) -> None:
    """Write detections that QuPath opens, with class and measurements; ``.gz`` compresses.

    Raises
    ------
    PathotuneError
        It cannot be saved; an old file of that name stays as it was.
    """

    def dump(file: Any) -> None:
        file.write(b'{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(_features(store)):
            file.write(b",\n" if number else b"\n")
            file.write(json.dumps(feature, allow_nan=False).encode("utf-8"))
        file.write(b"\n]}\n")

    _put(path, dump)


def _features(store: NucleusStore) -> Iterator[dict[str, Any]]:
    for part in store.chunks():
        for i, ring in enumerate(part["outline"]):
            points = [[round(float(x), 2), round(float(y), 2)] for x, y in ring]
            points[-1] = points[0]
            measured = {n: round(float(part[n][i]), 4) for n in (*MEASURES, "confidence")}
            yield {
                "type": "Feature",
                # the same store gives the same ids, so importing twice adds nothing new
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{store.about}{part['id'][i]}")),
                "geometry": {"type": "Polygon", "coordinates": [points]},
                "properties": {
                    "objectType": "detection",
                    "classification": {"name": part["class"][i]},
                    "measurements": measured,
                },
            }


def write_csv(path: Path, store: NucleusStore) -> None:
    """Write one line a nucleus; x and y are the centre in level-0 pixels; ``.gz`` compresses.

    Raises
    ------
    PathotuneError
        It cannot be saved; an old file of that name stays as it was.
    """
    import csv

    def dump(file: Any) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for part in store.chunks(list(COLUMNS)):
            columns = [part[name].tolist() for name in COLUMNS]
            for row in zip(*columns, strict=True):
                writer.writerow([f"{v:.8g}" if isinstance(v, float) else v for v in row])
        text.flush()
        text.detach()

    _put(path, dump)


def _put(path: Path, dump: Any) -> None:
    def write(file: Any) -> None:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as zipped:
                dump(zipped)
        else:
            dump(file)

    write_atomically(path, write)
