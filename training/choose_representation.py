"""Choose what the embedded backbone gives to the probe, by cross-validation on real tissue.

A pathologist marks a few small places and wants the rest of the slide, perhaps
of another colour, to follow. So each candidate is trained on one 6 x 6 patch of
tokens from each of k tiles a class, and tried on all tokens of four other tiles a
class: in their own colours, and in stains that no projection was learnt with. The
projection is learnt without labels, either from all tiles or, to see what that
flatters, without the tested ones. Draws below 3000 chose; the tables in the docs
come from others (``--first 5000``).

    python training/choose_representation.py DEVELOPMENT_FOLDER TABLE [--cache FILE]

TABLE is parts, projection, bytes, probe or grid.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import embedded_backbone as eb
import numpy as np
import open_tissue
import tifffile
from scipy.ndimage import maximum_filter, minimum_filter, uniform_filter
from sklearn.linear_model import LogisticRegressionCV

from pathotune.models.backbones import load_backbone
from pathotune.models.tuning import linear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pathotune.models.cards import ModelCard

PATCH = 6
WIDTHS = {"d4": 384, "d5": 384, "d6": 384, "d7": 384, "e2": 40, "e3": 112, "e4": 320}
SHIPPED = ("d6", "e3", "e4")
GRIDS = ((16, 1), (16, 2), (20, 2), (24, 2), (24, 3), (32, 2), (32, 4))
COLUMNS = ("as they are", "strong jitter", "other laboratory", "violet", "blue")


@dataclass
class Material:
    """Raw tokens (n, 16, 16, channels) of the tiles by colour, and the tiles' classes."""

    tokens: dict[str, NDArray[Any]]
    classes: NDArray[Any]

    def of(self, colour: str, parts: tuple[str, ...]) -> NDArray[np.float32]:
        """Return the channels of the named parts."""
        edge = dict(zip(WIDTHS, np.cumsum([0, *WIDTHS.values()]), strict=False))
        cut = [self.tokens[colour][..., edge[p] : edge[p] + WIDTHS[p]] for p in parts]
        return np.concatenate(cut, axis=-1).astype(np.float32)


def every_part(weights: Path, **geometry: int) -> ModelCard:
    """Return a raw card with all parts that are compared."""
    card = eb.raw_card(weights, **geometry)
    dino, lite = replace(card.parts[0], taps=(4, 5, 6, 7)), replace(card.parts[1], taps=(2, 3, 4))
    return replace(card, parts=(dino, lite), dims=sum(WIDTHS.values()))


def material(development: Path, cache: Path | None) -> Material:
    """Compute, or read again, the raw tokens of all tiles in all colours."""
    tiles, classes, _ = open_tissue.crc_tiles(development / "data")
    if cache is not None and cache.exists():
        with np.load(cache) as kept:
            return Material({k: kept[k] for k in kept.files}, classes)
    card = every_part(development / "weights")
    sets = {"as they are": tiles} | {f"colour {k}": t for k, t in eb.colours(tiles).items()}
    jitter = open_tissue.varied(tiles, lambda r: open_tissue.stain_jitter(r, 0.4, 0.08), 9)
    sets["strong jitter"] = jitter
    for name, change in open_tissue.judged_colours(development / "data").items():
        sets[name] = np.stack([change(t) for t in tiles])
    tokens = {name: eb.tile_tokens(card, t).astype(np.float16) for name, t in sets.items()}
    for q in (1, 2, 3):
        turn = np.ascontiguousarray(np.rot90(tiles, q, (1, 2)))
        tokens[f"turn {q}"] = eb.turned_back(eb.tile_tokens(card, turn), q).astype(np.float16)
    if cache is not None:
        np.savez(cache, **tokens)
    return Material(tokens, classes)


def projection(
    data: Material, parts: tuple[str, ...], only: NDArray[Any] | None = None, **settings: Any
) -> dict[str, NDArray[np.float32]]:
    """Learn a projection from the tiles (or `only` these) in the colours meant for it."""
    rows = slice(None) if only is None else only

    def kind(word: str) -> Iterator[NDArray[np.float32]]:
        return (data.of(k, parts)[rows] for k in data.tokens if k.startswith(word))

    return eb.learn_projection(
        data.of(COLUMNS[0], parts)[rows],
        kind("colour"),
        kind("turn"),
        [WIDTHS[p] for p in parts],
        **settings,
    )


