"""Token features of single tiles, for models that are trained on or asked about tile files.

A tile file shows all there is, so all of its tokens count, margins included,
and each is averaged over its neighbours in the tile as it would be on a slide.
Tissue has no up or down, so a tile is looked at in several turned views:
training learns from all of them and prediction averages them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pathotune.events import Job, Note, Progress
from pathotune.slides.mpp import refuse_blur
from pathotune.slides.tile_folder import at_mpp, read_tile_file, windows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.models.cards import ModelCard

VIEWS = 4  # quarter turns; more were not worth their time in cross-validation
_AT_ONCE = 8


def turned(tiles: NDArray[np.uint8], views: int) -> NDArray[np.uint8]:
    """Return the first 1 to 8 turned, then mirrored views of square tiles, (views * n, h, h, 3)."""
    out = []
    for view in range(views):
        turn = np.rot90(tiles, view % 4, (1, 2))
        out.append(turn[:, :, ::-1] if view >= 4 else turn)
    return np.concatenate(out)


def tile_features(
    files: Sequence[Path],
    card: ModelCard,
    take: Callable[[int, NDArray[np.float32]], None],
    *,
    mpp: float | None = None,
    device: str = "auto",
    views: int = VIEWS,
) -> Job[bool]:
    """Compute the token features of tile files.

    Parameters
    ----------
    files : sequence of Path
        PNG, JPEG or TIFF.
    card : ModelCard
        The backbone.
    take : callable
        Called with each file's number and its tokens (n, D) float32, of all its
        windows and views; nothing is kept here, however many files there are.
    mpp : float, optional
        um/px of all files; by default what each says, else the card's.
    device : str
        "auto", "cpu" or "cuda".
    views : int
        Turned views of each tile, 1 to 8.

    Yields
    ------
    Progress, Note

    Returns
    -------
    bool
        The card's um/px had to be assumed for some file.
    """
    from pathotune.models.extract import backbone_for
    from pathotune.models.features import box_mean
    from pathotune.models.runtime import limited_threads

    if mpp is not None:
        refuse_blur(mpp, card.mpp)
    yield Progress(0, len(files), "Reading tiles")
    backbone = backbone_for(card, device)
    assumed = False
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
            refuse_blur(own or card.mpp, card.mpp)
            cut = windows(at_mpp(tile, own or card.mpp, card.mpp), card.tile_px)
            stacks.append(turned(cut, views))
        ends = np.cumsum([len(s) for s in stacks])
        pixels = np.concatenate(stacks)
        tokens = []
        for at in range(0, len(pixels), backbone.batch):  # a cancel waits for one batch at most
            with limited_threads():
                tokens.append(backbone.tokens_full(pixels[at : at + backbone.batch]))
            yield from backbone.notes()
            done = start + int(np.searchsorted(ends, at))
            yield Progress(done, len(files), "Reading tiles")
        smooth = np.stack([box_mean(t, inside, card.neighbourhood) for t in np.concatenate(tokens)])
        for number, part in enumerate(np.split(smooth, ends[:-1]), start):
            take(number, part.reshape(-1, card.dims))
        yield Progress(min(start + _AT_ONCE, len(files)), len(files), "Reading tiles")
    return assumed
