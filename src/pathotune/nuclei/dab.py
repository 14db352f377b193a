"""How much brown there is: DAB beside haematoxylin and eosin.

Three vectors are separated at once (Ruifrok & Johnston, Anal Quant Cytol Histol
2001), so that eosin is not taken for DAB on an H&E slide and DAB not for eosin
on an immunostain. Haematoxylin and eosin are the slide's own where they could be
estimated; DAB is the textbook's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.nuclei.stains import Stains

DAB = (0.268, 0.570, 0.776)


def brown(optical_density: NDArray[Any], stains: Stains) -> NDArray[Any]:
    """Return the optical density of DAB, float (n,), of optical densities (n, 3), base 10."""
    vectors = np.array([stains.haematoxylin, stains.eosin, DAB])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[Any] = optical_density @ np.linalg.inv(vectors)[:, 2]
    return found
