"""Which tissue a model has learnt from, so that it is never judged on it.

A bundle keeps for each region scrambled marks of the places that it covers: whoever
holds the slide can ask whether a place was among them, whoever holds the bundle alone
learns neither outline nor slide. Places and not outlines are compared, so that a region
that was edited, renamed or copied to another file is known again. For tile files it is
the content of the file.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.marks.labels import tokens_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.marks.annotations import Annotation

STEP_PX = 64.0  # side of a place, level-0 pixels
MOST = 256  # places that are kept of a region, evenly spread
_FAR = 1 << 24  # places a side: no slide is larger


def places(region: Annotation, most: int | None = None) -> NDArray[np.uint64]:
    """Return the places that a region covers, as numbers, at most `most`, evenly spread."""
    rows, cols = tokens_of(region.area(), 0.0, 0.0, STEP_PX, _FAR, _FAR)
    found = (rows.astype(np.uint64) << np.uint64(32)) | cols.astype(np.uint64)
    if most is not None and len(found) > most:
        found = found[np.linspace(0, len(found) - 1, most).astype(np.intp)]
    return found


def scrambled(found: NDArray[np.uint64], slide: str) -> NDArray[np.uint64]:
    """Return places as numbers that mean something on this slide (its fingerprint) alone.

    Notes
    -----
    The finaliser of SplitMix64 (Steele et al., OOPSLA 2014), keyed by the fingerprint.
    """
    key = np.frombuffer(hashlib.sha256(slide.encode()).digest()[:8], np.uint64)
    z = found + key
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def written(found: NDArray[np.uint64], slide: str) -> str:
    """Return places as a bundle keeps them."""
    return base64.b64encode(scrambled(found, slide).astype("<u8").tobytes()).decode()


def facts(
    ids: Iterable[str], classes: Iterable[str], marks: Sequence[Annotation], slide: str
) -> list[dict[str, str]]:
    """Return what a bundle keeps of regions: id, class and scrambled places."""
    known = {a.id: a for a in marks}
    return [
        {"id": i, "class": c, "places": written(places(known[i], MOST), slide)}
        for i, c in zip(ids, classes, strict=True)
    ]


def of_file(path: Path) -> str:
    """Return what a tile file is known by again, whatever its name."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:24]


class Seen:
    """What a bundle has learnt from.

    Parameters
    ----------
    regions : sequence of mappings
        As in the bundle.

    Attributes
    ----------
    knows_regions, knows_files : bool
        Whether regions of slides, or tile files, are known again. A bundle of an older version
        knows neither; one that learnt from tiles cannot tell whether they came from a slide.
    """

    def __init__(self, regions: Sequence[Mapping[str, Any]]) -> None:
        kept = [str(r["places"]) for r in regions if "places" in r]
        raw = b"".join(base64.b64decode(text) for text in kept)
        self._places = np.unique(np.frombuffer(raw, "<u8"))
        self._files = {str(r["file"]) for r in regions if "file" in r}
        self.knows_regions, self.knows_files = bool(kept), bool(self._files)

    def region(self, region: Annotation, slide: str) -> bool:
        """Whether tissue of a region on this slide (its fingerprint) was learnt."""
        mine = scrambled(places(region), slide)
        return bool(np.isin(mine, self._places).any())

    def file(self, path: Path) -> bool:
        """Whether this very tile was learnt."""
        return of_file(path) in self._files
