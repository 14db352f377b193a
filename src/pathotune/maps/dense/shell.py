"""SHELL: epithelium and lumen on H&E, without a mark.

A small segmentation network (LaViolette lab, MIT licence) that was trained on
prostate. It sees three stain pictures instead of colours: eosin, haematoxylin
and optical density, each stretched between percentiles of the whole slide, so
the slide's stains are estimated first. On other organs it is a first look, not
a result.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import Job, Note, PathotuneError, Progress, TilesDone
from pathotune.maps.frame import Frame, where_to_look
from pathotune.places import resources
from pathotune.slides.tiles import read_batches
from pathotune.slides.tissue import tissue_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.maps.classmap import ClassMap
    from pathotune.slides.slide import Region, Slide
    from pathotune.slides.tiles import TileGrid
    from pathotune.slides.tissue import TissueMask

NAME = "SHELL: epithelium and lumen"
MADE_FOR = "H&E of prostate"
classes = ("Lumen", "Epithelium", "Other tissue")  # in the order of the network's outputs
colours = ((240, 228, 66), (0, 114, 178), (204, 121, 167))

MPP = 1.0  # what the network was trained at
SIDE, TOKEN, HALO = 512, 8, 8  # window and map pixel in um; margin in map pixels
STAINS_MPP = 4.0
_USUAL = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])  # haematoxylin, eosin (Ruifrok 2001)
_WHAT = "Looking for epithelium"


class Stains:
    """How a slide's colours become the network's three pictures.

    Parameters
    ----------
    pixels : (n, 3) uint8
        Tissue of the whole slide, a sample.

    Notes
    -----
    Macenko et al., A method for normalizing histology slides, ISBI 2009: the two stains are
    the extreme directions in the plane of optical densities.
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.white = float(max(np.percentile(pixels, 99.5), 200.0))
        density = self._density(pixels)
        strong = density[density.mean(1) > 0.06]
        basis = _USUAL / np.linalg.norm(_USUAL, axis=1, keepdims=True)
        if len(strong) > 500:
            _, vectors = np.linalg.eigh(np.cov(strong.T))
            plane = vectors[:, [2, 1]]
            plane = plane * np.where(plane.sum(0) < 0, -1, 1)
            angle = np.arctan2(*(strong @ plane).T[::-1])
            ends = [plane @ [np.cos(a), np.sin(a)] for a in np.percentile(angle, (1, 99))]
            found = np.abs(np.array(ends))
            # Haematoxylin takes more red away than eosin does.
            basis = found[np.argsort(-found[:, 0])]
        self.unmix = np.linalg.pinv(basis)
        amounts = self._amounts(density)
        self.low = np.percentile(amounts, 1, axis=0)
        self.range = np.maximum(np.percentile(amounts, 99, axis=0) - self.low, 1e-6)

    def _density(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        bright = np.clip(pixels.astype(np.float64), 1.0, self.white)
        return np.asarray(-np.log10(bright / self.white))

    def _amounts(self, density: NDArray[np.float64]) -> NDArray[np.float64]:
        mixed = density @ self.unmix
        return np.stack([mixed[..., 1], mixed[..., 0], density.mean(-1)], axis=-1)

    def pictures(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (n, 3, h, w), 0 to 1: eosin, haematoxylin, optical density."""
        amounts = (self._amounts(self._density(tiles)) - self.low) / self.range
        return np.moveaxis(np.clip(amounts, 0, 1), -1, 1).astype(np.float32)


def empty(slide: Slide, region: Region | None = None) -> ClassMap:
    """Return the map that `predict` fills, with nothing in it yet."""
    return _frame(slide, region).canvas(classes, colours)


def predict(
    slide: Slide,
    tissue: TissueMask | str | Path = "auto",
    device: str = "auto",
    region: Region | None = None,
    focus: Callable[[], Region | None] | None = None,
    into: ClassMap | None = None,
) -> Job[ClassMap]:
    """Map epithelium and lumen over the tissue of a slide.

    Parameters
    ----------
    slide : Slide
        H&E, with um/px.
    tissue : "auto", "off", Path or TissueMask
        Where to look, as for other models.
    device : str
        Not used: the network runs on the processor.
    region : Region, optional
        Map only this part; the stains are those of the whole slide all the same.
    focus : callable, optional
        Returns what is on the screen, asked while computing.
    into : ClassMap, optional
        A map of the same place to go on with, see `empty`.

    Yields
    ------
    Note, Progress, TilesDone

    Raises
    ------
    PathotuneError
        No um/px, no H&E, or the library that runs the network is not installed.
    """
    if slide.kind != "brightfield":
        raise PathotuneError(
            f"{slide.name} is no H&E slide; {NAME} tells tissue by its two stains.",
            "Open an H&E slide, or mark regions and train a model.",
        )
    frame = _frame(slide, region)
    session = _network()
    mask = where_to_look(slide, tissue)
    grid = frame.grid
    classmap = frame.canvas(classes, colours, into)
    yield Note(f"{NAME} was made for {MADE_FOR}. Elsewhere look before you trust it.", "warning")
    on_tissue = grid.tokens(mask)
    cells = grid.cells(mask, None if region is None else frame.area)
    todo = cells[[_lacks(frame, cell, on_tissue, classmap) for cell in cells]]
    done = len(cells) - len(todo)
    yield Progress(done, len(cells), _WHAT)
    if not len(todo):
        return classmap
    stains = Stains(_sample(slide))
    with closing(read_batches(slide, grid, _outward(grid, todo, focus), 1)) as batches:
        for found, tiles in batches:
            (logits,) = session.run(None, {"input": stains.pictures(tiles)})
            shown = _put(frame, found[0], _tokens(logits)[0], on_tissue, classmap)
            done += 1
            if shown is not None:
                yield shown
            yield Progress(done, len(cells), _WHAT)
    return classmap


def _frame(slide: Slide, region: Region | None) -> Frame:
    return Frame.over(slide, region, mpp=MPP, tile_px=SIDE, token_px=TOKEN, halo=HALO)


def _lacks(
    frame: Frame, cell: NDArray[np.int32], on_tissue: NDArray[np.bool_], classmap: ClassMap
) -> bool:
    """Tell whether a tile has a pixel on tissue that the map does not have yet."""
    box = frame.clip(TilesDone(*frame.grid.token_box(cell)))
    if box is None:
        return False
    here, there = _slices(box), _slices(frame.on_map(box))
    return bool((on_tissue[here] & (classmap.labels[there] == 0)).any())


def _outward(
    grid: TileGrid, cells: NDArray[np.int32], focus: Callable[[], Region | None] | None
) -> Iterator[NDArray[np.int32]]:
    """Give tiles, those that the user looks at now before the others."""
    seen: Region | None = None
    while len(cells):
        region = None if focus is None else focus()
        if region is not None and region != seen:
            seen, cells = region, grid.order(cells, region)
        yield cells[0]
        cells = cells[1:]


def _put(
    frame: Frame,
    cell: NDArray[np.int32],
    tokens: NDArray[np.float32],
    on_tissue: NDArray[np.bool_],
    classmap: ClassMap,
) -> TilesDone | None:
    """Write a tile's pixels on tissue into the map and return their box."""
    kept = TilesDone(*frame.grid.token_box(cell))
    box = frame.clip(kept)
    if box is None:
        return None
    shown = frame.on_map(box)
    part = TilesDone(
        box.row0 - kept.row0, box.col0 - kept.col0, box.row1 - kept.row0, box.col1 - kept.col0
    )
    here, there = _slices(box), _slices(shown)
    p = tokens[_slices(part)] * on_tissue[here][..., None]
    if classmap.probs is not None:
        classmap.probs[there] = p
    classmap.labels[there] = np.where(on_tissue[here], p.argmax(-1) + 1, 0)
    return shown


def _slices(box: TilesDone) -> tuple[slice, slice]:
    return slice(box.row0, box.row1), slice(box.col0, box.col1)


def _network() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise PathotuneError(
            f"{NAME} needs the library onnxruntime, which is not installed.",
            "Install it with: pip install onnxruntime",
        ) from error
    from pathotune.models.runtime import thread_limit

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_limit()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    path = resources() / "weights" / "shell" / "model_v1.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _sample(slide: Slide) -> NDArray[np.uint8]:
    """Return tissue pixels (n, 3) of the whole slide at a few um/px, wherever is looked."""
    side = max(slide.width, slide.height) * slide.need_mpp() / STAINS_MPP
    small = slide.thumbnail(int(np.clip(side, 256, 3000)))
    height, width = small.shape[:2]
    x = (np.arange(width) + 0.5) / width * slide.width
    y = (np.arange(height) + 0.5) / height * slide.height
    pixels = small[tissue_mask(slide).on_grid(x, y)]
    return pixels if len(pixels) > 100 else small.reshape(-1, 3)


def _tokens(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities (n, t, t, 3) of the kept map pixels from logits (n, 3, h, w)."""
    p = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    n, c, h, w = p.shape
    p = p.reshape(n, c, h // TOKEN, TOKEN, w // TOKEN, TOKEN).mean((3, 5))
    p = p[:, :, HALO:-HALO, HALO:-HALO]
    p = np.moveaxis(p, 1, -1) + 1e-6
    return np.asarray(p / p.sum(-1, keepdims=True), np.float32)
