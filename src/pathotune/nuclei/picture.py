"""Outlines, dots and densities of many nuclei as a picture of one screen.

Shapes drawn one by one cost milliseconds each in any viewer. Here all edges of
all outlines are sampled at once and laid into an array of exactly the screen's
pixels, so that the time follows the pixels that are covered and not the number of
nuclei on the slide. A picture holds codes, not colours: a table gives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

INSIDE = 115  # of 255: tissue stays visible through a filled nucleus
WIDTH = 1.7  # of a line, in pixels of the picture


@dataclass(frozen=True)
class Frame:
    """A picture's place on the slide.

    Attributes
    ----------
    x0, y0 : float
        Its corner in level-0 pixels.
    step_x, step_y : float
        Level-0 pixels per pixel of the picture.
    width, height : int
        Pixels of the picture.
    """

    x0: float
    y0: float
    step_x: float
    step_y: float
    width: int
    height: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 in level-0 pixels."""
        right, low = self.width * self.step_x, self.height * self.step_y
        return self.x0, self.y0, self.x0 + right, self.y0 + low

    def place(self, xy: NDArray[Any]) -> NDArray[Any]:
        """Return level-0 points, (n, 2) x and y, in pixels of the picture."""
        corner = np.array([self.x0, self.y0])
        steps = np.array([self.step_x, self.step_y])
        placed: NDArray[Any] = ((xy - corner) / steps).astype(np.float32)
        return placed


