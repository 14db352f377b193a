"""The slide's own stains: which colour each dye has here, and how much of it lies where.

Laboratories differ in dyes and scanners in colour, so the two stain vectors are
estimated from the slide's tissue (Macenko et al., ISBI 2009, sections 2.1-2.3)
and the textbook's (Ruifrok & Johnston 2001) are taken, and said to be taken,
where the estimate does not look like haematoxylin and eosin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.slides.tissue import full_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.slides.slide import Slide
    from pathotune.slides.tissue import TissueMask

HAEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
STAINED = 0.15  # optical density below which a pixel is glass (Macenko's beta)
ANGLES = (1.0, 99.0)  # percentiles of the angle (Macenko's alpha)
FIELDS = 16
FIELD_PX = 256
LIKE = 0.85  # cosine to the textbook's vector below which an estimate is not believed
ALIKE = 0.98  # cosine of the two stains above which they are one colour
# Where there is no eosin, two depths of one violet pass for two dyes. Haematoxylin then no longer
# falls into nuclei and the rest (Otsu's criterion, 0 to 1); up to so much worse is still believed.
WORSE = 0.05
INK = 1.3  # red density over green; haematoxylin's is about 0.9


@dataclass(frozen=True)
class Stains:
    """Two stain vectors of length 1, in optical density (base 10) of red, green, blue.

    Attributes
    ----------
    haematoxylin, eosin : tuple of three floats
    estimated : bool
        From this slide; False: the textbook's.
    """

    haematoxylin: tuple[float, float, float] = HAEMATOXYLIN
    eosin: tuple[float, float, float] = EOSIN
    estimated: bool = False

    def split(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return haematoxylin and eosin, float32 (...), of uint8 (..., 3) pixels."""
        return self.amounts(density(pixels))

    def amounts(self, density: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return haematoxylin and eosin, float32 (...), of an optical density (..., 3)."""
        vectors = np.array([self.haematoxylin, self.eosin], np.float32)
        found = density.astype(np.float32) @ np.linalg.pinv(vectors).astype(np.float32)
        return found[..., 0], found[..., 1]


def density(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the optical density (base 10), float32, of uint8 pixels; 0 is white."""
    table = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)
    values: NDArray[Any] = table[pixels]
    return values


def inked(density: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where optical density (..., 3) is a green or blue ink's: no tissue stain takes so
    much more of the red than of the green.
    """
    flags: NDArray[np.bool_] = density[..., 0] > INK * density[..., 1] + 0.05
    return flags


def look(
    slide: Slide, mpp: float, tissue: TissueMask | None, size: int = FIELD_PX
) -> list[NDArray[Any]]:
    """Return up to 16 fields, uint8 (size, size, 3) at `mpp`, spread over the tissue.

    The same slide gives the same fields: nothing here is drawn at random.
    """
    tissue = tissue or full_mask(slide)
    step = size * mpp / slide.need_mpp()
    across, down = max(1, int(slide.width / step)), max(1, int(slide.height / step))
    x = (np.arange(across) + 0.5) * slide.width / across
    y = (np.arange(down) + 0.5) * slide.height / down
    rows, columns = np.nonzero(tissue.on_grid(x, y))
    if not len(rows):
        rows, columns = np.nonzero(np.ones((down, across), bool))
    take = np.unique(np.linspace(0, len(rows) - 1, FIELDS).round().astype(int))
    return [
        slide.read_scaled(x[c] - step / 2, y[r] - step / 2, mpp, size, size)
        for r, c in zip(rows[take], columns[take], strict=True)
    ]


def estimate(fields: list[NDArray[Any]]) -> Stains:
    """Estimate both stains from fields; the textbook's where that fails.

    Parameters
    ----------
    fields : list of uint8 (h, w, 3)
    """
    values = np.concatenate([density(f).reshape(-1, 3)[::4] for f in fields])
    tissue = values[(values.sum(axis=1) > STAINED) & ~inked(values)]
    values = tissue[tissue.sum(axis=1) > 3 * STAINED]
    if len(values) < 1000:
        return Stains()
    # about zero, not the mean: the first axis is then the tissue's colour, whatever the mixture
    _, axes = np.linalg.eigh(values.T @ values)
    plane = axes[:, [2, 1]]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    angles = np.arctan2(values @ plane[:, 1], values @ plane[:, 0])
    pair = []
    for angle in np.percentile(angles, ANGLES):
        vector = plane @ np.array([np.cos(angle), np.sin(angle)])
        vector = np.clip(vector, 0.001, None)
        pair.append(vector / np.linalg.norm(vector))
    pair.sort(key=lambda v: -v[0])  # haematoxylin takes more of the red
    h, e = pair
    if h @ HAEMATOXYLIN < LIKE or e @ EOSIN < LIKE or h @ e > ALIKE:
        return Stains()
    own = Stains(
        (float(h[0]), float(h[1]), float(h[2])), (float(e[0]), float(e[1]), float(e[2])), True
    )
    if separation(own.amounts(tissue)[0]) < separation(Stains().amounts(tissue)[0]) - WORSE:
        return Stains()
    return own


def separation(values: NDArray[Any]) -> float:
    """Return the share of the variance that two classes explain at best, 0 to 1.

    Notes
    -----
    Otsu, IEEE Trans SMC 1979, eq. 13 over the total variance.
    """
    import skimage.filters as filters

    values = np.clip(values, 0, 1.5)
    if float(np.ptp(values)) < 0.02:
        return 0.0
    low = values <= filters.threshold_otsu(values)
    share = float(low.mean())
    apart = float(values[~low].mean() - values[low].mean())
    return share * (1 - share) * apart**2 / float(values.var())
