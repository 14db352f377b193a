"""A finished model against marks that it has not learnt from.

What stands in a bundle was found while it was made; whether it holds elsewhere is asked
here. Regions that the model learnt from are known again and left out, since a figure on
them would only tell how well it remembers. Every figure comes with an interval from
drawing regions anew (tiles, or slides where there are enough), because spots of one region are
nearly copies of each other.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import Job, Note, PathotuneError
from pathotune.learn.agreement import Sample, agreement
from pathotune.learn.marked import Marked, cells_under, learnable, tokens_under
from pathotune.learn.seen import Seen
from pathotune.learn.train import plan
from pathotune.models.features import FeatureStore, compute_features
from pathotune.models.tuned import card_of, head_of
from pathotune.slides.tissue import tissue_mask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.marks.annotations import AnnotationSet
    from pathotune.models.bundle import ModelBundle
    from pathotune.slides.slide import Slide


@dataclass(frozen=True, eq=False)
class Check:
    """How a model does on marks.

    Attributes
    ----------
    figures : dict
        Plain JSON: see `agreement.agreement`.
    left_out : list of (class, name)
        Regions or tiles that it had learnt from.
    absent : tuple of str
        Classes of the model that nothing is marked as.
    unknown : tuple of str
        Marked classes that the model does not tell.
    scope : str
        What the figures are about.
    new : bool
        The model says what it learnt from, so that what is judged is known to be new to it.
    """

    figures: dict[str, Any]
    left_out: list[tuple[str, str]]
    absent: tuple[str, ...]
    unknown: tuple[str, ...]
    scope: str
    new: bool

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        return {
            **self.figures,
            "known_to_be_new": self.new,
            "scope": self.scope,
            "absent_classes": list(self.absent),
            "unknown_classes": list(self.unknown),
            "left_out": [{"class": c, "region": name} for c, name in self.left_out],
        }


def check(
    sources: Sequence[tuple[Slide, AnnotationSet]],
    bundle: ModelBundle,
    *,
    seed: int = 0,
    device: str = "auto",
    overlap: str | None = None,
) -> Job[Check]:
    """Judge a model on the marked regions of slides that it has not learnt from.

    Parameters
    ----------
    sources : sequence of (Slide, AnnotationSet)
    bundle : ModelBundle
    seed : int
        Of the draws for the intervals.
    device : str
    overlap : str, optional
        What counts where regions of different classes overlap, see `train.train`.

    Yields
    ------
    Note, Progress, TilesDone

    Raises
    ------
    PathotuneError
        Nothing is left to judge by, or regions overlap and nobody said what counts.
    """
    card, head, seen = card_of(bundle), head_of(bundle), Seen(bundle.meta.get("regions") or ())
    names = bundle.classes
    marks = [learnable(m) for _, m in sources]
    absent, unknown = yield from _classes(names, {str(a.class_name) for m in marks for a in m})
    left: list[tuple[str, str]] = []
    prints = [slide.fingerprint for slide, _ in sources]
    fresh = []
    for own, key in zip(marks, prints, strict=True):
        old = {a.id for a in own if a.class_name in names and seen.region(a, key)}
        left += [(str(a.class_name), a.name or a.id) for a in own if a.id in old]
        fresh.append([a for a in own if a.id not in old])
    some = sum(a.class_name in names for m in fresh for a in m)
    yield from _told(seen.knows_regions, len(left), some, "region")
    samples: list[Sample] = []
    with ExitStack() as stack:
        for i, (slide, _) in enumerate(sources):
            grid = plan(slide, card)
            under = tokens_under(fresh[i], grid, names, overlap, slide.name)
            if not len(under.rows):
                continue
            store = stack.enter_context(FeatureStore.open(slide.stamp, card, grid, device=device))
            cells = cells_under(under.rows, under.cols, grid, card.neighbourhood)
            yield from compute_features(slide, card, grid, store, cells, device=device)
            allowed = None if bundle.tissue == "off" else grid.tokens(tissue_mask(slide))
            found = Marked(len(names), card.dims)
            found.follow(under, store, grid, card.neighbourhood, "", allowed)
            for region, c in found.stats.region_class.items():
                probs = head.probs(found.samples[region])
                samples.append(Sample(c, probs, found.counts[region], prints[i]))
    if not samples:
        raise PathotuneError(
            "No marked region lies on the slide.",
            "Check that the annotations belong to this slide and are in its full-size pixels.",
        )
    taught = {p for p in prints if _taught(seen, marks, prints, p)}
    slides = f"{len(set(prints))} slides" if len(set(prints)) > 1 else "this slide"
    scope = _scope(seen.knows_regions, f"regions of {slides}")
    if taught:
        yield Note(
            "The model learnt from other regions of the same slide: this says nothing about "
            "how it does on another slide.",
            "warning",
        )
    return Check(agreement(samples, names, seed), left, absent, unknown, scope, seen.knows_regions)


def check_tiles(
    folder: Path,
    bundle: ModelBundle,
    *,
    mpp: float | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Job[Check]:
    """Judge a model on a folder with one folder of tiles a class.

    Raises
    ------
    PathotuneError
        Nothing is left to judge by.
    """
    from pathotune.models.tile_features import tile_features
    from pathotune.slides.tile_folder import class_folders

    card, head, seen = card_of(bundle), head_of(bundle), Seen(bundle.meta.get("regions") or ())
    names, found = bundle.classes, class_folders(folder)
    absent, unknown = yield from _classes(names, set(found))
    files = [(p, c) for c, name in enumerate(names) for p in found.get(name, ())]
    old = {p for p, _ in files if seen.file(p)}
    left = [(names[c], p.relative_to(folder).as_posix()) for p, c in files if p in old]
    files = [(p, c) for p, c in files if p not in old]
    yield from _told(seen.knows_files, len(left), len(files), "tile")
    means = np.zeros((len(files), card.dims), np.float32)

    def take(number: int, features: NDArray[np.float32]) -> None:
        means[number] = features.mean(axis=0)  # as `predict --tiles` does

    paths = [p for p, _ in files]
    yield from tile_features(paths, card, take, mpp=mpp, device=device)
    probs = head.probs(means)
    samples = [Sample(c, probs[i : i + 1], 1, str(i)) for i, (_, c) in enumerate(files)]
    scope = _scope(seen.knows_files, "tiles") + ", some of which may share a patient"
    return Check(
        agreement(samples, names, seed, "tiles"), left, absent, unknown, scope, seen.knows_files
    )


def _classes(names: Sequence[str], marked: set[str]) -> Job[tuple[tuple[str, ...], ...]]:
    """Say which classes are missing on either side."""
    absent = tuple(n for n in names if n not in marked)
    unknown = tuple(sorted(marked - set(names)))
    if len(absent) == len(names):
        raise PathotuneError(
            "Nothing is marked as a class of this model; "
            f"marked: {', '.join(unknown) or 'nothing'}.",
            f"The model tells apart {', '.join(names)}; classes must have the same names.",
        )
    if absent:
        yield Note(f"Nothing is marked as {', '.join(absent)}: no word on that.", "warning")
    if unknown:
        yield Note(f"The model does not know {', '.join(unknown)}: left out.", "warning")
    return absent, unknown


def _told(known: bool, left: int, some: int, what: str) -> Job[None]:
    """Say what was left out, or refuse where nothing stays."""
    if left and not some:
        raise PathotuneError(
            f"The model learnt from {'this' if left == 1 else 'all'} of these {what}s: how it does "
            "on them would only tell how well it remembers.",
            f"Mark {what}s that it has not seen, best on another slide.",
        )
    if left:
        plural = "" if left == 1 else "s"
        yield Note(f"{left} {what}{plural} that the model learnt from: left out.", "warning")
    if not known:
        yield Note(
            f"This model does not say which {what}s it learnt from; if some are among these, "
            "the figures are too good.",
            "warning",
        )


def _scope(known: bool, what: str) -> str:
    """Return what the figures are about; never called new where that is unknown."""
    if known:
        return f"{what} that the model had not learnt from"
    return f"{what}, and it is not known whether the model had learnt from some of them"


def _taught(seen: Seen, marks: Sequence[Sequence[Any]], prints: Sequence[str], slide: str) -> bool:
    own = [a for m, p in zip(marks, prints, strict=True) if p == slide for a in m]
    return any(seen.region(a, slide) for a in own)
