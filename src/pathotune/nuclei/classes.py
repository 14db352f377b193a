"""A few named nuclei, and a class for every one.

Shape, colour and texture tell most classes apart; what lies around a nucleus, as
the backbone's tokens see it, tells the rest. Both are standardised on this slide,
the tokens brought to their main axes, and a multinomial logistic regression is
fitted: seconds for a slide whose features are there. How well it does is read
from named nuclei of places that were left out, never from those it learnt from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import Note, PathotuneError, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from pathotune.events import Job
    from pathotune.nuclei.query import Nuclei

LEAST = 3  # named nuclei of a class to learn from
PLACE_UM = 250.0  # named nuclei of one square of this side are never in training and test at once
AXES = 32  # main axes of the tokens that are kept
FOLDS = 5
AT_ONCE = 65536
SAMPLE = 20000  # nuclei from which means, spreads and axes are read
LOGGED = ("area_um2", "perimeter_um", "major_um", "minor_um", "nearest_um", "around_per_mm2")
LEFT_OUT = ("orientation_deg",)  # how the tissue lies in the block says nothing


@dataclass(frozen=True)
class Judged:
    """How well the classes are told apart on nuclei of places left out.

    Attributes
    ----------
    f1 : dict of str to float
        By class; empty when it cannot be told.
    macro : float or None
    nuclei : dict of str to int
        Named nuclei of each class that were judged.
    places : int
        Squares of 250 um in which they lie.
    why : str or None
        Why there is no figure, in the user's words.
    """

    f1: dict[str, float] = field(default_factory=dict)
    macro: float | None = None
    nuclei: dict[str, int] = field(default_factory=dict)
    places: int = 0
    why: str | None = None


@dataclass(frozen=True)
class Classified:
    """A class for every nucleus.

    Attributes
    ----------
    rows : int64 (n,)
        Of the nuclei that are seen, named ones included.
    names : tuple of str
    codes : int (n,)
        Nucleus ``rows[i]`` is of class ``names[codes[i]]``.
    confidence : float32 (n,)
        Probability of that class, 0 to 1; 1 for named ones.
    margin : float32 (n,)
        To the second class; small is uncertain.
    judged : Judged
    tokens : bool
        The backbone's features took part.
    """

    rows: NDArray[Any]
    names: tuple[str, ...]
    codes: NDArray[Any]
    confidence: NDArray[Any]
    margin: NDArray[Any]
    judged: Judged
    tokens: bool

    def uncertain(self, nuclei: Nuclei, count: int = 20, apart_um: float = 30.0) -> NDArray[Any]:
        """Return the rows to ask about next, the least certain first, not all in one spot."""
        xy, apart = nuclei.xy, apart_um / nuclei.mpp
        chosen: list[int] = []
        for i in np.argsort(self.margin, kind="stable")[: 50 * count].tolist():
            row = int(self.rows[i])
            if self.confidence[i] >= 1:
                continue
            far = np.abs(xy[chosen] - xy[row]).max(axis=1) if chosen else np.array([np.inf])
            if far.min() >= apart:
                chosen.append(row)
            if len(chosen) == count:
                break
        return np.array(chosen, np.int64)


def classify(
    nuclei: Nuclei,
    named: Mapping[int, str],
    tokens: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> Job[Classified]:
    """Learn from named nuclei and give every nucleus a class.

    `nuclei` is not changed; see `take_over`.

    Parameters
    ----------
    nuclei : Nuclei
    named : mapping of row to class
        `Edits.named`.
    tokens : callable, optional
        Takes centres, float (n, 2) in level-0 pixels, and returns features, float32 (n, d), with
        NaN where there are none; see `tokens_of`.

    Yields
    ------
    Progress, Note

    Returns
    -------
    Classified

    Raises
    ------
    PathotuneError
        Fewer than two classes, or fewer than 3 named nuclei in one.
    """
    known = {int(r): c for r, c in named.items() if nuclei.alive[r]}
    names = tuple(sorted(set(known.values())))
    _enough(known, names)
    rows = np.flatnonzero(nuclei.alive)
    maker = _Features(nuclei, rows, tokens)
    at = np.array(sorted(known), np.int64)
    truth = np.array([names.index(known[r]) for r in at.tolist()])
    x = maker.of(at)
    judged = judge(x, truth, names, _places(nuclei, at))
    if judged.why:
        yield Note(judged.why)
    model = _fit(x, truth, len(names))
    codes = np.zeros(len(rows), np.int64)
    sure, margin = np.ones(len(rows), np.float32), np.ones(len(rows), np.float32)
    for first in range(0, len(rows), AT_ONCE):
        part = np.s_[first : first + AT_ONCE]
        chance = _chances(model, maker.of(rows[part]))
        best = np.sort(chance, axis=1)
        codes[part], sure[part] = chance.argmax(axis=1), best[:, -1]
        margin[part] = best[:, -1] - best[:, -2]
        yield Progress(min(first + AT_ONCE, len(rows)), len(rows), "Naming nuclei", None)
    mine = np.searchsorted(rows, at)
    codes[mine], sure[mine], margin[mine] = truth, 1, 1
    return Classified(rows, names, codes, sure, margin, judged, tokens is not None)


def take_over(nuclei: Nuclei, told: Classified) -> None:
    """Give the nuclei the classes that were found."""
    nuclei.set_classes(told.rows, told.names, told.codes, told.confidence)


def _enough(known: Mapping[int, str], names: tuple[str, ...]) -> None:
    if len(names) < 2:
        raise PathotuneError(
            "Naming nuclei needs at least two classes.",
            f"Click a nucleus and give it a class; {LEAST} nuclei of each will do to begin.",
        )
    few = [(n, c) for n in names if (c := list(known.values()).count(n)) < LEAST]
    if few:
        short = " and ".join(f"{n} ({c})" for n, c in few)
        raise PathotuneError(
            f"Too few nuclei are named to learn from: {short}.",
            f"Name at least {LEAST} of each class.",
        )


def _places(nuclei: Nuclei, rows: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of the square in which each nucleus lies."""
    cell = np.floor(nuclei.xy[rows].astype(float) * nuclei.mpp / PLACE_UM).astype(np.int64)
    return np.unique(cell, axis=0, return_inverse=True)[1].ravel()


