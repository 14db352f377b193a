"""All nuclei of a slide as a stream of tables, with what a person corrected in them.

Exports of every kind want the same: row after row with its outline, class and
measurements, hidden ones left out, and no more in memory than a few thousand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.nuclei.query import Nuclei
from pathotune.nuclei.store import PLACES, NucleusStore

if TYPE_CHECKING:
    from collections.abc import Iterator

A_TABLE = 4096


def nuclei_of(source: Nuclei | NucleusStore) -> Nuclei:
    """Return nuclei by place of an open store, or what already is that."""
    return Nuclei.open(source.path) if isinstance(source, NucleusStore) else source


def chunks(nuclei: Nuclei, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield tables of the nuclei that are seen.

    Parameters
    ----------
    nuclei : Nuclei
    columns : list of str, optional
        id, x, y, x0, y0, x1, y1, class, confidence, outline and names of measurements; all.

    Yields
    ------
    dict
        numpy arrays of one length; ``outline`` is a list of float32 (k, 2).
    """
    measures = nuclei.measures
    wanted = columns or ["id", *PLACES, "class", "confidence", *measures, "outline"]
    rows = np.flatnonzero(nuclei.alive)
    # a column a time over all rows would read the file once a table
    kept = {name: nuclei.read(name) for name in wanted if name in measures}
    for first in range(0, len(rows), A_TABLE):
        part = rows[first : first + A_TABLE]
        out: dict[str, Any] = {}
        for name in wanted:
            if name in kept:
                out[name] = kept[name][part]
            elif name == "outline":
                found = nuclei.outlines(part)
                out[name] = [found.ring(i) for i in range(len(part))]
            elif name == "class":
                out[name] = np.array(nuclei.classes, object)[nuclei.codes[part]]
            elif name in ("x", "y"):
                out[name] = nuclei.xy[part, ("x", "y").index(name)]
            elif name in PLACES:
                out[name] = nuclei.boxes[part, ("x0", "y0", "x1", "y1").index(name)]
            else:
                out[name] = (nuclei.ids if name == "id" else nuclei.confidence)[part]
        yield out
