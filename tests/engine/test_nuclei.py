"""Nuclei: seams on real tissue, taking up where it stopped, numbers against hand-worked ones."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from pathotune import cli
from pathotune.events import NucleiDone, PathotuneError, drain
from pathotune.nuclei import measure as measuring
from pathotune.nuclei.exports import write_csv, write_geojson
from pathotune.nuclei.run import segment_slide
from pathotune.nuclei.segmenter import Found, known, prepare
from pathotune.nuclei.stains import Stains, estimate
from pathotune.nuclei.store import NucleusStore
from pathotune.slides.geometry import Region
from pathotune.slides.slide import open_slide

MICRONS = 0.5


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A made slide with 5 x 6 nuclei, one of them on the corner of four tiles."""
    yy, xx = np.mgrid[:420, :420]
    h, e = np.zeros((420, 420)), np.full((420, 420), 0.12)
    rng = np.random.default_rng(0)
    places = [(64 + 64 * r, 40 + 64 * c) for r in range(5) for c in range(6)]
    places[7] = (128, 128)
    for y, x in places:
        h[(yy - y) ** 2 / 64 + (xx - x) ** 2 / 100 <= 1] = 0.6
    h = ndimage.gaussian_filter(h, 1.5)  # as optics do
    stains = Stains()
    density = h[..., None] * np.array(stains.haematoxylin) + e[..., None] * np.array(stains.eosin)
    pixels = 255 * 10 ** -(density + rng.normal(0, 0.01, density.shape))
    path = tmp_path_factory.mktemp("drawn") / "drawn.tif"
    tifffile.imwrite(
        path,
        np.clip(pixels, 0, 255).astype(np.uint8),
        photometric="rgb",
        resolution=(1e4 / MICRONS, 1e4 / MICRONS),
        resolutionunit="CENTIMETER",
    )
    return path, np.array(places)


def opened(path):
    return open_slide(path, mpp=MICRONS)


def test_every_drawn_nucleus_is_found_once_and_measured(drawn, tmp_path):
    path, places = drawn
    with opened(path) as slide:
        told = drain(segment_slide(slide, prepare("watershed", slide), tmp_path / "n", tile_um=32))
    assert told["nuclei"] == len(places) == 30
    with NucleusStore(tmp_path / "n") as store:
        rows = store.within(Region(0, 0, 420, 420))
    near = np.hypot(rows["x"][:, None] - places[:, 1], rows["y"][:, None] - places[:, 0])
    assert (near.min(axis=0) < 1).all()  # half a pixel lies between a pixel's index and centre
    truth = np.pi * 8 * 10 * MICRONS**2
    assert np.median(rows["area_um2"]) == pytest.approx(
        truth, rel=0.15
    )  # blurred edges: told in the docs
    assert np.median(rows["eccentricity"]) == pytest.approx(0.6, abs=0.08)
    assert (rows["solidity"] > 0.9).all()


def test_tiles_count_what_one_field_counts_on_real_tissue(shared, tmp_path):
    slide_file = shared / "data/wsi_cmu1_small_region/CMU-1-Small-Region.svs"
    box = Region(300, 300, 1400, 1400)
    with open_slide(slide_file) as slide:
        finder = prepare("watershed", slide)
        counts = []
        for side in (2000.0, 150.0):
            out = tmp_path / f"{side}.parquet"
            told = drain(segment_slide(slide, finder, out, region=box, tile_um=side))
            counts.append(told["nuclei"])
        with NucleusStore(out) as store:
            rings = [r for part in store.chunks(["outline"]) for r in part["outline"]]
    assert counts[0] > 300
    assert abs(counts[1] - counts[0]) <= 0.01 * counts[0]
    shapely = pytest.importorskip("shapely")
    shapes = [shapely.make_valid(shapely.polygons(r)) for r in rings]
    tree = shapely.STRtree(shapes)
    a, b = tree.query(shapes, predicate="intersects")
    doubles = [
        shapely.area(shapely.intersection(shapes[i], shapes[j]))
        > 0.3 * min(shapes[i].area, shapes[j].area)
        for i, j in zip(a, b, strict=True)
        if i < j
    ]
    assert not any(doubles)


def test_counts_of_a_published_field(shared, tmp_path):
    with open_slide(shared / "data/img_os1_he_crop/OS-1-detail.ome.tif") as slide:
        told = drain(segment_slide(slide, prepare("watershed", slide), tmp_path / "n"))
    for published in (319, 331):
        assert abs(told["nuclei"] - published) <= 0.15 * published


def test_a_stopped_run_is_taken_up_and_ends_the_same(drawn, tmp_path):
    path, _ = drawn
    with opened(path) as slide:
        finder = prepare("watershed", slide)
        drain(segment_slide(slide, finder, tmp_path / "whole", tile_um=64))
        job = segment_slide(slide, finder, tmp_path / "n", tile_um=64)
        first = next(e for e in job if isinstance(e, NucleiDone))
        job.close()
        assert not (tmp_path / "n").exists()
        parts = tmp_path / "n.parts"
        assert [f.name for f in parts.glob("*.parquet")] == [first.file.name]
        (parts / "tile_0_0.parquet").write_bytes(b"torn")
        made = []
        finder_segment = finder.segment
        finder.segment = lambda pixels: made.append(1) or finder_segment(pixels)
        told = drain(segment_slide(slide, finder, tmp_path / "n", tile_um=64))
    assert len(made) == told["tiles"] - 1
    assert not parts.exists()
    with NucleusStore(tmp_path / "n") as ours, NucleusStore(tmp_path / "whole") as whole:
        box = Region(0, 0, 420, 420)
        np.testing.assert_array_equal(
            np.sort(ours.within(box)["x"]), np.sort(whole.within(box)["x"])
        )


