"""What the networks learn from: drawn masks, their painting by formula, and real fields.

Every batch is drawn from the seed, the stage and the number of the step, and from nothing
before it, so that a run which was stopped goes on with the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.nuclei.stains import density
from pathotune.nuclei.synth.masks import Sizes, pseudo_mask
from pathotune.nuclei.synth.renderer import render
from pathotune.nuclei.unpaired.dense import targets
from pathotune.nuclei.unpaired.palette import nuclear

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.nuclei.synth.masks import PseudoMask
    from pathotune.nuclei.unpaired.estimate import Estimate

SIZE_SPREAD = 0.2  # natural logarithm, of the estimated diameter from field to field
DENSITY_SPREAD = 0.5
MOST_COVERED = 0.5


@dataclass(frozen=True, eq=False)
class Batch:
    """A few fields; all arrays float32, images and masks -1 to 1.

    Attributes
    ----------
    masks : (n, 3, s, s)
    wanted : (n, 3, s, s)
        Of `dense.targets`.
    painted : (n, 3, s, s) or None
        By formula.
    instances : tuple of int32 (s, s)
    drawn : bool
        The masks are drawn ones; False: tissue that a person outlined, and `masks` is blank.
    """

    masks: NDArray[np.float32]
    wanted: NDArray[np.float32]
    painted: NDArray[np.float32] | None
    instances: tuple[NDArray[Any], ...]
    drawn: bool = True


def drawn(estimate: Estimate, size_px: int, rng: np.random.Generator) -> PseudoMask:
    """Draw a mask whose nuclei are about as large and as many as the slide's."""
    s = estimate.sizes
    diameter = s.diameter_um * float(np.exp(rng.normal(0, SIZE_SPREAD)))
    room = MOST_COVERED / (np.pi / 4 * (diameter / 1000) ** 2)
    dense = min(s.per_mm2 * float(np.exp(rng.normal(0, DENSITY_SPREAD))), room)
    lined = float(rng.uniform(0, min(1.0, 2 * s.lined)))
    sizes = Sizes(diameter, s.spread, s.elongation, dense, lined, s.wavy)
    return pseudo_mask(rng, size_px, estimate.mpp, sizes)


def recoloured(
    pixels: NDArray[Any], rng: np.random.Generator, strength: float = 1.0
) -> NDArray[np.uint8]:
    """Return pixels, uint8 (h, w, 3), as if stained stronger, weaker or with another dye."""
    od = density(pixels)
    gain = np.exp(rng.normal(0, 0.15 * strength) + rng.normal(0, 0.08 * strength, 3))
    od = od * gain + rng.normal(0, 0.02 * strength, 3)
    made: NDArray[np.uint8] = (255 * 10.0 ** -np.clip(od, 0, 3) + 0.5).astype(np.uint8)
    return made


def batch(
    estimate: Estimate,
    size_px: int,
    count: int,
    key: tuple[int, ...],
    painted: bool = True,
    recolour: float = 1.0,
) -> Batch:
    """Draw masks, and paint them by formula.

    Parameters
    ----------
    estimate : Estimate
    size_px, count : int
    key : tuple of int
        Seed, stage, step; the same key gives the same batch.
    painted : bool
    recolour : float
        How far the colours leave the slide's own.
    """
    rng = np.random.default_rng(key)
    masks, wanted, images, instances = [], [], [], []
    for _ in range(count):
        mask = drawn(estimate, size_px, rng)
        masks.append(mask.channels * 2 - 1)
        wanted.append(targets(mask.instances, mask.lined))
        instances.append(mask.instances)
        if painted:
            image = render(mask, estimate.stains, rng, estimate.look)
            images.append(scaled(recoloured(image, rng, recolour) if recolour else image))
    return Batch(
        np.stack(masks).astype(np.float32),
        np.stack(wanted),
        np.stack(images) if painted else None,
        tuple(instances),
    )


def real(estimate: Estimate, size_px: int, count: int, key: tuple[int, ...]) -> NDArray[np.float32]:
    """Cut real fields, float32 (n, 3, s, s) in -1..1, turned and mirrored at random."""
    rng = np.random.default_rng(key)
    found = []
    for _ in range(count):
        field = estimate.fields[int(rng.integers(len(estimate.fields)))]
        y = int(rng.integers(field.shape[0] - size_px + 1))
        x = int(rng.integers(field.shape[1] - size_px + 1))
        part = np.rot90(field[y : y + size_px, x : x + size_px], int(rng.integers(4)))
        found.append(scaled(part[:, ::-1] if rng.random() < 0.5 else part))
    return np.stack(found)


def telling(
    estimate: Estimate, size_px: int, count: int, key: tuple[int, ...]
) -> NDArray[np.float32]:
    """Cut real fields as `real` does, those with nuclei but few dark as pigment."""
    found = real(estimate, size_px, 6 * count, key)
    dark = [float(nuclear(unscaled(f), estimate.stains).mean()) for f in found]
    kept: NDArray[np.float32] = found[np.argsort(dark, kind="stable")[3 * count : 4 * count]]
    return kept


def annotated(
    tiles: list[tuple[NDArray[Any], NDArray[Any]]],
    size_px: int,
    count: int,
    key: tuple[int, ...],
) -> Batch:
    """Cut fields out of tissue, uint8 (h, w, 3), whose nuclei, int (h, w), a person outlined."""
    rng = np.random.default_rng(key)
    wanted, images, instances = [], [], []
    for _ in range(count):
        pixels, labels = tiles[int(rng.integers(len(tiles)))]
        short = [max(0, size_px - n) for n in labels.shape]
        if any(short):
            pad = [(0, n) for n in short]
            pixels = np.pad(pixels, [*pad, (0, 0)], mode="reflect")
            labels = np.pad(labels, pad, mode="reflect")
        y = int(rng.integers(labels.shape[0] - size_px + 1))
        x = int(rng.integers(labels.shape[1] - size_px + 1))
        turn, mirror = int(rng.integers(4)), rng.random() < 0.5
        box = slice(y, y + size_px), slice(x, x + size_px)
        image, nuclei = (np.rot90(a[box], turn) for a in (pixels, labels))
        if mirror:
            image, nuclei = image[:, ::-1], nuclei[:, ::-1]
        images.append(scaled(recoloured(np.ascontiguousarray(image), rng)))
        wanted.append(targets(np.ascontiguousarray(nuclei)))
        instances.append(np.ascontiguousarray(nuclei))
    blank = np.zeros((count, 3, size_px, size_px), np.float32)
    return Batch(blank, np.stack(wanted), np.stack(images), tuple(instances), False)


def scaled(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return pixels, uint8 (h, w, 3), as the networks want them: (3, h, w) in -1..1."""
    return np.ascontiguousarray(((pixels.astype(np.float32) - 127.5) / 127.5).transpose(2, 0, 1))


def unscaled(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a network's image (3, h, w) in -1..1 as uint8 (h, w, 3)."""
    values = np.clip(np.asarray(image).transpose(1, 2, 0) * 127.5 + 128, 0, 255)
    pixels: NDArray[np.uint8] = values.astype(np.uint8)
    return pixels
