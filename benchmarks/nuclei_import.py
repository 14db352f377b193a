"""QuPath's detections out and in again: seconds and memory for half a million.

Usage: ``python benchmarks/nuclei_import.py [COUNT]``. Made nuclei of 24 points are written as the
program writes them, plain and compressed, and read back. Beside it stands what reading the same
file whole with ``json`` takes, in a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pathotune.events import drain
from pathotune.nuclei.detections import import_detections
from pathotune.nuclei.exports import write_geojson
from pathotune.nuclei.query import Nuclei
from pathotune.nuclei.store import schema, to_arrow

ABOUT = {"mpp": 0.25, "segmenter": "made"}
WHOLE = """
import json, resource, sys, time
began = time.perf_counter()
json.load(open(sys.argv[1]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(f"json, all at once   {time.perf_counter() - began:8.1f} s, {peak:8.0f} MB at most")
"""


def main() -> None:
    """Write and read."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
    with tempfile.TemporaryDirectory() as folder:
        store, text = Path(folder) / "n.parquet", Path(folder) / "n.geojson"
        made(store, count)
        nuclei = Nuclei.open(store)
        told("write", lambda: write_geojson(text, nuclei))
        print(f"{text.stat().st_size / 1e6:.0f} MB of text, {count} detections")
        told("read", lambda: drain(import_detections(text, Path(folder) / "b.parquet", 0.25)))
        subprocess.run([sys.executable, "-c", WHOLE, str(text)], check=True)


def made(path: Path, count: int) -> None:
    """Write made nuclei."""
    rng, turn = np.random.default_rng(0), np.linspace(0, 2 * np.pi, 25)
    side = 60 * np.sqrt(count)
    with pq.ParquetWriter(path, schema(ABOUT)) as writer:
        for first in range(0, count, 4096):
            n = min(4096, count - first)
            xy, r = rng.uniform(50, side, (n, 2)), rng.uniform(10, 20, n)
            ring = xy[:, None] + r[:, None, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
            rows = {"x": xy[:, 0], "y": xy[:, 1], "x0": xy[:, 0] - r, "x1": xy[:, 0] + r}
            rows |= {"y0": xy[:, 1] - r, "y1": xy[:, 1] + r, "confidence": rng.random(n)}
            rows |= {"outline": list(ring.astype(np.float32)), "area_um2": rng.random(n)}
            writer.write_table(to_arrow(rows, ABOUT))


def told(name: str, call: object) -> None:
    """Print seconds and the most memory so far."""
    began = time.perf_counter()
    call()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{name:20}{time.perf_counter() - began:8.1f} s, {peak:8.0f} MB at most", flush=True)


if __name__ == "__main__":
    main()