def test_the_screen_comes_first(drawn, tmp_path):
    path, _ = drawn
    with opened(path) as slide:
        finder = prepare("watershed", slide)
        look = Region(330, 330, 20, 20)
        job = segment_slide(slide, finder, tmp_path / "n", tile_um=32, focus=look)
        first = next(e for e in job if isinstance(e, NucleiDone))
        job.close()
    x0, y0, x1, y1 = first.box
    assert x0 <= 340 < x1
    assert y0 <= 340 < y1


def test_a_box_reads_only_the_nuclei_that_touch_it(drawn, tmp_path):
    path, places = drawn
    with opened(path) as slide:
        drain(segment_slide(slide, prepare("watershed", slide), tmp_path / "n", tile_um=32))
    with NucleusStore(tmp_path / "n") as store:
        y, x = places[0]
        rows = store.within(Region(int(x) - 1, int(y) - 1, 2, 2))
        assert len(rows["x"]) == 1
        assert len(store.within(Region(5000, 5000, 9, 9))["x"]) == 0
        grid, step = store.density(50.0)
        assert step == 100
        assert grid.sum() * 0.0025 == pytest.approx(30)


def test_exports_say_the_same_as_the_store(drawn, tmp_path):
    path, _ = drawn
    with opened(path) as slide:
        drain(segment_slide(slide, prepare("watershed", slide), tmp_path / "n"))
    with NucleusStore(tmp_path / "n") as store:
        write_geojson(tmp_path / "g.geojson.gz", store)
        write_csv(tmp_path / "t.csv", store)
        rows = store.within(Region(0, 0, 420, 420))
    with gzip.open(tmp_path / "g.geojson.gz") as file:
        features = json.load(file)["features"]
    assert len(features) == len({f["id"] for f in features}) == 30
    ring = features[0]["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    assert features[0]["properties"]["objectType"] == "detection"
    with (tmp_path / "t.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(r["area_um2"]) for r in table] == pytest.approx(list(rows["area_um2"]))


def test_measures_of_a_rectangle_worked_by_hand():
    labels = np.zeros((20, 20), np.int32)
    labels[5:9, 4:14] = 1
    pixels = np.full((20, 20, 3), 255, np.uint8)
    found = Found(labels, np.ones(1, np.float32))
    rows = measuring.measure(pixels, found, np.ones(1, bool), (100, 200), 2.0, 0.5, Stains())
    assert (rows["x"][0], rows["y"][0]) == (100 + 2 * 9, 200 + 2 * 7)
    assert rows["area_um2"][0] == 40 * 0.25
    assert rows["eccentricity"][0] == pytest.approx(np.sqrt(1 - 16 / 100))
    assert rows["haematoxylin_mean"][0] == pytest.approx(0, abs=1e-6)
    assert (rows["x0"][0], rows["x1"][0]) == (108, 128)
    assert (rows["y0"][0], rows["y1"][0]) == (210, 218)


def test_stains_are_told_apart_or_the_textbook_is_taken():
    rng = np.random.default_rng(1)
    h = np.array([0.60, 0.72, 0.35]) / np.linalg.norm([0.60, 0.72, 0.35])
    e = np.array([0.15, 0.95, 0.20]) / np.linalg.norm([0.15, 0.95, 0.20])
    mix = rng.random((128, 128, 1)) ** 3
    density = rng.uniform(0.4, 1.0, mix.shape) * (mix * h + (1 - mix) * e)
    seen = estimate([np.round(255 * 10**-density).astype(np.uint8)])
    assert seen.estimated
    assert np.dot(seen.haematoxylin, h) > 0.995
    assert np.dot(seen.eosin, e) > 0.995
    assert not estimate([np.full((64, 64, 3), 250, np.uint8)]).estimated


def test_what_cannot_be_segmented_is_refused_in_words(shared, tmp_path):
    fluorescent = next((shared / "data/wsi_ndpi_fluor").glob("*.ndpi"))
    with open_slide(fluorescent) as slide, pytest.raises(PathotuneError, match="not a stained"):
        prepare("watershed", slide)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(PathotuneError, match="not a whole file"):
        NucleusStore(tmp_path / "x.parquet")
    assert "watershed" in known()


def test_glass_has_no_nuclei(tmp_path):
    glass = np.full((300, 300, 3), 244, np.uint8)
    glass[::7, ::5, 0] = 240
    glass[:20, :20] = (240, 170, 205)  # a crumb of eosin
    tifffile.imwrite(tmp_path / "glass.tif", glass, photometric="rgb")
    with opened(tmp_path / "glass.tif") as slide:
        told = drain(segment_slide(slide, prepare("watershed", slide), tmp_path / "n"))
    assert told["nuclei"] == 0
    with NucleusStore(tmp_path / "n") as store:
        assert len(store) == 0
        assert not len(store.within(Region(0, 0, 300, 300))["x"])
        write_csv(tmp_path / "t.csv", store)
    assert (tmp_path / "t.csv").read_text().count("\n") == 1


@pytest.mark.parametrize("word", ["nuclei", "segment"])
def test_the_command(drawn, tmp_path, capsys, word):
    path, _ = drawn
    out = tmp_path / "n.parquet"
    asked = ["--mpp", "0.5", "--tissue", "off", "--region", "0,0,420,420", "--out", str(out)]
    assert cli.main([word, str(path), *asked, "--csv", str(tmp_path / "t.csv"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["nuclei"] == 30
    assert told["per_mm2"] == pytest.approx(30 / (0.21 * 0.21))
    assert (tmp_path / "t.csv").exists()
