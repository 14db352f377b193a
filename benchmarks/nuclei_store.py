"""A million nuclei: how long until they can be looked at, and how much memory that takes.

Usage: ``python benchmarks/nuclei_store.py [COUNT]``. The nuclei are made (ellipses of 32 points,
2000 a tile) and written as the program writes them. Every question is asked through the index and
by reading or comparing everything, alternating, in this process; medians and ratios are printed.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pathotune.nuclei.measure import MEASURES
from pathotune.nuclei.query import Nuclei
from pathotune.nuclei.store import schema, to_arrow

ABOUT = {"mpp": 0.25, "segmenter": "made"}
A_TILE, TILE_PX = 2000, 2048.0
ROUNDS = 9


def main() -> None:
    """Write, then print one line a question."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.parquet"
        side = write(path, count)
        print(f"{count} nuclei, {path.stat().st_size / 1e6:.0f} MB on disk")
        before = resident()
        began = time.perf_counter()
        nuclei = Nuclei.open(path)
        print(f"open                 {time.perf_counter() - began:8.3f} s")
        nuclei.within(0, 0, 9, 9)
        print(f"memory after opening {resident() - before:8.0f} MB")
        rng = np.random.default_rng(1)
        for name, view in (("screen 2000 px", 2000), ("screen 8000 px", 8000)):
            spots = rng.uniform(0, side - view, (ROUNDS, 2))
            ours, plain, rows, rings = [], [], 0, []
            for x, y in spots:
                box = (x, y, x + view, y + view)
                began = time.perf_counter()
                found = nuclei.within(*box)
                ours.append(time.perf_counter() - began)
                rows = max(rows, len(found))
                plain.append(timed(lambda b=box: compare(nuclei, b), 1))
                rings.append(timed(lambda f=found: nuclei.outlines(f), 1))
            told = ratio(ours, plain)
            print(f"{name}: up to {rows} rows in {told}; outlines {ms(rings)}")
        at = nuclei.xy[rng.integers(0, count, ROUNDS)]
        nuclei.nearest(0, 0)
        tell("under the cursor", [timed(lambda p=p: nuclei.at(*p), 1) for p in at])
        tell("nearest 10", [timed(lambda p=p: nuclei.nearest(*p, 10), 1) for p in at])
        tell("density, new level", [timed(lambda k=k: nuclei.density(k), 1) for k in range(9)])
        tell("a measurement", [timed(lambda m=m: nuclei.column(m), 1) for m in MEASURES])
        print(f"most memory          {peak():8.0f} MB, {before:.0f} MB of it before opening")
        print(f"reading it whole     {timed(lambda: pq.read_table(path), 1):8.3f} s")
        print(f"and then             {peak():8.0f} MB")


def write(path: Path, count: int) -> float:
    """Write made nuclei, a row group a tile; return the side of the field in pixels."""
    rng, turn = np.random.default_rng(0), np.linspace(0, 2 * np.pi, 33)
    tiles = -(-count // A_TILE)
    across = int(np.ceil(np.sqrt(tiles)))
    with pq.ParquetWriter(path, schema(ABOUT), compression="zstd") as writer:
        for tile in range(tiles):
            n = min(A_TILE, count - tile * A_TILE)
            corner = np.array([tile % across, tile // across]) * TILE_PX
            xy = corner + rng.uniform(0, TILE_PX, (n, 2))
            r = rng.uniform(8, 20, (n, 2))
            rings = xy[:, None] + r[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
            rows = {m: rng.random(n) for m in MEASURES} | {"confidence": rng.random(n)}
            rows |= {"x": xy[:, 0], "y": xy[:, 1]}
            rows |= {"x0": xy[:, 0] - r[:, 0], "x1": xy[:, 0] + r[:, 0]}
            rows |= {"y0": xy[:, 1] - r[:, 1], "y1": xy[:, 1] + r[:, 1]}
            rows["class"] = np.array(["tumour", "immune", "stroma"])[rng.integers(0, 3, n)]
            writer.write_table(to_arrow(rows | {"outline": list(rings.astype(np.float32))}, ABOUT))
    return across * TILE_PX


def compare(nuclei: Nuclei, box: tuple[float, ...]) -> np.ndarray:
    """Compare every box with the rectangle."""
    b = nuclei.boxes
    return np.flatnonzero(
        (b[:, 0] <= box[2]) & (b[:, 2] >= box[0]) & (b[:, 1] <= box[3]) & (b[:, 3] >= box[1])
    )


def timed(call: object, rounds: int) -> float:
    """Return the median of seconds."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def tell(name: str, took: list[float]) -> None:
    """Print a line."""
    print(f"{name:20} {ms(took)}")


def ms(took: list[float]) -> str:
    """Return median and worst as text."""
    return f"{statistics.median(took) * 1e3:8.2f} ms (worst {max(took) * 1e3:.2f})"


def ratio(ours: list[float], plain: list[float]) -> str:
    """Return our time and how many times as long comparing everything takes."""
    times = statistics.median(plain) / statistics.median(ours)
    return f"{ms(ours)}, comparing all takes {times:.1f} times as long"


def resident() -> float:
    """Return MB of memory in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def peak() -> float:
    """Return the most MB of memory that were in use."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
