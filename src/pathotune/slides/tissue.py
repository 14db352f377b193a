"""Which parts of the slide are worth computing: tissue, not glass and not pen.

Found on a thumbnail of about 4 um/px. Glass is what is as bright and as
colourless as the brightest part of the slide; everything that departs from it
in colour or in fine structure is tissue, and gaps up to a fat cell's size are
closed, because fat and mucus are mostly white and must stay. Felt pens are
known by hues that stained tissue does not have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from pathotune.events import PathotuneError
from pathotune.slides.pen import strokes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from pathotune.slides.geometry import Region
    from pathotune.slides.slide import Slide

WORK_MPP = 4.0
LARGEST_SIDE = 4096
ASSUMED_MPP = 0.5  # only to choose sizes of structures where nobody knows um/px
GAP_UM = 70.0  # a fat cell
SPECK_MM2 = 0.01
HOLE_MM2 = 0.04  # vessels, torn fat, lumina: part of the tissue around them
VOID_SHARE = 0.05
PALE = 2.5  # grey levels of stain that fat and mucus show on average
PALE_SEED = 0.2


@dataclass(frozen=True)
class TissueMask:
    """Tissue on a coarse grid.

    Attributes
    ----------
    mask : bool (h, w)
    step_x, step_y : float
        Level-0 pixels per mask pixel.
    source : {"auto", "off", "file"}
    """

    mask: NDArray[np.bool_]
    step_x: float
    step_y: float
    source: Literal["auto", "off", "file"]

    def on_grid(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return (len(y), len(x)): tissue at every crossing of level-0 columns and rows."""
        columns = np.clip((np.asarray(x) / self.step_x).astype(int), 0, self.mask.shape[1] - 1)
        rows = np.clip((np.asarray(y) / self.step_y).astype(int), 0, self.mask.shape[0] - 1)
        return self.mask[np.ix_(rows, columns)]

    def at(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return tissue at points, level-0 pixels; arrays of one shape."""
        columns = np.clip((np.asarray(x) / self.step_x).astype(int), 0, self.mask.shape[1] - 1)
        rows = np.clip((np.asarray(y) / self.step_y).astype(int), 0, self.mask.shape[0] - 1)
        found: NDArray[np.bool_] = self.mask[rows, columns]
        return found

    def fraction(self, region: Region) -> float:
        """Return the share of a region that is tissue, 0 to 1."""
        c0, c1 = region.x / self.step_x, region.x1 / self.step_x
        r0, r1 = region.y / self.step_y, region.y1 / self.step_y
        part = self.mask[
            max(0, int(r0)) : max(1, int(np.ceil(r1))), max(0, int(c0)) : max(1, int(np.ceil(c1)))
        ]
        return float(part.mean()) if part.size else 0.0

    def area_px(self) -> float:
        """Return the area of the tissue in level-0 pixels."""
        return float(self.mask.sum()) * self.step_x * self.step_y

    def area_mm2(self, mpp: float) -> float:
        """Return the area of the tissue in mm2."""
        return self.area_px() * mpp * mpp / 1e6

    def with_regions(self, shapes: Sequence[BaseGeometry]) -> TissueMask:
        """Return a mask that hides none of the marked regions (level-0 pixels)."""
        mask = self.mask.copy()
        for shape in shapes:
            mask |= _burn([shape], mask.shape, self.step_x, self.step_y, touched=True)
        return replace(self, mask=mask)

    def polygons(self) -> list[BaseGeometry]:
        """Return the tissue's pieces as polygons with holes, level-0 pixels, largest first."""
        from shapely import affinity, box, union_all

        pieces = []
        padded = np.zeros((self.mask.shape[0], self.mask.shape[1] + 2), np.int8)
        padded[:, 1:-1] = self.mask
        jumps = np.diff(padded, axis=1)
        rows, starts = np.nonzero(jumps == 1)
        _, ends = np.nonzero(jumps == -1)
        if not len(rows):
            return []
        whole = union_all(box(starts, rows, ends, rows + 1))
        whole = affinity.scale(whole, self.step_x, self.step_y, origin=(0, 0))
        pieces = list(getattr(whole, "geoms", [whole]))
        return sorted(pieces, key=lambda piece: -piece.area)


def full_mask(slide: Slide) -> TissueMask:
    """Return a mask that calls everything tissue."""
    return TissueMask(np.ones((1, 1), bool), float(slide.width), float(slide.height), "off")


def mask_from_polygons(slide: Slide, shapes: Sequence[BaseGeometry]) -> TissueMask:
    """Return a mask from polygons in level-0 pixels.

    Raises
    ------
    PathotuneError
        No polygon covers any part of the slide.
    """
    step = max(1.0, slide.width / LARGEST_SIDE, slide.height / LARGEST_SIDE)
    step = max(step, WORK_MPP / (slide.mpp or ASSUMED_MPP))
    shape = (max(1, round(slide.height / step)), max(1, round(slide.width / step)))
    step_x, step_y = slide.width / shape[1], slide.height / shape[0]
    mask = _burn(shapes, shape, step_x, step_y, touched=False)
    if not mask.any():
        raise PathotuneError(
            "No region of the tissue file lies on this slide.",
            "Check that it was drawn on this slide, or use --tissue auto.",
        )
    return TissueMask(mask, step_x, step_y, "file")


def _burn(
    shapes: Sequence[BaseGeometry],
    shape: tuple[int, ...],
    step_x: float,
    step_y: float,
    *,
    touched: bool,
) -> NDArray[np.bool_]:
    import shapely

    mask = np.zeros(shape, bool)
    for geometry in shapes:
        if geometry.is_empty:
            continue
        grown = geometry.buffer(0.75 * max(step_x, step_y)) if touched else geometry
        x0, y0, x1, y1 = grown.bounds
        c0, c1 = max(0, int(x0 / step_x)), min(shape[1], int(np.ceil(x1 / step_x)))
        r0, r1 = max(0, int(y0 / step_y)), min(shape[0], int(np.ceil(y1 / step_y)))
        if c1 <= c0 or r1 <= r0:
            continue
        x = (np.arange(c0, c1) + 0.5) * step_x
        y = (np.arange(r0, r1) + 0.5) * step_y
        shapely.prepare(grown)
        mask[r0:r1, c0:c1] |= shapely.contains_xy(grown, x[None, :], y[:, None])
    return mask


def tissue_mask(slide: Slide) -> TissueMask:
    """Find the tissue on a slide.

    Works without um/px, then with sizes that fit a 20x scan.
    """
    mpp = slide.mpp or ASSUMED_MPP
    longest = max(slide.width, slide.height)
    work = max(WORK_MPP / mpp, longest / LARGEST_SIDE, 1.0)
    thumbnail = slide.thumbnail(max(1, int(longest / work)))
    step_x = slide.width / thumbnail.shape[1]
    step_y = slide.height / thumbnail.shape[0]
    dark = slide.kind == "fluorescence"
    mask = find_tissue(255 - thumbnail if dark else thumbnail, mpp * step_x, inverted=dark)
    return TissueMask(mask, step_x, step_y, "auto")


def find_tissue(
    pixels: NDArray[np.uint8], mpp: float, *, inverted: bool = False
) -> NDArray[np.bool_]:
    """Find tissue in a thumbnail.

    Parameters
    ----------
    pixels : uint8 (h, w, 3)
    mpp : float
        um per thumbnail pixel.
    inverted : bool
        The negative of a fluorescence image, in which there is no stain to look for.

    Returns
    -------
    bool (h, w)
    """
    import skimage.morphology as morphology
    from scipy import ndimage

    colourless = float(np.mean(np.ptp(pixels, axis=2) > 12)) < 0.002
    values = _filled_in(pixels)
    bright = values.mean(axis=2)
    glass = _glass(values, bright)
    light = np.abs(values - glass).max(axis=2)
    tint = values - glass - (bright - glass.mean())[..., None]
    colour = tint.max(axis=2) - tint.min(axis=2)
    smooth_colour = ndimage.gaussian_filter(colour, 1.0)
    smooth_light = ndimage.gaussian_filter(light, 1.0)
    fine = np.abs(bright - ndimage.gaussian_filter(bright, max(1.5, 15 / mpp)))
    smooth_fine = ndimage.gaussian_filter(fine, 1.0)
    glassy = smooth_light < 20
    seen = (
        (smooth_colour > _limit(smooth_colour, glassy, 8.0, 14.0))
        | (smooth_fine > _limit(smooth_fine, glassy, 5.0, 12.0))
        | (smooth_light > 40)
    )
    pen = np.zeros_like(seen) if colourless else strokes(values.astype(np.uint8), mpp)
    seen &= ~pen
    radius = max(1, round(GAP_UM / 2 / mpp))
    seen = _large(seen, max(4, round(200 / mpp**2)))
    if not inverted:
        seen = _with_pale(seen, _pale(tint, glassy, mpp) & ~pen, radius)
    rim = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]])
    closed = _closing(seen, radius, cut=bool(np.mean(rim > 12) > 0.2))
    speck = max(4, round(SPECK_MM2 * 1e6 / mpp**2))
    if closed.size < 40 * speck:
        speck = max(4, closed.size // 400)
    hole = max(speck, min(round(HOLE_MM2 * 1e6 / mpp**2), closed.size // 100))
    holes = morphology.remove_small_holes(closed, max_size=hole)
    tissue: NDArray[np.bool_] = _large(holes, speck) & ~pen
    return tissue


def _filled_in(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return pixels with what was never scanned (pure white or black) made like glass."""
    values = pixels.astype(np.float32)
    lightest = pixels.min(axis=2)
    never = lightest >= 254
    black = pixels.max(axis=2) <= 10
    if black.mean() > VOID_SHARE:  # less of it is ink or a fold
        never |= black
    if never.any() and not never.all():
        values[never] = _glass(values[~never][None], values[~never].mean(axis=1)[None])
    return values


def _pale(tint: NDArray[np.float32], glassy: NDArray[np.bool_], mpp: float) -> NDArray[np.bool_]:
    """Return a faint breath of stain: green held back, over the width of a few cells."""
    from scipy import ndimage

    stain = (tint[..., 0] + tint[..., 2]) / 2 - tint[..., 1]
    # cut off, so that strong stain does not shine far over its border
    smooth = ndimage.gaussian_filter(np.clip(stain, -10, 10), max(1.0, 12 / mpp))
    limit = PALE
    if glassy.mean() > 0.02:  # coloured spots of array slides and uneven light are not stain
        low, high = np.percentile(smooth[glassy], (25, 75))
        limit = float(np.clip(min(low, 2.0) + 4 * (high - low), PALE, 2.4 * PALE))
    faint: NDArray[np.bool_] = smooth > limit
    return faint


def _with_pale(seen: NDArray[np.bool_], pale: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Add pale parts that hang together with tissue already seen, such as fat in its rim."""
    from scipy import ndimage

    both = seen | ndimage.binary_opening(pale, iterations=max(1, radius // 4))
    parts, count = ndimage.label(both)
    if not count:
        return both
    area = np.bincount(parts.ravel(), minlength=count + 1)
    sure = np.bincount(parts[seen], minlength=count + 1)
    keep = sure > PALE_SEED * area
    keep[0] = False
    added: NDArray[np.bool_] = keep[parts] | seen
    return added


def _glass(values: NDArray[np.float32], bright: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the colour of empty glass: the commonest of the bright, colourless pixels."""
    colour = values.max(axis=2) - values.min(axis=2)
    pale = (colour < 22) & (bright > 150)
    if pale.mean() < 0.01:  # a field without any glass
        return np.full(3, 245.0, np.float32)
    chosen = pale & (bright >= np.percentile(bright[pale], 50))
    glass: NDArray[np.float32] = np.median(values[chosen], axis=0).astype(np.float32)
    return glass


def _limit(
    values: NDArray[np.float32], glassy: NDArray[np.bool_], least: float, most: float
) -> float:
    """Return what is beyond the noise of the glass, as far as there is glass."""
    noise = float(np.percentile(values[glassy], 50)) if glassy.mean() > 0.02 else 0.0
    return max(least, min(most, 2.5 * noise))


def _large(mask: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    import skimage.morphology as morphology

    kept: NDArray[np.bool_] = morphology.remove_small_objects(mask, max_size=max(1, least - 1))
    return kept


def _closing(mask: NDArray[np.bool_], radius: int, *, cut: bool) -> NDArray[np.bool_]:
    """Close gaps by distances, whose cost does not grow with the radius."""
    from scipy import ndimage

    # In a field cut out of tissue a fat cell at the border goes on beyond it: mirrored. Around
    # a whole section lies glass, which must not be closed up to the border.
    padded = np.pad(mask, radius + 1, mode="symmetric" if cut else "constant")
    if not padded.any():
        return mask
    grown = ndimage.distance_transform_edt(~padded) <= radius
    shrunk = ndimage.distance_transform_edt(grown) > radius
    inner: NDArray[np.bool_] = (shrunk | padded)[radius + 1 : -radius - 1, radius + 1 : -radius - 1]
    return inner
