"""From marks to a bundle: the features under the marks, the probe, and its verdict.

Only the tiles under the marks are computed, so that a model costs seconds even
on a large slide; the map computes the rest. The same marks in the window give
the same numbers.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pathotune import plugins
from pathotune.events import Job, Note, PathotuneError, Progress
from pathotune.learn.evaluate import apart, judge
from pathotune.learn.marked import Marked, cells_under, drawn_on_glass, learnable, tokens_under
from pathotune.learn.seen import facts, of_file
from pathotune.models.bundle import ModelBundle
from pathotune.models.features import FeatureStore, compute_features
from pathotune.slides.mpp import refuse_blur
from pathotune.slides.tiles import TileGrid
from pathotune.slides.tissue import tissue_mask

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from pathotune.marks.annotations import Annotation, AnnotationSet
    from pathotune.marks.classes import Colour
    from pathotune.marks.labels import LabelledTokens
    from pathotune.models.cards import ModelCard
    from pathotune.slides.slide import Slide

TILES = "tiles, some of which may share a patient"


def train(
    sources: Sequence[tuple[Slide, AnnotationSet]],
    *,
    card: ModelCard,
    method: str = "linear",
    classes: Sequence[str] | None = None,
    config: Any = None,
    seed: int = 0,
    device: str = "auto",
    tissue: str = "auto",
    stores: Sequence[FeatureStore] | None = None,
    overlap: str | None = None,
    **tuning: Any,
) -> Job[ModelBundle]:
    """Learn classes from the marked regions of one or several slides.

    Parameters
    ----------
    sources : sequence of (Slide, AnnotationSet)
        Every slide with its marks; each slide needs um/px.
    card : ModelCard
        The backbone.
    method : str
        Key of the tuning method; "linear" is the fast model, all others train a network.
    classes : sequence of str, optional
        Which classes, in this order; by default all that are marked, by name.
    config : Config, optional
        Settings of the method.
    seed : int
        Which regions are left out together for the verdict.
    device : str
        "auto", "cpu" or "cuda".
    tissue : {"auto", "off"}
        "off": the model does not keep to the tissue mask.
    stores : sequence of FeatureStore, optional
        Where each slide's features are kept; by default in the user's cache.
    overlap : {"leave-out", "smaller", "last", "first"}, optional
        What counts where regions of different classes overlap; without it such regions are
        refused by name.
    tuning
        For methods that train a network: plan, sentence, text_folder, stop and keep, see
        `tune.tune`.

    Yields
    ------
    Note, Progress, TilesDone, EpochDone

    Raises
    ------
    PathotuneError
        Fewer than two classes, a class without a region, regions of different classes that
        overlap, no um/px, no weights.
    """
    module = plugins.load("pathotune.models.tuning", method)
    config = config or module.Config()
    names = class_names((learnable(s) for _, s in sources), classes)
    colours = class_colours((s.classes for _, s in sources), names)
    marked = Marked(len(names), card.dims)
    # A slide given twice is one slide: what is learnt of it must not be judged on it.
    prints = [slide.fingerprint for slide, _ in sources]
    prefixes = [f"{prints.index(p)}/{i}/" for i, p in enumerate(prints)]
    plans = [plan(slide, card) for slide, _ in sources]
    drawn = [learnable(m) for _, m in sources]
    labels = [
        tokens_under(m, grid, names, overlap, slide.name)
        for m, grid, (slide, _) in zip(drawn, plans, sources, strict=True)
    ]
    about: dict[str, Any] = {
        "regions": [
            fact
            for (slide, _), under, own in zip(sources, labels, drawn, strict=True)
            for fact in _facts(slide, under, own, names)
        ],
        "pictures": [slide.view.words() for slide, _ in sources],
        **({"overlap": overlap} if overlap else {}),
    }
    glass: list[str] = []
    masks: list[Any] = [None] * len(sources)
    if tissue == "auto":
        for i, (slide, _) in enumerate(sources):
            yield Progress(i, len(sources), "Finding the tissue")
            masks[i] = tissue_mask(slide)
        glass = drawn_on_glass(labels, plans, masks, names)
        if glass:
            tissue = "off"
            yield Note(
                f"{', '.join(glass)} is marked outside the tissue: "
                "this model looks at the whole slide."
            )
    if method != "linear":
        allow = [
            None if tissue == "off" else g.tokens(m) for g, m in zip(plans, masks, strict=True)
        ]
        return (
            yield from _tuned(
                [slide for slide, _ in sources],
                plans,
                labels,
                allow,
                names,
                colours,
                about | {"tissue": tissue},
                card=card,
                method=method,
                config=config,
                seed=seed,
                device=device,
                **tuning,
            )
        )
    with ExitStack() as stack:
        for i, (slide, _) in enumerate(sources):
            if slide.stain_problem:
                yield Note(
                    f"{slide.name}: {slide.stain_problem} {card.name} is for "
                    f"{card.made_for}. Judge the result with care.",
                    "warning",
                )
            grid, labelled = plans[i], labels[i]
            store = (
                stack.enter_context(FeatureStore.open(slide.stamp, card, grid, device=device))
                if stores is None
                else stores[i]
            )
            if len(labelled.rows):
                cells = cells_under(labelled.rows, labelled.cols, grid, card.neighbourhood)
                yield from compute_features(slide, card, grid, store, cells, device=device)
            allowed = None if tissue == "off" else grid.tokens(masks[i])
            marked.follow(labelled, store, grid, card.neighbourhood, prefixes[i], allowed)
    _every_class(marked, names)
    slides, scope = apart(marked, [f"{prints.index(p)}/" for p in dict.fromkeys(prints)])
    head, evaluation = judge(marked, names, config=config, seed=seed, scope=scope, slides=slides)
    return ModelBundle.create(
        card,
        method,
        names,
        colours,
        head.to_arrays(),
        tissue=tissue,
        metrics=evaluation.as_dict(),
        **about,
    )


def _tuned(
    slides: Sequence[Slide],
    plans: Sequence[TileGrid],
    labels: Sequence[LabelledTokens],
    allowed: Sequence[NDArray[np.bool_] | None],
    names: tuple[str, ...],
    colours: tuple[Colour, ...],
    about: dict[str, Any],
    *,
    card: ModelCard,
    method: str,
    seed: int,
    device: str,
    **how: Any,
) -> Job[ModelBundle]:
    """Train a network on the tissue under the marks."""
    from pathotune.learn.pieces import from_slides
    from pathotune.learn.tune import too_many, tune
    from pathotune.models.runtime import pick_device

    device = pick_device(device)
    limit = too_many(device, how.get("plan"))
    pieces = yield from from_slides(slides, plans, labels, allowed, card, limit, seed)
    return (
        yield from tune(
            pieces,
            card,
            method,
            names,
            colours,
            groups=[slides[int(key.partition("/")[0])].fingerprint for key in pieces.names],
            seed=seed,
            device=device,
            about=about,
            **how,
        )
    )


def plan(slide: Slide, card: ModelCard, origin: tuple[float, float] = (0.0, 0.0)) -> TileGrid:
    """Return the tiles of a card over a slide.

    Raises
    ------
    PathotuneError
        The slide's um/px is not known, or far too coarse for the network.
    """
    refuse_blur(slide.need_mpp(), card.mpp)
    return TileGrid.plan(
        slide.width,
        slide.height,
        slide.need_mpp(),
        mpp=card.mpp,
        tile_px=card.tile_px,
        token_px=card.token_px,
        halo=card.halo,
        origin=origin,
    )


def _facts(
    slide: Slide, under: LabelledTokens, marks: Sequence[Annotation], names: Sequence[str]
) -> list[dict[str, str]]:
    """Return what a bundle keeps of the regions of one slide."""
    classes = [names[c] for c in under.region_class]
    return facts(under.region_ids, classes, marks, slide.fingerprint)


def class_names(
    marks: Iterable[Iterable[Any]], wanted: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return the classes to learn: `wanted`, or all that have a region, by code point.

    Raises
    ------
    PathotuneError
        Fewer than two, or a wanted class has no region.
    """
    found = {a.class_name for items in marks for a in items if a.class_name}
    names = tuple(sorted(found)) if wanted is None else tuple(dict.fromkeys(wanted))
    bare = [n for n in names if n not in found]
    if bare:
        raise PathotuneError(
            f"No region is marked as {', '.join(bare)}.",
            f"Marked are: {', '.join(sorted(found)) or 'none'}.",
        )
    if len(names) < 2:
        only = "No region with a class was found." if wanted is None else "No class was named."
        if names:
            only = f"Only {names[0]} is {'marked' if wanted is None else 'asked for'}."
        raise PathotuneError("A model needs marked regions of at least two classes.", only)
    return names


