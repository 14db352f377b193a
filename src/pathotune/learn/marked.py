"""The features under the marks, kept region by region and brought up to date by difference.

A region whose tokens, class and features did not change since the last look
costs nothing, so that a new stroke costs one region. Every region keeps its sums
for the probe and a sample of its tokens to be judged on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.marks.labels import label_tokens
from pathotune.marks.overlaps import check_answer, needs_answer, overlaps
from pathotune.models.tuning.linear import RegionStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pathotune.marks.annotations import Annotation, AnnotationSet
    from pathotune.marks.labels import LabelledTokens
    from pathotune.models.features import FeatureStore
    from pathotune.slides.tiles import TileGrid
    from pathotune.slides.tissue import TissueMask

GLASS_SHARE = 0.5  # of a region off the tissue: then the mask is of no use to the model
JUDGED = 400  # tokens a region is judged on; more only make the same figure slower


_NOT_DRAWN = {"detection", "cell", "tile"}  # QuPath's objects that nobody drew


def learnable(annotations: AnnotationSet) -> list[Annotation]:
    """Return what a model may learn from: everything drawn by hand that has a class."""
    return [
        a
        for a in annotations.items
        if a.class_name is not None
        and a.extra.get("properties", {}).get("objectType") not in _NOT_DRAWN
    ]


def tokens_under(
    marks: Sequence[Annotation],
    grid: TileGrid,
    names: Sequence[str],
    overlap: str | None = None,
    slide: str = "",
) -> LabelledTokens:
    """Return the tokens under marks.

    Parameters
    ----------
    marks : sequence of Annotation
    grid : TileGrid
        The slide's lattice.
    names : sequence of str
        The classes.
    overlap : str, optional
        What counts where regions of different classes overlap, one of `overlaps.ANSWERS`.
    slide : str
        The slide's name, for the message.

    Raises
    ------
    PathotuneError
        Regions overlap and nobody said what counts: it is asked, never guessed.
    """
    check_answer(overlap)
    if overlap is None:
        found = overlaps([a for a in marks if a.class_name in names])
        if found:
            raise needs_answer(found, slide)
    return label_tokens(
        marks,
        grid.lattice.x0,
        grid.lattice.y0,
        grid.lattice.step,
        grid.lattice.rows,
        grid.lattice.cols,
        names,
        overlap=overlap or "last",
    )


class Marked:
    """Sums and samples of all marked regions, for `n_classes` classes of `dims` features.

    Attributes
    ----------
    stats : RegionStats
        What the probe is solved from.
    samples : dict of str to (n, D) float32
        At most `JUDGED` tokens of each region, evenly spread.
    """

    def __init__(self, n_classes: int, dims: int) -> None:
        self.stats = RegionStats(n_classes, dims)
        self.samples: dict[str, NDArray[np.float32]] = {}
        self.counts: dict[str, int] = {}
        self._seen: dict[str, tuple[Any, ...]] = {}
        self._under: dict[str, tuple[Any, ...]] = {}  # where a region lies, and its tiles

    def add(
        self,
        key: str,
        class_index: int,
        features: NDArray[np.float32],
        judged_by: NDArray[np.float32] | None = None,
    ) -> None:
        """Take in a region's features (n, D), or replace them.

        `judged_by` (m, D) is what it is judged by when left out, by default its own tokens.
        """
        self.stats.add(key, class_index, features)
        if len(features):
            judged = features if judged_by is None else judged_by
            self.samples[key] = np.ascontiguousarray(judged[:: -(-len(judged) // JUDGED)])
            self.counts[key] = len(judged)
        else:
            self._drop(key)

    def _drop(self, key: str) -> None:
        self.stats.remove(key)
        for table in (self.samples, self.counts, self._seen, self._under):
            table.pop(key, None)

    def follow(
        self,
        labelled: LabelledTokens,
        store: FeatureStore,
        grid: TileGrid,
        neighbourhood: int,
        prefix: str = "",
        allowed: NDArray[np.bool_] | None = None,
    ) -> bool:
        """Bring the regions of one slide up to date; tell whether anything changed.

        Parameters
        ----------
        labelled : LabelledTokens
            The tokens under its marks.
        store : FeatureStore
            Tokens that are not in it yet are left out until they are.
        grid : TileGrid
            The slide's lattice.
        neighbourhood : int
            Side, in tokens, of the square each token is averaged over.
        prefix : str
            Tells the slide's regions from those of other slides.
        allowed : (rows, cols) bool, optional
            Tokens whose features count as neighbours, those on tissue; marked tokens
            count always. Without it the numbers would hang on what else was computed.
        """
        changed = False
        order = np.argsort(labelled.region_index, kind="stable")
        ends = np.searchsorted(labelled.region_index[order], np.arange(len(labelled.region_ids)))
        parts = np.split(order, ends[1:]) if len(ends) else []
        for part, region, class_index in zip(
            parts, labelled.region_ids, labelled.region_class, strict=True
        ):
            key = prefix + region
            rows, cols = labelled.rows[part], labelled.cols[part]
            place = (rows.tobytes(), cols.tobytes())
            if self._under.get(key, (None,))[0] != place:
                self._under[key] = (place, cells_under(rows, cols, grid, neighbourhood))
            have = [store.has(cell) for cell in self._under[key][1]]
            seen = (int(class_index), *place, tuple(have), id(allowed))
            if self._seen.get(key) == seen:
                continue
            changed = True
            features = np.empty((0, self.stats.dims), np.float32)
            if any(have):
                features, ok = store.gather(rows, cols, neighbourhood, _with(allowed, rows, cols))
                features = features[ok]
            self.add(key, int(class_index), features)
            self._seen[key] = seen
        kept = {prefix + region for region in labelled.region_ids}
        for key in [k for k in self._seen if k.startswith(prefix) and k not in kept]:
            self._drop(key)
            changed = True
        return changed


def _with(
    allowed: NDArray[np.bool_] | None, rows: NDArray[np.intp], cols: NDArray[np.intp]
) -> NDArray[np.bool_] | None:
    """Return `allowed` with these tokens added."""
    if allowed is None or allowed[rows, cols].all():
        return allowed
    more = allowed.copy()
    more[rows, cols] = True
    return more


def cells_under(
    rows: NDArray[np.integer[Any]],
    cols: NDArray[np.integer[Any]],
    grid: TileGrid,
    neighbourhood: int,
) -> NDArray[np.int32]:
    """Return the tiles (n, 2) that tokens and their neighbours lie in."""
    rim = neighbourhood // 2
    lattice = grid.lattice
    found = set()
    for dr in (-rim, rim):
        r = np.clip(rows + dr, 0, lattice.rows - 1) // grid.core
        for dc in (-rim, rim):
            c = np.clip(cols + dc, 0, lattice.cols - 1) // grid.core
            found.update(np.unique(r * grid.tile_cols + c).tolist())
    flat = np.array(sorted(found), dtype=np.int32)
    return np.stack([flat // grid.tile_cols, flat % grid.tile_cols], axis=1)


def drawn_on_glass(
    labels: Sequence[LabelledTokens],
    plans: Sequence[TileGrid],
    masks: Sequence[TissueMask],
    names: Sequence[str],
) -> list[str]:
    """Return the classes with a region that lies mostly where no tissue was found."""
    found: set[str] = set()
    for labelled, grid, mask in zip(labels, plans, masks, strict=True):
        x, y = grid.lattice.centres(labelled.rows, labelled.cols)
        off = ~mask.at(x, y)
        n = len(labelled.region_ids)
        share = np.bincount(labelled.region_index, off, n) / np.maximum(
            np.bincount(labelled.region_index, minlength=n), 1
        )
        found.update(names[c] for c in labelled.region_class[share > GLASS_SHARE])
    return sorted(found)
