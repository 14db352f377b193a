"""The colours of nuclei: by class, by confidence or by a measurement.

Classes take the colours they have among the annotations, and free ones of the same
palette otherwise, so that Tumour is one colour as tissue and as nucleus. Numbers go
from the second to the ninety-eighth percentile, so that a few odd nuclei do not
take the scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_pathotune._layers import value_colours

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.nuclei.query import Nuclei

PLAIN = (240, 228, 66)  # Okabe-Ito's yellow: bright on haematoxylin and on eosin
Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Colouring:
    """What the colours tell.

    Attributes
    ----------
    by : str
        "class", "confidence" or the name of a measurement.
    own : tuple of (class, colour)
        Colours the user gave.
    """

    by: str = "class"
    own: tuple[tuple[str, Rgb], ...] = ()


def class_colours(names: tuple[str, ...], own: tuple[tuple[str, Rgb], ...]) -> dict[str, Rgb]:
    """Return a colour for every class; nuclei without a class are yellow."""
    from pathotune.marks.classes import palette
    from pathotune.nuclei.query import PLAIN as NO_CLASS

    given = dict(own)
    taken = {*given.values(), PLAIN}
    free = [c for c in palette() if c not in taken] or list(palette())
    out: dict[str, Rgb] = {}
    for name in names:
        if name == NO_CLASS:
            out[name] = PLAIN
        elif name in given:
            out[name] = given[name]
        else:
            out[name] = free[len([n for n in out if n not in given and n != NO_CLASS]) % len(free)]
    return out


def range_of(nuclei: Nuclei, how: Colouring) -> tuple[float, float]:
    """Return the numbers at both ends of the colours (any thread)."""
    if how.by in ("class", "confidence"):
        return 0.0, 1.0
    values = nuclei.column(how.by)
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    some = known[:: max(1, len(known) // 50_000)]
    low, high = np.percentile(some, (2, 98))
    return float(low), float(max(high, low + 1e-6))


def codes_of(
    nuclei: Nuclei, rows: NDArray[Any], how: Colouring, low: float, high: float
) -> NDArray[Any]:
    """Return a code, uint8 1 to 255, for each row."""
    from pathotune.nuclei.picture import value_codes

    if how.by == "class":
        return (1 + np.minimum(nuclei.codes[rows], 253)).astype(np.uint8)
    if how.by == "confidence":
        return value_codes(nuclei.confidence[rows], 0, 1)
    return value_codes(nuclei.column(how.by, rows), low, high)


def table_of(nuclei: Nuclei, how: Colouring | None) -> NDArray[Any]:
    """Return the colours of codes, uint8 (256, 3); None: those of numbers."""
    table = np.zeros((256, 3), np.uint8)
    if how is not None and how.by == "class":
        colours = class_colours(nuclei.classes, how.own)
        for i, name in enumerate(nuclei.classes[:254]):
            table[i + 1] = colours[name]
        return table
    table[1:] = (255 * value_colours().map(np.linspace(1 / 255, 1, 255))[:, :3]).round()
    return table
