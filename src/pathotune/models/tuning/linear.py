"""The linear probe: token features to classes in a few milliseconds, without iterations.

A pathologist marks a stroke and expects the map to follow at once, so the probe
is linear discriminant analysis computed from sums that are kept for every marked
region: one more region adds its sums, leaving one out for validation subtracts
them. Classes weigh the same, and a region weighs as the root of its size. The head
is linear in every token, so that the class map at token resolution and the answer
for a whole tile (the mean of its tokens) come from the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError
from pathotune.models.tuning._calibration import calibrated

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from numpy.typing import NDArray

# The logit of a class that nobody has marked: never chosen, and safe in a softmax.
_ABSENT = -1e4

# A region weighs as its tokens to this power: 0 counts regions, 1 counts tokens.
_SIZE_POWER = 0.5

# Few regions show too little of how tissue varies, so raw log odds are too large by about
# 1 + 45 / (regions a class); measured on held-out tiles, 1 to 6 regions a class.
_TOO_SURE = 45.0


@dataclass(frozen=True)
class Config:
    """Settings of the probe; the defaults were chosen by cross-validation on real tissue."""

    smoothing: float = field(
        default=20.0,
        metadata={
            "label": "Smoothing",
            "help": "How many regions the probe wants to see before it trusts fine differences.",
            "min": 0.1,
            "max": 1000.0,
        },
    )
    caution: float = field(
        default=1.0,
        metadata={
            "label": "Doubt about single regions",
            "help": "How far a class with few regions is drawn towards the average tissue.",
            "min": 0.0,
            "max": 10.0,
        },
    )
    temperature: float = field(
        default=1.0,
        metadata={
            "label": "Softness before calibration",
            "help": "Softens the probabilities until held-out regions tell how much is right.",
            "min": 0.01,
            "max": 100.0,
        },
    )


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear map from features to class logits.

    Parameters
    ----------
    weight : (D, C) float32
    bias : (C,) float32
    temperature : float
        Logits are divided by it before the softmax; the classes do not depend on it.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    temperature: float = 1.0

    def logits(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Return logits (..., C), already divided by the temperature, of features (..., D)."""
        scale = np.float32(1.0 / self.temperature)
        f = np.asarray(features, dtype=np.float32)
        out: NDArray[np.float32] = f @ (self.weight * scale) + self.bias * scale
        return out

    def probs(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities (..., C) of features (..., D)."""
        return softmax(self.logits(features))

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the head as named arrays, for a bundle."""
        heat = np.array([self.temperature], dtype=np.float32)
        return {"weight": np.ascontiguousarray(self.weight), "bias": self.bias, "temperature": heat}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LinearHead:
        """Rebuild a head from `to_arrays`.

        Raises
        ------
        PathotuneError
            An array is missing, or shapes do not fit together.
        """
        try:
            weight = np.asarray(arrays["weight"], dtype=np.float32)
            bias = np.asarray(arrays["bias"], dtype=np.float32)
            temperature = float(np.asarray(arrays["temperature"]).reshape(-1)[0])
        except (KeyError, IndexError) as problem:
            raise PathotuneError(
                "This model file holds no linear probe.", "Choose a model saved by this program."
            ) from problem
        if weight.ndim != 2 or bias.shape != weight.shape[1:] or not temperature > 0:
            raise PathotuneError(
                "The linear probe in this model file is damaged.", "Save the model again."
            )
        return cls(weight, bias, temperature)


@dataclass(frozen=True, eq=False)
class _Sums:
    """What is kept of a region: class, weight, weighted mean (D,) and mean product (D, D)."""

    class_index: int
    share: float
    mean: NDArray[np.float32]
    gram: NDArray[np.float32]


class RegionStats:
    """Sums of the features under every marked region, from which a probe is solved.

    Parameters
    ----------
    n_classes : int
        Classes, whether they are marked yet or not.
    dims : int
        Length D of a feature; a region takes D * D * 4 bytes, 64 KB at D = 128.
    """

    def __init__(self, n_classes: int, dims: int) -> None:
        self.n_classes = n_classes
        self.dims = dims
        self._regions: dict[str, _Sums] = {}
        # Running sums of each class, so that a new stroke costs no pass over the old ones.
        self._share = np.zeros(n_classes)
        self._mean = np.zeros((n_classes, dims))
        self._gram = np.zeros((n_classes, dims, dims), dtype=np.float32)
        self._count = np.zeros(n_classes, dtype=int)

    def __len__(self) -> int:
        return len(self._regions)

    def __contains__(self, region_id: str) -> bool:
        return region_id in self._regions

    @property
    def region_class(self) -> dict[str, int]:
        """Class index of every region, in the order they were added."""
        return {key: sums.class_index for key, sums in self._regions.items()}

    @property
    def classes(self) -> tuple[int, ...]:
        """Classes that have at least one region, in order."""
        return tuple(int(c) for c in np.flatnonzero(self._count))

    def add(self, region_id: str, class_index: int, features: NDArray[Any]) -> None:
        """Take in a region, or replace it; a region without tokens is forgotten.

        Parameters
        ----------
        region_id : str
        class_index : int
            0 .. n_classes - 1.
        features : (n, D)
            The (neighbourhood-averaged) features of its tokens.
        """
        if not 0 <= class_index < self.n_classes:
            raise ValueError(f"class {class_index} of {self.n_classes}")
        x = np.asarray(features, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != self.dims:
            raise ValueError(f"features are {x.shape}, not (n, {self.dims})")
        self.remove(region_id)
        if len(x) == 0:
            return
        n = len(x)
        share = float(n) ** _SIZE_POWER
        scaled = x * np.float32(np.sqrt(share / n))
        sums = _Sums(
            class_index, share, np.ones(n, np.float32) @ x * (share / n), scaled.T @ scaled
        )
        self._regions[region_id] = sums
        self._count[class_index] += 1
        self._share[class_index] += sums.share
        self._mean[class_index] += sums.mean
        self._gram[class_index] += sums.gram

    def remove(self, region_id: str) -> None:
        """Forget a region; an unknown one is no error, it may have held no tokens."""
        if (sums := self._regions.pop(region_id, None)) is None:
            return
        c = sums.class_index
        self._count[c] -= 1
        alone = self._count[c] == 0  # what rounding left behind goes too
        self._share[c] = 0 if alone else self._share[c] - sums.share
        self._mean[c] = 0 if alone else self._mean[c] - sums.mean
        self._gram[c] = 0 if alone else self._gram[c] - sums.gram

    def fit(self, config: Config | None = None, without: Collection[str] = ()) -> LinearHead:
        """Solve the probe from the regions, but those in `without`.

        Returns
        -------
        LinearHead
            A class without a region is never chosen. The temperature is the
            configuration's; `calibrated` replaces it.

        Raises
        ------
        PathotuneError
            Fewer than two classes are marked.

        Notes
        -----
        Linear discriminant analysis with equal priors and a pooled covariance (Hastie,
        Tibshirani and Friedman, The Elements of Statistical Learning, section 4.3),
        shrunk to a multiple of the identity (Ledoit and Wolf 2004) the more, the
        fewer regions there are. A mean of few regions sticks out by chance, so the
        means are shrunk towards their average (James and Stein 1961); without it a
        class whose single region happens to be odd loses everything.
        """
        config = config or Config()
        left = [self._regions[key] for key in without if key in self._regions]
        count, share, mean = self._count.copy(), self._share.copy(), self._mean.copy()
        for sums in left:
            count[sums.class_index] -= 1
            share[sums.class_index] -= sums.share
            mean[sums.class_index] -= sums.mean
        present = np.flatnonzero(count)
        n = len(present)
        if n < 2:
            raise PathotuneError(
                "A model needs marks of at least two classes.",
                "Mark a region of another class.",
            )
        each = np.zeros(self.n_classes, dtype=np.float32)
        each[present] = 1 / (n * share[present])
        within = (each @ self._gram.reshape(self.n_classes, -1)).reshape(self.dims, self.dims)
        for sums in left:
            within -= each[sums.class_index] * sums.gram
        m = mean[present] / share[present, None]
        within -= (m.T @ m / n).astype(np.float32)
        per_class = n / float((1 / count[present]).sum())
        keep = per_class / (per_class + config.caution)
        blur = config.smoothing / (config.smoothing + int(count.sum()))
        centre = m.mean(0)
        # A single token a class has no spread: then the distance of the classes sets the scale.
        floor = 1e-3 * float(((m - centre) ** 2).mean()) + 1e-12
        spread = max(float(np.trace(within)) / self.dims, floor)
        within *= np.float32(1.0 - blur)
        within.flat[:: self.dims + 1] += np.float32((blur + 1e-6) * spread)
        # Centred means: the same classes, and smaller numbers in float32.
        solved = _solve(within, (m - centre).T.astype(np.float32))
        weight = np.zeros((self.dims, self.n_classes), dtype=np.float32)
        bias = np.full(self.n_classes, _ABSENT * config.temperature, dtype=np.float32)
        sure = 1 + _TOO_SURE / per_class
        weight[:, present] = keep / sure * solved
        own = np.einsum("cd,dc->c", m - centre, solved)
        bias[present] = -(0.5 * keep**2 * own + keep * (centre @ solved)) / sure
        return LinearHead(weight, bias, config.temperature)

    def folds(self, seed: int = 0) -> list[tuple[str, ...]]:
        """Return what to leave out together: one region of each class in turn.

        As many folds as the largest class has regions, at most ten; then a fold leaves
        several of a class out. A class with one region is never left out.
        """
        by_class: dict[int, list[str]] = {}
        # By what lies under them, so that the verdict hangs neither on the order in which regions
        # were drawn, read or computed nor on the names a file gave them.
        for key, sums in sorted(self._regions.items(), key=lambda item: item[1].mean[:4].tolist()):
            by_class.setdefault(sums.class_index, []).append(key)
        splittable = {c: keys for c, keys in by_class.items() if len(keys) > 1}
        if not splittable:
            return []
        rng = np.random.default_rng(seed)
        n = min(10, max(len(keys) for keys in splittable.values()))
        out: list[list[str]] = [[] for _ in range(n)]
        for c in sorted(splittable):
            keys = splittable[c]
            for place, index in enumerate(rng.permutation(len(keys))):
                out[place % n].append(keys[index])
        return [tuple(fold) for fold in out if fold]

    def held_out(
        self, config: Config | None = None, seed: int = 0
    ) -> Iterator[tuple[tuple[str, ...], LinearHead]]:
        """Yield (regions left out, head fitted without them) for every fold."""
        for fold in self.folds(seed):
            yield fold, self.fit(config, without=fold)


def _solve(matrix: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Solve a symmetric positive definite system; Cholesky takes a third of the time of LU."""
    from scipy.linalg.lapack import sposv

    out: NDArray[np.float32]
    _, out, info = sposv(matrix, right)
    return out if info == 0 else np.linalg.lstsq(matrix, right, rcond=None)[0]


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Return the softmax over the last axis, safe for large logits."""
    z = np.asarray(logits, dtype=np.float32)
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    out: NDArray[np.float32] = e / e.sum(axis=-1, keepdims=True)
    return out


def fit(
    features: NDArray[Any],
    class_index: NDArray[Any],
    region_index: NDArray[Any],
    n_classes: int,
    config: Config | None = None,
    seed: int = 0,
) -> LinearHead:
    """Fit a probe to labelled tokens and calibrate it on held-out regions.

    Parameters
    ----------
    features : (n, D)
    class_index, region_index : (n,) int
        Every token of a region has the same class.
    n_classes, config, seed
        As for `RegionStats`.
    """
    config, x = config or Config(), np.asarray(features, dtype=np.float32)
    stats = RegionStats(n_classes, x.shape[1])
    rows: dict[str, NDArray[np.intp]] = {}
    for region in np.unique(region_index):
        where = np.flatnonzero(region_index == region)
        rows[str(region)] = where
        stats.add(str(region), int(class_index[where[0]]), x[where])
    logits, classes = [], []
    for fold, head in stats.held_out(config, seed):
        for key in fold:
            logits.append(head.logits(x[rows[key]]))
            classes.append(stats.region_class[key])
    return calibrated(stats.fit(config), logits, classes, config.temperature)
