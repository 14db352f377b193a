"""Paints tissue over made-up nuclei with the two dyes of a slide, without any training.

Light that passes dyes is absorbed by the sum of their optical densities (Ruifrok
& Johnston 2001), so a picture is haematoxylin and eosin laid over one another:
nuclei with chromatin and rims, cytoplasm around them, fibres and gaps between,
or real tissue without nuclei underneath. What is not a nucleus but dark (red
cells, nuclei far out of focus, dark cytoplasm) is painted too and is not in the
mask: that is what a network has to learn to leave alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from pathotune.nuclei.stains import density
from pathotune.nuclei.synth.masks import noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.nuclei.stains import Stains
    from pathotune.nuclei.synth.masks import PseudoMask


@dataclass(frozen=True)
class Look:
    """How tissue is painted; densities are optical, base 10, ranges are (least, most).

    Attributes
    ----------
    nucleus : haematoxylin of a nucleus; every one draws its own around the field's.
    chromatin : how uneven it is inside.
    pale : share of nuclei that are empty inside with a dark rim.
    eosin : of stroma and cytoplasm.
    cytoplasm : haematoxylin of the cytoplasm (dark cytoplasm is the usual mistake).
    gaps : share of the field without tissue.
    red_cells, ghosts : number per mm2 of red cells and of nuclei out of focus.
    blur_um : sigma of the optics.
    grain : sigma of the camera's noise, grey levels.
    """

    nucleus: tuple[float, float] = (0.35, 1.0)
    chromatin: tuple[float, float] = (0.05, 0.3)
    pale: tuple[float, float] = (0.0, 0.5)
    eosin: tuple[float, float] = (0.02, 0.45)
    cytoplasm: tuple[float, float] = (0.0, 0.18)
    gaps: tuple[float, float] = (0.0, 0.4)
    red_cells: tuple[float, float] = (0.0, 600.0)
    ghosts: tuple[float, float] = (0.0, 250.0)
    blur_um: tuple[float, float] = (0.2, 0.6)
    grain: tuple[float, float] = (1.0, 5.0)


def render(
    mask: PseudoMask,
    stains: Stains,
    rng: np.random.Generator,
    look: Look | None = None,
    background: NDArray[Any] | None = None,
) -> NDArray[np.uint8]:
    """Paint a field.

    Parameters
    ----------
    mask : PseudoMask
    stains : Stains
        Of the slide it is to look like.
    rng : numpy.random.Generator
        Draws everything that `look` leaves open.
    look : Look, optional
    background : uint8 (h, w, 3), optional
        Real tissue without nuclei; else tissue is painted.

    Returns
    -------
    uint8 (h, w, 3)

    Raises
    ------
    ValueError
        The background has another size.
    """
    look = look or Look()
    h_vector, e_vector = (np.array(v, np.float32) for v in (stains.haematoxylin, stains.eosin))
    shape: tuple[int, int] = mask.instances.shape
    level = rng.uniform(*look.nucleus)
    dark, cover = _nuclei(mask, rng, look, level)
    if background is None:
        h, e = _tissue(mask, rng, look, level)
        under = h[..., None] * h_vector + e[..., None] * e_vector
    elif background.shape[:2] != shape:
        raise ValueError(f"the background is {background.shape[:2]}, the mask {shape}")
    else:
        under = density(background)
    keep = 1 - rng.uniform(0.5, 0.9) * cover  # a nucleus takes the place of what would be there
    light = under * keep[..., None] + dark[..., None] * h_vector
    blur = rng.uniform(*look.blur_um) / mask.mpp
    light = ndimage.gaussian_filter(light, (blur, blur, 0), truncate=3)
    bright = 255 * 10.0**-light
    bright += rng.normal(0, rng.uniform(*look.grain), bright.shape)
    picture: NDArray[np.uint8] = np.clip(bright.round(), 0, 255).astype(np.uint8)
    return picture


def _nuclei(
    mask: PseudoMask, rng: np.random.Generator, look: Look, level: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return haematoxylin of the nuclei and how much of a pixel they cover."""
    ids, n, mpp = mask.instances, int(mask.instances.max(initial=0)), mask.mpp
    own = np.concatenate([[0], level * np.exp(rng.normal(0, 0.22, n))]).astype(np.float32)
    depth = ndimage.distance_transform_edt(
        (ids > 0) & (ndimage.minimum_filter(ids, 3) == ids)  # neighbours that touch have a rim each
    )
    rim = np.exp(-depth * mpp / 0.7).astype(np.float32)
    empty = np.concatenate([[0], rng.random(n) < rng.uniform(*look.pale)]).astype(np.float32)
    hollow = rng.uniform(0.4, 0.75)
    body = own[ids] * (1 - empty[ids] * hollow * (1 - rim))
    grains = noise(rng, ids.shape, rng.uniform(0.35, 0.9) / mpp)
    body *= np.clip(1 + rng.uniform(*look.chromatin) * grains, 0.3, 2)
    spots = noise(rng, ids.shape, 0.8 / mpp) > 2.3  # nucleoli
    body += 0.4 * level * empty[ids] * spots
    cover = (ids > 0).astype(np.float32)
    return np.clip(body, 0.12, 1.6) * cover, cover


