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


def scores(found: NDArray[Any], truth: NDArray[Any]) -> dict[str, float]:
    """Compare two label images of one shape; 0 is background.

    Returns
    -------
    dict
        dice, aji, dq (also the detection F1 at an overlap above one half), sq, pq; 0 to 1.

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
        return dict.fromkeys(("dice", "aji", "dq", "sq", "pq"), same)
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
    }


def _numbered(labels: NDArray[Any]) -> NDArray[Any]:
    """Return flat labels numbered without gaps, 0 staying 0."""
    values, number = np.unique(labels, return_inverse=True)
    flat: NDArray[Any] = number.ravel() + (values[0] != 0)
    return flat
