"""How sure a model may be: its probabilities fitted to regions that it has not seen.

A head that was fitted to a few regions is far too sure of itself. One number,
the temperature, is set so that the regions left out come out as likely as they
are right. The search is short because the loss has one valley.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pathotune.models.tuning.linear import LinearHead


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
        The log loss is averaged over tokens, then regions, then classes. A head that has
        lost one of a class's two regions is far less sure than the whole one, so what the
        held-out regions say counts from three regions a class on, by ``1 - 2 / n``.

    Notes
    -----
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    if not logits:
        return head
    classes, lengths = np.asarray(class_index), [len(z) for z in logits]
    regions = np.bincount(classes)
    trust = 1 - 2 * float(np.mean(1 / regions[regions > 0]))
    if trust <= 0:
        return head
    grid = np.geomspace(1 / 32, 32.0, 61)
    each = 1 / (np.array(lengths) * regions[classes] * np.count_nonzero(regions))
    weight = np.repeat(each, lengths)
    raw = np.concatenate([np.asarray(z, np.float32) for z in logits]) * np.float32(temperature)
    raw -= raw.max(-1, keepdims=True)
    right = np.take_along_axis(raw, np.repeat(classes, lengths)[:, None], 1)[:, 0] @ weight

    @lru_cache
    def loss(g: int) -> float:
        return float(np.log(np.exp(raw / np.float32(grid[g])).sum(-1)) @ weight - right / grid[g])

    low, high = 0, len(grid) - 1  # the loss is convex in 1 / temperature: one valley
    while low < high:
        middle = (low + high) // 2
        if loss(middle) <= loss(middle + 1):
            high = middle
        else:
            low = middle + 1
    return replace(head, temperature=temperature * (float(grid[low]) / temperature) ** trust)
