"""A model over a whole slide, or over a folder of tiles.

What is in the feature store is painted at once and the rest as it is computed,
what is on the screen first. Every token is painted again when the last of its
neighbours has come, so that the map does not depend on the order, on an
interruption, or on what was computed before.
"""

from __future__ import annotations

import csv
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import Job, Note, PathotuneError, TilesDone
from pathotune.maps.frame import Frame, where_to_look
from pathotune.maps.paint import paint
from pathotune.models.features import FeatureStore, compute_features
from pathotune.models.tuned import TunedCard, card_of, head_of
from pathotune.slides.stain import picture_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.maps.classmap import ClassMap
    from pathotune.models.bundle import ModelBundle
    from pathotune.slides.slide import Region, Slide
    from pathotune.slides.tissue import TissueMask

CHUNK = 256  # tokens a side painted at once


def predict(
    slide: Slide,
    bundle: ModelBundle,
    *,
    region: Region | None = None,
    tissue: TissueMask | str | Path = "auto",
    device: str = "auto",
    store: FeatureStore | None = None,
    focus: Callable[[], Region | None] | None = None,
    into: ClassMap | None = None,
    seed: int = 0,
) -> Job[ClassMap]:
    """Map a slide with a trained model.

    Parameters
    ----------
    slide : Slide
        With um/px.
    bundle : ModelBundle
        The model; its backbone must be on this computer.
    region : Region, optional
        Map only this part; the map begins at its corner.
    tissue : "auto", "off", Path or TissueMask
        Where to predict: the tissue found, everywhere, or the polygons of a GeoJSON file.
        A model that was made without a mask always looks everywhere.
    device : str
        "auto", "cpu" or "cuda".
    store : FeatureStore, optional
        Where features are kept; by default in the user's cache. Only for a whole slide; a
        tuned model has a store of its own.
    focus : callable, optional
        Returns what is on the screen, asked while computing.
    into : ClassMap, optional
        A map of the same place and classes to go on with.
    seed : int
        Not used by a linear model: nothing is drawn.

    Yields
    ------
    Note, Progress, TilesDone
        `TilesDone` are boxes of the map that were painted.

    Raises
    ------
    PathotuneError
        No um/px, another backbone, a region outside the slide.
    """
    card, head = card_of(bundle), head_of(bundle)
    frame = Frame.over(
        slide,
        region,
        mpp=card.mpp,
        tile_px=card.tile_px,
        token_px=card.token_px,
        halo=card.halo,
    )
    grid, lattice = frame.grid, frame.grid.lattice
    classmap = frame.canvas(bundle.classes, bundle.colours, into)
    mask = where_to_look(slide, "off" if _looks_everywhere(bundle, tissue) else tissue)
    if slide.stain_problem:
        yield Note(
            f"{slide.stain_problem} This model is made for "
            f"{bundle.meta.get('made_for') or card.made_for}. Judge the map with care.",
            "warning",
        )
    other = picture_problem(slide.view, bundle.meta.get("pictures") or ())
    if other:
        yield Note(other, "warning")
    on_tissue = grid.tokens(mask)
    if not on_tissue[frame.box].any():
        yield Note("No tissue was found here; the map is empty.", "warning")
    rim = card.neighbourhood // 2
    cells = grid.cells(mask, None if region is None else frame.area, margin_tokens=rim)

    def painted(box: TilesDone) -> TilesDone | None:
        """Paint what a change in a box of the lattice changes; return it as a box of the map."""
        grown = frame.clip(box, rim)
        if grown is None:
            return None
        window = (grown.row0, grown.col0, grown.row1, grown.col1)
        labels, probs = paint(kept, head, window, on_tissue, card.neighbourhood)
        here = frame.on_map(grown)
        rows, cols = slice(here.row0, here.row1), slice(here.col0, here.col1)
        classmap.labels[rows, cols] = labels
        if classmap.probs is not None:
            classmap.probs[rows, cols] = probs
        return here if labels.any() else None

    with ExitStack() as stack:
        corner = lattice.x0 == lattice.y0 == 0  # a store is of the lattice through (0, 0)
        fits = store is not None and store.shape == (lattice.rows, lattice.cols)
        if store is not None and corner and fits and not isinstance(card, TunedCard):
            kept = store
        else:
            kept = stack.enter_context(FeatureStore.open(slide.stamp, card, grid, device=device))
        for box in _chunks(frame):
            done = painted(box)
            if done is not None:
                yield done
        job = compute_features(slide, card, grid, kept, cells, device=device, focus=focus)
        stack.enter_context(closing(job))
        for event in job:
            shown = painted(event) if isinstance(event, TilesDone) else event
            if shown is not None:
                yield shown
    return classmap


