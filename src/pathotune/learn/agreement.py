"""Figures on how a model's answers agree with marks, each with its interval.

F1 of every class and their mean, which class is taken for which, and whether the
probabilities mean what they say. Intervals come from drawing what is independent anew:
regions or tiles of each class, or whole slides where there are enough of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DRAWS = 1000
INTERVAL = (2.5, 97.5)  # percent
BINS = 10  # of the probability, for the calibration error
SLIDES = 5  # from so many on, slides are drawn and not regions


@dataclass(frozen=True, eq=False)
class Sample:
    """A region or tile.

    Attributes
    ----------
    kind : int
        Its class.
    probs : (n, C) float32
        Of (some of) its tokens, evenly taken.
    tokens : int
        How many it has in all.
    slide : str
        Where it lies.
    """

    kind: int
    probs: NDArray[np.float32]
    tokens: int
    slide: str = ""


def agreement(
    samples: Sequence[Sample], names: Sequence[str], seed: int = 0, what: str = "regions"
) -> dict[str, Any]:
    """Return the figures as plain JSON.

    Parameters
    ----------
    samples : sequence of Sample
        At least one.
    names : sequence of str
        The model's classes.
    seed : int
        Of the draws.
    what : str
        What a sample is called.

    Returns
    -------
    dict
        `macro_f1` over the classes that are marked, `per_class`, `confusion` (rows: marked;
        tokens, and shares of the row) and `calibration_error`; each with `low` and `high`, null
        where a class has one region and nothing can be drawn. `drawn` says what was drawn.

    Notes
    -----
    Expected calibration error: Guo et al., ICML 2017, section 2, in ten bins of equal width.
    Draws are stratified by class; whole slides are drawn without regard to it.
    """
    n = len(names)
    kinds = np.array([s.kind for s in samples], np.intp)
    rows = np.stack([_found(s, n) for s in samples])
    bins = np.stack([_bins(s) for s in samples])
    present = np.unique(kinds)
    weights, drawn = _draws(samples, kinds, np.random.default_rng(seed), what)
    one = np.ones((1, len(samples)))
    value, spread = _figures(one, rows, bins, kinds, n), _figures(weights, rows, bins, kinds, n)
    counts = np.bincount(kinds, minlength=n)
    sizes = np.bincount(kinds, [s.tokens for s in samples], n)
    firm = drawn == "slides" or bool((counts[present] > 1).all())

    def told(key: str, at: Any = (), sure: bool = firm) -> dict[str, float | None]:
        v = float(value[key][0][at])
        if not sure:
            return {"value": v, "low": None, "high": None}
        draws = spread[key][(slice(None), *at)] if at else spread[key]
        low, high = np.nanpercentile(draws, INTERVAL)
        return {"value": v, "low": min(float(low), v), "high": max(float(high), v)}

    macro, error = told("macro"), told("error")
    per_class = []
    for c in present.tolist():
        f1 = told("f1", (c,))
        facts = {"class": names[c], "f1": f1["value"], "low": f1["low"], "high": f1["high"]}
        for key in ("precision", "recall"):
            facts[key] = told(key, (c,))["value"]
        per_class.append(facts | {"regions": int(counts[c]), "tokens": round(sizes[c])})
    table = value["confusion"][0]
    share = {
        key: [[told("share", (int(c), k))[key] for k in range(n)] for c in present]
        for key in ("value", "low", "high")
    }
    return {
        "macro_f1": macro["value"],
        "low": macro["low"],
        "high": macro["high"],
        "per_class": per_class,
        "confusion": {
            "marked": [names[c] for c in present],
            "found": list(names),
            "tokens": table[present].round().astype(int).tolist(),
            "share": share["value"],
            "low": share["low"],
            "high": share["high"],
        },
        "calibration_error": error["value"],
        "calibration_low": error["low"],
        "calibration_high": error["high"],
        "n_regions": len(samples),
        "drawn": drawn if firm else None,
    }


def _found(sample: Sample, n: int) -> NDArray[np.float64]:
    """Return how many of a sample's tokens were taken for each class."""
    answers = np.bincount(sample.probs.argmax(1), minlength=n)
    return np.asarray(answers / len(sample.probs) * sample.tokens)


def _bins(sample: Sample) -> NDArray[np.float64]:
    """Return (BINS, 3) of tokens: how many, the sum of their probabilities, how many right."""
    sure = sample.probs.max(1).astype(float)
    right = sample.probs.argmax(1) == sample.kind
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    columns = [np.bincount(place, w, BINS) for w in (np.ones(len(sure)), sure, right)]
    return np.stack(columns, 1) / len(sure) * sample.tokens


def _draws(
    samples: Sequence[Sample], kinds: NDArray[np.intp], rng: np.random.Generator, what: str
) -> tuple[NDArray[np.float64], str]:
    """Return (DRAWS, n) how often each sample is in each draw, and what was drawn."""
    slides = sorted({s.slide for s in samples})
    if what != "tiles" and len(slides) >= SLIDES:
        own = np.array([slides.index(s.slide) for s in samples])
        picks = rng.multinomial(len(slides), np.full(len(slides), 1 / len(slides)), size=DRAWS)
        return picks[:, own].astype(float), "slides"
    weights = np.zeros((DRAWS, len(samples)))
    for c in np.unique(kinds):
        mine = np.flatnonzero(kinds == c)
        weights[:, mine] = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), DRAWS)
    return weights, what


def _figures(
    weights: NDArray[np.float64],
    rows: NDArray[np.float64],
    bins: NDArray[np.float64],
    kinds: NDArray[np.intp],
    n: int,
) -> dict[str, NDArray[np.float64]]:
    """Return every figure for every draw (B, n); NaN where a draw lacks a class."""
    tables = np.zeros((len(weights), n, n))
    for c in np.unique(kinds):
        tables[:, c] = weights[:, kinds == c] @ rows[kinds == c]
    right, marked, found = np.einsum("bcc->bc", tables), tables.sum(2), tables.sum(1)
    there = marked > 0
    f1 = np.where(there, 2 * right / np.maximum(marked + found, 1e-12), np.nan)
    several = np.maximum(there.sum(1), 1)
    total = np.einsum("bn,nkv->bkv", weights, bins)
    error = np.abs(total[..., 1] - total[..., 2]).sum(1) / np.maximum(total[..., 0].sum(1), 1e-12)
    return {
        "f1": f1,
        "macro": np.nansum(f1, 1) / several,
        "precision": np.where(found > 0, right / np.maximum(found, 1e-12), 0.0),
        "recall": np.where(there, right / np.maximum(marked, 1e-12), np.nan),
        "confusion": tables,
        "share": np.where(there[..., None], tables / np.maximum(marked, 1e-12)[..., None], np.nan),
        "error": error,
    }
