"""A model over a whole slide, or over a folder of tiles.

What is in the feature store is painted at once and the rest as it is computed,
what is on the screen first. Every token is painted again when the last of its
neighbours has come, so that the map does not depend on the order, on an
interruption, or on what was computed before.
"""

from __future__ import annotations

import csv
import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import Job, Note, PathotuneError, TilesDone
from pathotune.maps.classmap import ClassMap
from pathotune.maps.paint import paint
from pathotune.models.features import FeatureStore, compute_features
from pathotune.models.tuning.linear import LinearHead
from pathotune.slides.tiles import TileGrid
from pathotune.slides.tissue import full_mask, mask_from_polygons, tissue_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pathotune.models.bundle import ModelBundle
    from pathotune.slides.slide import Region, Slide
    from pathotune.slides.tissue import TissueMask

CHUNK = 256  # tokens a side painted at once


def predict(
    slide: Slide,
    bundle: ModelBundle,
    *,
    region: Region | None = None,
    tissue: str | Path = "auto",
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
    tissue : "auto", "off" or Path
        Where to predict: the tissue found, everywhere, or the polygons of a GeoJSON file.
        A model that was made without a mask always looks everywhere.
    device : str
        "auto", "cpu" or "cuda".
    store : FeatureStore, optional
        Where features are kept; by default in the user's cache. Only for a whole slide.
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
    card = bundle.card()
    head = _head(bundle)
    if slide.kind != "brightfield":
        yield Note(
            f"{slide.name} is no stained brightfield slide; this model is made for "
            f"{bundle.meta.get('made_for') or card.made_for}. Judge the map with care.",
            "warning",
        )
    step = card.token_px * card.mpp / slide.need_mpp()
    area = slide.bounds if region is None else region.intersect(slide.bounds)
    if area is None:
        raise PathotuneError(
            "The region lies outside the slide.",
            f"The slide is {slide.width} x {slide.height} pixels.",
        )
    grid = TileGrid.plan(
        slide.width,
        slide.height,
        slide.need_mpp(),
        mpp=card.mpp,
        tile_px=card.tile_px,
        token_px=card.token_px,
        halo=card.halo,
        origin=(_phase(area.x, step), _phase(area.y, step)),
    )
    lattice = grid.lattice
    row0, col0 = round((area.y - lattice.y0) / step), round((area.x - lattice.x0) / step)
    rows = min(math.ceil(area.height / step - 1e-6), lattice.rows - row0)
    cols = min(math.ceil(area.width / step - 1e-6), lattice.cols - col0)
    origin = (lattice.x0 + col0 * step, lattice.y0 + row0 * step)
    classmap = _usable(into, bundle, origin, step, rows, cols) or ClassMap.empty(
        bundle.classes, bundle.colours, origin, step, card.mpp * card.token_px, rows, cols
    )
    mask = _mask(slide, bundle, tissue)
    on_tissue = grid.tokens(mask)
    rim = card.neighbourhood // 2
    cells = grid.cells(mask, None if region is None else area, margin_tokens=rim)

    def painted(box: TilesDone) -> TilesDone | None:
        """Paint what a change in a box of the lattice changes; return it as a box of the map."""
        r0, c0 = max(box.row0 - rim, row0), max(box.col0 - rim, col0)
        r1, c1 = min(box.row1 + rim, row0 + rows), min(box.col1 + rim, col0 + cols)
        if r0 >= r1 or c0 >= c1:
            return None
        window = (r0, c0, r1, c1)
        labels, probs = paint(kept, head, window, on_tissue, card.neighbourhood)
        here = np.s_[r0 - row0 : r1 - row0, c0 - col0 : c1 - col0]
        classmap.labels[here] = labels
        if classmap.probs is not None:
            classmap.probs[here] = probs
        return TilesDone(r0 - row0, c0 - col0, r1 - row0, c1 - col0)

    with ExitStack() as stack:
        if store is not None and store.shape == (lattice.rows, lattice.cols):
            kept = store
        else:
            kept = stack.enter_context(FeatureStore.open(slide.stamp, card, grid))
        for box in _chunks(row0, col0, rows, cols):
            done = painted(box)
            if done is not None and classmap.labels[done.row0 : done.row1].any():
                yield done
        job = compute_features(slide, card, grid, kept, cells, device=device, focus=focus)
        for event in job:
            if isinstance(event, TilesDone):
                done = painted(event)
                if done is not None:
                    yield done
            else:
                yield event
    return classmap


def _head(bundle: ModelBundle) -> LinearHead:
    if bundle.method != "linear":
        raise PathotuneError(
            f"This model was made with the method {bundle.method}, which this version cannot run.",
            "Update napari-pathotune.",
        )
    head = LinearHead.from_arrays(bundle.arrays)
    if head.weight.shape[1] != len(bundle.classes):
        raise PathotuneError("This model file is damaged.", "Save the model again.")
    return head


def _phase(place: float, step: float) -> float:
    """Return where the lattice through a place begins on the slide, from 0 to one step."""
    phase = place % step
    return 0.0 if phase < 1e-6 or step - phase < 1e-6 else phase


def _usable(
    into: ClassMap | None,
    bundle: ModelBundle,
    origin: tuple[float, float],
    step: float,
    rows: int,
    cols: int,
) -> ClassMap | None:
    """Return `into` when it is a map of this place for these classes."""
    if into is None or into.classes != bundle.classes or into.labels.shape != (rows, cols):
        return None
    same = np.allclose([*into.origin, into.step], [*origin, step], atol=1e-6)
    return into if same else None


def _mask(slide: Slide, bundle: ModelBundle, tissue: str | Path) -> TissueMask:
    if isinstance(tissue, Path):
        from pathotune.marks.geojson import read_geojson

        return mask_from_polygons(slide, [a.area() for a in read_geojson(tissue).items])
    if tissue == "off" or bundle.tissue == "off":
        return full_mask(slide)
    return tissue_mask(slide)


def _chunks(row0: int, col0: int, rows: int, cols: int) -> Iterator[TilesDone]:
    for r in range(row0, row0 + rows, CHUNK):
        for c in range(col0, col0 + cols, CHUNK):
            r1, c1 = min(r + CHUNK, row0 + rows), min(c + CHUNK, col0 + cols)
            yield TilesDone(r, c, r1, c1)


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

    card, head = bundle.card(), _head(bundle)
    files = tile_files(folder)
    means = np.zeros((len(files), card.dims), np.float32)

    def take(number: int, features: NDArray[np.float32]) -> None:
        # The head is linear: the mean of a tile's tokens stands for the tile.
        means[number] = features.mean(axis=0)

    assumed = yield from tile_features(files, card, take, mpp=mpp, device=device)
    probs = head.probs(means)
    names = tuple(p.relative_to(folder).as_posix() for p in files)
    return TilePredictions(bundle.classes, names, probs, assumed)
