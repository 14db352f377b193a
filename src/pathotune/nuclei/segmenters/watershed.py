"""Dark blue and round: nuclei by colour and shape alone, without any weights.

Haematoxylin is separated with the slide's own stain vectors, what stands out
from the slide and from its own surroundings is nucleus, and clumps are cut
where they are narrow: a watershed on the distance to the edge, from seeds that
are at least a nucleus' radius apart (Vincent & Soille 1991). One threshold
serves the whole slide, so a nucleus is the same in whichever tile it is seen.
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError
from pathotune.nuclei.segmenter import Found
from pathotune.nuclei.stains import Stains, density, estimate, inked, look

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.slides.slide import Slide
    from pathotune.slides.tissue import TissueMask

LABEL = "Watershed"
ABOUT = "Haematoxylin by the slide's own colours, cut where clumps are narrow. No weights."


@dataclass(frozen=True)
class Config:
    """Sizes in um, areas in um2, optical densities base 10."""

    mpp: float = 0.5
    smooth_um: float = 0.5
    share: float = 0.9  # of Otsu's threshold: pale nuclei lie below it
    around_um: float = 8.0  # sigma of the surroundings
    above: float = 0.04  # optical density above the surroundings
    most: float = 1.6  # of the slide's threshold, that a packed field asks for at most
    open_um: float = 0.5
    seed_um: float = 2.5  # least distance of two seeds
    min_um2: float = 16.0
    max_um2: float = 600.0
    hole_um2: float = 20.0


class Watershed:
    """The segmenter, with a slide's stains and threshold."""

    halo_um = 64.0  # the surroundings (3 sigma) and a nucleus beside them

    def __init__(
        self, stains: Stains, limit: float, config: Config, notes: tuple[str, ...]
    ) -> None:
        self.stains, self.limit, self.config, self.notes = stains, limit, config, notes
        self.mpp = config.mpp
        told = repr((astuple(stains), round(limit, 6), astuple(config)))
        self.key = "watershed-" + hashlib.sha256(told.encode()).hexdigest()[:16]

    def segment(self, pixels: NDArray[Any]) -> Found:
        """Find the nuclei of a field, uint8 (h, w, 3) at `mpp`."""
        import skimage.morphology as morphology
        import skimage.segmentation as segmentation
        from scipy import ndimage

        c = self.config
        dye = ndimage.gaussian_filter(
            np.clip(self.stains.split(pixels)[0], 0, 2), c.smooth_um / c.mpp, truncate=3
        )
        around = ndimage.gaussian_filter(dye, c.around_um / c.mpp, truncate=3)
        # inside a packed field the surroundings are nuclei: no more is asked than the slide's
        bar = np.maximum(self.limit, np.minimum(around + c.above, c.most * self.limit))
        mask = (dye > bar) & ~inked(density(pixels))
        mask = morphology.opening(mask, morphology.disk(max(1, round(c.open_um / c.mpp))))
        mask = morphology.remove_small_holes(mask, max_size=round(c.hole_um2 / c.mpp**2))
        mask = morphology.remove_small_objects(mask, max_size=round(c.min_um2 / c.mpp**2))
        if not mask.any():
            return Found(np.zeros(mask.shape, np.int32), np.zeros(0, np.float32))
        depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0 / c.mpp / 2)
        reach = 2 * max(1, round(c.seed_um / c.mpp)) + 1
        peaks = (depth == ndimage.maximum_filter(depth, size=reach)) & mask
        seeds, _ = ndimage.label(peaks, np.ones((3, 3)))
        labels = segmentation.watershed(-depth, seeds, mask=mask)
        sizes = np.bincount(labels.ravel()) * c.mpp**2
        sizes[0] = 0
        keep = (sizes >= c.min_um2) & (sizes <= c.max_um2)
        number = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
        labels = number[labels]
        count = int(keep.sum())
        mean = np.bincount(labels.ravel(), dye.ravel(), count + 1)[1:] / np.maximum(
            np.bincount(labels.ravel(), minlength=count + 1)[1:], 1
        )
        sure = np.clip((mean - self.limit) / self.limit, 0, 1)
        return Found(labels, sure.astype(np.float32))


def prepare(
    slide: Slide, tissue: TissueMask | None = None, config: Config | None = None
) -> Watershed:
    """Estimate the slide's stains and threshold.

    Raises
    ------
    PathotuneError
        um/px is missing, or the slide is fluorescence or grey.
    """
    slide.need_mpp()
    if slide.kind != "brightfield":
        raise PathotuneError(
            f"This is not a stained slide ({slide.kind}); there is no haematoxylin to look for.",
            "Open an H&E slide.",
        )
    config = config or Config()
    fields = look(slide, config.mpp, tissue)
    stains = estimate(fields)
    notes = (
        ()
        if stains.estimated
        else ("This slide's stains could not be told apart; the textbook's colours are used.",)
    )
    return Watershed(stains, threshold(fields, stains, config.share), config, notes)


def threshold(fields: list[NDArray[Any]], stains: Stains, share: float = 1.0) -> float:
    """Return the haematoxylin density above which a pixel is nucleus: a share of Otsu's."""
    import skimage.filters as filters

    dyes = [tuple(d.ravel()[::3] for d in stains.split(f)) for f in fields]
    h, e = (np.concatenate([pair[k] for pair in dyes]) for k in (0, 1))
    values = np.clip(h[h + e > 0.1], 0, 1.5)  # glass would be a class of its own
    if len(values) < 100 or np.ptp(values) < 0.02:
        return 0.3
    return float(max(0.08, share * filters.threshold_otsu(values)))
