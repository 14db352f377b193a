"""Classes by a threshold: DAB positive or not, in grades, with index and H-score.

For Ki-67, receptors and the like. A nucleus' grade is read from its mean optical
density of DAB against three cuts; nuclei without that measurement have no grade
and are counted apart, never as negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pathotune.nuclei.query import Nuclei

CUTS = (0.2, 0.4, 0.6)  # optical density (base 10) from which a nucleus is 1+, 2+, 3+
GRADES = ("Negative", "1+", "2+", "3+")
UNKNOWN = -1


@dataclass(frozen=True)
class Index:
    """What is read from graded nuclei.

    Attributes
    ----------
    counted : int
        Nuclei with a grade.
    unknown : int
        Nuclei without the measurement.
    counts : tuple of four ints
        Negative, 1+, 2+, 3+.
    positive : float or None
        Share of 1+ and above in percent, 0 to 100; None if none was counted.
    h_score : float or None
        Percent of 1+, twice that of 2+ and three times that of 3+, 0 to 300.
    """

    counted: int
    unknown: int
    counts: tuple[int, int, int, int]
    positive: float | None
    h_score: float | None


def grades(values: NDArray[Any], cuts: Sequence[float] = CUTS) -> NDArray[np.int8]:
    """Return 0 to 3 for each optical density, -1 where it is not known.

    Raises
    ------
    PathotuneError
        The cuts are not three rising numbers.
    """
    if len(cuts) != 3 or not np.all(np.diff(cuts) > 0):
        raise PathotuneError(
            "The cuts of 1+, 2+ and 3+ must be three rising optical densities.",
            "For instance 0.2, 0.4 and 0.6.",
        )
    found = np.searchsorted(np.asarray(cuts, float), values, side="right").astype(np.int8)
    found[~np.isfinite(values)] = UNKNOWN
    return found


def index(graded: NDArray[Any]) -> Index:
    """Return index and H-score of grades as `grades` gives them."""
    counts = [int((graded == g).sum()) for g in range(4)]
    counted = sum(counts)
    told = (counts[0], counts[1], counts[2], counts[3])
    if not counted:
        return Index(0, len(graded), told, None, None)
    percent = [100 * c / counted for c in counts]
    return Index(
        counted,
        len(graded) - counted,
        told,
        percent[1] + percent[2] + percent[3],
        percent[1] + 2 * percent[2] + 3 * percent[3],
    )


def by_dab(nuclei: Nuclei, cuts: Sequence[float] = CUTS, graded: bool = True) -> Index:
    """Give every nucleus its class by its mean DAB, and return index and H-score.

    Parameters
    ----------
    nuclei : Nuclei
        Their classes are replaced; nuclei without a measurement keep theirs.
    cuts : three floats
        Optical densities from which a nucleus is 1+, 2+, 3+.
    graded : bool
        Classes are Negative, 1+, 2+ and 3+; otherwise Negative and Positive.

    Raises
    ------
    PathotuneError
        The cuts do not rise, or DAB was not measured.
    """
    rows = np.flatnonzero(nuclei.alive)
    found = grades(nuclei.column("dab_mean", rows), cuts)
    known = found >= 0
    if len(rows) and not known.any():
        raise PathotuneError(
            "The brown of these nuclei was never measured.",
            "Find the nuclei again on the slide; imported outlines bring no colours.",
        )
    names = GRADES if graded else (GRADES[0], "Positive")
    codes = found[known] if graded else np.minimum(found[known], 1)
    nuclei.set_classes(rows[known], names, codes)
    return index(found)
