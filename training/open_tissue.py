"""Open tissue images and the ways in which their colour is made to vary.

The shipped projection and bundle are learnt from a handful of openly licensed
tiles, so they would take the colour of those few scanners and stains for a fact
about tissue. Here the same tiles come in other colours: amounts of the two stains,
white balance and exposure vary as they do from laboratory to laboratory, and a
transfer to the stain of named other images is kept for judging only. Folder names
are those of the development data; every folder has a SOURCE.txt with its licence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

Recolour = Callable[[Any], Any]

# Ruifrok and Johnston 2001, Anal Quant Cytol Histol 23:291: haematoxylin, eosin, residual.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


def read(path: Path) -> NDArray[np.uint8]:
    """Return an image as (h, w, 3) uint8."""
    if path.suffix.lower() in {".tif", ".tiff", ".svs"}:
        return np.ascontiguousarray(tifffile.imread(path, key=0)[..., :3])
    return np.asarray(Image.open(path).convert("RGB"))


def crc_tiles(data: Path) -> tuple[NDArray[np.uint8], NDArray[np.intp], list[str]]:
    """Return the nine-class tiles (72, 224, 224, 3), their class, and the class names."""
    root = data / "tiles_crc_he_9class" / "CRC-VAL-HE-7K"
    names = sorted(p.name for p in root.iterdir() if p.is_dir())
    files = [(i, f) for i, n in enumerate(names) for f in sorted((root / n).glob("*.png"))]
    return np.stack([read(f) for _, f in files]), np.array([i for i, _ in files]), names


def other_crc_tiles(data: Path) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Return the tiles of another laboratory that share a class, mirrored to 224 px.

    Empty glass is left out: the nine classes hold none that is white.
    """
    same = {"01_TUMOR": "TUM", "02_STROMA": "STR", "04_LYMPHO": "LYM", "05_DEBRIS": "DEB"}
    same |= {"06_MUCOSA": "NORM", "07_ADIPOSE": "ADI"}
    names = crc_tiles(data)[2]
    tiles, classes = [], []
    for folder, name in same.items():
        for file in sorted((data / "tiles_kather2016_8class" / folder).glob("*.*")):
            tile = read(file)
            low, high = [(224 - s) // 2 for s in tile.shape[:2]], [225 - s for s in tile.shape[:2]]
            pad = [(a, b // 2) for a, b in zip(low, high, strict=True)]
            tiles.append(np.pad(tile, (*pad, (0, 0)), mode="reflect"))
            classes.append(names.index(name))
    return np.stack(tiles), np.array(classes)


def tissue_tiles(data: Path, side: int = 224) -> NDArray[np.uint8]:
    """Return unlabelled tiles (n, side, side, 3) of other organs that may be shipped from."""
    found: list[NDArray[np.uint8]] = []
    skin = read(data / "wsi_cmu1_small_region" / "CMU-1-Small-Region.svs")
    scans = [skin, read(data / "img_instanseg_he" / "HE_example.tif")]
    crop = read(data / "img_os1_he_crop" / "OS-1-detail.ome.tif")
    half = tuple(int(s * 0.2271 / 0.5) for s in crop.shape[1::-1])
    scans.append(np.asarray(Image.fromarray(crop).resize(half, Image.Resampling.BOX)))
    for scan in scans:
        rows, cols = scan.shape[0] // side, scan.shape[1] // side
        cut = scan[: rows * side, : cols * side].reshape(rows, side, cols, side, 3)
        found += [t for t in cut.swapaxes(1, 2).reshape(-1, side, side, 3) if _is_tissue(t)]
    return np.stack(found)


def _is_tissue(tile: NDArray[np.uint8]) -> bool:
    return float((tile.min(-1) < 215).mean()) > 0.3


def _density(tile: NDArray[np.uint8]) -> NDArray[np.float64]:
    return -np.log10(np.clip(tile.astype(np.float64), 1, 255) / 255)


def _light(density: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(255 * 10**-density, 0, 255).round().astype(np.uint8)


def stain_jitter(rng: np.random.Generator, scale: float = 0.2, shift: float = 0.04) -> Recolour:
    """Return a change of the amounts of haematoxylin, eosin and what is left.

    Tellez et al., Medical Image Analysis 2019;58:101544, section 3.2.
    """
    times, plus = rng.uniform(1 - scale, 1 + scale, 3), rng.uniform(-shift, shift, 3)

    def change(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return _light((_density(tile) @ np.linalg.inv(_STAINS) * times + plus) @ _STAINS)

    return change


def white_balance(rng: np.random.Generator, strength: float = 0.12) -> Recolour:
    """Return a gain for each channel: another lamp, another scanner."""
    gain = np.exp(rng.uniform(-strength, strength, 3))
    return lambda tile: np.clip(tile * gain, 0, 255).round().astype(np.uint8)


def exposure(rng: np.random.Generator) -> Recolour:
    """Return a gamma and a brightness."""
    gamma, gain = np.exp(rng.uniform(-0.3, 0.3)), rng.uniform(0.85, 1.1)
    return lambda tile: (np.clip((tile / 255.0) ** gamma * gain, 0, 1) * 255).astype(np.uint8)


def _stain_vectors(pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two stain vectors (2, 3) and their 99th percentiles (2,).

    Macenko et al., A method for normalizing histology slides, ISBI 2009, section 2.
    """
    density = _density(pixels.reshape(-1, 3))
    density = density[(density > 0.1).all(1)]
    _, v = np.linalg.eigh(np.cov(density.T))
    plane = v[:, [2, 1]] * np.where(v[:, [2, 1]].sum(0) < 0, -1, 1)
    plane[:, 0] *= np.sign(plane[0, 0])
    angle = np.arctan2(*(density @ plane).T[::-1])
    ends = [plane @ [np.cos(a), np.sin(a)] for a in np.percentile(angle, [1, 99])]
    stains = np.stack(sorted(ends, key=lambda s: -s[0]))
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    amounts = np.linalg.lstsq(stains.T, density.T, rcond=None)[0]
    return stains, np.percentile(amounts, 99, axis=1)


def stain_transfer(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> Recolour:
    """Return the change that brings the stain of `source` images to that of `target`."""
    (own, top), (other, other_top) = _stain_vectors(source), _stain_vectors(target)

    def change(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
        density = _density(tile.reshape(-1, 3))
        amounts = np.linalg.lstsq(own.T, density.T, rcond=None)[0].T
        left = density - amounts @ own
        return _light(amounts * (other_top / top) @ other + left).reshape(tile.shape)

    return change


def varied(tiles: NDArray[np.uint8], kind: Callable[[Any], Recolour], seed: int) -> NDArray[Any]:
    """Return each tile in a colour of its own."""
    rng = np.random.default_rng(seed)
    return np.stack([kind(rng)(tile) for tile in tiles])


def judged_colours(data: Path) -> dict[str, Recolour]:
    """Return the stains that no projection was learnt with, by name."""
    tiles, classes, names = crc_tiles(data)
    dense = tiles[~np.isin(classes, [names.index("ADI"), names.index("BACK")])]
    other, other_classes = other_crc_tiles(data)
    other = other[other_classes != names.index("ADI")]
    pair = [read(data / "img_stain_pair" / f"{n}.png") for n in ("source", "target")]
    targets = {"other laboratory": other, "violet": pair[0], "blue": pair[1]}
    return {name: stain_transfer(dense, target) for name, target in targets.items()}
