"""Token lattices at any phase, and the pixels a tile brings for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pathotune.slides.geometry import Region
from pathotune.slides.slide import open_slide
from pathotune.slides.tiles import Lattice, TileGrid, read_tile
from pathotune.slides.tissue import TissueMask

PLAN = {"mpp": 0.5, "tile_px": 112, "token_px": 14, "halo": 2}


@given(
    st.integers(50, 3000),
    st.integers(50, 3000),
    st.floats(0.2, 1.0),
    st.floats(0, 40),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_every_token_of_tissue_is_in_exactly_one_chosen_tile(width, height, mpp, phase, seed):
    grid = TileGrid.plan(width, height, mpp, origin=(phase, phase / 2), **PLAN)
    cells = np.random.default_rng(seed).random((9, 7)) < 0.3
    tissue = TissueMask(cells, width / 7, height / 9, "auto")
    count = np.zeros((grid.lattice.rows, grid.lattice.cols), int)
    for cell in grid.cells(tissue):
        r0, c0, r1, c1 = grid.token_box(cell)
        assert r1 > r0 and c1 > c0
        count[r0:r1, c0:c1] += 1
    assert count.max(initial=0) <= 1
    assert (count[grid.tokens(tissue)] == 1).all()


@given(
    st.floats(2, 60),
    st.floats(-9, 9),
    st.integers(0, 900),
    st.integers(0, 900),
    st.integers(1, 300),
    st.integers(1, 300),
)
@settings(max_examples=80, deadline=None)
def test_a_window_holds_every_token_a_region_touches(step, origin, x, y, width, height):
    lattice = Lattice(origin, origin, step, 50, 50)
    r0, c0, r1, c1 = lattice.window(Region(x, y, width, height))
    rows, cols = np.arange(50), np.arange(50)
    top, left = origin + rows * step, origin + cols * step
    slack = 1e-4 * step
    touched_rows = (top + slack < y + height) & (top + step - slack > y)
    touched_cols = (left + slack < x + width) & (left + step - slack > x)
    assert set(rows[touched_rows]) <= set(range(r0, r1))
    assert set(cols[touched_cols]) <= set(range(c0, c1))
    assert 0 <= r0 <= r1 <= 50 and 0 <= c0 <= c1 <= 50


@pytest.mark.parametrize("origin", [(0.0, 0.0), (7.0, 21.5), (13.99, 3.3)])
def test_a_tile_shows_its_tokens_where_the_lattice_says(tmp_path, origin):
    pixels = np.full((700, 900, 3), 250, np.uint8)
    pixels[402:418, 505:521] = 0
    Image.fromarray(pixels).save(tmp_path / "mark.png")
    with open_slide(tmp_path / "mark.png", mpp=0.31) as slide:
        grid = TileGrid.plan(slide.width, slide.height, 0.31, origin=origin, **PLAN)
        lattice = grid.lattice
        row, col = (
            int(v) for v in ((410 - origin[1]) / lattice.step, (513 - origin[0]) / lattice.step)
        )
        cell = (row // grid.core, col // grid.core)
        tile = read_tile(slide, grid, cell)
        dark = np.argwhere(tile[..., 0] < 100).mean(axis=0) + 0.5
        x, y = grid.origin(cell)
        scale = 0.5 / 0.31
        assert abs(dark[0] * scale + y - 410) < 0.6 and abs(dark[1] * scale + x - 513) < 0.6
        token = (dark // 14).astype(int) - grid.halo
        assert tuple(token) == (row - cell[0] * grid.core, col - cell[1] * grid.core)


def test_a_shifted_grid_reads_the_same_pixels(shared):
    path = shared / "data/wsi_cmu1_small_region/CMU-1-Small-Region.svs"
    with open_slide(path, mpp=0.25) as slide:
        grid = TileGrid.plan(slide.width, slide.height, 0.25, **PLAN)
        half = grid.core // 2 * grid.lattice.step
        shifted = TileGrid.plan(slide.width, slide.height, 0.25, origin=(half, half), **PLAN)
        a = read_tile(slide, grid, (5, 6)).astype(int)
        b = read_tile(slide, shifted, (5, 6)).astype(int)
        n = grid.core // 2 * 14
        assert np.abs(a[n:, n:] - b[:-n, :-n]).max() <= 1


def test_plans_need_room_for_tokens():
    with pytest.raises(ValueError, match="halo"):
        TileGrid.plan(100, 100, 0.5, mpp=0.5, tile_px=56, token_px=14, halo=2)