def _looks_everywhere(bundle: ModelBundle, tissue: TissueMask | str | Path) -> bool:
    """Tell whether the model was made without the mask of found tissue that is asked for."""
    found = tissue == "auto" or getattr(tissue, "source", "") == "auto"
    return found and bundle.tissue == "off"


def _chunks(frame: Frame) -> Iterator[TilesDone]:
    """Cut a map into boxes of the lattice that are painted at once."""
    row1, col1 = frame.row0 + frame.rows, frame.col0 + frame.cols
    for r in range(frame.row0, row1, CHUNK):
        for c in range(frame.col0, col1, CHUNK):
            yield TilesDone(r, c, min(r + CHUNK, row1), min(c + CHUNK, col1))


@dataclass(frozen=True)
class TilePredictions:
    """What a model says about the tiles of a folder.

    Attributes
    ----------
    classes : tuple of str
        In the model's order.
    files : tuple of str
        Relative to the folder, with ``/``.
    probs : (n, C) float
        Probabilities.
    mpp_assumed : bool
        Some file did not say its um/px and none was given.
    """

    classes: tuple[str, ...]
    files: tuple[str, ...]
    probs: np.ndarray[Any, np.dtype[np.float32]]
    mpp_assumed: bool

    def summary(self) -> dict[str, Any]:
        """Return how many tiles fell to each class, as plain JSON."""
        counts = np.bincount(self.probs.argmax(1), minlength=len(self.classes))
        told: dict[str, Any] = {"classes": list(self.classes), "n_tiles": len(self.files)}
        told["counts"] = {n: int(c) for n, c in zip(self.classes, counts, strict=True)}
        return told | ({"mpp_assumed": True} if self.mpp_assumed else {})

    def write_csv(self, path: Path) -> None:
        """Write file, class and the probability of each class."""
        try:
            with path.open("w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(["file", "class", *(f"p_{n}" for n in self.classes)])
                for name, p in zip(self.files, self.probs, strict=True):
                    rows.writerow([name, self.classes[int(p.argmax())], *(f"{v:.6f}" for v in p)])
        except OSError as error:
            raise PathotuneError(
                f"{path.name} could not be written: {error.strerror or error}.",
                "Choose another folder, or make room on the disk.",
            ) from error


def predict_tiles(
    folder: Path,
    bundle: ModelBundle,
    *,
    mpp: float | None = None,
    device: str = "auto",
) -> Job[TilePredictions]:
    """Classify every tile of a folder.

    Parameters
    ----------
    folder : Path
        Searched to any depth for PNG, JPEG and TIFF.
    bundle : ModelBundle
        The model.
    mpp : float, optional
        um/px of the files; by default what they say, else the model's.
    device : str
        "auto", "cpu" or "cuda".

    Yields
    ------
    Note, Progress
    """
    from pathotune.models.tile_features import tile_features
    from pathotune.slides.tile_folder import tile_files

    card, head = card_of(bundle), head_of(bundle)
    files = tile_files(folder)
    means = np.zeros((len(files), card.dims), np.float32)

    def take(number: int, features: NDArray[np.float32]) -> None:
        # The head is linear: the mean of a tile's tokens stands for the tile.
        means[number] = features.mean(axis=0)

    assumed = yield from tile_features(files, card, take, mpp=mpp, device=device)
    probs = head.probs(means)
    names = tuple(p.relative_to(folder).as_posix() for p in files)
    return TilePredictions(bundle.classes, names, probs, assumed)
