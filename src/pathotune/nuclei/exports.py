"""Nuclei for other programs: QuPath's detections, tables, AnnData.

What a person corrected is in all of them. They are streamed, so half a million
nuclei need no more memory than their numbers, and every file is whole or not
there at all. A measurement that is not known is left out, not made zero.
"""

from __future__ import annotations

import gzip
import io
import json
import pathlib
import shutil
import tempfile
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError
from pathotune.marks.geojson import write_atomically
from pathotune.nuclei.flow import chunks, nuclei_of
from pathotune.nuclei.store import schema, to_arrow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pathotune.nuclei.query import Nuclei
    from pathotune.nuclei.store import NucleusStore


def write_geojson(path: Path, source: Nuclei | NucleusStore) -> None:
    """Write detections that QuPath opens, with class and measurements; ``.gz`` compresses.

    Raises
    ------
    PathotuneError
        It cannot be saved; an old file of that name stays as it was.
    """
    nuclei = nuclei_of(source)

    def dump(file: Any) -> None:
        file.write(b'{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(_features(nuclei)):
            file.write(b",\n" if number else b"\n")
            file.write(json.dumps(feature, allow_nan=False).encode("utf-8"))
        file.write(b"\n]}\n")

    _put(path, dump)


def _features(nuclei: Nuclei) -> Iterator[dict[str, Any]]:
    names = ("confidence", *nuclei.measures)
    for part in chunks(nuclei):
        numbers = np.stack([part[n] for n in names], axis=1).astype(float).round(4)
        known = np.isfinite(numbers)
        for i, ring in enumerate(part["outline"]):
            points = np.round(ring.astype(float), 2).tolist()
            points[-1] = points[0]
            told = zip(names, numbers[i].tolist(), known[i].tolist(), strict=True)
            yield {
                "type": "Feature",
                # the same store gives the same ids, so importing twice adds nothing new
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{nuclei.about}{part['id'][i]}")),
                "geometry": {"type": "Polygon", "coordinates": [points]},
                "properties": {
                    "objectType": "detection",
                    "classification": {"name": part["class"][i]},
                    "measurements": {n: v for n, v, ok in told if ok},
                },
            }


def write_csv(path: Path, source: Nuclei | NucleusStore) -> None:
    """Write one line a nucleus; x and y are the centre in level-0 pixels; ``.gz`` compresses.

    Raises
    ------
    PathotuneError
        It cannot be saved; an old file of that name stays as it was.
    """
    import csv

    nuclei = nuclei_of(source)
    names = ["id", "x", "y", "class", "confidence", *nuclei.measures]

    def dump(file: Any) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text)
        writer.writerow(names)
        for part in chunks(nuclei, names):
            columns = [part[name].tolist() for name in names]
            for row in zip(*columns, strict=True):
                writer.writerow([_cell(v) for v in row])
        text.flush()
        text.detach()

    _put(path, dump)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.8g}" if np.isfinite(value) else ""
    return value


def write_parquet(path: Path, source: Nuclei | NucleusStore) -> None:
    """Write a store of what is seen: corrections and classes are part of it.

    Raises
    ------
    PathotuneError
        It cannot be saved; an old file of that name stays as it was.
    """
    import pyarrow.parquet as pq

    nuclei = nuclei_of(source)

    def write(file: Any) -> None:
        done = 0
        with pq.ParquetWriter(file, schema(nuclei.about), compression="zstd") as out:
            for part in chunks(nuclei):
                out.write_table(to_arrow(part, nuclei.about, done + 1))
                done += len(part["id"])

    write_atomically(path, write)


def write_anndata(path: Path, source: Nuclei | NucleusStore) -> None:
    """Write an AnnData file: measurements in X, class in obs, centres (um) in obsm["spatial"].

    Raises
    ------
    PathotuneError
        The package anndata is missing, or the file cannot be saved.
    """
    try:
        import anndata
        import pandas
    except ImportError as error:
        raise PathotuneError(
            "Writing AnnData needs the package anndata.",
            "pip install napari-pathotune[anndata]",
        ) from error
    nuclei = nuclei_of(source)
    rows = np.flatnonzero(nuclei.alive)
    names = list(nuclei.measures)
    values = np.stack([nuclei.column(n, rows) for n in names], axis=1)
    names_of = np.array(nuclei.classes, object)[nuclei.codes[rows]]
    # objects: pandas' newer strings are not known to every anndata
    kinds = pandas.Index(sorted(set(names_of.tolist())), dtype=object)
    index = pandas.Index([str(i) for i in nuclei.ids[rows].tolist()], dtype=object)
    told = {"class": pandas.Categorical(names_of, kinds), "confidence": nuclei.confidence[rows]}
    columns = pandas.DataFrame(index=pandas.Index(names, dtype=object))
    table = anndata.AnnData(values, obs=pandas.DataFrame(told, index=index), var=columns)
    table.obsm["spatial"] = nuclei.xy[rows].astype(float) * nuclei.mpp
    table.uns["pathotune"] = json.dumps(nuclei.about)
    with tempfile.TemporaryDirectory() as folder:  # the format wants a name, not a file
        draft = pathlib.Path(folder) / "nuclei.h5ad"
        table.write_h5ad(draft)

        def copy(file: Any) -> None:
            with draft.open("rb") as made:
                shutil.copyfileobj(made, file)

        write_atomically(path, copy)


def _put(path: Path, dump: Any) -> None:
    def write(file: Any) -> None:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="wb", mtime=0, compresslevel=6) as zipped:
                dump(zipped)
        else:
            dump(file)

    write_atomically(path, write)