class Picture:
    """Codes 1 to 255 with their cover; 0 is clear.

    Attributes
    ----------
    codes, cover : uint8 (height, width)
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.codes = np.zeros((frame.height, frame.width), np.uint8)
        self.cover = np.zeros((frame.height, frame.width), np.uint8)

    def outlines(
        self, points: NDArray[Any], starts: NDArray[Any], codes: NDArray[Any], filled: bool = False
    ) -> None:
        """Draw closed rings.

        Parameters
        ----------
        points : float (p, 2)
            x and y in level-0 pixels; the last point of a ring is its first.
        starts : int (n + 1,)
            Ring i is ``points[starts[i]:starts[i + 1]]``.
        codes : uint8 (n,)
        filled : bool
        """
        if len(starts) < 2 or not len(points):
            return
        at = self.frame.place(points)
        lengths = np.diff(starts)
        edge = np.ones(len(at), bool)
        edge[starts[1:][lengths > 0] - 1] = False  # from one ring's end to the next one's begin
        first = np.flatnonzero(edge)
        ring = np.repeat(np.arange(len(lengths)), lengths)[first]
        begin, end = at[first], at[first + 1]
        if filled:
            self._fill(begin, end, ring, codes)
        self._rims(begin, end, codes[ring])

    def _rims(self, begin: NDArray[Any], end: NDArray[Any], codes: NDArray[Any]) -> None:
        far = np.abs(end - begin).max(axis=1)
        count = np.maximum(1, np.ceil(far)).astype(np.int64)
        n = int(count.sum())
        which = np.repeat(np.arange(len(count)), count)
        part = (np.arange(n) - np.repeat(np.cumsum(count) - count, count)) / count[which]
        at = begin[which] + (end - begin)[which] * part[:, None].astype(np.float32)
        self._stroke(at, codes[which])

    def _stroke(self, at: NDArray[Any], codes: NDArray[Any]) -> None:
        """Lay a soft line along points that are at most a pixel apart.

        A point's weight is shared by the four pixels around it; sums are faster than
        taking the greatest of many, and a line's pixels sum to its cover.
        """
        height, width = self.codes.shape
        good = (at > 0.5).all(axis=1) & (at[:, 0] < width - 0.5) & (at[:, 1] < height - 0.5)
        at, codes = at[good] - 0.5, codes[good]
        corner = at.astype(np.int32)
        fx, fy = (at - corner).T
        index = corner[:, 1] * width + corner[:, 0]
        near = (
            (index, (1 - fx) * (1 - fy)),
            (index + 1, fx * (1 - fy)),
            (index + width, (1 - fx) * fy),
            (index + width + 1, fx * fy),
        )
        first, last = int(index.min(initial=0)), int(index.max(initial=0)) + width + 2
        cover = np.zeros(last - first, np.float32)
        shown = self.codes.ravel()
        for where, weight in near:
            cover += np.bincount(where - first, weight, last - first)
            strong = weight > 0.2
            shown[where[strong]] = codes[strong]
        flat = self.cover.ravel()[first:last]
        cover *= 255 * WIDTH
        np.maximum(flat, np.minimum(cover, 255).astype(np.uint8)[: len(flat)], out=flat)
        flat[shown[first:last][: len(flat)] == 0] = 0

    def _fill(
        self, begin: NDArray[Any], end: NDArray[Any], ring: NDArray[Any], codes: NDArray[Any]
    ) -> None:
        """Fill by the even-odd rule: all crossings of all edges with all rows at once."""
        height, width = self.codes.shape
        low, high = np.minimum(begin[:, 1], end[:, 1]), np.maximum(begin[:, 1], end[:, 1])
        top = np.clip(np.ceil(low - 0.5), 0, height).astype(np.int64)
        bottom = np.clip(np.ceil(high - 0.5), 0, height).astype(np.int64)
        count = np.maximum(0, bottom - top)
        n = int(count.sum())
        if not n:
            return
        edge = np.repeat(np.arange(len(count)), count)
        row = top[edge] + np.arange(n) - np.repeat(np.cumsum(count) - count, count)
        step = end[edge] - begin[edge]
        x = begin[edge, 0] + (row + 0.5 - begin[edge, 1]) * step[:, 0] / step[:, 1]
        order = np.lexsort((x, ring[edge] * height + row))
        x, row, which = x[order], row[order], ring[edge][order]
        left = np.clip(np.ceil(x[0::2] - 0.5), 0, width).astype(np.int64)
        right = np.clip(np.ceil(x[1::2] - 0.5), 0, width).astype(np.int64)
        run = np.maximum(0, right - left)
        total = int(run.sum())
        index = np.repeat(row[0::2] * width + left, run)
        index += np.arange(total) - np.repeat(np.cumsum(run) - run, run)
        self.codes.ravel()[index] = np.repeat(codes[which[0::2]], run)
        self.cover.ravel()[index] = INSIDE

    def dots(self, xy: NDArray[Any], codes: NDArray[Any], diameter: float) -> None:
        """Draw a spot each; `xy` (n, 2) in level-0 pixels, `diameter` in pixels of the picture."""
        at = self.frame.place(xy)
        height, width = self.codes.shape
        reach = max(0, round((diameter - 1) / 2))
        good = (at >= reach).all(axis=1)
        good &= (at[:, 0] < width - reach) & (at[:, 1] < height - reach)
        x, y = at[good].astype(np.int32).T
        flat, shown = self.cover.ravel(), self.codes.ravel()
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                if dx * dx + dy * dy <= (reach + 0.3) ** 2:
                    index = (y + dy) * width + x + dx
                    shown[index], flat[index] = codes[good], 255

    def heat(self, grid: NDArray[Any], step: float, top: float) -> None:
        """Draw a density.

        Parameters
        ----------
        grid : float (rows, columns)
            Cell 0, 0 begins at level-0 (0, 0).
        step : float
            Side of a cell in level-0 pixels.
        top : float
            The density of the strongest colour.
        """
        from scipy import ndimage

        f = self.frame
        scale = np.array([f.step_y, f.step_x]) / step
        offset = np.array([f.y0, f.x0]) / step + scale / 2 - 0.5  # centres of pixels and cells
        values = ndimage.affine_transform(
            grid.astype(np.float32),
            scale,
            offset,
            output_shape=self.codes.shape,
            order=1,
            mode="constant",
        )
        share = np.clip(values / max(top, 1e-9), 0, 1)
        self.codes[:] = np.where(share > 0.004, 1 + (254 * share).astype(np.uint8), 0)
        self.cover[:] = np.where(share > 0.004, 40 + (150 * np.minimum(1, 3 * share)), 0)

    def rgba(self, table: NDArray[Any]) -> NDArray[Any]:
        """Return uint8 (height, width, 4); `table` is uint8 (256, 3), a colour a code."""
        wide = np.zeros((256, 4), np.uint8)
        wide[:, :3] = table
        out: NDArray[Any] = wide.view(np.uint32)[:, 0][self.codes].view(np.uint8)
        out = out.reshape(*self.codes.shape, 4)
        out[..., 3] = self.cover
        return out


def value_codes(values: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """Return codes 1 to 255 for numbers from `low` to `high`; what is not a number gets 1."""
    share = (np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-12)
    codes: NDArray[Any] = (1 + 254 * np.clip(share, 0, 1)).astype(np.uint8)
    return codes
