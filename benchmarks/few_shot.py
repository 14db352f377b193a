"""How much one to four tiles a class are worth: the probe against simpler and slower rivals.

Prints, side by side from one run, the accuracy on held-out tiles of a random
forest on colour and texture features, of cross-validated logistic regression on
the backbone's tile means, and of the shipped probe, with 1, 2 and 4 tiles a class
for training, as mean and spread over random draws. The same models are then tried
on the held-out tiles in other colours, because a slide from another laboratory is
the usual case. The draws differ from those that chose the settings; the tiles are
few and those of a class may share a patient, so true spreads are wider.

    python benchmarks/few_shot.py DEVELOPMENT_FOLDER [--draws 20]
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.color import rgb2gray, rgb2hed
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

from pathotune.models.backbones import load_backbone
from pathotune.models.cards import DEFAULT_ID, card
from pathotune.models.tile_features import VIEWS
from pathotune.models.tuning import linear

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import open_tissue
from embedded_backbone import pooled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FIRST_JUDGED_DRAW = 5000


def turned(tiles: NDArray[Any], view: int) -> NDArray[Any]:
    """Return one of the eight flipped and turned views of square tiles (n, h, h, c)."""
    turn = np.rot90(tiles, view % 4, (1, 2))
    return np.ascontiguousarray(turn[:, :, ::-1] if view >= 4 else turn)


def tokens(tiles: NDArray[np.uint8], views: int) -> NDArray[np.float32]:
    """Return neighbourhood means (views, n, tokens, D) from the shipped backbone."""
    chosen = card(DEFAULT_ID)
    margin = (chosen.tile_px - tiles.shape[1]) // 2
    pad = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    backbone = load_backbone(chosen)
    out = []
    for view in range(views):
        t = backbone.tokens(np.pad(turned(tiles, view), pad, mode="reflect"))
        out.append(pooled(t, chosen.neighbourhood).reshape(len(tiles), -1, chosen.dims))
    return np.stack(out)


def colour_texture(tile: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return hand-made features: colour percentiles, stain statistics, LBP and co-occurrence."""
    rgb, hed = tile.reshape(-1, 3), rgb2hed(tile).reshape(-1, 3)
    parts = [np.percentile(rgb, [5, 25, 50, 75, 95], axis=0), hed.mean(0), hed.std(0), rgb.std(0)]
    grey = (rgb2gray(tile) * 255).astype(np.uint8)
    for radius in (1, 2, 4):
        codes = local_binary_pattern(grey, 8, radius, "uniform")
        parts.append(np.bincount(codes.astype(int).ravel(), minlength=10) / codes.size)
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    matrix = graycomatrix(grey // 8, [1, 3, 9], angles, levels=32, symmetric=True, normed=True)
    for name in ("contrast", "homogeneity", "energy", "correlation"):
        parts.append(graycoprops(matrix, name).mean(1))
    return np.concatenate([np.ravel(p) for p in parts])


def draws(
    classes: NDArray[Any], per_class: int, number: int, first: int = FIRST_JUDGED_DRAW
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield (training, test) tile indices; four other tiles a class are the test."""
    for seed in range(first, first + number):
        rng = np.random.default_rng(seed)
        train, test = [], []
        for c in np.unique(classes):
            order = rng.permutation(np.flatnonzero(classes == c))
            train.extend(order[:per_class])
            test.extend(order[per_class:][-4:])
        yield np.array(train), np.array(test)


def forest(x: NDArray[Any], y: NDArray[Any], seed: int) -> Any:
    return RandomForestClassifier(500, random_state=seed, n_jobs=1).fit(x, y)


def logistic(x: NDArray[Any], y: NDArray[Any], per_class: int) -> Any:
    """Fit by cross-validation where there are two tiles a class, else with C = 1."""
    if per_class == 1:
        return LogisticRegression(max_iter=2000).fit(x, y)
    grid = np.geomspace(1e-3, 1e2, 11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegressionCV(
            Cs=grid, cv=min(per_class, 4), max_iter=2000, scoring="neg_log_loss"
        ).fit(x, y)


def probe(x: NDArray[Any], y: NDArray[Any]) -> linear.LinearHead:
    """Fit ours on the tokens (views, n, tokens, D) of n tiles, a tile being a region."""
    views, n, per_tile, dims = x.shape
    region = np.broadcast_to(np.arange(n)[None, :, None], (views, n, per_tile)).ravel()
    return linear.fit(x.reshape(-1, dims), y[region], region, int(y.max()) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("development", type=Path, help="folder with data/")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--views", type=int, default=VIEWS, help="turned views of a tile")
    parser.add_argument("--colours", action="store_true", help="also in four other stains")
    args = parser.parse_args()
    data = args.development / "data"
    tiles, y, _ = open_tissue.crc_tiles(data)
    sets = {"as they are": tiles}
    if args.colours:
        jitter = open_tissue.varied(tiles, lambda r: open_tissue.stain_jitter(r, 0.4, 0.08), 9)
        sets["strong stain jitter"] = jitter
        for name, change in open_tissue.judged_colours(data).items():
            sets[name] = np.stack([change(t) for t in tiles])
    deep = {name: tokens(t, args.views) for name, t in sets.items()}
    means = {name: t.mean((0, 2)) for name, t in deep.items()}
    hand = {name: np.stack([colour_texture(i) for i in t]) for name, t in sets.items()}
    rivals = ("random forest, colour and texture", "logistic regression, tile means", "ours")
    print("accuracy on held-out tiles, mean (spread over draws)\n")
    print("| tiles | k | " + " | ".join(rivals) + " |")
    print("|---|---|" + "---|" * len(rivals))
    for per_class in (1, 2, 4):
        found: dict[str, list[list[float]]] = {name: [[], [], []] for name in sets}
        for seed, (train, test) in enumerate(draws(y, per_class, args.draws)):
            plain = "as they are"
            models = (
                (forest(hand[plain][train], y[train], seed), hand),
                (logistic(means[plain][train], y[train], per_class), means),
            )
            ours = probe(deep[plain][:, train], y[train])
            for name in sets:
                for i, (model, features) in enumerate(models):
                    guess = model.predict(features[name][test])
                    found[name][i].append(float((guess == y[test]).mean()))
                guess = ours.logits(means[name][test]).argmax(1)
                found[name][2].append(float((guess == y[test]).mean()))
        for name, rows in found.items():
            cells = [f"{np.mean(r):.3f} ({np.std(r):.3f})" for r in rows]
            print(f"| {name} | {per_class} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
