"""What nuclei look like on this slide: stain, size, how many, and fields to learn from.

The classical watershed is asked on a few fields. It misses some nuclei and joins
others, but its median size and the slide's stains are enough to draw and paint masks
that resemble the slide, and a person may correct them before anything is learnt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError
from pathotune.nuclei.segmenters import watershed
from pathotune.nuclei.stains import Stains, look
from pathotune.nuclei.synth.masks import FULL, Sizes, measured
from pathotune.nuclei.synth.renderer import Look
from pathotune.nuclei.unpaired.palette import Red, palette

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.slides.geometry import Region
    from pathotune.slides.slide import Slide
    from pathotune.slides.tissue import TissueMask

MPP = 0.5
DIAMETERS = (4.0, 20.0)  # um; outside, the watershed has found something else
SPREADS = (0.15, 0.6)
LEAST = 20  # nuclei for an estimate
MOST_COVERED = 0.8 * FULL
FIELD_PX = 256


@dataclass(frozen=True, eq=False)
class Estimate:
    """What was seen on a slide.

    Attributes
    ----------
    stains : Stains
        The colour of its nuclei (as haematoxylin) and of its other tissue (as eosin).
    sizes : Sizes
        Of nuclei, in um.
    fields : tuple of uint8 (256, 256, 3)
        Tissue at `mpp`.
    mpp : float
        um/px.
    seen : int
        Nuclei that the estimate of size rests on; 0: the usual sizes are taken.
    notes : tuple of str
        What the user should know.
    look : Look
        How dark both are.
    """

    stains: Stains
    sizes: Sizes
    fields: tuple[NDArray[Any], ...]
    mpp: float = MPP
    seen: int = 0
    notes: tuple[str, ...] = ()
    look: Look = Look()  # noqa: RUF009  (frozen)

    def corrected(self, diameter_um: float | None = None, per_mm2: float | None = None) -> Estimate:
        """Return the same with the user's size or density."""
        sizes = self.sizes
        if diameter_um is not None:
            sizes = replace(sizes, diameter_um=diameter_um)
        if per_mm2 is not None:
            sizes = replace(sizes, per_mm2=per_mm2)
        return replace(self, sizes=sizes)

    def told(self) -> dict[str, Any]:
        """Return the numbers as plain JSON."""
        return {
            "haematoxylin": list(self.stains.haematoxylin),
            "eosin": list(self.stains.eosin),
            "stains_estimated": self.stains.estimated,
            "diameter_um": self.sizes.diameter_um,
            "per_mm2": self.sizes.per_mm2,
            "nuclei_seen": self.seen,
            "nucleus_density": list(self.look.nucleus),
            "tissue_density": list(self.look.eosin),
            "mpp": self.mpp,
        }


def estimate_nuclei(
    slide: Slide, tissue: TissueMask | None = None, region: Region | None = None
) -> Estimate:
    """Look at a slide, or at a region of it, and say what its nuclei are like.

    Raises
    ------
    PathotuneError
        um/px is missing, the slide is not brightfield, or the region is beside it.
    """
    slide.need_mpp()
    if slide.kind != "brightfield":
        raise PathotuneError(
            f"This is not a stained slide ({slide.kind}); there is no haematoxylin to look for.",
            "Open an H&E slide.",
        )
    fields = look(slide, MPP, tissue, FIELD_PX) if region is None else _inside(slide, region)
    return estimate_from(fields)


def estimate_from(fields: list[NDArray[Any]], mpp: float = MPP) -> Estimate:
    """Say what the nuclei of fields, uint8 (h, w, 3) at `mpp`, are like."""
    red = Red.of(fields)
    finder = watershed.Watershed(red, red.limit, watershed.Config(mpp=mpp), ())
    outlined = [finder.segment(f).labels for f in fields]
    stains, seen_look = palette(fields, outlined)
    found = [(measured(o, mpp), f.size) for o, f in zip(outlined, fields, strict=True)]
    found = [(s, n) for s, n in found if s.per_mm2 > 0]
    count = round(sum(s.per_mm2 * n / 3 * mpp**2 / 1e6 for s, n in found))
    notes: list[str] = []
    if not stains.estimated:
        notes.append("The colour of this slide's nuclei could not be told; the textbook's is used.")
    usual = Sizes()
    if count < LEAST:
        notes.append("Too few nuclei were found to tell their size; the usual size is taken.")
        return Estimate(stains, usual, tuple(fields), mpp, 0, tuple(notes), seen_look)
    weight = np.array([s.per_mm2 for s, _ in found])
    share = weight / weight.sum()
    diameter = float(np.clip(share @ [s.diameter_um for s, _ in found], *DIAMETERS))
    dense = float(np.quantile(weight, 0.75))  # where there are nuclei, not the empty fields
    room = MOST_COVERED / (np.pi / 4 * (diameter / 1000) ** 2)
    sizes = Sizes(
        diameter_um=diameter,
        spread=float(np.clip(share @ [s.spread for s, _ in found], *SPREADS)),
        elongation=float(np.clip(share @ [s.elongation for s, _ in found], 1.1, 2.0)),
        per_mm2=min(dense, room),
        lined=usual.lined,
        wavy=usual.wavy,
    )
    return Estimate(stains, sizes, tuple(fields), mpp, count, tuple(notes), seen_look)


def _inside(slide: Slide, region: Region) -> list[NDArray[Any]]:
    """Return up to 16 fields spread over a region."""
    box = slide.bounds.intersect(region)
    if box is None:
        raise PathotuneError("The region lies beside the slide.", "Choose one on the tissue.")
    step = FIELD_PX * MPP / slide.need_mpp()
    across, down = max(1, round(box.width / step)), max(1, round(box.height / step))
    spots = [(r, c) for r in range(down) for c in range(across)]
    take = np.unique(np.linspace(0, len(spots) - 1, 16).round().astype(int))
    return [
        slide.read_scaled(
            box.x + (spots[k][1] + 0.5) * box.width / across - step / 2,
            box.y + (spots[k][0] + 0.5) * box.height / down - step / 2,
            MPP,
            FIELD_PX,
            FIELD_PX,
        )
        for k in take
    ]
