"""The marked tissue as pictures with a class for every token, for methods that learn from pixels.

The fast model reads stored features; a tuning method has to see the tissue itself.
A piece is one tile of the backbone's size with its labelled tokens and the region each
comes from. Tile files become pieces with one label for the whole. A region is never
split between training and judging, however many pieces it covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import Job, Note, Progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.marks.labels import LabelledTokens
    from pathotune.models.cards import ModelCard
    from pathotune.slides.slide import Slide
    from pathotune.slides.tiles import TileGrid

_WHAT = "Reading the marked tissue"


@dataclass(eq=False)
class Pieces:
    """Tiles with labelled tokens; P is the tile's side in pixels, T in tokens.

    Attributes
    ----------
    pixels : (n, P, P, 3) uint8
    labels : (n, T, T) int16
        Class of a token, -1 without one.
    regions : (n, T, T) int32
        Index into `names`, -1 without one.
    allowed : (n, T, T) bool
        Tokens that count as neighbours: tissue inside the slide.
    names : list of str
        Key of each region; those of one slide share a prefix up to "/".
    classes : (R,) int
        Class of each region.
    whole : bool
        A tile's label is for all of it together, not for each token.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int16]
    regions: NDArray[np.int32]
    allowed: NDArray[np.bool_]
    names: list[str]
    classes: NDArray[np.intp]
    whole: bool = False

    def __len__(self) -> int:
        return len(self.pixels)

    def of(self, regions: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the pieces that hold a token of these regions (a flag a region)."""
        flags = np.append(regions, False)
        return np.flatnonzero(flags[self.regions].any(axis=(1, 2)))

    def weights(self, regions: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the weight (n, T, T) of every token of these regions.

        Classes weigh the same, a region as the root of its size; the sum is the number of
        classes. Tokens of other regions weigh nothing.
        """
        sizes = np.bincount(self.regions[self.regions >= 0], minlength=len(self.names))
        share = np.sqrt(sizes) * regions
        total = np.bincount(self.classes, share)
        each = share / np.maximum(total[self.classes], 1e-12) / np.maximum(sizes, 1)
        return np.append(each, 0.0)[self.regions].astype(np.float32)


def from_slides(
    slides: Sequence[Slide],
    plans: Sequence[TileGrid],
    labels: Sequence[LabelledTokens],
    tissue: Sequence[NDArray[np.bool_] | None],
    card: ModelCard,
    limit: int,
    seed: int = 0,
) -> Job[Pieces]:
    """Read the tiles under the marks of slides.

    Parameters
    ----------
    slides, plans, labels
        Each slide with its tiles and its labelled tokens.
    tissue : sequence of (rows, cols) bool or None
        Tokens on tissue; None: all.
    card : ModelCard
    limit : int
        Most tiles to read; when there are more, regions share them evenly.
    seed : int
        Which tiles of a large region are taken.

    Yields
    ------
    Progress, Note
    """
    from pathotune.slides.tiles import read_batches

    chosen = _chosen(plans, labels, limit, seed)
    total = sum(len(c) for c in chosen)
    there = sum(len(np.unique(_cells(g, m), axis=0)) for g, m in zip(plans, labels, strict=True))
    if total < there:
        yield Note(f"The marks cover {there} tiles; {total} of them, spread over all, are learnt.")
    side, t, n = card.tile_px, card.tokens, 0
    out = Pieces(
        np.empty((total, side, side, 3), np.uint8),
        np.full((total, t, t), -1, np.int16),
        np.full((total, t, t), -1, np.int32),
        np.zeros((total, t, t), bool),
        [],
        np.empty(0, np.intp),
    )
    yield Progress(0, total, _WHAT)
    for i, (slide, grid, marks, cells) in enumerate(
        zip(slides, plans, labels, chosen, strict=True)
    ):
        first = len(out.names)
        out.names += [f"{i}/{r}" for r in marks.region_ids]
        out.classes = np.append(out.classes, marks.region_class)
        shape = (grid.lattice.rows, grid.lattice.cols)
        classes, regions = np.full(shape, -1, np.int16), np.full(shape, -1, np.int32)
        classes[marks.rows, marks.cols] = marks.class_index
        regions[marks.rows, marks.cols] = marks.region_index + first
        flags = np.ones(shape, bool) if tissue[i] is None else np.array(tissue[i])
        flags[marks.rows, marks.cols] = True
        for found, tiles in read_batches(slide, grid, cells, 8):
            for cell, tile in zip(found, tiles, strict=True):
                out.pixels[n] = tile
                top, left = (int(v) * grid.core - grid.halo for v in cell)
                _put(out.allowed[n], flags, top, left, 0)
                _put(out.labels[n], classes, top, left, grid.halo)
                _put(out.regions[n], regions, top, left, grid.halo)
                n += 1
            yield Progress(n, total, _WHAT)
    return out


def _put(tile: NDArray[Any], whole: NDArray[Any], top: int, left: int, halo: int) -> None:
    """Copy the part of a slide's lattice that a tile shows, but its margin of `halo` tokens."""
    t = len(tile)
    r0, c0 = max(top + halo, 0), max(left + halo, 0)
    r1, c1 = min(top + t - halo, whole.shape[0]), min(left + t - halo, whole.shape[1])
    if r0 < r1 and c0 < c1:
        tile[r0 - top : r1 - top, c0 - left : c1 - left] = whole[r0:r1, c0:c1]


def _cells(grid: TileGrid, marks: LabelledTokens) -> NDArray[np.int32]:
    return np.stack([marks.rows // grid.core, marks.cols // grid.core], 1).astype(np.int32)


def _chosen(
    plans: Sequence[TileGrid], labels: Sequence[LabelledTokens], limit: int, seed: int
) -> list[list[tuple[int, int]]]:
    """Return the tiles to read of each slide; regions take turns until the limit is reached."""
    rng = np.random.default_rng(seed)
    queues = []
    for i, (grid, marks) in enumerate(zip(plans, labels, strict=True)):
        cells = _cells(grid, marks)
        for r in range(len(marks.region_ids)):
            own, counts = np.unique(cells[marks.region_index == r], axis=0, return_counts=True)
            # the fullest tiles first; chance decides between equals
            order = np.lexsort((rng.random(len(own)), -counts))
            queues.append([(i, int(own[k, 0]), int(own[k, 1])) for k in order])
    taken: dict[tuple[int, int, int], None] = {}
    for turn in range(max(map(len, queues), default=0)):
        for queue in queues:
            if turn < len(queue) and (len(taken) < limit or turn == 0):
                taken.setdefault(queue[turn])
    return [[(r, c) for i, r, c in taken if i == s] for s in range(len(plans))]


def from_tiles(
    files: Sequence[tuple[Path, int]], folder: Path, card: ModelCard, mpp: float | None = None
) -> Job[tuple[Pieces, bool]]:
    """Read tile files, a region each; a large one becomes several pieces.

    Returns
    -------
    Pieces
    bool
        The card's um/px had to be assumed for some file.

    Yields
    ------
    Progress, Note
    """
    from pathotune.slides.tile_folder import at_mpp, read_tile_file, windows

    stacks, owners, assumed = [], [], False
    for number, (path, _) in enumerate(files):
        yield Progress(number, len(files), _WHAT)
        tile, own = read_tile_file(path, mpp)
        if own is None and not assumed:
            assumed = True
            yield Note(
                f"The tiles do not say how large a pixel is; {card.mpp:g} um/px is assumed.",
                "warning",
            )
        cut = windows(at_mpp(tile, own or card.mpp, card.mpp), card.tile_px)
        stacks.append(cut)
        owners.append(np.full(len(cut), number))
    return of_tiles(
        np.concatenate(stacks),
        np.concatenate(owners),
        np.array([c for _, c in files], np.intp),
        [p.relative_to(folder).as_posix() for p, _ in files],
        card.tokens,
    ), assumed


def of_tiles(
    pixels: NDArray[np.uint8],
    owners: NDArray[np.intp],
    classes: NDArray[np.intp],
    names: list[str],
    tokens: int,
) -> Pieces:
    """Return pieces (n, P, P, 3) whose every token has the class of the tile that owns it."""
    shape = (len(pixels), tokens, tokens)
    labels = np.broadcast_to(classes[owners][:, None, None], shape).astype(np.int16)
    regions = np.broadcast_to(owners[:, None, None], shape).astype(np.int32)
    return Pieces(pixels, labels, regions, np.ones(shape, bool), names, classes, whole=True)
