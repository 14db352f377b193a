"""How well outlined nuclei agree with nuclei outlined by a person.

Dice of the foreground, the aggregated Jaccard index (Kumar et al., IEEE TMI
2017, algorithm 1) and panoptic quality (Kirillov et al., CVPR 2019, section 4)
as SQ times DQ. Two empty pictures agree perfectly; one empty one, not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


NAMES = ("dice", "aji", "dq", "sq", "pq", "detection_f1")


def scores(found: NDArray[Any], truth: NDArray[Any]) -> dict[str, float]:
    """Compare two label images of one shape; 0 is background.

    Returns
    -------
    dict
        dice, aji, dq (F1 at an overlap above one half), sq, pq, detection_f1; 0 to 1. A nucleus
        counts as detected when the centre of a found one lies in it; each is paired once.

    Raises
    ------
    ValueError
        The shapes differ.
    """
    if found.shape != truth.shape:
        raise ValueError(f"shapes differ: {found.shape} and {truth.shape}")
    a, b = _numbered(found), _numbered(truth)
    n, m = int(a.max(initial=0)), int(b.max(initial=0))
    if not n or not m:
        same = float(n == m)
        return dict.fromkeys(NAMES, same)
    both = np.bincount(b * (n + 1) + a, minlength=(n + 1) * (m + 1)).reshape(m + 1, n + 1)
    size_a, size_b = both.sum(axis=0), both.sum(axis=1)
    shared = both[1:, 1:]
    union = size_b[1:, None] + size_a[None, 1:] - shared
    overlap = shared / union
    best = overlap.argmax(axis=1)
    rows = np.arange(m)
    hit = overlap[rows, best] > 0
    used = np.unique(best[hit])
    inter = shared[rows, best][hit].sum()
    alone = size_b[1:][~hit].sum() + np.delete(size_a[1:], used).sum()
    matched = overlap[overlap > 0.5]  # above one half a partner is the only one
    dq = 2 * len(matched) / (n + m)
    sq = float(matched.mean()) if len(matched) else 0.0
    fore = shared.sum()
    return {
        "dice": float(2 * fore / (size_a[1:].sum() + size_b[1:].sum())),
        "aji": float(inter / (union[rows, best][hit].sum() + alone)),
        "dq": dq,
        "sq": sq,
        "pq": dq * sq,
        "detection_f1": 2 * _detected(found, truth) / (n + m),
    }


def _detected(found: NDArray[Any], truth: NDArray[Any]) -> int:
    """Return how many true nuclei hold the centre of a found one."""
    a = _numbered(found)
    width = found.shape[1]
    size = np.maximum(np.bincount(a), 1)
    places = np.arange(a.size)
    row = np.bincount(a, places // width) / size
    column = np.bincount(a, places % width) / size
    # of a crescent the centre lies outside: its own pixel that is nearest counts
    far = (places // width - row[a]) ** 2 + (places % width - column[a]) ** 2
    order = np.lexsort((far, a))
    first = np.flatnonzero(np.diff(a[order], prepend=-1))
    middle = order[first][a[order[first]] > 0]
    under = truth.ravel()[middle]
    return len(np.unique(under[under != 0]))


def _numbered(labels: NDArray[Any]) -> NDArray[Any]:
    """Return flat labels numbered without gaps, 0 staying 0."""
    values, number = np.unique(labels, return_inverse=True)
    flat: NDArray[Any] = number.ravel() + (values[0] != 0)
    return flat
