"""Tiles of 0.5 um/px a second, directly and through OpenSlide, beside LazySlide's tiler; memory.

A slide of real H&E pixels is made under a temporary folder. Ours, OpenSlide's
way, the bare decoder (each JPEG tile under the wanted ones decoded once and
thrown away) and LazySlide take turns in one run, so that other load on the
machine hits all alike; medians are printed. LazySlide runs in an environment of
its own, over its own tissue tiles, in the quicker of its two ways (one after
the other, or a DataLoader with two workers).

    python benchmarks/reading.py [--lazyslide /path/to/its/python] [--size 16384] [--rounds 5]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simplejpeg
from made_slide import make_slide

from pathotune.slides.slide import Slide, open_slide
from pathotune.slides.tile_cache import TILES
from pathotune.slides.tiles import TileGrid, read_batches, read_tile
from pathotune.slides.tissue import tissue_mask

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

HERE = Path(__file__).parent
MPP, SIDE = 0.5, 224
GOAL, GOAL_MB = 2.0, 200

LAZY = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import torch
try:
    import torchvision
except RuntimeError:  # beside a CPU build of torch, two operators are missing
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import lazyslide as zs
from torch.utils.data import DataLoader
from wsidata import open_wsi
wsi = open_wsi(sys.argv[1])
zs.pp.find_tissues(wsi)
zs.pp.tile_tissues(wsi, 224, mpp=0.5)
limit = int(sys.argv[2])
print(json.dumps({"reader": wsi.reader.name, "tiles": min(limit, len(wsi["tiles"]))}), flush=True)
for line in sys.stdin:
    began, count = time.perf_counter(), 0
    if line.strip() == "loader":
        data = wsi.ds.tile_images("tiles")
        for batch in DataLoader(data, batch_size=16, num_workers=2):
            count += len(batch["image"])
            if count >= limit:
                break
    else:
        for tile in wsi.iter.tile_images("tiles"):
            tile.image
            count += 1
            if count >= limit:
                break
    print(json.dumps(count / (time.perf_counter() - began)), flush=True)
"""


