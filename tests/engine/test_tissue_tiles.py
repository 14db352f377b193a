"""Tissue stays, glass and pen go, and every token of tissue lies in exactly one tile."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shapely.geometry import box, shape

from pathotune.events import PathotuneError
from pathotune.slides.slide import Region, open_slide
from pathotune.slides.stain import looks_like_he
from pathotune.slides.tiles import TileGrid, read_batches, read_tile
from pathotune.slides.tissue import (
    TissueMask,
    find_tissue,
    full_mask,
    mask_from_polygons,
    tissue_mask,
)


def test_tissue_keeps_fat_and_mucus(shared):
    folder = shared / "data" / "regions_crc_mosaic"
    with open_slide(folder / "crc_mosaic_dev.ome.tif") as slide:
        mask = tissue_mask(slide)
    features = json.loads((folder / "crc_mosaic_dev.geojson").read_text())["features"]
    for feature in features:
        name = feature["properties"]["classification"]["name"]
        geometry = shape(feature["geometry"])
        x0, y0, x1, y1 = geometry.bounds
        x, y = (a.ravel() for a in np.meshgrid(np.arange(x0, x1, 4), np.arange(y0, y1, 4)))
        inside = shapely.contains_xy(geometry, x, y)
        if name != "BACK":
            assert mask.at(x[inside], y[inside]).mean() >= 0.95, name


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("no-tissue.png", 0, 0.02),
        ("no-tissue-green-pen.png", 0, 0.05),
        ("almost-white-2.png", 0.01, 0.2),
        ("very-low-nuclei-score-level0.png", 0.9, 1),
        ("high-nuclei-score-red-pen-level1.png", 0.8, 1),
        ("medium-nuclei-score-level0.png", 0.95, 1),
        ("tcga-lung-rgb.png", 0.9, 1),
        ("tcga-green-pen.png", 0.6, 0.95),
        ("tcga-red-pen.png", 0.4, 0.9),
    ],
)
def test_artefacts(shared, name, low, high):
    pixels = np.asarray(
        Image.open(shared / "data" / "img_histolab_artifacts" / name).convert("RGB")
    )
    small = pixels[: pixels.shape[0] // 8 * 8, : pixels.shape[1] // 8 * 8]
    small = small.reshape(small.shape[0] // 8, 8, -1, 8, 3).mean(axis=(1, 3)).astype(np.uint8)
    assert low <= find_tissue(small, 4.0).mean() <= high


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("wsi_cmu1_small_region/CMU-1-Small-Region.svs", 0.35, 0.6),
        ("wsi_tcga_cr7395/TCGA-CR-7395-01A-01-TS1.svs", 0.5, 0.85),
        ("wsi_her2st_sections/C2_pyramid.ome.tif", 0.2, 0.35),
        ("wsi_camelyon_dicom/camelyon_overview_multiframe_jp2k.dcm", 0.25, 0.5),
        ("wsi_ndpi_fluor/test3-DAPI-2-(387).ndpi", 0.4, 0.95),
    ],
)
def test_real_slides(shared, name, low, high):
    with open_slide(shared / "data" / name) as slide:
        assert low <= tissue_mask(slide).mask.mean() <= high


def test_dark_glass_is_still_glass():
    rng = np.random.default_rng(0)
    pixels = rng.normal(168, 2, (200, 200, 3))
    pixels[60:140, 60:140] = np.array([150, 90, 140]) + rng.normal(0, 12, (80, 80, 3))
    mask = find_tissue(pixels.clip(0, 255).astype(np.uint8), 8.0)
    assert mask[65:135, 65:135].mean() > 0.98
    assert mask[:40].mean() < 0.02


def test_a_marked_region_is_never_hidden():
    mask = TissueMask(np.zeros((50, 50), bool), 32.0, 32.0, "auto")
    tiny = box(803, 411, 806, 414)
    big = box(100, 900, 500, 1300)
    grown = mask.with_regions([tiny, big])
    assert grown.at(np.array([804.0]), np.array([412.0])).all()
    x, y = (a.ravel() for a in np.meshgrid(np.arange(100, 500, 7.0), np.arange(900, 1300, 7.0)))
    assert grown.at(x, y).all()
    assert not mask.mask.any()


def test_polygons_cover_the_mask_exactly():
    cells = np.zeros((20, 30), bool)
    cells[3:15, 4:20] = True
    cells[6:9, 8:12] = False
    mask = TissueMask(cells, 10.0, 12.0, "auto")
    pieces = mask.polygons()
    assert len(pieces) == 1 and len(pieces[0].interiors) == 1
    assert pieces[0].area == pytest.approx(mask.area_px())


def test_a_tissue_file_for_another_slide_is_refused(tmp_path):
    Image.fromarray(np.full((300, 400, 3), 200, np.uint8)).save(tmp_path / "s.png")
    with open_slide(tmp_path / "s.png", mpp=0.5) as slide:
        assert mask_from_polygons(slide, [box(0, 0, 200, 300)]).mask.mean() == pytest.approx(
            0.5, abs=0.03
        )
        with pytest.raises(PathotuneError):
            mask_from_polygons(slide, [box(9000, 9000, 9100, 9100)])
        assert full_mask(slide).fraction(Region(3, 3, 20, 20)) == 1


def test_what_a_model_was_not_made_for_is_said(shared):
    data = shared / "data"
    with open_slide(data / "wsi_ndpi_fluor/test3-DAPI-2-(387).ndpi") as slide:
        assert not looks_like_he(slide.thumbnail(512))[0]
    for name in ("wsi_cmu1_small_region/CMU-1-Small-Region.svs",):
        with open_slide(data / name) as slide:
            assert looks_like_he(slide.thumbnail(512)) == (True, "")
    assert not looks_like_he(np.full((50, 50, 3), 127, np.uint8))[0]


def grid_for(width, height, mpp, halo=2, tile=224, **extra):
    return TileGrid.plan(width, height, mpp, mpp=0.5, tile_px=tile, token_px=14, halo=halo, **extra)


@given(
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.floats(0.2, 1.1),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_every_token_lies_in_exactly_one_tile(width, height, mpp, halo):
    grid = grid_for(width, height, mpp, halo)
    lattice = grid.lattice
    assert (lattice.cols - 1) * lattice.step < width <= lattice.cols * lattice.step + 1e-3
    count = np.zeros((lattice.rows, lattice.cols), int)
    for cell in grid.cells(None):
        r0, c0, r1, c1 = grid.token_box(cell)
        count[r0:r1, c0:c1] += 1
    assert (count == 1).all()


def test_cells_hold_all_tissue_and_little_else():
    grid = grid_for(20000, 16000, 0.25)
    cells = np.zeros((160, 200), bool)
    cells[30:60, 50:90] = True
    mask = TissueMask(cells, 100.0, 100.0, "auto")
    tokens = grid.tokens(mask)
    covered = np.zeros_like(tokens)
    chosen = grid.cells(mask)
    for cell in chosen:
        r0, c0, r1, c1 = grid.token_box(cell)
        covered[r0:r1, c0:c1] = True
    assert not (tokens & ~covered).any()
    assert len(chosen) < 0.2 * grid.tile_rows * grid.tile_cols
    part = grid.cells(mask, Region(5000, 3000, 900, 900))
    assert 0 < len(part) < len(chosen)
    assert len(grid.cells(mask, Region(5000, 3000, 900, 900), margin_tokens=12)) > len(part)


def test_the_screen_comes_first():
    grid = grid_for(20000, 16000, 0.25)
    focus = Region(12000, 9000, 2000, 1500)
    ordered = grid.order(grid.cells(None), focus)
    inside = [
        bool(Region(*map(int, (*grid.origin(c), 1, 1))).intersect(focus.expand(800)))
        for c in ordered
    ]
    first_out = inside.index(False)
    assert first_out > 20
    r0, c0, r1, c1 = grid.token_box(ordered[0])
    box_of_first = grid.lattice.region(r0, c0, r1, c1)
    assert box_of_first.intersect(focus)


def test_halo_reads_beyond_the_border_are_white(tmp_path):
    Image.fromarray(np.zeros((500, 500, 3), np.uint8)).save(tmp_path / "z.png")
    with open_slide(tmp_path / "z.png", mpp=0.5) as slide:
        grid = grid_for(500, 500, 0.5)
        tile = read_tile(slide, grid, (0, 0))
        assert (tile[:28] == 255).all() and (tile[:, :28] == 255).all()
        assert (tile[28:, 28:] == 0).all()


def test_batches_come_in_order_and_threads_end(tmp_path):
    data = np.random.default_rng(0).integers(0, 256, (1500, 1700, 3), dtype=np.uint8)
    Image.fromarray(data).save(tmp_path / "r.png")
    with open_slide(tmp_path / "r.png", mpp=0.5) as slide:
        grid = grid_for(1700, 1500, 0.5)
        cells = grid.cells(None)
        seen = []
        for got, tiles in read_batches(slide, grid, cells, 5, readers=3):
            assert np.array_equal(tiles[0], read_tile(slide, grid, got[0]))
            seen.extend(map(tuple, got))
        assert seen == list(map(tuple, cells))
        pulled = 0

        def lazy():
            nonlocal pulled
            for cell in cells:
                pulled += 1
                yield cell

        job = read_batches(slide, grid, lazy(), 4)
        next(job)
        assert pulled <= 8
        job.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("pathotune-reader")]


def test_a_reading_error_reaches_the_consumer(tmp_path):
    Image.fromarray(np.zeros((400, 400, 3), np.uint8)).save(tmp_path / "e.png")
    slide = open_slide(tmp_path / "e.png", mpp=0.5)
    grid = grid_for(400, 400, 0.5)
    slide.close()
    with pytest.raises(PathotuneError, match="closed"):
        list(read_batches(slide, grid, grid.cells(None), 2))
    assert not [t for t in threading.enumerate() if t.name.startswith("pathotune-reader")]
