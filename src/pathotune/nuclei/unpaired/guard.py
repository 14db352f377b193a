"""Whether a painter may be used at all: it must paint nuclei where the mask has them, only there.

A painter that invents nuclei, or leaves some out, would teach S to see what is not there, and no
loss notices: the cycle is closed all the same. So what it paints is measured by the
colour of the slide's own nuclei, which no network took part in measuring. It must also paint
one mask in more than one way, and S must read the same mask off all of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.nuclei.unpaired.pairs import unscaled
from pathotune.nuclei.unpaired.palette import nuclear

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pathotune.nuclei.stains import Stains

LEAST_CONTRAST = 0.15  # optical density, nuclei against the rest
MOST_OUTSIDE = 0.10  # area of strong blobs outside, as a share of the nuclei's
LEAST_CHANGE = 0.02  # of a pixel from code to code, of full white
LEAST_AGREEMENT = 0.90  # Dice of what is read off paintings of one mask
BLOB_UM2 = 12.0


@dataclass(frozen=True)
class Alignment:
    """Where painted haematoxylin lies.

    Attributes
    ----------
    contrast : float
        Mean optical density inside nuclei less that outside.
    outside : float
        Area of strong blobs that touch no nucleus, as a share of the area of nuclei.
    """

    contrast: float
    outside: float

    @property
    def good(self) -> bool:
        """Whether the painter may be used."""
        return self.contrast >= LEAST_CONTRAST and self.outside <= MOST_OUTSIDE

    def told(self) -> dict[str, Any]:
        """Return the numbers as plain JSON."""
        return asdict(self) | {"good": self.good}

    def words(self) -> str:
        """Say what is wrong."""
        if self.contrast < LEAST_CONTRAST:
            return (
                f"what it paints as nuclei hardly differs from the rest ({self.contrast:.2f} in "
                f"optical density; {LEAST_CONTRAST:.2f} is needed)"
            )
        return (
            f"it paints nuclei where there should be none ({self.outside:.0%} of the area of "
            f"the nuclei; at most {MOST_OUTSIDE:.0%} is allowed)"
        )


def alignment(
    fields: Sequence[tuple[NDArray[Any], NDArray[Any]]], stains: Stains, mpp: float
) -> Alignment:
    """Measure painted fields, float32 (3, h, w) in -1..1, against their nuclei, int (h, w).

    Fields without nuclei are counted outside only; without any nucleus nothing is good.
    """
    from scipy import ndimage

    inside, rest, maps = [], [], []
    for image, truth in fields:
        dye = nuclear(unscaled(image), stains)
        mask = truth > 0
        near = ndimage.binary_dilation(mask, iterations=max(1, round(1.0 / mpp)))
        inside.append(dye[mask])
        rest.append(dye[~near])
        maps.append((dye, mask, near))
    within = np.concatenate(inside)
    if not len(within):
        return Alignment(0.0, 1.0)
    without = np.concatenate(rest)
    mean_in = float(within.mean())
    mean_out = float(without.mean()) if len(without) else 0.0
    # a blob is strong that is as dark as nuclei are, not merely darker than what lies around
    limit = (mean_in + mean_out) / 2
    area = 0
    for dye, mask, near in maps:
        pieces, count = ndimage.label(ndimage.gaussian_filter(dye, 0.5 / mpp) > limit)
        if not count:
            continue
        size = np.bincount(pieces.ravel())
        touching = np.bincount(pieces[mask], minlength=count + 1) > 0
        far = np.bincount(pieces[~near], minlength=count + 1)
        bad = ~touching & (size * mpp**2 >= BLOB_UM2)
        bad[0] = False
        area += int(far[bad].sum())
    return Alignment(mean_in - mean_out, area / len(within))


def change(paintings: NDArray[Any]) -> float:
    """Return how much a pixel changes from code to code, 0 to 1.

    Parameters
    ----------
    paintings : float (codes, 3, h, w)
        Of one mask, -1 to 1.
    """
    return float((np.asarray(paintings).std(axis=0) / 2).mean())


def agreement(read: Sequence[NDArray[Any]]) -> float:
    """Return the mean Dice of every pair of masks, (h, w) labels, read off one mask's paintings."""
    masks = [np.asarray(r) > 0 for r in read]
    found = []
    for i, a in enumerate(masks):
        for b in masks[:i]:
            both = a.sum() + b.sum()
            found.append(2 * (a & b).sum() / both if both else 1.0)
    return float(np.mean(found)) if found else 1.0
