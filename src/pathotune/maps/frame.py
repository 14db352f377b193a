"""Where a map lies on its slide, and where on it there is anything to map.

A map of a whole slide and a map of a region are the same thing with another
corner: the lattice is laid so that the region's corner is one of its corners.
Every model that draws a map, whatever it computes, places it here, and so they
agree on shapes, corners, tissue and on what can be gone on with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pathotune.events import PathotuneError, TilesDone
from pathotune.maps.classmap import ClassMap
from pathotune.slides.mpp import refuse_blur
from pathotune.slides.tiles import TileGrid
from pathotune.slides.tissue import TissueMask, full_mask, mask_from_polygons, tissue_mask

if TYPE_CHECKING:
    from pathotune.slides.slide import Region, Slide

Colours = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Frame:
    """A map's place: the tiles over the slide and the box of tokens that the map shows.

    Attributes
    ----------
    grid : TileGrid
        Over the whole slide, through the map's corner.
    area : Region
        What is mapped, level-0 pixels.
    row0, col0, rows, cols : int
        The map's box of tokens.
    """

    grid: TileGrid
    area: Region
    row0: int
    col0: int
    rows: int
    cols: int

    @classmethod
    def over(
        cls,
        slide: Slide,
        region: Region | None,
        *,
        mpp: float,
        tile_px: int,
        token_px: int,
        halo: int,
    ) -> Frame:
        """Lay a model's tiles over a slide, or over a region of it.

        Raises
        ------
        PathotuneError
            No um/px, one far too coarse, or the region lies outside the slide.
        """
        refuse_blur(slide.need_mpp(), mpp)
        step = token_px * mpp / slide.need_mpp()
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
            mpp=mpp,
            tile_px=tile_px,
            token_px=token_px,
            halo=halo,
            origin=(_phase(area.x, step), _phase(area.y, step)),
        )
        lattice = grid.lattice
        row0, col0 = round((area.y - lattice.y0) / step), round((area.x - lattice.x0) / step)
        rows = min(math.ceil(area.height / step - 1e-6), lattice.rows - row0)
        cols = min(math.ceil(area.width / step - 1e-6), lattice.cols - col0)
        return cls(grid, area, row0, col0, rows, cols)

    @property
    def box(self) -> tuple[slice, slice]:
        """Return the map's rows and columns in an array of the whole lattice."""
        rows = slice(self.row0, self.row0 + self.rows)
        return rows, slice(self.col0, self.col0 + self.cols)

    def canvas(
        self, classes: tuple[str, ...], colours: Colours, into: ClassMap | None = None
    ) -> ClassMap:
        """Return an empty map of this place, or `into` when it is one for these classes."""
        lattice = self.grid.lattice
        origin = (lattice.x0 + self.col0 * lattice.step, lattice.y0 + self.row0 * lattice.step)
        if into is not None and into.classes == tuple(classes):
            same = np.allclose([*into.origin, into.step], [*origin, lattice.step], atol=1e-6)
            if same and into.labels.shape == (self.rows, self.cols):
                return into
        um = self.grid.mpp * self.grid.token_px
        return ClassMap.empty(classes, colours, origin, lattice.step, um, self.rows, self.cols)

    def clip(self, box: TilesDone, grown: int = 0) -> TilesDone | None:
        """Return a box of the lattice, grown by some tokens and cut to the map; None if outside."""
        r0, c0 = max(box.row0 - grown, self.row0), max(box.col0 - grown, self.col0)
        r1 = min(box.row1 + grown, self.row0 + self.rows)
        c1 = min(box.col1 + grown, self.col0 + self.cols)
        return TilesDone(r0, c0, r1, c1) if r0 < r1 and c0 < c1 else None

    def on_map(self, box: TilesDone) -> TilesDone:
        """Return a box of the lattice in rows and columns of the map."""
        return TilesDone(
            box.row0 - self.row0,
            box.col0 - self.col0,
            box.row1 - self.row0,
            box.col1 - self.col0,
        )


def where_to_look(slide: Slide, tissue: TissueMask | str | Path) -> TissueMask:
    """Return the mask for "auto", "off", a GeoJSON file of outlines, or a mask as it is.

    Raises
    ------
    PathotuneError
        The file cannot be read, or holds no outline.
    """
    if isinstance(tissue, TissueMask):
        return tissue
    if isinstance(tissue, Path):
        from pathotune.marks.geojson import read_geojson

        shapes = [s for s in (a.area() for a in read_geojson(tissue).items) if s.area > 0]
        if not shapes:
            raise PathotuneError(
                f"{tissue.name} holds no outline of tissue.",
                "Give a GeoJSON file with polygons, for instance from `pathotune tissue`.",
            )
        return mask_from_polygons(slide, shapes)
    return full_mask(slide) if tissue == "off" else tissue_mask(slide)


def _phase(place: float, step: float) -> float:
    """Return where the lattice through a place begins on the slide, from 0 to one step."""
    phase = place % step
    return 0.0 if phase < 1e-6 or step - phase < 1e-6 else phase
