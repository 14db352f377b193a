"""Compare a whole slide's tiles per second with its two parts alone: reading, and the model.

Reading, model and both together take turns on the same tiles of the sample
slide, so that other load on the machine hits all three alike. It also prints the
disk space a mm2 of tissue takes, how long a window of features takes to read
back, and the longest time for which computing kept another thread from running
(the stand-in for a window's event loop).

    python benchmarks/whole_slide.py [--model ID] [--tiles N] [--rounds N] [--device D]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from pathotune.events import drain
from pathotune.models.cards import DEFAULT_ID, card
from pathotune.models.extract import backbone_for
from pathotune.models.features import FeatureStore, compute_features
from pathotune.models.runtime import cores, limited_threads
from pathotune.slides.sample import sample_slide
from pathotune.slides.slide import open_slide
from pathotune.slides.tiles import TileGrid, read_batches
from pathotune.slides.tissue import tissue_mask


class Heart:
    """A thread that notes the longest gap between its beats, 2 ms apart."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def _beat(self) -> None:
        last = time.perf_counter()
        while not self._stop.wait(0.002):
            now = time.perf_counter()
            self.longest = max(self.longest, now - last)
            last = now

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=DEFAULT_ID)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiles", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = card(args.model)
    slide = open_slide(sample_slide())
    tissue = tissue_mask(slide)
    grid = TileGrid.plan(
        slide.width,
        slide.height,
        slide.mpp or model.mpp,
        mpp=model.mpp,
        tile_px=model.tile_px,
        token_px=model.token_px,
        halo=model.halo,
    )
    cells = grid.cells(tissue)[: args.tiles]
    backbone = backbone_for(model, args.device)
    tiles = np.concatenate([t for _, t in read_batches(slide, grid, cells, backbone.batch)])
    with limited_threads():
        backbone.tokens(tiles[: backbone.batch])

    def alone() -> None:
        with limited_threads():
            backbone.tokens(tiles)

    def reading() -> None:
        with open_slide(sample_slide()) as fresh:  # nothing decoded yet
            for _ in read_batches(fresh, grid, cells, backbone.batch):
                pass

    def both() -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            open_slide(sample_slide()) as fresh,
            FeatureStore.open(slide.stamp, model, grid, Path(folder)) as store,
        ):
            drain(compute_features(fresh, model, grid, store, cells, device=args.device))

    speeds: dict[str, list[float]] = {"reading": [], "model": [], "together": []}
    for _ in range(args.rounds):
        for name, call in (("reading", reading), ("model", alone), ("together", both)):
            start = time.perf_counter()
            call()
            speeds[name].append(len(cells) / (time.perf_counter() - start))
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    print(f"{model.name} on {backbone.device}, {cores()} cores, {len(cells)} tiles of the sample")
    for name, value in middle.items():
        low, high = min(speeds[name]), max(speeds[name])
        print(f"{name:>9}: {value:7.2f} tiles/s  ({low:.2f} to {high:.2f})")
    ratio = statistics.median(
        t / m for t, m in zip(speeds["together"], speeds["model"], strict=True)
    )
    print(f"together / model alone: {ratio:.2f} (median of rounds)")

    with (
        tempfile.TemporaryDirectory() as folder,
        FeatureStore.open(slide.stamp, model, grid, Path(folder)) as store,
    ):
        idle = Heart()
        with idle:
            time.sleep(2)
        with Heart() as heart:
            worker = threading.Thread(
                target=lambda: drain(
                    compute_features(slide, model, grid, store, cells, device=args.device)
                )
            )
            worker.start()
            worker.join()
        print(
            f"longest gap of another thread: {heart.longest * 1e3:.0f} ms while computing, "
            f"{idle.longest * 1e3:.0f} ms idle"
        )
        on_tissue = int(grid.tokens(tissue).sum())
        share = len(grid.cells(tissue)) * grid.core**2 / on_tissue
        per_mm2 = store.nbytes / len(cells) / grid.core**2 / model.token_um**2 * share
        print(f"disk: {per_mm2:.2f} MB per mm2 of tissue")
        made = np.random.default_rng(0).normal(size=(grid.core, grid.core, model.dims))
        for row in range(min(grid.tile_rows, -(-100 // grid.core) + 1)):
            for col in range(min(grid.tile_cols, -(-130 // grid.core) + 1)):
                store.put((row, col), made.astype(np.float32))
        times = []
        for _ in range(15):
            start = time.perf_counter()
            store.window(3, 5, 103, 135)
            times.append(time.perf_counter() - start)
        print(f"a window of 100 x 130 tokens: {statistics.median(times) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
