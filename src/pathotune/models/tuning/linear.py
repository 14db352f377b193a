"""The linear probe: token features to classes in a few milliseconds, without iterations.

A pathologist marks a stroke and expects the map to follow at once, so the probe
is linear discriminant analysis computed from sums that are kept for every marked
region. Adding or removing a region adds or subtracts its sums, and leaving a
region out for validation is a subtraction and one small solve. Classes weigh the
same, and so do the regions of a class up to a power of their size, whatever the
number of tokens under each. The head is linear in every token, so that the class
map at token resolution and the answer for a whole tile (the mean of its tokens)
come from the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

# The logit of a class that nobody has marked: never chosen, and safe in a softmax.
_ABSENT = -1e4


@dataclass(frozen=True)
class Config:
    """Settings of the probe; the defaults were chosen by cross-validation on real tissue."""

    shrinkage: float = field(
        default=0.1,
        metadata={
            "label": "Smoothing",
            "help": "How far the probe distrusts small differences. More for few marks.",
            "min": 0.001,
            "max": 1.0,
        },
    )
    size_power: float = field(
        default=0.5,
        metadata={
            "label": "Weight of large regions",
            "help": "0: every region counts the same. 1: every token counts the same.",
            "min": 0.0,
            "max": 1.0,
        },
    )
    temperature: float = field(
        default=2.0,
        metadata={
            "label": "Caution before calibration",
            "help": "Softens the probabilities until held-out regions tell how much is right.",
            "min": 0.1,
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
        return {
            "weight": np.ascontiguousarray(self.weight, dtype=np.float32),
            "bias": np.ascontiguousarray(self.bias, dtype=np.float32),
            "temperature": np.array([self.temperature], dtype=np.float32),
        }

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
    """What is kept of a region: its class, tokens, sum (D,) and products (D, D)."""

    class_index: int
    count: int
    total: NDArray[np.float32]
    gram: NDArray[np.float32]


class RegionStats:
    """Sums of the features under every marked region, from which a probe is solved.

    Parameters
    ----------
    n_classes : int
        Classes, whether they are marked yet or not.
    dims : int
        Length D of a feature.

    Notes
    -----
    Memory is D * D * 4 bytes a region, 64 KB at D = 128.
    """

    def __init__(self, n_classes: int, dims: int) -> None:
        self.n_classes = n_classes
        self.dims = dims
        self._regions: dict[str, _Sums] = {}

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
        return tuple(sorted({sums.class_index for sums in self._regions.values()}))

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
        if len(x) == 0:
            self._regions.pop(region_id, None)
            return
        self._regions[region_id] = _Sums(class_index, len(x), x.sum(0), x.T @ x)

    def remove(self, region_id: str) -> None:
        """Forget a region; an unknown one is no error, it may have held no tokens."""
        self._regions.pop(region_id, None)

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
        Linear discriminant analysis with equal priors and a pooled covariance,
        shrunk to a multiple of the identity (Ledoit and Wolf 2004 give the form;
        the strength is the configuration's). Hastie, Tibshirani and Friedman,
        The Elements of Statistical Learning, section 4.3.
        """
        config = config or Config()
        dims, n_classes = self.dims, self.n_classes
        weight_sum = np.zeros(n_classes)
        means = np.zeros((n_classes, dims))
        used = [s for key, s in self._regions.items() if key not in without]
        for sums in used:
            share = float(sums.count) ** config.size_power
            weight_sum[sums.class_index] += share
            means[sums.class_index] += sums.total * (share / sums.count)
        present = np.flatnonzero(weight_sum)
        if len(present) < 2:
            raise PathotuneError(
                "A model needs marks of at least two classes.",
                "Mark a region of another class.",
            )
        means[present] /= weight_sum[present, None]
        scatter = np.zeros((dims, dims), dtype=np.float32)
        for sums in used:
            share = float(sums.count) ** config.size_power / weight_sum[sums.class_index]
            scatter += sums.gram * np.float32(share / sums.count / len(present))
        m = means[present]
        centre = m.mean(0)
        within = scatter.astype(np.float64) - m.T @ m / len(present)
        spread = max(float(np.trace(within)) / dims, 1e-12)
        within *= 1.0 - config.shrinkage
        within.flat[:: dims + 1] += config.shrinkage * spread + 1e-9 * spread
        # Centred means: the same classes, and smaller numbers in float32.
        solved = np.linalg.solve(within, (m - centre).T)
        weight = np.zeros((dims, n_classes), dtype=np.float32)
        bias = np.full(n_classes, _ABSENT * config.temperature, dtype=np.float32)
        weight[:, present] = solved
        bias[present] = -0.5 * np.einsum("cd,dc->c", m - centre, solved) - centre @ solved
        return LinearHead(weight, bias, config.temperature)

    def folds(self, seed: int = 0) -> list[tuple[str, ...]]:
        """Return what to leave out together: one region of each class in turn.

        There are as many folds as the largest class has regions, at most ten; with
        more regions a fold leaves several of a class out. A class with one region is
        never left out, as nothing would be left to learn it from.
        """
        by_class: dict[int, list[str]] = {}
        for key, sums in self._regions.items():
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


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Return the softmax over the last axis, safe for large logits."""
    z = np.asarray(logits, dtype=np.float32)
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    out: NDArray[np.float32] = e / e.sum(axis=-1, keepdims=True)
    return out


def calibrated(
    head: LinearHead,
    logits: Sequence[NDArray[Any]],
    class_index: Sequence[int],
    temperature: float,
) -> LinearHead:
    """Return `head` with the temperature that fits held-out regions best.

    Parameters
    ----------
    head : LinearHead
    logits : sequence of (n, C)
        Logits of each held-out region's tokens from a head that never saw it,
        divided by `temperature`.
    class_index : sequence of int
        The class of each of these regions.
    temperature : float
        The temperature in `logits`.

    Returns
    -------
    LinearHead
        The log loss is averaged over tokens, then regions, then classes. With fewer
        than two regions the head comes back as it was.

    Notes
    -----
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    if len(logits) < 2:
        return head
    grid = np.geomspace(0.25, 64.0, 49)
    classes = np.asarray(class_index)
    loss = np.zeros((len(grid), len(logits)))
    for r, (z, c) in enumerate(zip(logits, classes, strict=True)):
        raw = np.asarray(z, dtype=np.float64) * temperature
        raw = raw - raw.max(-1, keepdims=True)
        for g, t in enumerate(grid):
            loss[g, r] = np.mean(np.log(np.exp(raw / t).sum(-1)) - raw[:, c] / t)
    per_class = np.stack([loss[:, classes == c].mean(1) for c in np.unique(classes)])
    return replace(head, temperature=float(grid[int(per_class.mean(0).argmin())]))


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
    n_classes : int
    config : Config, optional
    seed : int
        Which regions are left out together.
    """
    config = config or Config()
    x = np.asarray(features, dtype=np.float32)
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
