"""What the network is asked for, made from a label image.

Three maps: nucleus or not, the edge of every nucleus, and how deep inside a
nucleus a pixel lies as a share of that nucleus' own depth. The last is 1 at the
middle of small and large nuclei alike, so one bar finds one seed in each; the
edge tells touching nuclei apart where there is no light between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray


def depth(labels: NDArray[Any]) -> NDArray[np.float32]:
    """Return how deep inside its nucleus a pixel lies, 0 outside to 1 at the middle.

    Parameters
    ----------
    labels : int (h, w)
    """
    out = np.zeros(labels.shape, np.float32)
    boxes: list[Any] = ndimage.find_objects(labels)
    for number, box in enumerate(boxes, 1):
        if box is None:
            continue
        mine = np.pad(labels[box] == number, 1)
        far = ndimage.distance_transform_edt(mine)[1:-1, 1:-1]
        out[box] = np.maximum(out[box], far / max(float(far.max()), 1.0))
    return out


def edges(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return pixels whose neighbours belong to another nucleus or to none."""
    apart = (ndimage.maximum_filter(labels, 3) != labels) | (
        ndimage.minimum_filter(labels, 3) != labels
    )
    found: NDArray[np.bool_] = apart
    return found


def targets(labels: NDArray[Any]) -> NDArray[np.float32]:
    """Return foreground, edge and middle, float32 (3, h, w), of labels (h, w)."""
    return np.stack(
        [labels > 0, edges(labels), depth(labels)],
    ).astype(np.float32)
