"""The colours of a slide's nuclei and of everything else, measured where each lies.

Estimates of two dyes fail on tissue stained with one, or with two of nearly one colour. But
nuclei hold back red light in every usual stain and eosin does not, so they are told by red
alone. Their mean colour, that of the second dye where there is one and of the rest where there
is not, and how dark both are, is all that painting needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.nuclei.stains import Stains, density, estimate
from pathotune.nuclei.synth.renderer import Look

if TYPE_CHECKING:
    from numpy.typing import NDArray

GLASS = 0.08  # optical density below which there is nothing
LEAST_PIXELS = 500
FLOOR = 0.05  # least threshold; below lies the noise of glass
ALIKE = 0.95  # cosine of two colours from which on amounts of both cannot be told


@dataclass(frozen=True)
class Red(Stains):
    """Stands for stains where only red light counts.

    Attributes
    ----------
    limit : float
        Optical density in red above which a pixel is nucleus (Otsu).
    """

    limit: float = 0.2

    @staticmethod
    def of(fields: list[NDArray[Any]]) -> Red:
        """Return what tells the nuclei of fields, uint8 (h, w, 3)."""
        import skimage.filters as filters

        values = np.concatenate([density(f[..., :1]).ravel()[::3] for f in fields])
        values = np.clip(values, 0, 1.2)
        if np.ptp(values) < 0.02:
            return Red()
        return Red(limit=float(max(FLOOR, filters.threshold_otsu(values))))

    def split(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the density in red, and nothing, float32 (...), of uint8 (..., 3) pixels."""
        red = density(pixels[..., :1])[..., 0]
        return red, np.zeros_like(red)


def palette(fields: list[NDArray[Any]], outlined: list[NDArray[Any]]) -> tuple[Stains, Look]:
    """Return the colours of nuclei and of other tissue, and how dark they are.

    Parameters
    ----------
    fields : list of uint8 (h, w, 3)
    outlined : list of int (h, w)
        Nuclei as far as they are known; 0 is the rest.
    """
    inside, rest, every = [], [], 0
    for field, labels in zip(fields, outlined, strict=True):
        od = density(field)
        inside.append(od[labels > 0])
        other = od[labels == 0]
        rest.append(other[::4])
        every += len(rest[-1])
    dark, pale = np.concatenate(inside), np.concatenate(rest)
    if len(dark) < LEAST_PIXELS:
        return Stains(), Look()
    tissue = pale[np.linalg.norm(pale, axis=1) > GLASS]
    h = _direction(dark)
    usual = Stains()
    e = _direction(tissue) if len(tissue) > LEAST_PIXELS // 4 else usual.eosin
    amounts = np.linalg.norm(tissue, axis=1)
    two = estimate(fields)
    if two.estimated and float(np.dot(h, two.haematoxylin)) > float(np.dot(h, two.eosin)):
        # nuclei have the one dye's colour: the other one, pure, colours the rest
        e = two.eosin
        amounts = np.clip(
            (tissue @ np.linalg.pinv(np.array([h, e], np.float32)).astype(np.float32))[:, 1],
            0,
            None,
        )
    low, high = np.percentile(np.linalg.norm(dark, axis=1), [10, 95])
    look = replace(Look(), nucleus=(0.8 * float(low), float(high)))
    if len(tissue) > LEAST_PIXELS // 4:
        least, most = (float(v) for v in np.percentile(amounts, [10, 95]))
        look = replace(look, eosin=(0.5 * least, max(most, 0.05)))
    glass = 1 - len(tissue) / max(1, every)
    look = replace(look, gaps=(0.0, float(np.clip(glass, 0.05, 0.8))))
    return Stains(h, e, True), look


def nuclear(pixels: NDArray[Any], stains: Stains) -> NDArray[Any]:
    """Return how much of the nuclei's colour is in pixels, float32 (...), optical density.

    Where both colours are nearly one, what lies along it counts whole.
    """
    if float(np.dot(stains.haematoxylin, stains.eosin)) < ALIKE:
        return stains.split(pixels)[0]
    amount: NDArray[Any] = density(pixels) @ np.array(stains.haematoxylin, np.float32)
    return amount


def _direction(values: NDArray[Any]) -> tuple[float, float, float]:
    mean = np.clip(values.mean(0), 0.001, None)
    r, g, b = (float(v) for v in mean / np.linalg.norm(mean))
    return r, g, b
