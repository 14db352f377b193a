"""Dice, AJI and PQ on nuclei outlined by people, always on an appearance that was left out.

Usage: ``python benchmarks/nuclei_quality.py DEVELOPMENT_DATA [--nets FOLDER]``. Tiles of one
appearance come from few fields, so a random split would test on what was trained on. For each
of the three appearances (told apart by the colour of the background,
`training/nucleus_net/material.py`) the table holds, tested on its tiles alone:

- the watershed as it ships, whose settings were once chosen on these tiles;
- the watershed tuned on the other two: stain, threshold, sizes and seeds by random search;
- the networks ``FOLDER/KINDS-without-APPEARANCE.safetensors`` trained without it.

The tiles have no um/px: each gets the one at which its median nucleus is 7.5 um wide. That
uses the truth for scale alone, for all rows alike. Intervals are drawn over tiles (2000 times).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pathotune.nuclei.net.outlines import outlines
from pathotune.nuclei.net.runner import runner
from pathotune.nuclei.scores import scores
from pathotune.nuclei.segmenters.watershed import Config, Watershed, threshold
from pathotune.nuclei.stains import Stains, estimate

sys.path.insert(0, str(Path(__file__).parents[1] / "training" / "nucleus_net"))
import material

TRIES = 60
PER_APPEARANCE = 16  # tiles of each appearance that the watershed is tuned on
GREY = Stains((0.5774, 0.5774, 0.5774), (0.7071, -0.7071, 0.0))
CHANNELS = ("estimated", "textbook", "grey")
Row = dict[str, float]


def at_half(tile: material.Outlined) -> np.ndarray:
    """Return a tile's pixels at 0.5 um/px."""
    return material.resized(tile.pixels, tile.mpp / 0.5)


def judged(labels: np.ndarray, tile: material.Outlined) -> Row:
    """Score labels at 0.5 um/px at the tile's own size."""
    return scores(material.resized_labels(labels, tile.labels.shape), tile.labels)


def watershed(tile: material.Outlined, channel: str, share: float, config: Config) -> Row:
    """Score the watershed with one setting."""
    pixels = at_half(tile)
    stains = {"textbook": Stains(), "grey": GREY}.get(channel) or estimate([pixels])
    finder = Watershed(stains, share * threshold([pixels], stains), config, ())
    return judged(finder.segment(pixels).labels, tile)


def drawn(rng: np.random.Generator) -> tuple[str, float, Config]:
    """Draw one setting of the watershed."""
    config = replace(
        Config(),
        smooth_um=rng.uniform(0.25, 1.2),
        around_um=rng.uniform(5, 20),
        above=rng.uniform(0, 0.12),
        most=rng.uniform(1.2, 2.0),
        open_um=rng.uniform(0.25, 1.2),
        seed_um=rng.uniform(1.5, 5),
        min_um2=rng.uniform(6, 24),
    )
    return str(rng.choice(CHANNELS)), float(rng.uniform(0.6, 1.4)), config


def tuned(tiles: list[Any], rng: np.random.Generator) -> dict[str, list[Row]]:
    """Return, for each appearance, the rows of the setting that is best on the other two."""
    few = []
    for name in material.APPEARANCES:
        mine = [t for t in tiles if t.appearance == name]
        few += [mine[k] for k in rng.permutation(len(mine))[:PER_APPEARANCE]]
    settings = [(c, Config().share, Config()) for c in CHANNELS]
    settings += [drawn(rng) for _ in range(TRIES)]
    # the mean of the two appearances, so that the larger does not decide alone
    table = [
        {
            a: np.mean([watershed(t, *s)["aji"] for t in few if t.appearance == a])
            for a in material.APPEARANCES
        }
        for s in settings
    ]
    found = {}
    for out in material.APPEARANCES:
        rest = [a for a in material.APPEARANCES if a != out]
        best = settings[int(np.argmax([sum(row[a] for a in rest) for row in table]))]
        print(f"tuned without {out}: {best}")
        found[out] = [watershed(t, *best) for t in tiles if t.appearance == out]
    return found


def network(weights: Path, tiles: list[Any]) -> list[Row]:
    """Score a network."""
    run = runner(weights)
    return [judged(outlines(run.maps(at_half(t)), 0.5).labels, t) for t in tiles]


def main() -> None:
    """Print the table."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("data", type=Path)
    ask.add_argument("--nets", type=Path)
    told = ask.parse_args()
    tiles = material.outlined(told.data)
    rng = np.random.default_rng(0)
    best = tuned(tiles, rng)
    for out in material.APPEARANCES:
        mine = [t for t in tiles if t.appearance == out]
        rows = {"watershed": [watershed(t, "estimated", Config().share, Config()) for t in mine]}
        rows["watershed, tuned"] = best[out]
        for file in sorted(told.nets.glob(f"*-without-{out}.safetensors")) if told.nets else ():
            rows[file.stem.partition("-without-")[0]] = network(file, mine)
        base = np.array([r["aji"] for r in best[out]])
        for name, of in rows.items():
            text = "  ".join(
                f"{k} {np.mean([r[k] for r in of]):.3f} +- {np.std([r[k] for r in of]):.3f}"
                for k in ("dice", "aji", "pq")
            )
            gain = np.array([r["aji"] for r in of]) - base
            draws = gain[rng.integers(len(gain), size=(2000, len(gain)))].mean(axis=1)
            low, high = np.percentile(draws, [2.5, 97.5])
            more = f"  AJI {gain.mean():+.3f} ({low:+.3f} to {high:+.3f}) against tuned"
            print(f"{out:7} n={len(of):3d}  {name:24} {text}{more}", flush=True)


if __name__ == "__main__":
    main()