def principal(data: Material, parts: tuple[str, ...], dims: int) -> dict[str, NDArray[np.float32]]:
    """Return plain principal components, each part weighing the same."""
    x = data.of(COLUMNS[0], parts)
    mean = x.reshape(-1, x.shape[-1]).mean(0)
    scale = eb.channel_scale(x, [WIDTHS[p] for p in parts])
    flat = eb.pooled((x - mean) / scale).reshape(-1, x.shape[-1])
    _, vectors = np.linalg.eigh(flat.T @ flat)
    return {"mean": mean, "basis": vectors[:, ::-1][:, :dims] / scale[:, None]}


def projected(
    data: Material,
    parts: tuple[str, ...],
    by: dict[str, NDArray[Any]],
    side: int = 5,
    bits: int = 0,
) -> dict[str, NDArray[np.float32]]:
    """Return neighbourhood means (n, 256, D) of every judged colour, quantised if `bits`."""
    out = {}
    for name in COLUMNS:
        z = (data.of(name, parts) - by["mean"]) @ by["basis"]
        if bits:
            step = np.abs(z).max(-1, keepdims=True) / (2 ** (bits - 1) - 1)
            z = np.round(z / step) * step
        z = eb.pooled(z, side)
        out[name] = z.reshape(len(z), -1, z.shape[-1])
    return out


