"""What the network for nuclei is trained on: outlined, rendered and merely looked-at tissue.

Outlined: tiles of the 2018 Data Science Bowl (CC0), which have no um/px and are
scaled so that their median nucleus is 7.5 um wide. Rendered: made-up nuclei in
the stains, and partly on the nucleus-free tissue, of real slides. Looked-at:
openly licensed tissue without outlines, where the watershed is trusted only with
dark nuclei that stand alone and with pixels that are plainly not nucleus; all
else has weight 0. Folder names are those of the development data; every folder
has a SOURCE.txt with its licence.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.measure import regionprops

from pathotune.nuclei.net.outlines import outlines
from pathotune.nuclei.net.targets import depth
from pathotune.nuclei.segmenters.watershed import Config, Watershed, threshold
from pathotune.nuclei.stains import Stains, estimate
from pathotune.nuclei.synth.masks import Sizes, pseudo_mask
from pathotune.nuclei.synth.renderer import render

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

DIAMETER_UM = 7.5
WORK_MPP = 0.4  # a little finer than the network's, so that zooming in keeps some detail
APPEARANCES = ("violet", "white", "pink")

# folder, pattern, um/px (None: looked at and guessed in `GUESSED`)
OPEN_TISSUE = (
    ("tiles_crc_he_9class/CRC-VAL-HE-7K", "*/*.png", 0.5),
    ("tiles_kather2016_8class", "*/*.png", 0.495),
    ("tiles_kather2016_8class", "*/*.tif", 0.495),
    ("wsi_cmu1_small_region", "*.svs", 0.499),
    ("img_os1_he_crop", "*.tif", 0.2271),
    ("img_instanseg_he", "*.tif", 0.5),
    ("img_stardist_histo", "*.jpg", 0.4),
    ("img_histolab_artifacts", "*level0.png", 0.5),
    ("img_stain_pair", "*.png", 0.4),
)
# Places in CMU-1, level-0 (x, y), marked by hand: keratin and ink, which are dark and no nuclei.
NO_NUCLEI = (
    "1460,1004 1615,937 1615,1071 1599,1272 1800,1339 1800,1440 1674,1500 1272,1500 1297,1339",
    "1624,937 2009,1038 2009,1406 1816,1272 1649,1088",
    "1247,1467 1607,1467 1515,1584 1440,1718 1348,1844 1281,1793 1222,1718 1205,1626 1235,1551",
    "1322,1969 1356,2003 1339,2070 1289,2153 1222,2162 1202,2111 1230,2045",
    "1691,1785 1774,1785 1875,1835 1892,1952 1858,2271 1825,2304 1816,1969 1682,1969",
)
SKIN_ROWS = 2800  # CMU-1 is the only picture as tall
HINTED = 2.0  # weight of what a person marked
NO_TISSUE = ("img_histolab_artifacts", "no-tissue*.png")


@dataclass
class Item:
    """A field to cut training crops from, at `WORK_MPP`.

    Attributes
    ----------
    pixels : uint8 (h, w, 3)
    labels : int32 (h, w)
    middle : float32 (h, w)
        How deep inside a nucleus.
    weight : float32 (h, w)
        0 where nothing is known.
    kind : str
        An appearance, "rendered" or "tissue".
    """

    pixels: NDArray[Any]
    labels: NDArray[Any]
    middle: NDArray[Any]
    weight: NDArray[Any]
    kind: str


def read(path: Path) -> NDArray[np.uint8]:
    """Return an image as (h, w, 3) uint8."""
    if path.suffix.lower() in {".tif", ".tiff", ".svs"}:
        pixels = tifffile.imread(path, key=0)
        if pixels.shape[0] in (3, 4) and pixels.ndim == 3:
            pixels = np.moveaxis(pixels, 0, -1)
        return np.ascontiguousarray(pixels[..., :3])
    return np.asarray(Image.open(path).convert("RGB"))


def resized(pixels: NDArray[Any], factor: float) -> NDArray[np.uint8]:
    """Return a picture `factor` times as large, averaged by area where smaller."""
    size = tuple(max(1, round(s * factor)) for s in pixels.shape[1::-1])
    how = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    if 0.5 < factor < 1:
        how = Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(pixels).resize(size, how))


def resized_labels(labels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return labels of another size."""
    y = ((np.arange(shape[0]) + 0.5) * labels.shape[0] / shape[0]).astype(int)
    x = ((np.arange(shape[1]) + 0.5) * labels.shape[1] / shape[1]).astype(int)
    return labels[y][:, x].astype(np.int32)


