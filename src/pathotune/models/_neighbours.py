"""The mean of a token and its neighbours, for windows and for scattered tokens.

A probe looks at the mean of the k x k tokens around a token, over those that
have been computed. Both ways below add the same numbers, and neither depends on
where a window happens to begin, so that the screen and the whole slide agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def box_mean(
    values: NDArray[np.float32], valid: NDArray[np.bool_], neighbourhood: int
) -> NDArray[np.float32]:
    """Average each token with its valid neighbours.

    A mean and a linear head can change places: average logits (few channels)
    rather than features where only the logits are wanted.

    Parameters
    ----------
    values : (h, w, K) float32
        Zero, or anything finite, where not valid.
    valid : (h, w) bool
    neighbourhood : int
        Side of the square in tokens, odd; 1 changes nothing.

    Returns
    -------
    (h, w, K) float32
        Zero where no neighbour is valid.
    """
    if neighbourhood == 1:
        return values
    weight = valid.astype(np.float32)[..., None]
    total = _box_sum(values if valid.all() else values * weight, neighbourhood)
    count = _box_sum(weight, neighbourhood)
    total /= np.maximum(count, 1.0)
    return total


def _box_sum(values: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Sum over k x k by shifted additions: the order of adding is the same everywhere."""
    for axis in (0, 1):
        out = values.copy()
        n = values.shape[axis]
        for shift in range(1, min(k // 2, n - 1) + 1):
            ahead, behind = [slice(None)] * 3, [slice(None)] * 3
            ahead[axis], behind[axis] = slice(shift, None), slice(None, n - shift)
            out[tuple(behind)] += values[tuple(ahead)]
            out[tuple(ahead)] += values[tuple(behind)]
        values = out
    return values


def neighbour_sums(
    rows: NDArray[np.integer[Any]],
    cols: NDArray[np.integer[Any]],
    shape: tuple[int, int],
    neighbourhood: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp], Any]:
    """Plan the neighbour sums of scattered tokens.

    Returns
    -------
    rows, cols : (m,) int
        Every token that is needed, once, in reading order.
    matrix : scipy.sparse.csr_array (n, m)
        One where token m is a neighbour of token n.
    """
    from scipy.sparse import csr_array

    reach = np.arange(neighbourhood) - neighbourhood // 2
    r = (np.asarray(rows, dtype=np.intp)[:, None, None] + reach[:, None]).repeat(len(reach), axis=2)
    c = (np.asarray(cols, dtype=np.intp)[:, None, None] + reach).repeat(len(reach), axis=1)
    inside = (r >= 0) & (r < shape[0]) & (c >= 0) & (c < shape[1])
    owner = np.broadcast_to(np.arange(len(rows))[:, None, None], r.shape)[inside]
    flat, where = np.unique(r[inside] * shape[1] + c[inside], return_inverse=True)
    ones = np.ones(len(owner), dtype=np.float32)
    matrix = csr_array((ones, (owner, where)), shape=(len(rows), len(flat)))
    return flat // shape[1], flat % shape[1], matrix
