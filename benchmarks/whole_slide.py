"""Compare a whole slide's tiles per second with its two parts alone: reading, and the model.

Reading, model and both together take turns on the same tiles of a slide, so that
other load on the machine hits all three alike. On a processor reading and model
share the cores, so together they can do 1 / (1 / reading + 1 / model); beside a
graphics card the slower of the two. It also prints the disk space a mm2 of tissue
takes, how long a window of features takes to read back, and the longest time for
which computing kept another thread from running (the stand-in for a window's
event loop).

    python benchmarks/whole_slide.py [--slide FILE] [--model ID] [--tiles N] [--rounds N]
                                     [--device D]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pathotune.events import drain
from pathotune.models.cards import DEFAULT_ID, card
from pathotune.models.extract import backbone_for
from pathotune.models.features import FeatureStore, compute_features
from pathotune.models.runtime import cores, readers
from pathotune.slides.sample import sample_slide
from pathotune.slides.slide import open_slide
from pathotune.slides.tiles import TileGrid, read_batches
from pathotune.slides.tissue import tissue_mask

if TYPE_CHECKING:
    from pathotune.models.cards import ModelCard
    from pathotune.slides.slide import Slide


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


@dataclass
class Speeds:
    """Tiles per second of each round: reading alone, the model alone, both together."""

    reading: list[float] = field(default_factory=list)
    model: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)

    def share(self, device: str) -> float:
        """Return together over what reading and model allow, the median of the rounds."""
        return statistics.median(
            t * max(1 / r, 1 / m) if device.startswith("cuda") else t * (1 / r + 1 / m)
            for r, m, t in zip(self.reading, self.model, self.together, strict=True)
        )


def grid_of(slide: Slide, model: ModelCard) -> TileGrid:
    return TileGrid.plan(
        slide.width,
        slide.height,
        slide.mpp or model.mpp,
        mpp=model.mpp,
        tile_px=model.tile_px,
        token_px=model.token_px,
        halo=model.halo,
    )


def measure(path: Path, model: ModelCard, device: str, count: int, rounds: int) -> Speeds:
    """Let reading, model and both take turns on the first tissue tiles of a slide."""
    backbone = backbone_for(model, device)
    with open_slide(path) as slide:
        grid = grid_of(slide, model)
        cells = grid.cells(tissue_mask(slide))[:count]
        # A chunk is as long as the job's, whatever the number of tiles: the last is padded.
        cells = cells[: max(1, len(cells) // backbone.batch) * backbone.batch]
        tiles = np.concatenate([t for _, t in read_batches(slide, grid, cells, backbone.batch)])

    def reading() -> None:
        with open_slide(path) as fresh:  # nothing decoded yet
            for _ in read_batches(fresh, grid, cells, backbone.batch, readers(backbone.device)):
                pass

    def alone() -> None:
        with backbone.ahead() as begin:
            at = range(0, len(tiles), backbone.batch)
            for left in [begin(tiles[i : i + backbone.batch]) for i in at]:
                left.result()

    def both() -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            open_slide(path) as fresh,
            FeatureStore.open(fresh.stamp, model, grid, Path(folder), device) as store,
        ):
            drain(compute_features(fresh, model, grid, store, cells, device=device))

    speeds = Speeds()
    alone()
    for _ in range(rounds):
        for seen, call in (
            (speeds.reading, reading),
            (speeds.model, alone),
            (speeds.together, both),
        ):
            start = time.perf_counter()
            call()
            seen.append(len(cells) / (time.perf_counter() - start))
    return speeds


def tell(speeds: Speeds, device: str) -> None:
    for name in ("reading", "model", "together"):
        seen = getattr(speeds, name)
        print(
            f"{name:>9}: {statistics.median(seen):7.2f} tiles/s  ({min(seen):.2f} to "
            f"{max(seen):.2f})"
        )
    what = "the slower" if device.startswith("cuda") else "1 / (1 / reading + 1 / model)"
    print(f"together / {what}: {speeds.share(device):.3f} (median of rounds; goal 0.95)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slide", type=Path, default=sample_slide())
    parser.add_argument("--model", default=DEFAULT_ID)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiles", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = card(args.model)
    backbone = backbone_for(model, args.device)
    speeds = measure(args.slide, model, args.device, args.tiles, args.rounds)
    print(
        f"{model.name} on {backbone.device} ({backbone.engine.name}), batches of "
        f"{backbone.batch}, {cores()} cores, {args.tiles} tiles"
    )
    tell(speeds, backbone.device)

    slide = open_slide(args.slide)
    tissue, grid = tissue_mask(slide), grid_of(slide, model)
    cells = grid.cells(tissue)[: args.tiles]
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
