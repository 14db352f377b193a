"""The one contract of everything that finds nuclei.

A segmenter looks at a slide once, when it is prepared, and then answers for any
field the same way wherever the field is cut: that is what makes tiles fit
together. What it finds is handed on as a label image; measuring, seams and
files are the same for all.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pathotune import plugins

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.nuclei.stains import Stains
    from pathotune.slides.slide import Slide
    from pathotune.slides.tissue import TissueMask

SEGMENTERS = "pathotune.nuclei.segmenters"
DEFAULT = "watershed"
NETWORK = "pathotune-nucleus-net"  # what the header of a refined network says it is
LEARNT = ".safetensors"  # ending of a segmenter that is a file of its own


@dataclass(frozen=True)
class Found:
    """The nuclei of one field.

    Attributes
    ----------
    labels : int32 (h, w)
        0 is background; nuclei are numbered from 1 without gaps.
    confidence : float32 (n,)
        Of nucleus 1, 2, ...; 0 to 1.
    """

    labels: NDArray[Any]
    confidence: NDArray[Any]


class Segmenter(Protocol):
    """A segmenter that knows its slide.

    Attributes
    ----------
    mpp : float
        um/px of the fields it wants.
    halo_um : float
        How much must be seen around a field for its nuclei to be the same in any field.
    key : str
        Changes with everything that changes the answer; a run is resumed only under the same.
    stains : Stains
        The slide's stains, for the measurements.
    notes : tuple of str
        What the user should know.
    """

    mpp: float
    halo_um: float
    key: str
    stains: Stains
    notes: tuple[str, ...]

    def segment(self, pixels: NDArray[Any]) -> Found:
        """Find the nuclei of a field, uint8 (h, w, 3) at `mpp`."""
        ...


def known() -> tuple[str, ...]:
    """Return the keys of all segmenters."""
    return plugins.names(SEGMENTERS)


def prepare(key: str, slide: Slide, tissue: TissueMask | None = None) -> Segmenter:
    """Let a segmenter look at a slide.

    Parameters
    ----------
    key : str
        One of `known`, or the name of a file that Learn nuclei or Refine wrote.
    slide : Slide
        Needs um/px.
    tissue : TissueMask, optional
        Where to look.

    Raises
    ------
    PathotuneError
        There is no such segmenter, um/px is missing, or the slide is not brightfield.
    """
    if key.endswith(LEARNT) and _is_network(Path(key)):
        from pathotune.nuclei.segmenters import nucleus_net

        refined: Segmenter = nucleus_net.prepare(
            slide, tissue, nucleus_net.Config(weights=Path(key))
        )
        return refined
    if key.endswith(LEARNT):
        from pathotune.nuclei.unpaired import saved

        learnt: Segmenter = saved.prepare(key, slide, tissue)
        return learnt
    made: Segmenter = plugins.load(SEGMENTERS, key).prepare(slide, tissue)
    return made


def _is_network(path: Path) -> bool:
    """Tell whether a file holds a refined nucleus network, by its header alone."""
    with contextlib.suppress(OSError, ValueError, AttributeError, MemoryError):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, 1 << 20)))
        return bool(header.get("__metadata__", {}).get("kind") == NETWORK)
    return False