class Lazy:
    """LazySlide in a process of its own, asked round by round."""

    def __init__(self, python: Path, slide: Path, limit: int) -> None:
        self._process = subprocess.Popen(
            [python, "-c", LAZY, slide, str(limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )
        self.about = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line[0] in "{0123456789":
                return json.loads(line)
        raise SystemExit("LazySlide's process ended; does its Python have lazyslide?")

    def speed(self, way: str) -> float:
        """Return tiles a second of one round."""
        assert self._process.stdin is not None
        self._process.stdin.write(way + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def plan(slide: Slide, limit: int) -> tuple[TileGrid, np.ndarray]:
    """Return tiles of the model's size without a margin, those on tissue, row by row."""
    grid = TileGrid.plan(
        slide.width, slide.height, slide.need_mpp(), mpp=MPP, tile_px=SIDE, token_px=SIDE, halo=0
    )
    return grid, grid.cells(tissue_mask(slide))[:limit]


def decoding(slide: Slide, grid: TileGrid, cells: np.ndarray, threads: int) -> float:
    """Return seconds for decoding every JPEG tile under the cells once."""
    tiles: Any = slide._reader._tiles  # type: ignore[attr-defined]
    level = tiles.levels[0]
    step = round(grid.lattice.step)
    wanted: dict[int, None] = {}
    for row, column in cells:
        x0, y0 = int(column * grid.lattice.step), int(row * grid.lattice.step)
        x1 = min(slide.width - 1, x0 + step - 1)
        y1 = min(slide.height - 1, y0 + step - 1)
        for r in range(y0 // level.tile_h, y1 // level.tile_h + 1):
            for c in range(x0 // level.tile_w, x1 // level.tile_w + 1):
                wanted[r * level.across + c] = None

    def one(index: int) -> None:
        data = tiles._file.read(int(level.offsets[index]), int(level.counts[index]))
        simplejpeg.decode_jpeg(level.start + data[2:], "RGB")

    began = time.perf_counter()
    if threads == 1:
        for index in wanted:
            one(index)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, wanted))
    return time.perf_counter() - began


def ours(path: Path, grid: TileGrid, cells: np.ndarray, threads: int, direct: bool) -> float:
    """Return seconds for reading the cells from a freshly opened slide."""
    with open_slide(path) as slide:
        if not direct:
            slide._reader._tiles = None  # type: ignore[attr-defined]
        began = time.perf_counter()
        if threads == 1:
            for cell in cells:
                read_tile(slide, grid, cell)
        else:
            for _ in read_batches(slide, grid, cells, 16, readers=threads):
                pass
        return time.perf_counter() - began


def speed(path: Path, mpp: float, python: Path | None, limit: int, rounds: int) -> None:
    """Print tiles a second of one slide."""
    ways: dict[str, Callable[[], float]] = {}
    with open_slide(path) as slide:
        grid, cells = plan(slide, limit)

        def add(name: str, way: Callable[[], float]) -> None:
            ways[name] = lambda: len(cells) / way()

        for n in (1, 2):
            word = f"{n} thread" + "s" * (n > 1)
            add(f"ours, {word}", partial(ours, path, grid, cells, n, True))
            add(f"through OpenSlide, {word}", partial(ours, path, grid, cells, n, False))
            add(f"decoding alone, {word}", partial(decoding, slide, grid, cells, n))
        lazy = Lazy(python, path, limit) if python is not None else None
        if lazy is not None:
            ways["LazySlide, one by one"] = partial(lazy.speed, "iter")
            ways["LazySlide, 2 workers"] = partial(lazy.speed, "loader")
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _, (name, way) in itertools.product(range(rounds), ways.items()):
            found[name].append(way())
    print(f"{len(cells)} tissue tiles of {SIDE} px at {MPP} um/px of a slide of {mpp} um/px")
    best = {name: statistics.median(values) for name, values in found.items()}
    for name, values in found.items():
        print(f"  {name:32s} {best[name]:7.0f} tiles/s ({min(values):.0f}-{max(values):.0f})")
    for n in ("1 thread", "2 threads"):
        mine = best[f"ours, {n}"]
        print(
            f"  {n}: {mine / best[f'through OpenSlide, {n}']:.2f} times OpenSlide, "
            f"{mine / best[f'decoding alone, {n}']:.2f} of decoding alone"
        )
    if lazy is not None:
        print(f"  LazySlide read {lazy.about['tiles']} tiles through {lazy.about['reader']}")
        lazy.close()
        ratio = best["ours, 2 threads"] / max(v for k, v in best.items() if "Lazy" in k)
        said = "met" if ratio >= GOAL else "MISSED"
        print(f"  {ratio:.2f} times LazySlide at its best; goal {GOAL}: {said}")


MEMORY = """
import sys
from pathlib import Path
from pathotune.slides.slide import open_slide
from pathotune.slides.tissue import tissue_mask
from pathotune.slides.tiles import TileGrid, read_batches
import numpy as np

def mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))

slide = open_slide(sys.argv[1])
most = 0.0
tissue = tissue_mask(slide)
most = max(most, mb())
size = {"tile_px": 224, "token_px": 14, "halo": 1}
grid = TileGrid.plan(slide.width, slide.height, slide.mpp, mpp=0.5, **size)
cells = grid.cells(tissue)
for i, _ in enumerate(read_batches(slide, grid, cells[:3000], 16)):
    most = max(most, mb())
for array in slide.pyramid():
    h, w = array.shape[:2]
    for k in range(6):
        array[h * k // 8 : h * k // 8 + 1000, w * k // 8 : w * k // 8 + 1600]
    most = max(most, mb())
print(most)
"""


def memory(folder: Path) -> None:
    """Print the most anonymous memory of a process that reads a small and a large slide."""
    found = {}
    for width, height in ((10_000, 10_000), (100_000, 80_000)):
        path = make_slide(folder / f"{width}.svs", width, height)
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, path],
            env=os.environ | {"PYTHONPATH": str(HERE.parent / "src")},
            check=True,
            capture_output=True,
            text=True,
        )
        found[width] = float(done.stdout)
        print(f"  {width:6d} x {height:6d}: {found[width]:.0f} MB anonymous at most")
    more = found[100_000] - found[10_000]
    said = "met" if more <= GOAL_MB else "MISSED"
    print(f"  {more:+.0f} MB for the large one; goal within {GOAL_MB}: {said}")
    print(f"  (decoded tiles are kept up to {TILES.limit >> 20} MB)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lazyslide", type=Path, help="a Python that has lazyslide")
    parser.add_argument("--size", type=int, default=16384)
    parser.add_argument("--tiles", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"load of the machine at the start: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        for mpp in (0.25, 0.2527):  # halves of pixels, and no whole multiple
            path = make_slide(Path(folder) / f"{mpp}.svs", args.size, args.size, mpp)
            speed(path, mpp, args.lazyslide, args.tiles, args.rounds)
        print("memory while reading thumbnail, tissue, tiles, and pieces of what the viewer shows")
        memory(Path(folder))
    print(f"load of the machine at the end: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
