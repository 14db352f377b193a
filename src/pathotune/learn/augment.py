"""Turning, mirroring and recolouring tissue as laboratories do, and no further.

Tissue has no up or down, so all eight turned and mirrored views are as good as the
first. Stains differ in their amounts, which is changed in the space of haematoxylin,
eosin and residual; hue is not shifted freely, because what is pink and what is blue
means something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Ruifrok and Johnston 2001, Anal Quant Cytol Histol 23:291: haematoxylin, eosin, residual.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
_TO_STAINS = np.linalg.inv(_STAINS).astype(np.float32)
_TABLE = (-np.log10((np.arange(256, dtype=np.float32) + 1) / 256)).astype(np.float32)


def view(array: NDArray[Any], which: int) -> NDArray[Any]:
    """Return one of eight views of (n, h, h, ...): `which % 4` quarter turns, mirrored from 4."""
    turn = np.rot90(array, which % 4, (1, 2))
    return np.ascontiguousarray(turn[:, :, ::-1] if which >= 4 else turn)


def recoloured(
    tiles: NDArray[np.uint8], rng: np.random.Generator, strength: float = 0.15
) -> NDArray[np.uint8]:
    """Return tiles (n, h, w, 3) with the amounts of their stains changed, each its own way.

    Each stain's amount is multiplied by 1 +- `strength` and shifted by a fifth of it
    (Tellez et al., IEEE TMI 2018, section II-C, at moderate strength).
    """
    n = len(tiles)
    scale = rng.uniform(1 - strength, 1 + strength, (n, 1, 1, 3)).astype(np.float32)
    shift = rng.uniform(-strength / 5, strength / 5, (n, 1, 1, 3)).astype(np.float32)
    amounts = _TABLE[tiles] @ _TO_STAINS
    density = (amounts * scale + shift * (amounts > 0.05)) @ _STAINS
    light: NDArray[Any] = np.power(np.float32(10), -density) * 256 - 1
    out: NDArray[np.uint8] = np.clip(light.round(), 0, 255).astype(np.uint8)
    return out