def _tissue(
    mask: PseudoMask, rng: np.random.Generator, look: Look, level: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return haematoxylin and eosin of everything that is not a nucleus."""
    ids, mpp = mask.instances, mask.mpp
    shape: tuple[int, int] = ids.shape
    pink = rng.uniform(*look.eosin)
    coarse = noise(rng, shape, 10 / mpp)
    e = pink * (1 + 0.25 * coarse + 0.2 * noise(rng, shape, 0.8 / mpp))
    e += rng.uniform(0, 0.35) * pink * _fibres(rng, shape, mpp)
    h = np.full(shape, 0.25 * rng.uniform(*look.cytoplasm), np.float32)
    # cytoplasm reaches some um around nuclei, with an edge of its own
    far, where = ndimage.distance_transform_edt(ids == 0, return_indices=True)
    width = rng.uniform(1.5, 7) * (1 + 0.3 * coarse)
    near = 1 / (1 + np.exp(np.clip((far * mpp - width) / 0.6, -30, 30)))
    number = ids[where[0], where[1]]
    n = int(ids.max(initial=0))
    own = np.exp(rng.normal(0, 0.3, n + 1))[number]
    h += near * min(rng.uniform(*look.cytoplasm), 0.35 * level) * own
    e = e * (1 - near) + near * rng.uniform(*look.eosin) * own * (1 + 0.15 * coarse)
    share = rng.uniform(*look.gaps)
    empty = coarse > np.quantile(coarse, 1 - share) if share > 0.02 else np.zeros(shape, bool)
    open_ = ndimage.gaussian_filter((empty & (near < 0.4)).astype(np.float32), 0.6 / mpp)
    h, e = h * (1 - open_), e * (1 - open_)
    _red_cells(e, rng, look, mask)
    h += _ghosts(rng, look, mask, level)
    return np.clip(h, 0, 0.6 * level), np.clip(e, 0, 1.2)


def _fibres(rng: np.random.Generator, shape: tuple[int, int], mpp: float) -> NDArray[Any]:
    """Return noise drawn out along one direction, which bends."""
    raw = rng.standard_normal(shape, dtype=np.float32)
    long = ndimage.gaussian_filter(raw, (0.5 / mpp, 8 / mpp), truncate=2)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    turn, bend = rng.uniform(0, np.pi), noise(rng, shape, 15 / mpp) * 4 / mpp
    u = x * np.cos(turn) + y * np.sin(turn)
    v = -x * np.sin(turn) + y * np.cos(turn) + bend
    drawn = ndimage.map_coordinates(long, [v, u], order=1, mode="wrap")
    values: NDArray[Any] = drawn / max(float(drawn.std()), 1e-6)
    return values


def _red_cells(e: NDArray[Any], rng: np.random.Generator, look: Look, mask: PseudoMask) -> None:
    """Draw red cells: strong eosin, no haematoxylin, never on a nucleus."""
    h, w = e.shape
    for _ in range(rng.poisson(rng.uniform(*look.red_cells) * h * w * mask.mpp**2 / 1e6)):
        disc, box = _disc(rng, (h, w), rng.uniform(2.5, 4) / mask.mpp)
        part = e[box]
        part[...] = np.where(disc > 0, np.maximum(part, disc * rng.uniform(0.3, 0.9)), part)


def _ghosts(rng: np.random.Generator, look: Look, mask: PseudoMask, level: float) -> NDArray[Any]:
    """Return haematoxylin of nuclei so far out of focus that nobody would outline them."""
    h, w = mask.instances.shape
    out = np.zeros((h, w), np.float32)
    for _ in range(rng.poisson(rng.uniform(*look.ghosts) * h * w * mask.mpp**2 / 1e6)):
        disc, box = _disc(rng, (h, w), rng.uniform(3, 5) / mask.mpp)
        out[box] = np.maximum(out[box], disc * level * rng.uniform(0.2, 0.45))
    return ndimage.gaussian_filter(out, rng.uniform(1.2, 2) / mask.mpp) if out.any() else out


def _disc(
    rng: np.random.Generator, shape: tuple[int, int], radius: float
) -> tuple[NDArray[Any], tuple[slice, slice]]:
    """Return a squashed disc (1 inside) somewhere in the field and the box it lies in."""
    at = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
    reach = int(radius) + 2
    r = slice(max(0, int(at[0]) - reach), min(shape[0], int(at[0]) + reach + 1))
    c = slice(max(0, int(at[1]) - reach), min(shape[1], int(at[1]) + reach + 1))
    y, x = np.mgrid[r, c]
    squash = rng.uniform(0.7, 1)
    inside = ((y - at[0]) / squash) ** 2 + (x - at[1]) ** 2 < radius**2
    return inside.astype(np.float32), (r, c)
