"""From features to classes: the one place, for the window and the command line alike.

A mean and a linear head can change places, so the logits of single tokens are
averaged over the neighbourhood instead of the features: a few channels instead
of hundreds, which lets a screen follow a stroke.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pathotune.models.features import box_mean
from pathotune.models.tuning.linear import LinearHead, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.models.features import FeatureStore

Box = tuple[int, int, int, int]


def paint(
    store: FeatureStore,
    head: LinearHead,
    window: Box,
    on_tissue: NDArray[np.bool_] | None,
    neighbourhood: int,
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Classify a box of tokens from stored features.

    Parameters
    ----------
    store : FeatureStore
        Tokens that are not in it stay unpredicted.
    head : LinearHead
        The probe.
    window : (row0, col0, row1, col1)
        Half-open, in tokens of the lattice, inside it.
    on_tissue : (rows, cols) bool or None
        Of the whole lattice: where to predict (`TileGrid.tokens`); None: everywhere. Only
        these tokens count as neighbours, as in training, so that what else lies in the
        store changes nothing.
    neighbourhood : int
        Side, in tokens, of the square that a token is averaged over.

    Returns
    -------
    labels : (h, w) uint8
        0 where there is no tissue or no feature, else 1 + class.
    probs : (h, w, C) float16
        0 where the label is 0.
    """
    row0, col0, row1, col1 = window
    n = len(head.bias)
    labels = np.zeros((max(row1 - row0, 0), max(col1 - col0, 0)), np.uint8)
    probs = np.zeros((*labels.shape, n), np.float16)
    wanted = None if on_tissue is None else on_tissue[row0:row1, col0:col1]
    if labels.size == 0 or (wanted is not None and not wanted.any()):
        return labels, probs
    rim = neighbourhood // 2
    around = (row0 - rim, col0 - rim, row1 + rim, col1 + rim)
    features, valid = store.window(*around, allowed=on_tissue)
    logits = head.logits(features)
    if rim:
        logits = box_mean(logits, valid, neighbourhood)
        logits = logits[rim:-rim, rim:-rim]
        valid = valid[rim:-rim, rim:-rim]
    p = softmax(logits[valid])
    labels[valid] = p.argmax(axis=-1) + 1
    probs[valid] = p
    return labels, probs
