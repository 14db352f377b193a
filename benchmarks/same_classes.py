"""Whether tiles give the same classes as if level 0 had been read whole and averaged.

The same tissue tiles of real slides are read as the program reads them for a
model and with every region decoded whole and averaged; both go through the
embedded backbone and a model. Slides are taken for 0.25 um/px, so that the
backbone wants them twice smaller. Two more readings tell what a disagreement
means: tiles that the decoder shrinks, as the window shows them, and the whole
ones with every ninth value changed by one grey level, which is less than what
separates two decoders of JPEG.

Models: one learnt from boxes drawn on the shipped skin slide (surface
epithelium, connective tissue, horn), as a user would; and the ready-made one for
bowel, on slides it was not made for, at a scale that is not theirs: the hardest
case, since many of its tokens hang between two classes.

    python benchmarks/same_classes.py [--tiles 16] [SLIDE ...]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from shapely import box

from pathotune.events import drain
from pathotune.learn.train import train
from pathotune.maps.paint import paint
from pathotune.maps.ready import named
from pathotune.marks.annotations import Annotation, AnnotationSet, new_id
from pathotune.models.features import FeatureStore, compute_features
from pathotune.models.tuning.linear import LinearHead
from pathotune.slides.sample import skin_slide
from pathotune.slides.slide import Slide, open_slide
from pathotune.slides.tile_cache import TILES
from pathotune.slides.tiles import TileGrid, read_tile
from pathotune.slides.tissue import tissue_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.models.bundle import ModelBundle

GOAL_GREY, GOAL_TOKENS = 1.0, 0.995
MPP = 0.25
# (x, y, x1, y1) in pixels of the skin slide's level 0 over 2.967
BOXES = {
    "epithelium": ((375, 560, 420, 640), (385, 710, 420, 790), (270, 700, 300, 780),
                   (220, 880, 265, 930)),
    "connective tissue": ((300, 430, 340, 520), (310, 780, 365, 880), (470, 720, 540, 800),
                          (430, 880, 510, 960)),
    "horn": ((410, 510, 440, 600), (470, 470, 500, 570), (515, 330, 545, 370)),
}  # fmt: skip


class Whole(Slide):
    """A slide whose tiles are always decoded whole."""

    def reductions(self, level: int) -> tuple[int, ...]:
        """Return that there is nothing smaller."""
        del level
        return (1,)


class Shrunk(Slide):
    """A slide whose tiles the decoder shrinks, for a model as for the window."""

    def read_downsampled(
        self, x: float, y: float, downsample: float, width: int, height: int, *, exact: bool = False
    ) -> NDArray[np.uint8]:
        """Return pixels as the window shows them."""
        del exact
        return super().read_downsampled(x, y, downsample, width, height)


class Changed(Whole):
    """The same, with every ninth value one grey level up or down."""

    def read_downsampled(
        self, x: float, y: float, downsample: float, width: int, height: int, *, exact: bool = False
    ) -> NDArray[np.uint8]:
        """Return pixels that are a little wrong."""
        read = super().read_downsampled(x, y, downsample, width, height, exact=exact)
        pixels = read.astype(np.int16)
        dice = np.random.default_rng(abs(int(x * 7 + y)))
        pixels += (dice.random(pixels.shape) < 1 / 9) * dice.choice([-1, 1], pixels.shape)
        return np.clip(pixels, 0, 255).astype(np.uint8)


def learnt() -> ModelBundle:
    """Return a model learnt from the boxes, on features of whole tiles."""
    marks = AnnotationSet()
    for name, boxes in BOXES.items():
        for corners in boxes:
            shape = box(*(c * 2.967 for c in corners))
            marks.add(Annotation(new_id(), name, "rectangle", shape))
    with open_slide(skin_slide(), mpp=MPP) as slide:
        slide.__class__ = Whole
        return drain(train([(slide, marks)], card=named("crc_nine").card()))


def classes(
    path: Path, kind: type[Slide], models: dict[str, ModelBundle], limit: int
) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.int16]]:
    """Return the map of each model, and the tiles that were read."""
    card = next(iter(models.values())).card()
    with tempfile.TemporaryDirectory() as folder, open_slide(path, mpp=MPP) as slide:
        mask = tissue_mask(slide)
        # whole tiles that this has left in the cache would be averaged instead of shrunk
        TILES.forget(slide._reader._tiles._owner)  # type: ignore[attr-defined]
        slide.__class__ = kind
        size = {"tile_px": card.tile_px, "token_px": card.token_px, "halo": card.halo}
        grid = TileGrid.plan(slide.width, slide.height, MPP, mpp=card.mpp, **size)
        cells = grid.cells(mask)
        cells = cells[:: max(1, len(cells) // limit)][:limit]
        tiles = np.stack([read_tile(slide, grid, cell) for cell in cells]).astype(np.int16)
        with FeatureStore.open(slide.stamp, card, grid, Path(folder)) as store:
            drain(compute_features(slide, card, grid, store, cells))
            window = (0, 0, grid.lattice.rows, grid.lattice.cols)
            tokens = grid.tokens(mask)
            maps = {
                name: paint(
                    store, LinearHead.from_arrays(b.arrays), window, tokens, card.neighbourhood
                )[0]
                for name, b in models.items()
            }
    return maps, tiles


def compare(path: Path, models: dict[str, ModelBundle], limit: int) -> None:
    """Print how readings of a slide compare."""
    whole, pixels = classes(path, Whole, models, limit)
    print(f"{path.name}, {len(pixels)} tiles")
    ways = (
        ("as read", Slide),
        ("shrunk by the decoder", Shrunk),
        ("every ninth value changed by 1", Changed),
    )
    for word, kind in ways:
        maps, tiles = classes(path, kind, models, limit)
        grey = float(np.abs(tiles - pixels).mean())
        for name, found in maps.items():
            told = whole[name] > 0
            share = (found == whole[name])[told].mean()
            said = ""
            if kind is Slide:
                good = grey <= GOAL_GREY and share >= GOAL_TOKENS
                said = ": met" if good else ": MISSED"
            print(
                f"  {word:31s} {grey:.2f} grey levels on average, {share:.4f} of "
                f"{told.sum()} tokens agree, model {name!r}{said}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slides", nargs="*", type=Path)
    parser.add_argument("--tiles", type=int, default=16)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["PATHOTUNE_HOME"] = home
        ready = {"bowel, ready-made": named("crc_nine")}
        compare(skin_slide(), {"drawn on this slide": learnt()} | ready, args.tiles)
        for path in args.slides:
            compare(path, ready, args.tiles)


if __name__ == "__main__":
    main()
