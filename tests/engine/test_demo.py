"""The demo does what the first minute promises, and the sample is honest."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
import shapely.affinity
import tifffile
from PIL import Image

from pathotune import drain
from pathotune.cases import demo, report, screen
from pathotune.events import Note
from pathotune.places import resources

SAMPLE = resources() / "sample"


@pytest.fixture(scope="module")
def marks() -> list[tuple[str, shapely.Polygon]]:
    collection = json.loads((SAMPLE / "bowel_wall.geojson").read_text(encoding="utf-8"))
    return [
        (f["properties"]["classification"]["name"], shapely.geometry.shape(f["geometry"]))
        for f in collection["features"]
    ]


def test_the_sample_is_a_small_pyramid_with_its_scale():
    path = SAMPLE / "bowel_wall.ome.tif"
    assert path.stat().st_size < 8e6
    with tifffile.TiffFile(path) as tiff:
        assert [level.shape[:2] for level in tiff.series[0].levels] == [
            (3840 >> n, 5120 >> n) for n in range(4)
        ]
        assert 'PhysicalSizeX="0.5"' in tiff.ome_metadata


def test_every_class_has_at_least_three_regions_well_inside_its_patches(marks):
    truth = np.asarray(Image.open(SAMPLE / "bowel_wall_truth.png"))
    counts = dict.fromkeys(demo.TRUTH_CLASSES, 0)
    for name, polygon in marks:
        counts[name] += 1
        assert polygon.is_valid
        x0, y0, x1, y1 = (int(v) // 8 for v in polygon.bounds)
        yy, xx = np.mgrid[y0 : y1 + 1, x0 : x1 + 1]
        inside = shapely.contains_xy(polygon, xx * 8 + 4, yy * 8 + 4)
        values = np.unique(truth[y0 : y1 + 1, x0 : x1 + 1][inside])
        # One patch, of the right class, and of a tile that the truth calls marked.
        assert values.tolist() == [demo.TRUTH_CLASSES.index(name) + 1]
    assert min(counts.values()) >= 3


def test_every_class_has_tissue_of_tiles_that_nobody_marked():
    held = demo.held_back_truth()
    areas = np.bincount(held.ravel(), minlength=7)[1:] * (8 * 0.5) ** 2 / 1e6
    assert areas.min() > 0.05, areas  # mm2


def test_the_truth_judges_a_perfect_and_a_blind_map():
    truth = demo.held_back_truth()
    order = sorted(demo.TRUTH_CLASSES)
    labels = np.zeros_like(truth)
    for value, name in enumerate(demo.TRUTH_CLASSES, 1):
        labels[truth == value] = order.index(name) + 1
    perfect = SimpleNamespace(classes=order, labels=labels, origin=(0.0, 0.0), step=8.0)
    assert set(demo.unseen_f1(perfect).values()) == {1.0}
    blind = SimpleNamespace(classes=order, labels=np.ones_like(labels), origin=(0.0, 0.0), step=8.0)
    scores = demo.unseen_f1(blind)
    assert sum(s > 0 for s in scores.values()) == 1


def test_a_virtual_screen_answers_and_ends():
    with screen.virtual_screen(320, 240) as env:
        if env is None:
            pytest.skip("Xvfb is not installed")
        socket = Path("/tmp/.X11-unix") / f"X{env['DISPLAY'].removeprefix(':')}"
        assert socket.exists()
    assert not socket.exists()


def test_the_page_is_whole_and_escapes_names(tmp_path):
    picture = tmp_path / "map.png"
    Image.new("RGB", (4, 4)).save(picture)
    classmap = SimpleNamespace(
        classes=("<b>", "Fat"),
        colours=((1, 2, 3), (255, 0, 16)),
        areas_mm2=lambda: {"<b>": 1.0, "Fat": 0.25},
        areas_percent=lambda: {"<b>": 80.0, "Fat": 20.0},
    )
    slide = SimpleNamespace(name="a & b.svs", width=1000, height=2000, mpp=0.5)
    verdict = {"macro_f1": None, "why_not": "Fat has one region."}
    path = report.write_report(
        tmp_path / "page.html", slide, classmap, verdict, pictures=[(picture, "the map")]
    )
    html = path.read_text(encoding="utf-8")
    assert "a &amp; b.svs" in html and "&lt;b&gt;" in html and "#ff0010" in html
    assert "Fat has one region." in html and "research use only" in html.lower()
    assert not re.search(r'(?:src|href)="(?!data:)', html)
    assert "<script" not in html and "http" not in html


X, Y, WIDTH, HEIGHT = 320, 480, 2400, 2496  # the left half, in whole pixels of the truth


@pytest.fixture(scope="module")
def half(tmp_path_factory) -> tuple[Path, Path]:
    """Return the left half of the sample and its marks: the same demo in half the time."""
    folder = tmp_path_factory.mktemp("half")
    with tifffile.TiffFile(SAMPLE / "bowel_wall.ome.tif") as tiff:
        cut = tiff.pages[0].asarray()[Y : Y + HEIGHT, X : X + WIDTH]
    options = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "tile": (256, 256)}
    tifffile.imwrite(folder / "half.tif", cut, photometric="rgb", **options)
    collection = json.loads((SAMPLE / "bowel_wall.geojson").read_text(encoding="utf-8"))
    kept = []
    for feature in collection["features"]:
        moved = shapely.affinity.translate(shapely.geometry.shape(feature["geometry"]), -X, -Y)
        if shapely.box(0, 0, WIDTH, HEIGHT).contains(moved):
            feature["geometry"] = shapely.geometry.mapping(moved)
            kept.append(feature)
    collection["features"] = kept
    (folder / "half.geojson").write_text(json.dumps(collection), encoding="utf-8")
    return folder / "half.tif", folder / "half.geojson"


@pytest.fixture(scope="module")
def made(tmp_path_factory, half):
    """Run the demo once, with the picture of the window."""
    out = tmp_path_factory.mktemp("demo")
    notes: list[str] = []
    truth = demo.held_back_truth()[Y // 8 : (Y + HEIGHT) // 8, X // 8 : (X + WIDTH) // 8]

    def listen(event):
        if isinstance(event, Note):
            notes.append(event.text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHOTUNE_HOME", str(out / "home"))
        patch.setattr("pathotune.slides.sample.sample_slide", lambda: half[0])
        patch.setattr("pathotune.slides.sample.sample_annotations", lambda: half[1])
        patch.setattr(demo, "held_back_truth", lambda: truth)
        result = drain(demo.run(out / "results", headless=True, device="cpu"), listen)
    return result, notes


def test_the_demo_writes_everything_and_tells_the_classes_apart(made):
    result, notes = made
    assert set(result.files) >= {"map", "regions", "areas", "metrics", "picture", "page", "model"}
    assert all(p.stat().st_size for p in result.files.values())
    metrics = json.loads(result.files["metrics"].read_text(encoding="utf-8"))
    held_out = metrics["held_out"]
    assert held_out["scope"] == "this slide" and held_out["n_regions"] >= 12
    assert 0.5 < held_out["macro_f1"] <= 1
    for row in held_out["per_class"]:
        assert row["low"] <= row["f1"] <= row["high"]
    assert metrics["unseen_tiles"]["macro_f1"] > 0.5
    page = result.files["page"].read_text(encoding="utf-8")
    assert "research use only" in page.lower() and "this slide only" in page
    assert "this slide only" in result.story() and str(result.files["page"]) in result.story()
    assert not [n for n in notes if "no picture" in n]


def test_the_picture_shows_a_lively_window(made):
    result, _ = made
    if "window" not in result.files:
        pytest.skip("no virtual screen here")
    picture = np.asarray(Image.open(result.files["window"]).convert("RGB"))
    assert picture.shape[0] > 600 and picture.shape[1] > 1000
    assert picture.std() > 30
