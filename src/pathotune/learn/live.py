"""The model that follows the hand: marks in, probe out, in the time a pen takes to lift.

It looks at what changed since the last call, takes that region's features from
the store and solves the probe anew from the sums of all regions. It needs numpy
alone. The numbers are those of `train` on the same marks, so that what is saved
or run from the command line is what was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.learn.evaluate import Evaluation, judge, short_of
from pathotune.learn.marked import Marked, cells_under, drawn_on_glass, learnable
from pathotune.learn.seen import MOST, places
from pathotune.marks.labels import label_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pathotune.marks.annotations import Annotation, AnnotationSet
    from pathotune.marks.labels import LabelledTokens
    from pathotune.models.features import FeatureStore
    from pathotune.models.tuning.linear import LinearHead
    from pathotune.slides.tiles import TileGrid
    from pathotune.slides.tissue import TissueMask


@dataclass(frozen=True, slots=True)
class FastModel:
    """A fitted head, its verdict, its classes, and what it was learnt from.

    `regions` gives each region's class, `places` where it lies (see `seen.places`).
    """

    head: LinearHead
    evaluation: Evaluation
    classes: tuple[str, ...]
    regions: Mapping[str, str]
    places: Mapping[str, NDArray[np.uint64]]


class LiveProbe:
    """Follows the marks of one slide.

    Parameters
    ----------
    neighbourhood : int
        The card's: side of the square of tokens that a token is averaged over.
    seed : int
        Which regions are left out together.

    Attributes
    ----------
    overlap : str
        What counts where regions of different classes overlap; neither, until it is said.
    cells : (n, 2) int
        Tiles under the marks of the last update and under their neighbours.
    model : FastModel or None
        What the last update made, as one: to be saved, say.
    off_tissue : (rows, cols)
        Marked tokens where the mask saw no tissue; they are mapped all the same.
    glass : list of str
        Classes drawn where the mask sees glass: then the mask is of no use to the model.
    """

    def __init__(self, neighbourhood: int = 1, seed: int = 0) -> None:
        self.overlap = "leave-out"
        self._neighbourhood = neighbourhood
        self._seed = seed
        self._names: tuple[str, ...] = ()
        self._marked: Marked | None = None
        self._head: LinearHead | None = None
        self._evaluation: Evaluation | None = None
        self._store: FeatureStore | None = None
        self._tissue: TissueMask | None = None
        self._allowed: NDArray[np.bool_] | None = None
        self._known: dict[str, Any] = {}
        self._places: dict[str, tuple[Annotation, NDArray[np.uint64]]] = {}
        self.model: FastModel | None = None
        self.cells: NDArray[np.int32] = np.empty((0, 2), np.int32)
        nothing = np.empty(0, np.intp)
        self.off_tissue: tuple[NDArray[np.intp], NDArray[np.intp]] = (nothing, nothing)
        self.glass: list[str] = []

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the classes of the head: those that have a region, sorted, as in a bundle."""
        return self._names

    def update(
        self,
        annotations: AnnotationSet,
        store: FeatureStore,
        grid: TileGrid,
        tissue: TissueMask | None = None,
    ) -> tuple[LinearHead | None, str | None]:
        """Refit to the marks as they are now.

        Parameters
        ----------
        annotations : AnnotationSet
        store, grid
            The slide's features and their lattice.
        tissue : TissueMask, optional
            The mask that the map is painted with.

        Returns
        -------
        head : LinearHead or None
            In the order of `classes`; the same object when nothing changed.
        missing : str or None
            What the model needs next, in one sentence.
        """
        used = learnable(annotations)
        names = tuple(sorted({str(a.class_name) for a in used}))
        if store is not self._store:
            self._store, self._marked = store, None
            self._known.clear()
        if tissue is not self._tissue or self._allowed is None:
            self._tissue, self._allowed = tissue, grid.tokens(tissue)
        if self._marked is None or names != self._names:
            self._names, self._marked = names, Marked(len(names), store.dims)
            self._head = self._evaluation = None
        lattice = grid.lattice
        labelled = label_tokens(
            used,
            lattice.x0,
            lattice.y0,
            lattice.step,
            lattice.rows,
            lattice.cols,
            names,
            self._known,
            self.overlap,
        )
        self._look_at_glass(labelled, grid, tissue, names)
        changed = self._marked.follow(
            labelled, store, grid, self._neighbourhood, allowed=self._allowed
        )
        listed = tuple(c.name for c in annotations.classes)
        taught = {names[c] for c in labelled.region_class}
        missing = self._missing(listed, taught, set(names) - taught)
        if len(self._marked.stats.classes) < 2:
            self._head = self._evaluation = self.model = None
            return None, missing or "The marked regions are being read."
        if changed or self._head is None:
            self._head, self._evaluation = judge(self._marked, names, seed=self._seed)
            learnt = {k: names[c] for k, c in self._marked.stats.region_class.items()}
            where = self._where({a.id: a for a in used if a.id in learnt})
            self.model = FastModel(self._head, self._evaluation, names, learnt, where)
        return self._head, missing

    def _where(self, learnt: Mapping[str, Annotation]) -> dict[str, NDArray[np.uint64]]:
        """Return the places of regions, looked up anew only for those that changed."""
        before, self._places = self._places, {}
        for key, region in learnt.items():
            old = before.get(key)
            kept = old if old is not None and old[0] is region else None
            self._places[key] = kept or (region, places(region, MOST))
        return {key: found for key, (_, found) in self._places.items()}

    def _look_at_glass(
        self,
        labelled: LabelledTokens,
        grid: TileGrid,
        tissue: TissueMask | None,
        names: tuple[str, ...],
    ) -> None:
        assert self._allowed is not None
        rows, cols = labelled.rows, labelled.cols
        self.cells = cells_under(rows, cols, grid, self._neighbourhood)
        off = ~self._allowed[rows, cols]
        self.off_tissue = (rows[off], cols[off])
        self.glass = []
        if tissue is not None and tissue.source == "auto":
            self.glass = drawn_on_glass([labelled], [grid], [tissue], names)

    @staticmethod
    def _missing(names: tuple[str, ...], marked: set[str], hidden: set[str]) -> str | None:
        if not names:
            return "What do you want to tell apart? Add two classes."
        if len(names) == 1:
            return "Add a second class to compare with."
        if hidden:
            return (
                f"{min(hidden)} is marked only where another class is marked too, or off the "
                "slide: say which counts there, or mark it elsewhere."
            )
        bare = [n for n in names if n not in marked]
        return f"Mark at least one {bare[0]} region." if bare else None

    def validation(self) -> Evaluation | None:
        """Return the verdict on the head of the last update, None without one."""
        return self._evaluation

    def short_of(self) -> str | None:
        """Return which class lacks regions for a figure, in a sentence."""
        return None if self._marked is None else short_of(self._marked, self._names)
