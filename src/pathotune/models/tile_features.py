"""Token features of single tiles, for models that are trained on or asked about tile files.

A tile file shows all there is, so all of its tokens count, margins included,
and each is averaged over its neighbours in the tile as it would be on a slide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pathotune.events import Job, Note, Progress
from pathotune.slides.tile_folder import at_mpp, read_tile_file, windows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.models.cards import ModelCard

_AT_ONCE = 8


def tile_features(
    files: Sequence[Path],
    card: ModelCard,
    *,
    mpp: float | None = None,
    device: str = "auto",
) -> Job[tuple[list[NDArray[np.float32]], bool]]:
    """Compute the token features of tile files.

    Parameters
    ----------
    files : sequence of Path
        PNG, JPEG or TIFF.
    card : ModelCard
        The backbone.
    mpp : float, optional
        um/px of all files; by default what each says, else the card's.
    device : str
        "auto", "cpu" or "cuda".

    Yields
    ------
    Progress, Note

    Returns
    -------
    features : list of (n, D) float32
        The tokens of each file, of all its windows.
    assumed : bool
        The card's um/px had to be assumed for some file.
    """
    from pathotune.models.extract import backbone_for
    from pathotune.models.features import box_mean
    from pathotune.models.runtime import limited_threads

    yield Progress(0, len(files), "Reading tiles")
    backbone = backbone_for(card, device)
    assumed = False
    out: list[NDArray[np.float32]] = []
    inside = np.ones((card.tokens, card.tokens), bool)
    for start in range(0, len(files), _AT_ONCE):
        stacks = []
        for path in files[start : start + _AT_ONCE]:
            tile, own = read_tile_file(path, mpp)
            if own is None and not assumed:
                assumed = True
                yield Note(
                    f"The tiles do not say how large a pixel is; {card.mpp:g} um/px is assumed.",
                    "warning",
                )
            stacks.append(windows(at_mpp(tile, own or card.mpp, card.mpp), card.tile_px))
        with limited_threads():
            tokens = backbone.tokens_full(np.concatenate(stacks))
        yield from backbone.notes()
        smooth = np.stack([box_mean(t, inside, card.neighbourhood) for t in tokens])
        ends = np.cumsum([len(s) for s in stacks])[:-1]
        out += [part.reshape(-1, card.dims) for part in np.split(smooth, ends)]
        yield Progress(min(start + _AT_ONCE, len(files)), len(files), "Reading tiles")
    return out, assumed
