"""What learning without outlines is worth on nuclei outlined by people.

Usage: ``python benchmarks/nuclei_pretraining.py FOLDER [--seeds 3] [--out rows.csv]`` with tiles in
``train/images`` and label images of the same stem in ``train/masks``. Tiles of one appearance
(k-means on colours) stand for a slide: all their pixels may be looked at, outlines of k of them
are given, and the half of them that differs most in colour from these is judged, at the um/px at
which its median nucleus is 7.5 um wide. Same tiles, steps and seeds for every rival: the rows are
paired. Sizes and steps are small so that one thread does it in about an hour.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import skimage.io
import skimage.transform
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from pathotune.nuclei.scores import scores
from pathotune.nuclei.segmenters.watershed import Config, Watershed, threshold
from pathotune.nuclei.stains import estimate
from pathotune.nuclei.unpaired.adversarial import TranslationStage
from pathotune.nuclei.unpaired.dense import separate
from pathotune.nuclei.unpaired.estimate import estimate_from
from pathotune.nuclei.unpaired.learn import examined
from pathotune.nuclei.unpaired.pairs import scaled
from pathotune.nuclei.unpaired.palette import Red
from pathotune.nuclei.unpaired.reader import STRIDE, Reader
from pathotune.nuclei.unpaired.rendered import RenderedStage
from pathotune.nuclei.unpaired.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.nuclei.unpaired.estimate import Estimate

DIAMETER_UM, MPP, APPEARANCES = 7.5, 0.5, 3
LEAST_PX = 12 / MPP**2
GIVEN = (1, 5, 0)  # 0: all of the half that may be learnt from


@dataclass(frozen=True)
class Tile:
    """A tile at 0.5 um/px, and its outlines as they were drawn."""

    pixels: NDArray[Any]
    labels: NDArray[Any]
    truth: NDArray[Any]


def tiles(folder: Path) -> list[Tile]:
    found = []
    for path in sorted((folder / "train" / "images").glob("*.png")):
        pixels = skimage.io.imread(path)[..., :3]
        truth = skimage.io.imread(next((folder / "train" / "masks").glob(f"{path.stem}*")))
        areas = np.bincount(truth.ravel())[1:]
        wide = 2 * np.sqrt(np.median(areas[areas > 0]) / np.pi)
        scale = float(np.clip(DIAMETER_UM / wide, 0.1, 2.0)) / MPP
        size = [max(16, round(n * scale)) for n in truth.shape]
        small = skimage.transform.resize(pixels, size, anti_aliasing=scale < 1)
        labels = skimage.transform.resize(
            truth, size, order=0, preserve_range=True, anti_aliasing=False
        )
        small = (small * 255 + 0.5).astype(np.uint8)
        found.append(Tile(small, labels.astype(np.int32), truth.astype(np.int64)))
    return found


def appearances(every: list[Tile]) -> list[tuple[list[Tile], list[Tile]]]:
    """Return (may be learnt from, judged) of every appearance, halves along the main colour."""
    colours = np.array([[*t.pixels.mean(axis=(0, 1)), *t.pixels.std(axis=(0, 1))] for t in every])
    groups = KMeans(APPEARANCES, n_init=10, random_state=0).fit_predict(colours)
    found = []
    for group in range(APPEARANCES):
        mine = np.flatnonzero(groups == group)
        along = PCA(1).fit_transform(colours[mine])[:, 0]
        order = mine[np.argsort(along)]
        half = len(order) // 2
        found.append(([every[i] for i in order[:half]], [every[i] for i in order[half:]]))
    return found


def fields(some: list[Tile], size: int) -> list[NDArray[Any]]:
    """Return the tiles' pixels, mirrored at the borders up to a size."""
    found = []
    for t in some:
        pad = [(0, max(0, size - n)) for n in t.pixels.shape[:2]]
        found.append(np.pad(t.pixels, [*pad, (0, 0)], mode="symmetric"))
    return found


def judged(labels_of: Any, some: list[Tile]) -> dict[str, float]:
    rows = []
    for t in some:
        whole = skimage.transform.resize(
            labels_of(t.pixels), t.truth.shape, order=0, preserve_range=True, anti_aliasing=False
        )
        rows.append(scores(whole.astype(np.int64), t.truth))
    return {k: float(np.mean([r[k] for r in rows])) for k in ("aji", "dice", "pq")}


def by_network(reader: torch.nn.Module) -> Any:
    reader.eval()

    def labels(pixels: NDArray[Any]) -> NDArray[Any]:
        h, w = pixels.shape[:2]
        pad = [(0, -h % STRIDE), (0, -w % STRIDE), (0, 0)]
        image = torch.from_numpy(scaled(np.pad(pixels, pad, mode="edge"))[None])
        with torch.inference_mode():
            maps = reader(image)[1][0].sigmoid().numpy()[:, :h, :w]
        return separate(maps[0], maps[1], LEAST_PX).labels

    return labels


def by_watershed(some: list[NDArray[Any]], red: bool) -> Any:
    """Return the watershed, on haematoxylin as estimated or on red light alone."""
    if red:
        plain = Red.of(some)
        finder = Watershed(plain, plain.limit, Config(), ())
    else:
        stains = estimate(some)
        finder = Watershed(stains, threshold(some, stains), Config(), ())
    return lambda pixels: finder.segment(pixels).labels


