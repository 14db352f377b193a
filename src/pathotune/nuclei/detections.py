"""QuPath's detections as nuclei: half a million of them in the memory of a few thousand.

The file is read one object at a time and written as a store of our own. Size
and shape are measured anew from the outlines, so that they mean the same as
everywhere here; what another program measured on colours is not taken over
under our names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import Note, PathotuneError, Progress
from pathotune.marks.geojson import stream_features, write_atomically
from pathotune.nuclei.shape import shape_table
from pathotune.nuclei.store import schema, to_arrow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.events import Job

A_GROUP = 4096
PLAIN = "Nucleus"
TAKEN = ("detection", "cell", None)  # kinds of objects; annotations are regions, not nuclei


def import_detections(path: Path, out: Path, mpp: float) -> Job[dict[str, Any]]:
    """Write the nuclei of a GeoJSON file as a store.

    Parameters
    ----------
    path : Path
        ``.geojson`` or ``.geojson.gz`` as QuPath writes it; of a cell the nucleus is taken.
    out : Path
        The Parquet file.
    mpp : float
        um per level-0 pixel.

    Yields
    ------
    Progress, Note

    Returns
    -------
    dict
        nuclei, left_out, out.

    Raises
    ------
    PathotuneError
        It is not a whole GeoJSON file, holds no nuclei, or the disk is full.
    """
    import pyarrow.parquet as pq

    about = {"mpp": mpp, "segmenter": f"imported from {path.name}", "stains_estimated": False}
    told = {"nuclei": 0, "left out": 0}

    def write(file: Any) -> Iterator[int]:
        with pq.ParquetWriter(file, schema(about), compression="zstd") as writer:
            for rows in _batches(path, told):
                n = len(rows["ring"])
                table: dict[str, Any] = {**shape_table(rows["ring"], mpp)}
                table |= {"outline": rows["ring"], "class": rows["class"]}
                table |= {"confidence": np.array(rows["confidence"])}
                writer.write_table(to_arrow(table, about, told["nuclei"] + 1))
                told["nuclei"] += n
                yield told["nuclei"]

    counts: list[int] = []
    write_atomically(out, lambda file: counts.extend(write(file)))
    yield Progress(told["nuclei"], told["nuclei"], "Reading nuclei", None)
    if told["left out"]:
        yield Note(f"{told['left out']} objects without an outline were left out.", "warning")
    return {"nuclei": told["nuclei"], "left_out": told["left out"], "out": str(out)}


def _batches(path: Path, told: dict[str, int]) -> Iterator[dict[str, list[Any]]]:
    batch: dict[str, list[Any]] = {"ring": [], "class": [], "confidence": []}
    found = 0
    for feature in stream_features(path):
        properties = feature.get("properties") or {}
        if properties.get("objectType") not in TAKEN:
            continue
        ring = _ring(feature.get("nucleusGeometry") or feature.get("geometry"))
        if ring is None:
            told["left out"] += 1
            continue
        name, sure = _told(properties)
        for key, value in (("ring", ring), ("class", name), ("confidence", sure)):
            batch[key].append(value)
        found += 1
        if len(batch["ring"]) >= A_GROUP:
            yield batch
            batch = {key: [] for key in batch}
    if not found:
        raise PathotuneError(
            f"There are no detections in {path.name}.",
            "In QuPath, export detections (not only annotations) as GeoJSON.",
        )
    if batch["ring"]:
        yield batch


def _told(properties: Mapping[str, Any]) -> tuple[str, float]:
    """Return class and confidence."""
    kind = properties.get("classification")
    name = kind if isinstance(kind, str) else None
    if isinstance(kind, dict):
        names = kind.get("names")
        name = kind.get("name") or (": ".join(map(str, names)) if names else None)
    measured = properties.get("measurements")
    sure = measured.get("confidence") if isinstance(measured, dict) else None
    return str(name or PLAIN), float(sure) if isinstance(sure, int | float) else 1.0


def _ring(geometry: Any) -> NDArray[Any] | None:
    """Return the outer outline of a polygon, the largest of several; None if there is none."""
    if not isinstance(geometry, dict):
        return None
    parts = geometry.get("coordinates")
    if geometry.get("type") == "Polygon":
        parts = [parts]
    elif geometry.get("type") != "MultiPolygon":
        return None
    try:
        rings = [np.array(p[0], np.float32)[:, :2] for p in parts or () if p]
    except (ValueError, TypeError, IndexError):
        return None
    rings = [r for r in rings if len(r) >= 4 and np.isfinite(r).all()]
    return max(rings, key=lambda r: float(np.ptp(r, axis=0).prod()), default=None)
