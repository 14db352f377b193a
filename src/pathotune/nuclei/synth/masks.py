"""Nuclei laid out at random: where they lie and which shape they have, before any colour.

Some are scattered and some line curves as the nuclei of glands do, because both
pictures occur in tissue and a translator must know which it is to paint. The
three channels (outlines, scattered, lined, with texture inside) follow the
figure of UNITPathSSL; its generator was not published, so how nuclei are placed
here is our own: ellipses with a wavy edge, set down where little is covered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from numpy.typing import NDArray

OVERLAP = 0.08  # of a nucleus' own area that may be covered by, or cover, another
FULL = 0.55  # share of the field above which nuclei cannot be placed any more
WAVES = np.arange(2, 6)
TRIES = 60  # places tried for one nucleus


@dataclass(frozen=True)
class Sizes:
    """What the nuclei of a field are like.

    Attributes
    ----------
    diameter_um : float
        Of a disc with the mean area.
    spread : float
        Standard deviation of the logarithm of the area.
    elongation : float
        Mean ratio of the long to the short axis.
    per_mm2 : float
        How many there are.
    lined : float
        Share that lines curves, 0 to 1.
    wavy : float
        How far the edge leaves an ellipse, as a share of the radius.
    """

    diameter_um: float = 7.5
    spread: float = 0.35
    elongation: float = 1.4
    per_mm2: float = 3000.0
    lined: float = 0.3
    wavy: float = 0.05


@dataclass(frozen=True)
class PseudoMask:
    """A field of made-up nuclei.

    Attributes
    ----------
    instances : int32 (h, w)
        0 is background; nuclei are 1, 2, ... without gaps, each in one piece.
    channels : float32 (3, h, w)
        Outlines one pixel wide; texture inside scattered nuclei; the same inside
        lined ones. 0 to 1, and 0 wherever there is no nucleus.
    lined : bool (n,)
        Which nuclei line a curve.
    mpp : float
    """

    instances: NDArray[Any]
    channels: NDArray[Any]
    lined: NDArray[Any]
    mpp: float


def pseudo_mask(
    rng: np.random.Generator,
    size_px: int | tuple[int, int],
    mpp: float,
    sizes: Sizes | None = None,
) -> PseudoMask:
    """Lay nuclei out in a field.

    Parameters
    ----------
    rng : numpy.random.Generator
        The same state gives the same field.
    size_px : int or (h, w)
    mpp : float
        um/px.
    sizes : Sizes, optional

    Raises
    ------
    PathotuneError
        So many nuclei of that size do not fit beside one another.
    """
    sizes = sizes or Sizes()
    h, w = (size_px, size_px) if isinstance(size_px, int) else size_px
    area_px = np.pi / 4 * (sizes.diameter_um / mpp) ** 2
    share = sizes.per_mm2 * mpp**2 / 1e6 * area_px
    if share > FULL:
        raise PathotuneError(
            f"{sizes.per_mm2:.0f} nuclei of {sizes.diameter_um:g} um would fill {share:.0%} "
            "of each mm2, which cannot be laid out.",
            "Give a smaller size or a lower density.",
        )
    pad = int(np.ceil(1.5 * sizes.diameter_um / mpp))
    canvas = np.zeros((h + 2 * pad, w + 2 * pad), np.int32)
    wanted = round(sizes.per_mm2 * canvas.size * mpp**2 / 1e6)
    areas = np.exp(rng.normal(0, sizes.spread, wanted))
    areas *= area_px / max(areas.mean(), 1e-9) if wanted else 1
    areas = np.sort(areas)[::-1]  # large ones first: the small ones find gaps
    in_line = rng.random(wanted) < sizes.lined
    spots = iter(_along_curves(rng, canvas.shape, int(in_line.sum()), sizes.diameter_um / mpp))
    lined = np.zeros(wanted + 1, bool)
    for number, area in enumerate(areas, 1):
        for attempt in range(TRIES):
            spot = next(spots, None) if in_line[number - 1] and attempt < TRIES // 4 else None
            if spot is None:
                y, x = rng.uniform(0, canvas.shape[0]), rng.uniform(0, canvas.shape[1])
                angle = rng.uniform(0, np.pi)
            else:
                y, x, angle = spot
            ratio = 1 + max(0.0, rng.normal(sizes.elongation - 1, (sizes.elongation - 1) / 3))
            if _put(canvas, number, (y, x), area, ratio, angle, _edge(rng, sizes.wavy)):
                lined[number] = spot is not None
                break
    return _finished(rng, canvas[pad : pad + h, pad : pad + w], lined, mpp)


def measured(instances: NDArray[Any], mpp: float) -> Sizes:
    """Return what the nuclei of a label image are like (lined is not told: 0).

    Parameters
    ----------
    instances : int (h, w)
    mpp : float
        um/px.
    """
    from skimage.measure import regionprops

    h, w = instances.shape
    whole, inside = [], 0
    for p in regionprops(instances):
        y0, x0, y1, x1 = p.bbox
        inside += 1
        if y0 > 0 and x0 > 0 and y1 < h and x1 < w and p.area >= 5:
            whole.append((p.area, p.axis_major_length / max(p.axis_minor_length, 1.0)))
    if not whole:
        return Sizes(per_mm2=0.0, lined=0.0)
    areas, ratios = np.array(whole).T
    diameter = float(np.sqrt(areas.mean() * 4 / np.pi) * mpp)
    # a field shows every nucleus that reaches into it: it is wider by half a nucleus each side
    reach = diameter / mpp
    per_mm2 = inside / ((h + 0.8 * reach) * (w + 0.8 * reach) * mpp**2) * 1e6
    return Sizes(diameter, float(np.log(areas).std()), float(np.mean(ratios)), float(per_mm2), 0.0)


def noise(rng: np.random.Generator, shape: tuple[int, int], fine: float) -> NDArray[np.float32]:
    """Return noise without detail finer or much coarser than `fine` pixels, mean 0, spread 1."""
    raw = rng.standard_normal(shape, dtype=np.float32)
    band = ndimage.gaussian_filter(raw, fine, truncate=3) - ndimage.gaussian_filter(
        raw, 2.5 * fine, truncate=2
    )
    values: NDArray[np.float32] = (band / max(float(band.std()), 1e-6)).astype(np.float32)
    return values


def _edge(rng: np.random.Generator, wavy: float) -> tuple[NDArray[Any], NDArray[Any]]:
    return rng.normal(0, wavy, len(WAVES)), rng.uniform(0, 2 * np.pi, len(WAVES))


def _put(
    canvas: NDArray[Any],
    number: int,
    at: tuple[float, float],
    area: float,
    ratio: float,
    angle: float,
    edge: tuple[NDArray[Any], NDArray[Any]],
) -> bool:
    """Draw one nucleus unless it would cover too much; tell whether it was drawn."""
    short = np.sqrt(area / np.pi / ratio)
    long = short * ratio
    reach = int(np.ceil(1.35 * long)) + 1
    r0, c0 = max(0, int(at[0]) - reach), max(0, int(at[1]) - reach)
    part = canvas[r0 : int(at[0]) + reach + 1, c0 : int(at[1]) + reach + 1]
    y = np.arange(part.shape[0])[:, None] + r0 - at[0]
    x = np.arange(part.shape[1])[None] + c0 - at[1]
    u = (x * np.cos(angle) + y * np.sin(angle)) / long
    v = (-x * np.sin(angle) + y * np.cos(angle)) / short
    turn = np.arctan2(v, u)
    size, phase = edge
    rim = 1 + sum(a * np.cos(k * turn + p) for a, k, p in zip(size, WAVES, phase, strict=True))
    rim = rim / np.sqrt(1 + (size**2).sum() / 2)  # the waves do not change the area
    shape = u**2 + v**2 < rim**2
    own = int(shape.sum())
    if own < 4:
        return False
    under = part[shape]
    if np.count_nonzero(under) > OVERLAP / 2 * own:  # the other half is for who comes later
        return False
    part[shape & (part == 0)] = number
    return True


def _along_curves(
    rng: np.random.Generator, shape: tuple[int, ...], count: int, wide: float
) -> list[tuple[float, float, float]]:
    """Return (row, column, angle) along rings and bows; nuclei stand across the curve."""
    spots: list[tuple[float, float, float]] = []
    tries = 0
    while len(spots) < 2 * count and tries < 40:
        tries += 1
        radius = rng.uniform(2.5, 8) * wide
        squash, turn = rng.uniform(0.5, 1), rng.uniform(0, np.pi)
        middle = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        arc = 2 * np.pi * (1 if rng.random() < 0.6 else rng.uniform(0.2, 0.6))
        t = np.linspace(0, arc, max(3, int(arc * radius * (1 + squash) / 2 / (1.02 * wide))))
        t = t[:-1] + rng.uniform(0, 2 * np.pi)
        y, x = radius * squash * np.sin(t), radius * np.cos(t)
        across = np.arctan2(np.sin(t), np.cos(t) * squash)
        row = middle[0] + x * np.sin(turn) + y * np.cos(turn) + rng.normal(0, 0.08 * wide, len(t))
        column = middle[1] + x * np.cos(turn) - y * np.sin(turn)
        inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
        angles = across + turn + rng.normal(0, 0.15, len(t))
        spots += [
            (float(row[k]), float(column[k]), float(angles[k])) for k in np.flatnonzero(inside)
        ]
    return spots


def _finished(
    rng: np.random.Generator, drawn: NDArray[Any], lined: NDArray[Any], mpp: float
) -> PseudoMask:
    """Number what is in the field without gaps, one piece each, and fill the channels."""
    instances = np.zeros(drawn.shape, np.int32)
    kept: list[bool] = []
    boxes: list[Any] = ndimage.find_objects(drawn)  # None where a number is not there
    for number, box in enumerate(boxes, 1):
        if box is None:
            continue
        mine = drawn[box] == number
        pieces, found = ndimage.label(mine)
        if found > 1:
            mine = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
        if mine.sum() < 4:
            continue
        kept.append(bool(lined[number]))
        instances[box][mine] = len(kept)
    line = np.array([False, *kept])
    h, w = drawn.shape
    texture = np.clip(0.75 + 0.12 * noise(rng, (h, w), 0.6 / mpp), 0.4, 1)
    inner = (instances > 0) & (
        (ndimage.minimum_filter(instances, 3) != instances)
        | (ndimage.maximum_filter(instances, 3) != instances)
    )
    of_line = line[instances]
    channels = np.stack(
        [inner, texture * (instances > 0) * ~of_line, texture * (instances > 0) * of_line]
    )
    return PseudoMask(instances, channels.astype(np.float32), line[1:], mpp)
