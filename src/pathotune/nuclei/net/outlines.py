"""From the network's three maps to one label a nucleus.

Seeds are where a pixel lies deep inside and no edge runs; from there a watershed
floods to the end of the foreground (Vincent & Soille 1991). One pass over the
foreground only, so that it takes less time than the network itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from pathotune.nuclei.segmenter import Found

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Cut:
    """Bars between 0 and 1; areas in um2."""

    nucleus: float = 0.4
    seed: float = 0.45
    edge: float = 0.4  # how much of the edge's probability is taken off the depth
    min_um2: float = 12.0
    max_um2: float = 800.0


def outlines(maps: NDArray[Any], mpp: float, cut: Cut | None = None) -> Found:
    """Return the nuclei of a field.

    Parameters
    ----------
    maps : float32 (3, h, w)
        Foreground, edge, middle, each 0 to 1.
    mpp : float
        um/px.
    cut : Cut, optional

    Returns
    -------
    Found
        The confidence is the mean probability of nucleus over its pixels.
    """
    from skimage.segmentation import watershed

    cut = cut or Cut()
    inside, edge, middle = (np.asarray(m, np.float32) for m in maps)
    mask = inside > cut.nucleus
    deep = middle - cut.edge * edge
    seeds, _ = ndimage.label((deep > cut.seed) & mask)
    labels = np.zeros(mask.shape, np.int32)
    for box in _bands(mask):  # empty margins are not flooded
        labels[box] = watershed(-deep[box], seeds[box], mask=mask[box])
    count = int(labels.max(initial=0))
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * mpp**2
    keep = (sizes >= cut.min_um2) & (sizes <= cut.max_um2)
    keep[0] = False
    number = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    labels = number[labels]
    n = int(keep.sum())
    total = np.bincount(labels.ravel(), inside.ravel(), n + 1)[1:]
    pixels = np.maximum(np.bincount(labels.ravel(), minlength=n + 1)[1:], 1)
    return Found(labels, (total / pixels).astype(np.float32))


def _bands(mask: NDArray[Any]) -> list[tuple[slice, slice]]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    return [(slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))]