def appearance(pixels: NDArray[Any]) -> str:
    """Return which of the three appearances an outlined tile has, by its background's colour.

    Parameters
    ----------
    pixels : uint8 (h, w, 3)
    """
    flat = pixels.reshape(-1, 3).astype(float)
    bright = flat.sum(axis=1)
    red, green, blue = flat[bright >= np.quantile(bright, 0.6)].mean(axis=0)
    if red > blue - 5 and green < red - 25:
        return "pink"
    return "violet" if blue - green > 18 else "white"


@dataclass
class Outlined:
    """One tile of the Data Science Bowl at its own size."""

    name: str
    pixels: NDArray[Any]
    labels: NDArray[Any]
    mpp: float
    appearance: str


def outlined(data: Path) -> list[Outlined]:
    """Return all outlined tiles, sorted by name."""
    folder = data / "nuclei_dsb2018_he" / "train"
    tiles = []
    for path in sorted((folder / "images").glob("*.png")):
        pixels = read(path)
        labels = tifffile.imread(next((folder / "masks").glob(f"{path.stem}*"))).astype(np.int32)
        areas = np.bincount(labels.ravel())[1:]
        wide = 2 * np.sqrt(np.median(areas[areas > 0]) / np.pi)
        mpp = DIAMETER_UM / float(wide)
        tiles.append(Outlined(path.stem, pixels, labels, mpp, appearance(pixels)))
    return tiles


def from_outlined(tiles: list[Outlined]) -> list[Item]:
    """Return training fields of outlined tiles."""
    items = []
    for t in tiles:
        pixels = resized(t.pixels, t.mpp / WORK_MPP)
        labels = resized_labels(t.labels, pixels.shape[:2])
        known = np.ones(labels.shape, np.float32)
        items.append(Item(pixels, labels, depth(labels), known, t.appearance))
    return items


def open_tissue(data: Path) -> list[list[NDArray[Any]]]:
    """Return pictures at 0.5 um/px without outlines, one list a source (they share stains)."""
    found = []
    for folder, pattern, mpp in OPEN_TISSUE:
        pictures = [
            resized(read(p), mpp / 0.5)
            for p in sorted((data / folder).glob(pattern))
            if "SOURCE" not in p.name
        ]
        if folder.startswith("img_histolab") or folder.startswith("img_stain"):
            found += [[p] for p in pictures]
        elif pictures:
            found.append(pictures)
    return found


