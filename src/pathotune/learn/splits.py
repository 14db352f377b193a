"""Which regions are learnt and which are kept apart to judge by, several times over.

Tokens of a region are nearly copies, and regions of a slide share its stain, so
whole regions are held out, and whole slides where every class is marked on two
of them. Each region is held out about once, so that one lucky or unlucky split does
not decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def splits(
    classes: NDArray[np.intp], groups: Sequence[str], repeats: int, seed: int = 0
) -> tuple[list[NDArray[np.bool_]], str]:
    """Return for each repeat which regions are held out, and what is left out whole.

    Parameters
    ----------
    classes : (R,) int
        Class of each region.
    groups : sequence of str
        Slide of each region.
    repeats : int
        How many splits are wanted.
    seed : int

    Returns
    -------
    list of (R,) bool
        Empty when a class has a single region: then nothing can be held out.
    str
        "slides", "regions", or "" when there is no split.
    """
    names = sorted(set(groups))
    own = np.array([names.index(g) for g in groups])
    each = [set(own[classes == c].tolist()) for c in np.unique(classes)]
    rng = np.random.default_rng(seed)
    if len(names) > 1 and all(len(on) > 1 for on in each):
        found = _by_slide(classes, own, len(names), repeats, rng)
        if found:
            return found, "slides"
    if min((classes == c).sum() for c in np.unique(classes)) < 2:
        return [], ""
    parts = np.zeros(len(classes), int)
    for c in np.unique(classes):
        mine = rng.permutation(np.flatnonzero(classes == c))
        parts[mine] = np.arange(len(mine)) % min(max(repeats, 2), len(mine))
    flags = []
    for r in range(repeats):
        held = np.zeros(len(classes), bool)
        for c in np.unique(classes):
            mine = classes == c
            held |= mine & (parts == r % (parts[mine].max() + 1))
        flags.append(held)
    return flags, "regions"


def _by_slide(
    classes: NDArray[np.intp],
    own: NDArray[np.intp],
    slides: int,
    repeats: int,
    rng: np.random.Generator,
) -> list[NDArray[np.bool_]]:
    """Return splits that hold out whole slides and leave every class something on both sides."""
    wanted, found = set(np.unique(classes).tolist()), []
    order = rng.permutation(slides)
    for r in range(slides):
        held = own == order[r]
        if set(classes[~held].tolist()) == wanted:
            found.append(held)
        if len(found) == repeats:
            break
    return found