def strokes(
    classes: NDArray[Any], k: int, number: int, first: int
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Yield (training tiles, token indices of their patch (n, 36), test tiles)."""
    square = np.add.outer(np.arange(PATCH) * 16, np.arange(PATCH)).ravel()
    for seed in range(first, first + number):
        rng = np.random.default_rng(seed)
        order = [rng.permutation(np.flatnonzero(classes == c)) for c in np.unique(classes)]
        train = np.concatenate([o[:k] for o in order])
        corner = rng.integers(0, 17 - PATCH, (len(train), 2)) @ [16, 1]
        yield train, corner[:, None] + square, np.concatenate([o[k:][-4:] for o in order])


def macro_f1(truth: NDArray[Any], guess: NDArray[Any]) -> float:
    scores = []
    for c in np.unique(truth):
        both = ((truth == c) & (guess == c)).sum()
        scores.append(2 * both / ((truth == c).sum() + (guess == c).sum()))
    return float(np.mean(scores))


def discriminant(x: NDArray[Any], y: NDArray[Any], region: NDArray[Any]) -> Any:
    stats = linear.RegionStats(int(y.max()) + 1, x.shape[1])
    for r in np.unique(region):
        stats.add(str(r), int(y[region == r][0]), x[region == r])
    return stats.fit().logits


def logistic(x: NDArray[Any], y: NDArray[Any], region: NDArray[Any]) -> Any:
    """Cross-validated logistic regression; folds keep a region together."""
    from sklearn.model_selection import StratifiedGroupKFold

    regions = min(np.bincount(y[np.unique(region, return_index=True)[1]]).min(), 4)
    if regions < 2:
        cv: Any = 2
    else:
        cv = list(StratifiedGroupKFold(regions).split(x, y, region))
    model = LogisticRegressionCV(Cs=np.geomspace(1e-4, 1, 5), cv=cv, scoring="neg_log_loss")
    return model.fit(x, y).decision_function


def judge(
    z: dict[str, NDArray[Any]],
    classes: NDArray[Any],
    args: argparse.Namespace,
    fit: Callable[..., Any] = discriminant,
) -> str:
    """Return table cells: macro-F1 of tokens by k and colour, mean over draws (and spread)."""
    cells = []
    for k in args.tiles:
        scores: dict[str, list[float]] = {}
        for train, patch, test in strokes(classes, k, args.draws, args.first):
            x = z[COLUMNS[0]][train[:, None], patch].reshape(len(train) * PATCH**2, -1)
            region = np.repeat(np.arange(len(train)), PATCH**2)
            logits = fit(x, classes[train][region], region)
            for name, f in z.items():
                guess = logits(f[test].reshape(-1, f.shape[-1])).argmax(1)
                scores.setdefault(name, []).append(
                    macro_f1(np.repeat(classes[test], f.shape[1]), guess)
                )
        plain = scores.pop(COLUMNS[0])
        cells.append(f"{np.mean(plain):.3f} ({np.std(plain):.3f})")
        cells += [f"{np.mean(s):.3f}" for s in scores.values()]
    return " | ".join(cells)


def header(first: str, args: argparse.Namespace) -> None:
    names = [f"k={k} {c}" for k in args.tiles for c in COLUMNS]
    print(f"| {first} | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))


def table_parts(data: Material, args: argparse.Namespace) -> None:
    header("parts", args)
    lite = ("e3", "e4")
    dino: list[tuple[str, ...]] = [("d4",), ("d5",), ("d6",), ("d7",), ("d4", "d7")]
    sets = [*dino, ("e2", "e3"), lite, *((*d, *lite) for d in dino)]
    for parts in sets:
        z = projected(data, parts, projection(data, parts))
        print(f"| {' + '.join(parts)} | {judge(z, data.classes, args)} |", flush=True)


def table_projection(data: Material, args: argparse.Namespace) -> None:
    header("projection", args)
    for dims in (64, 128, 256):
        z = projected(data, SHIPPED, principal(data, SHIPPED, dims))
        print(f"| principal components, {dims} | {judge(z, data.classes, args)} |", flush=True)
    settings: list[dict[str, Any]] = [{"dims": d} for d in (48, 64, 96, 128, 192)]
    settings += [{"colour": c} for c in (0.0, 1.0, 4.0)] + [{"turn": t} for t in (0.0, 2.0)]
    settings += [{"local": v} for v in (0.0, 2.0)]
    settings += [{"ridge": r} for r in (0.05, 0.3, 0.6)]
    for s in settings:
        z = projected(data, SHIPPED, projection(data, SHIPPED, **s))
        name = ", ".join(f"{k} {v}" for k, v in s.items())
        print(f"| ours, {name} | {judge(z, data.classes, args)} |", flush=True)
    for side in (1, 3, 5, 7):
        z = projected(data, SHIPPED, projection(data, SHIPPED), side)
        print(f"| neighbourhood {side} | {judge(z, data.classes, args)} |", flush=True)


def table_bytes(data: Material, args: argparse.Namespace) -> None:
    header("stored as", args)
    raw = data.of(COLUMNS[0], SHIPPED)
    whole = {"mean": raw.reshape(-1, raw.shape[-1]).mean(0)}
    whole["basis"] = np.diag(1 / eb.channel_scale(raw, [WIDTHS[p] for p in SHIPPED]))
    z = projected(data, SHIPPED, whole)
    print(f"| all 816 channels, float32 | {judge(z, data.classes, args)} |", flush=True)
    by = projection(data, SHIPPED)
    for name, bits in (("128 dims, float32", 0), ("128 dims, int8", 8), ("128 dims, int4", 4)):
        z = projected(data, SHIPPED, by, bits=bits)
        print(f"| {name} | {judge(z, data.classes, args)} |", flush=True)


def table_probe(data: Material, args: argparse.Namespace) -> None:
    header("probe", args)
    z = projected(data, SHIPPED, projection(data, SHIPPED))
    print(f"| ours | {judge(z, data.classes, args)} |", flush=True)
    print(f"| logistic regression | {judge(z, data.classes, args, logistic)} |", flush=True)


def unseen(data: Material, args: argparse.Namespace) -> None:
    """Compare projections learnt with and without the tested tiles, over two halves."""
    args.tiles = [k for k in args.tiles if k < 4]  # half of the tiles are four a class
    header("tested tiles", args)
    number = np.concatenate([np.arange((data.classes == c).sum()) for c in np.unique(data.classes)])
    half = number % 2 == 0
    for name, rows in (("seen, unlabelled", half), ("never seen", ~half)):
        z = projected(data, SHIPPED, projection(data, SHIPPED, np.flatnonzero(rows)))
        some = {k: v[half] for k, v in z.items()}
        print(f"| {name} | {judge(some, data.classes[half], args)} |", flush=True)


def mosaic_tokens(
    card: ModelCard, image: NDArray[np.uint8], shift: int
) -> tuple[NDArray[np.float32], float]:
    """Return the tokens of an image from tiles that start `shift` tokens outside it."""
    import time

    step, halo, core = card.token_px, card.halo, card.core
    rows, cols = image.shape[0] // step, image.shape[1] // step
    out = np.zeros((rows + 2 * core, cols + 2 * core, card.dims), dtype=np.float32)
    pad = 2 * card.tile_px
    wide = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), constant_values=255)
    cells = [(r, c) for r in range(-shift, rows, core) for c in range(-shift, cols, core)]
    at = [(pad + (r - halo) * step, pad + (c - halo) * step) for r, c in cells]
    backbone = load_backbone(card)
    start = time.perf_counter()
    size = backbone.batch  # a short batch costs as much as a full one
    for first in range(0, len(cells), size):
        batch = np.stack(
            [wide[y : y + card.tile_px, x : x + card.tile_px] for y, x in at[first : first + size]]
        )
        for (r, c), t in zip(cells[first : first + size], backbone.tokens(batch), strict=True):
            out[r + core : r + 2 * core, c + core : c + 2 * core] = t
    area = len(cells) * (core * step * card.mpp / 1000) ** 2
    return out[core : core + rows, core : core + cols], (time.perf_counter() - start) / area


def table_grid(development: Path, data: Material, args: argparse.Namespace) -> None:
    """Compare tile sizes on a slide-like image: agreement of two grids, accuracy, time."""
    folder = development / "data" / "regions_crc_mosaic"
    image = np.ascontiguousarray(tifffile.imread(folder / "crc_mosaic_dev.ome.tif", key=0))
    truth = tifffile.imread(folder / "crc_mosaic_dev_labels.tif")[7::14, 7::14].astype(int) - 1
    by = projection(data, SHIPPED)
    corners = []
    for c in np.unique(data.classes):
        r0, c0 = np.argwhere(truth == c).min(0)
        corners += [(r0 + 16 * (t // 2), c0 + 16 * (t % 2)) for t in range(8)]
    print("| tokens | halo | s/mm2 | k | F1 | agree | inside regions | inside the map's classes |")
    print("|---|---|---|---|---|---|---|---|")
    for tokens, halo in args.grids:
        card = eb.raw_card(development / "weights", tokens=tokens, halo=halo)
        maps, seconds = [], 0.0
        for shift in (0, card.core // 2):
            raw, seconds = mosaic_tokens(card, image, shift)
            z = (raw[: truth.shape[0], : truth.shape[1]] - by["mean"]) @ by["basis"]
            maps.append(uniform_filter(z, size=(5, 5, 1), mode="nearest"))
        for k in args.tiles:
            rows = []
            for train, patch, test in strokes(data.classes, k, args.draws, args.first):
                at = np.array([corners[t] for t in train])
                row, col = at[:, :1] + patch // 16, at[:, 1:] + patch % 16
                region = np.repeat(np.arange(len(train)), PATCH**2)
                x = maps[0][row.ravel(), col.ravel()]
                logits = discriminant(x, data.classes[train][region], region)
                guess = [logits(m).argmax(-1) for m in maps]
                tested = np.zeros(truth.shape, dtype=bool)
                for t in test:
                    tested[corners[t][0] :, corners[t][1] :][:16, :16] = True
                same, real = guess[0] == guess[1], truth >= 0
                deep = [
                    (minimum_filter(m, s) == maximum_filter(m, s)) & real
                    for m, s in ((truth, 7), (guess[0], 5))
                ]
                score = macro_f1(truth[tested], guess[0][tested])
                rows.append((score, same[real].mean(), *(same[d].mean() for d in deep)))
            cells = " | ".join(f"{v:.3f}" for v in np.mean(rows, axis=0))
            print(f"| {tokens} | {halo} | {seconds:.1f} | {k} | {cells} |", flush=True)


def _pair(text: str) -> tuple[int, int]:
    tokens, halo = text.split(",")
    return int(tokens), int(halo)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("development", type=Path, help="folder with data/ and weights/")
    tables = ("parts", "projection", "bytes", "probe", "unseen", "grid")
    parser.add_argument("table", choices=tables)
    parser.add_argument("--cache", type=Path, help="keep raw tokens in this .npz file")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--first", type=int, default=1000, help="seed of the first draw")
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument(
        "--grids", type=_pair, nargs="+", default=GRIDS, help="tokens a tile and halo, as 20,2"
    )
    args = parser.parse_args()
    data = material(args.development, args.cache)
    if args.table == "grid":
        table_grid(args.development, data, args)
        return
    run = {"parts": table_parts, "projection": table_projection, "bytes": table_bytes}
    run |= {"probe": table_probe, "unseen": unseen}
    run[args.table](data, args)


if __name__ == "__main__":
    main()