def trusted(
    pixels: NDArray[Any], finder: Watershed
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return labels of nuclei that stand alone, and where they or their absence are certain."""
    labels = finder.segment(pixels).labels
    dye, pink = finder.stains.split(pixels)
    soft = ndimage.gaussian_filter(dye, 1.0)
    kept = np.zeros(labels.shape, np.int32)
    number = 0
    touch = ndimage.grey_dilation(labels, size=(5, 5))
    least = ndimage.grey_erosion(np.where(labels > 0, labels, np.iinfo(np.int32).max), size=(5, 5))
    for p in regionprops(labels, intensity_image=dye):
        box = p.slice
        mine = labels[box] == p.label
        alone = (touch[box][mine] == p.label).all() and (least[box][mine] == p.label).all()
        um2 = p.area * 0.25
        if alone and 14 < um2 < 140 and p.solidity > 0.88 and p.intensity_mean > 1.2 * finder.limit:
            number += 1
            kept[box][mine] = number
    ring = ndimage.binary_dilation(kept > 0, iterations=2)
    far = ndimage.distance_transform_edt(labels == 0) > 3
    eosin = ndimage.gaussian_filter(pink, 1.0)
    bare = far & ((soft < 0.6 * finder.limit) | ((soft < finder.limit) & (eosin > 1.5 * soft)))
    near_kept = ring & ((labels == 0) | (kept > 0))
    return kept, (bare | near_kept).astype(np.float32)


def by_hand(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return where a person saw no nuclei in CMU-1, at 0.5 um/px."""
    marked = Image.new("1", (shape[1], shape[0]))
    for corners in NO_NUCLEI:
        points = [tuple(float(v) * 0.499 / 0.5 for v in c.split(",")) for c in corners.split()]
        ImageDraw.Draw(marked).polygon(points, fill=1)
    return np.asarray(marked, bool)


def taught(items: list[Item], maps_of: Callable[[NDArray[Any]], NDArray[Any]]) -> list[Item]:
    """Return looked-at fields with what a trained network is sure of, both ways up.

    Parameters
    ----------
    items : list of Item
        As `from_tissue` makes them; what a person marked stays.
    maps_of : callable
        A runner's `maps`.
    """
    new = []
    for item in items:
        small = resized(item.pixels, WORK_MPP / 0.5)
        maps = (maps_of(small) + maps_of(small[::-1])[:, ::-1]) / 2
        found = outlines(maps, 0.5)
        inside = maps[0]
        sure = np.concatenate([[False], found.confidence > 0.8])[found.labels]
        known = sure | ((inside < 0.15) & (found.labels == 0))
        labels = resized_labels(np.where(sure, found.labels, 0), item.labels.shape)
        weight = resized_labels(known, item.labels.shape).astype(np.float32)
        marked = item.weight == HINTED
        labels[marked], weight[marked] = 0, HINTED
        new.append(Item(item.pixels, labels, depth(labels), weight, item.kind))
    return new


def from_tissue(
    sources: list[list[NDArray[Any]]], marked_too: bool = False
) -> tuple[list[Item], list[Stains], list[NDArray[Any]]]:
    """Return looked-at fields, the sources' stains, and patches (96, 96, 3) without nuclei."""
    items, stains, bare = [], [], []
    for pictures in sources:
        own = estimate(pictures)
        if own.estimated:
            stains.append(own)
        finder = Watershed(own, threshold(pictures, own), Config(), ())
        for pixels in pictures:
            _, green, blue = pixels.reshape(-1, 3).mean(axis=0)
            if blue > 215 and green < 150:  # the few tiles whose colours were spoilt upstream
                continue
            labels, weight = trusted(pixels, finder)
            if marked_too and pixels.shape[0] > SKIN_ROWS:
                marked = by_hand(pixels.shape[:2])
                labels[marked], weight[marked] = 0, HINTED
            if (weight[labels == 0] > 0).mean() > 0.1:
                big = resized(pixels, 0.5 / WORK_MPP)
                at = resized_labels(labels, big.shape[:2])
                known = resized_labels(weight, big.shape[:2]).astype(np.float32)
                items += pieces(Item(big, at, depth(at), known, "tissue"))
            glass = pixels.min(axis=-1) > 215
            for r in range(0, pixels.shape[0] - 63, 48):
                for c in range(0, pixels.shape[1] - 63, 48):
                    box = slice(r, r + 64), slice(c, c + 64)
                    free = (weight[box] > 0) & (labels[box] == 0)
                    if free.mean() > 0.97 and glass[box].mean() < 0.7:
                        bare.append(pixels[box])
    return items, stains, bare


def pieces(item: Item, side: int = 320) -> list[Item]:
    """Return an item cut into pieces of about `side` pixels, without those that know nothing."""
    h, w = item.labels.shape
    rows = np.linspace(0, h, max(1, round(h / side)) + 1).astype(int)
    columns = np.linspace(0, w, max(1, round(w / side)) + 1).astype(int)
    cut = []
    for r0, r1 in pairwise(rows):
        for c0, c1 in pairwise(columns):
            box = slice(r0, r1), slice(c0, c1)
            parts = (item.pixels, item.labels, item.middle, item.weight)
            one = Item(*(np.ascontiguousarray(p[box]) for p in parts), item.kind)
            if one.weight.mean() > 0.05 and (one.labels.any() or len(cut) % 4 == 0):
                cut.append(one)
    return cut


def empty_fields(data: Path) -> list[Item]:
    """Return glass and pen marks: certainly without nuclei."""
    folder, pattern = NO_TISSUE
    items = []
    for path in sorted((data / folder).glob(pattern)):
        pixels = read(path)
        none = np.zeros(pixels.shape[:2], np.int32)
        shape = none.shape
        items.append(
            Item(pixels, none, np.zeros(shape, np.float32), np.ones(shape, np.float32), "tissue")
        )
    return items


def rendered(
    rng: np.random.Generator, count: int, stains: list[Stains], bare: list[NDArray[Any]]
) -> list[Item]:
    """Return rendered fields of 160 px at `WORK_MPP`, half of them on real nucleus-free tissue."""
    items = []
    for k in range(count):
        wide = rng.uniform(5.5, 10)
        share = rng.uniform(0.02, 0.45)
        sizes = Sizes(
            wide,
            rng.uniform(0.15, 0.5),
            rng.uniform(1.1, 2.4),
            share / (np.pi / 4 * wide**2) * 1e6,
            rng.uniform(0, 0.7),
            rng.uniform(0.01, 0.06),
        )
        mask = pseudo_mask(rng, 160, WORK_MPP, sizes)
        own = stains[rng.integers(len(stains))] if stains and rng.random() < 0.8 else Stains()
        back = None
        if bare and k % 2:
            patch = np.rot90(bare[rng.integers(len(bare))], rng.integers(4))
            back = np.pad(patch, ((48, 48), (48, 48), (0, 0)), mode="symmetric")
        pixels = render(mask, own, rng, background=back)
        known = np.ones(mask.instances.shape, np.float32)
        items.append(Item(pixels, mask.instances, depth(mask.instances), known, "rendered"))
    return items
