"""What a model is worth, from regions it has not seen, or why that cannot be said.

Spots of one region are nearly copies of each other, so a model is only ever
judged on whole regions left out (on whole slides, when there are several), and
the interval comes from drawing regions anew. With one region in a class there
is nothing to leave out: then there is no figure, but a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.models.tuning._calibration import calibrated
from pathotune.models.tuning.linear import Config, LinearHead

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pathotune.learn.marked import Marked

DRAWS = 400
INTERVAL = (2.5, 97.5)  # percent


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The verdict on a model.

    Attributes
    ----------
    macro_f1 : float or None
        Mean F1 over the classes, None when it cannot be said.
    why_not : str or None
        Why not, in a sentence.
    low, high : float or None
        95 % interval of `macro_f1`.
    per_class : list of (name, f1, low, high, regions, tokens)
        Empty when there is no figure.
    confusion : (C, C) int
        Tokens; rows: marked, columns: found.
    scope : str
        "this slide", "3 slides", "regions of 3 slides" or tiles: what the figure is about.
    n_regions : int
        Regions judged.
    """

    macro_f1: float | None
    why_not: str | None
    low: float | None
    high: float | None
    per_class: list[tuple[str, float, float, float, int, int]]
    confusion: NDArray[np.int64]
    scope: str
    n_regions: int

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as plain JSON."""
        return {
            "macro_f1": self.macro_f1,
            "why_not": self.why_not,
            "low": self.low,
            "high": self.high,
            "scope": self.scope,
            "n_regions": self.n_regions,
            "per_class": [
                {"class": n, "f1": f, "low": lo, "high": hi, "regions": r, "tokens": t}
                for n, f, lo, hi, r, t in self.per_class
            ],
            "confusion": self.confusion.tolist(),
        }


def _folds(
    marked: Marked, config: Config, seed: int, slides: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], LinearHead]]:
    """Yield what is left out and the head that has not seen it: slides, or regions in turn."""
    if len(slides) < 2:
        yield from marked.stats.held_out(config, seed)
        return
    table = marked.stats.region_class
    for prefix in slides:
        out = tuple(k for k in table if k.startswith(prefix))
        if out and len({c for k, c in table.items() if k not in out}) >= 2:
            yield out, marked.stats.fit(config, without=out)


def apart(marked: Marked, slides: Sequence[str]) -> tuple[Sequence[str], str]:
    """Return what may be left out whole, slides or nothing, and the words for the scope.

    Leaving a slide out says how the model does on another slide, but only when every class
    is marked on a second one; otherwise regions are left out, and the words say so.
    """
    if len(slides) < 2:
        return (), "this slide"
    found: dict[int, set[str]] = {}
    for key, c in marked.stats.region_class.items():
        found.setdefault(c, set()).update(p for p in slides if key.startswith(p))
    if all(len(on) > 1 for on in found.values()):
        return slides, f"{len(slides)} slides"
    return (), f"regions of {len(slides)} slides"


def short_of(marked: Marked, names: Sequence[str]) -> str | None:
    """Return which class lacks the regions for a figure, in a sentence, or None."""
    counts = np.bincount(list(marked.stats.region_class.values()), minlength=len(names))
    none = [n for n, c in zip(names, counts, strict=True) if c == 0]
    one = [n for n, c in zip(names, counts, strict=True) if c == 1]
    if none:
        return f"{_listed(none)} {'has' if len(none) == 1 else 'have'} no region yet."
    if one:
        return (
            f"{_listed(one)} {'has' if len(one) == 1 else 'have'} only one region; "
            "a second one lets the model be judged."
        )
    return None


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def judge(
    marked: Marked,
    names: Sequence[str],
    *,
    config: Config | None = None,
    seed: int = 0,
    scope: str = "this slide",
    slides: Sequence[str] = (),
) -> tuple[LinearHead, Evaluation]:
    """Return the probe fitted to all regions, calibrated and judged on those left out.

    Parameters
    ----------
    marked : Marked
        The regions; at least two classes have one.
    names : sequence of str
        Class names in the order of the class index.
    config : Config, optional
        Settings of the probe.
    seed : int
        Which regions are left out together, and the draws of the interval.
    scope : str
        What the figure is about, for the reader.
    slides : sequence of str
        Prefixes of the regions' keys; with two or more, whole slides are left out.

    Raises
    ------
    PathotuneError
        Fewer than two classes are marked.
    """
    config = config or Config()
    head = marked.stats.fit(config)
    table = marked.stats.region_class
    logits: list[NDArray[np.float32]] = []
    owners: list[str] = []
    for out, without in _folds(marked, config, seed, slides):
        for key in out:
            logits.append(without.logits(marked.samples[key]))
            owners.append(key)
    classes = [table[key] for key in owners]
    head = calibrated(head, logits, classes, config.temperature)
    n = len(names)
    rows = np.zeros((len(owners), n))
    for i, (key, z) in enumerate(zip(owners, logits, strict=True)):
        share = np.bincount(z.argmax(1), minlength=n) / len(z)
        rows[i] = share * marked.counts[key]
    why_not = short_of(marked, names)
    judged = np.asarray(classes, dtype=np.intp)
    if why_not is None and len(set(classes)) < n:
        why_not = "The marks are too few to leave some out and judge the rest."
    if why_not is not None:
        nothing = np.zeros((n, n), np.int64)
        return head, Evaluation(None, why_not, None, None, [], nothing, scope, len(table))
    return head, figures(rows, judged, names, seed, scope)


def figures(
    rows: NDArray[np.float64],
    classes: NDArray[np.intp],
    names: Sequence[str],
    seed: int,
    scope: str,
) -> Evaluation:
    """Return F1 with intervals from drawing each class's regions with replacement."""
    n = len(names)
    rng = np.random.default_rng(seed)
    drawn = np.zeros((DRAWS, n, n))
    confusion = np.zeros((n, n))
    for c in range(n):
        mine = rows[classes == c]
        confusion[c] = mine.sum(0)
        picks = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=DRAWS)
        drawn[:, c] = picks @ mine
    f1, spread = _f1(confusion[None])[0], _f1(drawn)
    low, high = np.percentile(spread, INTERVAL, axis=0)
    macro_low, macro_high = np.percentile(spread.mean(1), INTERVAL)
    regions = np.bincount(classes, minlength=n)
    per_class = [
        (
            name,
            float(f1[c]),
            float(min(low[c], f1[c])),
            float(max(high[c], f1[c])),
            int(regions[c]),
            round(confusion[c].sum()),
        )
        for c, name in enumerate(names)
    ]
    macro = float(f1.mean())
    whole = confusion.round().astype(np.int64)
    low_, high_ = float(min(macro_low, macro)), float(max(macro_high, macro))
    return Evaluation(macro, None, low_, high_, per_class, whole, scope, len(classes))


def _f1(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return F1 (B, C) of confusion matrices (B, C, C); 0 for a class never told."""
    right = np.einsum("bcc->bc", confusion)
    either = confusion.sum(1) + confusion.sum(2)
    return np.asarray(2 * right / np.maximum(either, 1e-12))