def class_colours(tables: Iterable[Iterable[Any]], names: Sequence[str]) -> tuple[Colour, ...]:
    """Return each class's colour: the first that any set gives it, else a free one."""
    from pathotune.marks.classes import next_colour

    known: dict[str, Colour] = {}
    for table in tables:
        for entry in table:
            known.setdefault(entry.name, entry.colour)
    out: list[Colour] = []
    for name in names:
        taken = [*out, *(known[n] for n in names if n in known)]
        out.append(known[name] if name in known else next_colour(taken))
    return tuple(out)


def _every_class(marked: Marked, names: Sequence[str]) -> None:
    bare = [n for i, n in enumerate(names) if i not in marked.stats.classes]
    if bare:
        raise PathotuneError(
            f"No region of {', '.join(bare)} lies on the slide.",
            "Check that the annotations belong to this slide and are in its full-size pixels.",
        )


def train_tiles(
    folder: Path,
    *,
    card: ModelCard,
    mpp: float | None = None,
    method: str = "linear",
    classes: Sequence[str] | None = None,
    config: Any = None,
    seed: int = 0,
    device: str = "auto",
    **tuning: Any,
) -> Job[ModelBundle]:
    """Learn classes from folders of tiles, one folder a class.

    Parameters
    ----------
    folder : Path
        Holds a folder for each class, searched to any depth.
    card : ModelCard
        The backbone.
    mpp : float, optional
        um/px of the files; by default what they say, else the card's.
    method, classes, config, seed, device, tuning
        As for `train`. A tile counts as a region.

    Raises
    ------
    PathotuneError
        Fewer than two classes, an unreadable file, no weights.
    """
    from pathotune.models.tile_features import tile_features
    from pathotune.slides.tile_folder import class_folders

    module = plugins.load("pathotune.models.tuning", method)
    config = config or module.Config()
    found = class_folders(folder)
    names = tuple(sorted(found)) if classes is None else tuple(dict.fromkeys(classes))
    bare = [n for n in names if not found.get(n)]
    if bare or len(names) < 2:
        raise PathotuneError(
            f"There are no tiles of {', '.join(bare)}." if bare else "One class is not enough.",
            f"{folder} must hold a folder of tiles for each of at least two classes.",
        )
    files = [(path, c) for c, name in enumerate(names) for path in found[name]]
    known = [{"class": names[c], "file": of_file(path)} for path, c in files]
    if method != "linear":
        from pathotune.learn.pieces import from_tiles
        from pathotune.learn.tune import tune

        pieces, assumed = yield from from_tiles(files, folder, card, mpp)
        about = {"trained_on": "tiles", "regions": known}
        return (
            yield from tune(
                pieces,
                card,
                method,
                names,
                class_colours((), names),
                groups=[""] * len(files),
                config=config,
                seed=seed,
                device=device,
                about=about | {"mpp_assumed": assumed},
                **tuning,
            )
        )
    marked = Marked(len(names), card.dims)

    def take(number: int, features: NDArray[np.float32]) -> None:
        path, class_index = files[number]
        # A tile is asked about as a whole, so it is judged by the mean of its tokens.
        whole = features.mean(0, keepdims=True)
        marked.add(path.relative_to(folder).as_posix(), class_index, features, whole)

    paths = [path for path, _ in files]
    assumed = yield from tile_features(paths, card, take, mpp=mpp, device=device)
    head, evaluation = judge(marked, names, config=config, seed=seed, scope=TILES)
    return ModelBundle.create(
        card,
        method,
        names,
        class_colours((), names),
        head.to_arrays(),
        trained_on="tiles",
        regions=known,
        metrics=evaluation.as_dict(),
        mpp_assumed=assumed,
    )