def judge(
    x: NDArray[Any], truth: NDArray[Any], names: tuple[str, ...], places: NDArray[Any]
) -> Judged:
    """Return F1 by class on places that were left out.

    Parameters
    ----------
    x : float (n, d)
    truth : int (n,)
    names : tuple of str
    places : int (n,)
        Nuclei of one place are never in training and test at once.
    """
    counts = {n: int((truth == i).sum()) for i, n in enumerate(names)}
    spots = len(np.unique(places))
    narrow = [n for i, n in enumerate(names) if len(np.unique(places[truth == i])) < 2]
    if narrow:
        return Judged(
            nuclei=counts,
            places=spots,
            why=f"How well this does cannot be told yet: {' and '.join(narrow)} is named in one "
            f"place only. Name nuclei at least {PLACE_UM:.0f} um apart.",
        )
    guess = np.full(len(truth), -1)
    # places in turn, those with many nuclei first, so that folds are of a size
    order = np.argsort(-np.bincount(places, minlength=spots), kind="stable")
    fold = np.empty(spots, np.int64)
    fold[order] = np.arange(spots) % min(FOLDS, spots)
    for number in np.unique(fold[places]):
        out = fold[places] == number
        if len(np.unique(truth[~out])) < len(names):
            continue  # a class would be unknown to the model
        guess[out] = _chances(_fit(x[~out], truth[~out], len(names)), x[out]).argmax(axis=1)
    seen = guess >= 0
    told = {}
    for i, name in enumerate(names):
        hit = int(((guess == i) & (truth == i)).sum())
        wrong = int((guess[seen] == i).sum() + (truth[seen] == i).sum())
        if not (truth[seen] == i).any():
            return Judged(
                nuclei=counts,
                places=spots,
                why=f"How well this does cannot be told yet: {name} lies in too few places.",
            )
        told[name] = 2 * hit / wrong
    judged = {n: int((truth[seen] == i).sum()) for i, n in enumerate(names)}
    return Judged(told, float(np.mean(list(told.values()))), judged, spots)


def _fit(x: NDArray[Any], truth: NDArray[Any], count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return weights (count, d) and offsets (count,), classes of equal weight."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=0.3, class_weight="balanced", max_iter=500)
    model.fit(x, truth)
    weights, offsets = np.asarray(model.coef_), np.asarray(model.intercept_)
    if count == 2:  # one row says both
        weights, offsets = np.concatenate([-weights, weights]) / 2, np.array([-1, 1]) * offsets / 2
    return weights, offsets


def _chances(model: tuple[NDArray[Any], NDArray[Any]], x: NDArray[Any]) -> NDArray[Any]:
    score = x @ model[0].T + model[1]
    score = np.exp(score - score.max(axis=1, keepdims=True))
    chance: NDArray[Any] = score / score.sum(axis=1, keepdims=True)
    return chance


class _Features:
    """Numbers of nuclei on one scale, float32 (n, d); what is not known is the slide's mean."""

    def __init__(self, nuclei: Nuclei, rows: NDArray[Any], tokens: Any) -> None:
        self._nuclei, self._tokens = nuclei, tokens
        names = [m for m in nuclei.measures if m not in LEFT_OUT]
        self._columns = {n: nuclei.read(n) for n in names}
        take = rows[np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(np.int64)]
        plain = self._plain(take)
        with np.errstate(invalid="ignore"):
            known = np.isfinite(plain).any(axis=0)
            self._mean = np.where(known, np.nanmean(np.where(known, plain, 0), axis=0), 0)
            spread = np.nanstd(np.where(known, plain, 0), axis=0)
        self._spread = np.where(spread > 1e-9, spread, 1)
        self._axes: NDArray[Any] | None = None
        if tokens is not None:
            seen = np.asarray(tokens(nuclei.xy[take]), float)
            seen = seen[np.isfinite(seen).all(axis=1)]
            if len(seen) > 1:
                self._centre = seen.mean(axis=0)
                values, vectors = np.linalg.eigh(np.cov((seen - self._centre).T))
                kept = values.argsort()[::-1][: min(AXES, len(seen) - 1)]
                # one scale for all axes: the small ones are mostly noise; their sum weighs
                # as much as the measurements do together
                scale = np.sqrt(plain.shape[1] / max(values[kept].sum(), 1e-12))
                self._axes = vectors[:, kept] * scale

    def _plain(self, rows: NDArray[Any]) -> NDArray[Any]:
        out = np.stack([self._columns[n][rows] for n in self._columns], axis=1).astype(float)
        for i, name in enumerate(self._columns):
            if name in LOGGED:
                out[:, i] = np.log(np.maximum(out[:, i], 1e-3))
        return out

    def of(self, rows: NDArray[Any]) -> NDArray[Any]:
        x = (self._plain(rows) - self._mean) / self._spread
        x = np.clip(np.nan_to_num(x, nan=0.0), -6, 6)
        if self._axes is None:
            return x
        seen = np.asarray(self._tokens(self._nuclei.xy[rows]), float)
        main = np.nan_to_num((seen - self._centre) @ self._axes, nan=0.0)
        return np.concatenate([x, main], axis=1)
