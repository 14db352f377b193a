"""A class map keeps its place, its areas and its secrets in every file it becomes."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage
from shapely.geometry import shape

from pathotune import plugins
from pathotune.cases.exports._pyramid import class_levels
from pathotune.events import PathotuneError
from pathotune.maps.classmap import ClassMap
from pathotune.maps.outlines import outlines
from pathotune.marks.geojson import read_geojson
from pathotune.slides.slide import open_slide

EXPORTS = "pathotune.cases.exports"


@pytest.fixture
def classmap() -> ClassMap:
    rng = np.random.default_rng(0)
    labels = np.zeros((60, 80), np.uint8)
    labels[5:40, 5:50] = 1
    labels[10:20, 10:30] = 2
    labels[45:50, 60:70] = 3
    labels[12:14, 12:15] = 1
    probs = rng.dirichlet([1, 1, 1, 1], (60, 80)).astype(np.float16)
    names = ("Fat", "Stroma", "Tumour", "Émail 腫")
    colours = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (1, 2, 3))
    return ClassMap(names, colours, (100.5, 50.0), 28.0, 7.0, labels, probs)


def test_areas_add_up(classmap):
    areas = classmap.areas_mm2()
    assert areas["Stroma"] == pytest.approx((200 - 6) * 49e-6)
    assert areas["Émail 腫"] == 0
    assert sum(areas.values()) == pytest.approx(classmap.predicted.sum() * 49e-6)
    assert sum(classmap.areas_percent().values()) == pytest.approx(100)
    nothing = ClassMap.empty(("a",), ((0, 0, 0),), (0, 0), 1, 1, 3, 3)
    assert nothing.areas_percent() == {"a": 0}


def test_values_under_a_place(classmap):
    found = classmap.at(100.5 + 28 * 11.5, 50 + 28 * 11.5)
    assert found is not None and found[0] == "Stroma"
    assert sum(found[1].values()) == pytest.approx(1, abs=0.01)
    assert classmap.at(0, 0) is None
    assert classmap.at(101, 51) is None
    assert classmap.at(1e9, 0) is None


def test_uncertainty_is_0_when_sure_and_1_when_all_are_alike():
    labels = np.array([[1, 1, 0]], np.uint8)
    probs = np.array([[[1, 0], [0.5, 0.5], [0.5, 0.5]]], np.float16)
    got = ClassMap(("a", "b"), ((0, 0, 0),) * 2, (0, 0), 1, 1, labels, probs).uncertainty()
    assert np.allclose(got, [[0, 1, 0]], atol=1e-3)


def test_outlines_are_exact(classmap):
    for value, (name, shapes) in enumerate(classmap.polygons().items(), 1):
        want = (classmap.labels == value).sum() * 28.0**2
        assert sum(s.area for s in shapes) == pytest.approx(want), name
        assert all(s.is_valid for s in shapes)
    assert classmap.polygons()["Fat"][0].bounds[0] == pytest.approx(100.5 + 5 * 28)


def test_a_saved_map_is_the_same_map(classmap, tmp_path):
    classmap.save(tmp_path / "m.safetensors")
    again = ClassMap.load(tmp_path / "m.safetensors")
    assert np.array_equal(again.labels, classmap.labels)
    assert np.array_equal(again.probs, classmap.probs)
    for name in ("classes", "colours", "origin", "step", "mpp"):
        assert getattr(again, name) == getattr(classmap, name)
    for content in (b"", b"junk" * 30):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(PathotuneError):
            ClassMap.load(tmp_path / "bad")
    with pytest.raises(PathotuneError):
        classmap.save(tmp_path / "no" / "such.safetensors")


@pytest.mark.parametrize("key", plugins.names(EXPORTS))
def test_every_export_writes_says_research_and_tells_no_secrets(key, classmap, tmp_path):
    module = plugins.load(EXPORTS, key)
    pixels = np.full((1800, 2400, 3), 230, np.uint8)
    secret = tmp_path / "PATIENT-DOE-1234.png"
    Image.fromarray(pixels).save(secret)
    path = tmp_path / f"out{module.SUFFIX}"
    with open_slide(secret, mpp=0.25) as slide:
        assert module.write(path, classmap, slide) == [path]
        content = path.read_bytes()
        module.write(path, classmap, slide)
        assert path.read_bytes() == content
    assert b"DOE" not in content and str(tmp_path).encode() not in content
    if key != "png":
        assert b"esearch use only" in content
    assert module.ACCEPTS is ClassMap
    first = content
    module.write(path, classmap, None)
    with pytest.raises(PathotuneError):
        module.write(tmp_path / "missing" / path.name, classmap, None)
    again = path.read_bytes()
    module.write(path, classmap, None)
    assert path.read_bytes() == again
    if key not in {"png", "ome_tiff"}:  # one shows the slide, one tells which picture of the file
        assert again == first


def test_ome_tiff_carries_size_place_and_classes(classmap, tmp_path):
    path = tmp_path / "m.ome.tif"
    plugins.load(EXPORTS, "ome_tiff").write(path, classmap, None)
    with tifffile.TiffFile(path) as file:
        assert np.array_equal(file.asarray(), classmap.labels)
        xml = file.ome_metadata
    assert 'PhysicalSizeX="7.0"' in xml and "Émail 腫" in xml and "100.5" in xml
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(7.0)


def test_a_large_ome_tiff_has_smaller_levels_of_classes_that_were_there(classmap, tmp_path):
    rng = np.random.default_rng(3)
    blobs = ndimage.gaussian_filter(rng.normal(size=(5, 1033, 701)), (0, 12, 12)).argmax(axis=0)
    labels = blobs.astype(np.uint8)
    labels[::7, ::5] = 1  # dust, which no level of half the size may let grow
    labels[0, 0], labels[-1, -1] = 4, 3
    large = replace(classmap, labels=labels, probs=None)
    path = tmp_path / "m.ome.tif"
    plugins.load(EXPORTS, "ome_tiff").write(path, large, None)
    with tifffile.TiffFile(path) as file:
        assert len(file.series) == 1 and len(file.pages) == 1
        levels = [level.asarray() for level in file.series[0].levels]
        assert file.pages[0].photometric == tifffile.PHOTOMETRIC.MINISBLACK
        assert all(page.subfiletype == 1 for page in file.pages[0].pages)
        subs = [page.tags.get("ImageDescription") for page in file.pages[0].pages]
    assert [level.shape for level in levels] == [(1033, 701), (517, 351), (259, 176), (130, 88)]
    assert subs == [None] * 3 and np.array_equal(levels[0], labels)
    for number, level in enumerate(levels[1:], 1):
        side = 2**number
        for row, col in [(0, 0), (11, 17), (100, 80), (level.shape[0] - 1, level.shape[1] - 1)]:
            block = labels[row * side : (row + 1) * side, col * side : (col + 1) * side]
            most = np.bincount(block.ravel(), minlength=5)
            assert most[level[row, col]] == most.max()
        plain = np.isin(level, np.unique(labels)).all()
        shares = [np.bincount(a.ravel(), minlength=5) / a.size for a in (labels, level)]
        assert plain and shares[1][1] <= shares[0][1]
    with open_slide(path) as slide:
        assert [(found.height, found.width) for found in slide.levels][:2] == [
            (1033, 701),
            (517, 351),
        ]
        assert np.array_equal(
            slide.read_level(0, 100, 200, 50, 40)[..., 0], labels[200:240, 100:150]
        )


def test_a_spot_of_a_smaller_level_prefers_an_answer_to_none():
    labels = np.zeros((600, 600), np.uint8)
    labels[::2] = 2  # as much as there is of no answer
    (half, _) = class_levels(labels, 2)
    assert (half == 2).all()
    labels[0, 0] = 0
    assert next(class_levels(labels, 2))[0, 0] == 0
    assert list(class_levels(labels[:256, :256], 2)) == []


def test_geojson_opens_as_annotations_with_holes(classmap, tmp_path):
    path = tmp_path / "m.geojson"
    plugins.load(EXPORTS, "geojson").write(path, classmap, None)
    marks = read_geojson(path)
    assert [c.name for c in marks.classes] == ["Fat", "Stroma", "Tumour"]
    assert [c.colour for c in marks.classes] == list(classmap.colours[:3])
    raw = json.loads(path.read_text())["features"]
    assert shape(raw[0]["geometry"]).area == pytest.approx((classmap.labels == 1).sum() * 784)


def test_csv_is_a_plain_table(classmap, tmp_path):
    path = tmp_path / "a.csv"
    plugins.load(EXPORTS, "csv").write(path, classmap, None)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["class"] for r in rows] == list(classmap.classes)
    assert float(rows[1]["area_mm2"]) == pytest.approx(194 * 49e-6)
    assert sum(float(r["percent"]) for r in rows) == pytest.approx(100, abs=0.01)
    assert rows[0]["colour"] == "#0072b2" and all("esearch" in r["note"] for r in rows)


def test_a_map_whose_parts_do_not_fit_is_refused(classmap, tmp_path):
    for change in (
        {"labels": np.full((60, 80), 9, np.uint8)},
        {"probs": classmap.probs[:, :-1]},
        {"colours": classmap.colours[:2]},
        {"step": -1.0},
    ):
        replace(classmap, **change).save(tmp_path / "odd.safetensors")
        with pytest.raises(PathotuneError, match="not a class map"):
            ClassMap.load(tmp_path / "odd.safetensors")


def test_the_scale_bar_is_as_long_as_it_says():
    png = plugins.load(EXPORTS, "png")
    for rows, cols in ((30, 40), (1700, 900), (3500, 2001)):
        empty = ClassMap.empty(("a",), ((0, 0, 0),), (0, 0), 28.0, 7.0, rows, cols)
        pixels, size = png.picture(empty, None)
        assert abs(pixels.shape[1] * size - cols) < max(size, 1e-6)
        assert max(pixels.shape) <= 1600


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(max_examples=150, deadline=None)
def test_outlines_of_any_mask_are_valid_and_cover_it(here):
    found = outlines(here, (100.5, -7.0), 3.0)
    assert len(found) == ndimage.label(here)[1]
    assert all(p.is_valid and p.geom_type == "Polygon" for p in found)
    rows, cols = np.nonzero(here)
    boxes = shapely.box(100.5 + 3 * cols, 3 * rows - 7, 103.5 + 3 * cols, 3 * rows - 4)
    want = shapely.union_all(boxes)
    assert shapely.union_all(found).symmetric_difference(want).area < 1e-9
    assert sum(p.area for p in found) == pytest.approx(want.area)


def test_a_large_map_is_outlined_in_seconds():
    rng = np.random.default_rng(1)
    fields = [ndimage.gaussian_filter(rng.standard_normal((1200, 1200)), 5) for _ in range(3)]
    labels = (np.argmax(fields, axis=0) + 1).astype(np.uint8)
    big = ClassMap(("a", "b", "c"), ((0, 0, 0),) * 3, (0, 0), 28, 7, labels)
    begin = time.perf_counter()
    found = big.polygons()
    assert time.perf_counter() - begin < 5
    for value, shapes in enumerate(found.values(), 1):
        assert sum(s.area for s in shapes) == pytest.approx((labels == value).sum() * 784)
        assert shapely.is_valid(shapes).all()