def trained(stage: Any, steps: int, every: int) -> tuple[Any, float]:
    """Run a stage and return its best reader by its own judgement."""
    best, score = None, -1.0
    mean = stage.reader.mean if stage.name == "rendered" else stage.nets.reader.mean
    while stage.step < steps:
        for _ in stage.advance():
            pass
        if stage.step % every == 0 or stage.step == steps:
            told = stage.judge()["score"]
            if told > score:
                best, score = {k: v.clone() for k, v in mean.state_dict().items()}, told
    return best, score


def tuned(start: Any, seen: Estimate, settings: Settings, given: list[Tile], steps: int) -> Any:
    """Learn from outlined tiles; the running mean after the last step is the result."""
    torch.manual_seed(settings.seed)
    reader = Reader()
    if start is not None:
        reader.load_state_dict(start)
    stage = RenderedStage(reader, seen, settings, [(t.pixels, t.labels) for t in given])
    while stage.step < steps:
        for _ in stage.advance():
            pass
    return stage.reader.mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rendered", type=int, default=250)
    parser.add_argument("--tuned", type=int, default=50)
    parser.add_argument("--adversarial", type=int, nargs=3, default=(60, 160, 80))
    parser.add_argument("--adversarial-size", type=int, default=64)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    every = appearances(tiles(args.folder))
    rows: list[dict[str, Any]] = []

    def note(**row: Any) -> None:
        rows.append(row)
        print(
            *(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()),
            flush=True,
        )
        if args.out:
            with args.out.open("w", newline="", encoding="utf-8") as file:
                keys = ["appearance", "seed", "k", "way", "aji", "dice", "pq"]
                writer = csv.DictWriter(file, keys, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(r for r in rows if "aji" in r)

    for seed in range(args.seeds):
        for number, (learnt, test) in enumerate(every):
            began = time.monotonic()
            seen = estimate_from(fields(learnt + test, max(args.size, args.adversarial_size)))
            where = {"appearance": number, "seed": seed}
            if seed == 0:
                print(seen.told(), len(learnt), len(test))
                some = list(seen.fields)
                note(**where, k=0, way="watershed", **judged(by_watershed(some, False), test))
                note(**where, k=0, way="watershed, red", **judged(by_watershed(some, True), test))
            plan = Settings(tile_px=args.size, seed=seed, judged=4)
            torch.manual_seed(seed)
            stage = RenderedStage(Reader(), seen, plan)
            starts: dict[str, Any] = {"scratch": None}
            starts["rendered"], _ = trained(stage, args.rendered, 100)
            if sum(args.adversarial):
                warm, translating, second = args.adversarial
                other = replace(
                    plan,
                    tile_px=args.adversarial_size,
                    warm=warm,
                    translating=translating,
                    second=second,
                )
                reader = Reader()
                reader.load_state_dict(starts["rendered"])
                both = TranslationStage(reader, seen, other)
                starts["adversarial"], _ = trained(both, both.steps, 50)
                print("painter", number, seed, examined(both), flush=True)
            picks = np.random.default_rng(seed).permutation(len(learnt))
            for way, start in starts.items():
                if start is not None:
                    reader = Reader()
                    reader.load_state_dict(start)
                    note(**where, k=0, way=way, **judged(by_network(reader), test))
                for k in GIVEN if args.tuned else ():
                    given = [learnt[i] for i in (picks[:k] if k else picks)]
                    done = tuned(start, seen, plan, given, args.tuned)
                    found = judged(by_network(done), test)
                    note(**where, k=k or "all", way=way, **found)
            print(f"{time.monotonic() - began:.0f} s", asdict(seen.sizes), flush=True)
    summary(rows)


def summary(rows: list[dict[str, Any]]) -> None:
    """Print means and spreads over appearances and seeds, and paired gains over scratch."""
    print("\n| k | way | AJI | Dice | PQ | AJI less scratch's, paired |\n|---|---|---|---|---|---|")
    for k in (0, 1, 5, "all"):
        for way in ("watershed", "watershed, red", "scratch", "rendered", "adversarial"):
            mine = {(r["appearance"], r["seed"]): r for r in rows if (r["k"], r["way"]) == (k, way)}
            if not mine:
                continue
            cells = []
            for key in ("aji", "dice", "pq"):
                v = [r[key] for r in mine.values()]
                cells.append(f"{np.mean(v):.3f} ({np.std(v):.3f})")
            plain = {
                (r["appearance"], r["seed"]): r
                for r in rows
                if (r["k"], r["way"]) == (k, "scratch")
            }
            gains = [mine[p]["aji"] - plain[p]["aji"] for p in mine if p in plain]
            gain = ""
            if gains and way != "scratch":
                error = 1.96 * np.std(gains, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0
                gain = f"{np.mean(gains):+.3f} ({np.mean(gains) - error:+.3f} to "
                gain += f"{np.mean(gains) + error:+.3f})"
            print(f"| {k} | {way} | {' | '.join(cells)} | {gain} |")


if __name__ == "__main__":
    main()
