"""From single nuclei to dense maps that a network can answer, and back.

Three maps: is it nucleus; how far from its edge, as a share of the nucleus' own depth; does
the nucleus line a curve. Between two nuclei that touch the second one falls to 0, so what is
above a half is one seed a nucleus, whatever its size, and a watershed gives every pixel to a
seed. This stands for the detector of the published system, which needs boxes and far more
computing; see the method page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.nuclei.segmenter import Found

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 0.5  # depth above which a pixel belongs to a seed
NUCLEUS = 0.5  # probability above which a pixel is nucleus


def targets(instances: NDArray[Any], lined: NDArray[Any] | None = None) -> NDArray[np.float32]:
    """Return what the network should answer for single nuclei.

    Parameters
    ----------
    instances : int (h, w)
        0 is background.
    lined : bool (n,), optional
        Of nucleus 1, 2, ...; without it nobody knows, and the map holds -1.

    Returns
    -------
    float32 (3, h, w)
        Nucleus 0 or 1; depth 0 to 1; lined 0 or 1, -1 where it is not to be learnt.
    """
    from scipy import ndimage

    depth = np.zeros(instances.shape, np.float32)
    for number, box in enumerate(ndimage.find_objects(instances), 1):
        if not box:  # a number that no pixel has
            continue
        mine = np.pad(instances[box] == number, 1)
        far = ndimage.distance_transform_edt(mine)[1:-1, 1:-1]
        inside = mine[1:-1, 1:-1]
        depth[box][inside] = (far / far.max())[inside]
    nucleus = (instances > 0).astype(np.float32)
    if lined is None:
        side = np.full(instances.shape, -1, np.float32)
    else:
        known = np.concatenate([[0.0], np.asarray(lined, np.float32)]).astype(np.float32)
        side = np.where(instances > 0, known[instances], np.float32(-1))
    return np.stack([nucleus, depth, side]).astype(np.float32)


def separate(
    nucleus: NDArray[Any], depth: NDArray[Any], least_px: float, seed: float = SEED
) -> Found:
    """Cut the answer of a network into single nuclei.

    Parameters
    ----------
    nucleus, depth : float (h, w)
        0 to 1.
    least_px : float
        Area below which a piece is not a nucleus, in pixels.
    seed : float
        Depth of a seed.
    """
    import skimage.segmentation as segmentation
    from scipy import ndimage

    mask = nucleus > NUCLEUS
    soft = ndimage.uniform_filter(depth, 3)
    seeds, _ = ndimage.label((soft > seed) & mask)
    whole, count = ndimage.label(mask)
    if not count:
        return Found(np.zeros(mask.shape, np.int32), np.zeros(0, np.float32))
    # a nucleus too small or too pale for a seed keeps its piece
    seeded = np.zeros(count + 1, bool)
    seeded[whole[seeds > 0]] = True
    alone = mask & ~seeded[whole]
    seeds = np.where(alone, whole + seeds.max(), seeds)
    labels = segmentation.watershed(-soft, seeds, mask=mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    keep = (sizes >= least_px) & (sizes > 0)
    number = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    labels = number[labels]
    n = int(keep.sum())
    total = np.bincount(labels.ravel(), nucleus.ravel(), n + 1)[1:]
    area = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    return Found(labels, (total / np.maximum(area, 1)).astype(np.float32))
