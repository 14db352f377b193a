"""Nuclei out and in: QuPath, label images, AnnData, tiles and scores from the command line."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from pathotune import cli
from pathotune.events import PathotuneError, drain
from pathotune.nuclei import exports
from pathotune.nuclei.detections import import_detections
from pathotune.nuclei.edits import Edits
from pathotune.nuclei.measure import MEASURES
from pathotune.nuclei.query import Nuclei
from pathotune.nuclei.raster import paint, write_labels
from pathotune.nuclei.store import to_arrow

ABOUT = {"mpp": 0.5}
BOXES = [(4, 6, 14, 12), (20, 6, 30, 30), (700, 300, 720, 310)]


def square(x0, y0, x1, y1):
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], np.float32)


@pytest.fixture
def store(tmp_path):
    b = np.array(BOXES, float)
    rows = dict(zip(("x0", "y0", "x1", "y1"), b.T, strict=True))
    rows |= {"x": (b[:, 0] + b[:, 2]) / 2, "y": (b[:, 1] + b[:, 3]) / 2}
    rows |= {m: np.arange(3.0) for m in (*MEASURES, "confidence")}
    rows |= {"outline": [square(*box) for box in BOXES], "class": ["a", "b", "a"]}
    pq.write_table(to_arrow(rows, ABOUT), tmp_path / "n.parquet")
    return tmp_path / "n.parquet"


def corrected(store):
    nuclei = Nuclei.open(store)
    edits = Edits(nuclei)
    edits.delete([1])
    edits.add(square(40, 40, 50, 50), "drawn")
    return nuclei


def test_quantities_that_are_not_known_are_left_out(store, tmp_path):
    nuclei = corrected(store)
    exports.write_geojson(tmp_path / "g.geojson.gz", nuclei)
    told = drain(import_detections(tmp_path / "g.geojson.gz", tmp_path / "back.parquet", 0.5))
    assert told["nuclei"] == 3
    back = Nuclei.open(tmp_path / "back.parquet")
    assert back.counts() == {"a": 2, "drawn": 1}
    np.testing.assert_array_equal(back.boxes, nuclei.boxes[[0, 2, 3]])
    np.testing.assert_allclose(back.column("area_um2"), [15, 50, 25])
    exports.write_csv(tmp_path / "t.csv", nuclei)
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert len(lines) == 4
    drawn = dict(zip(lines[0].split(","), lines[3].split(","), strict=True))
    assert (drawn["class"], drawn["area_um2"], drawn["eosin_mean"]) == ("drawn", "25", "")
    exports.write_parquet(tmp_path / "p.parquet", nuclei)
    again = Nuclei.open(tmp_path / "p.parquet")
    assert again.counts() == {"a": 2, "drawn": 1}
    assert again.ids.tolist() == [1, 2, 3]


def test_anndata_holds_the_same(store, tmp_path):
    anndata = pytest.importorskip("anndata")
    exports.write_anndata(tmp_path / "n.h5ad", corrected(store))
    table = anndata.read_h5ad(tmp_path / "n.h5ad")
    assert table.obs["class"].tolist() == ["a", "a", "drawn"]
    assert table[:, "area_um2"].X.ravel().tolist() == [0, 2, 25]
    assert table.obsm["spatial"][0].tolist() == [4.5, 4.5]


def test_a_label_image_of_a_slide_has_levels_and_the_right_pixels(store, tmp_path):
    nuclei = corrected(store)
    write_labels(tmp_path / "l.tif", nuclei, 1300, 650)
    whole = np.zeros((650, 1300), np.uint16)
    for (x0, y0, x1, y1), number in ((BOXES[0], 1), (BOXES[2], 3), ((40, 40, 50, 50), 4)):
        whole[y0:y1, x0:x1] = number
    with tifffile.TiffFile(tmp_path / "l.tif") as file:
        levels = [level.asarray() for level in file.series[0].levels]
        assert file.is_ome
        assert file.pages[0].is_tiled
    assert [v.shape for v in levels] == [(650, 1300), (325, 650), (163, 325)]
    np.testing.assert_array_equal(levels[0], whole)
    assert set(np.unique(levels[1])) == {0, 1, 3, 4}
    assert (levels[1][150:155, 350:360] == 3).all()


def test_pixels_whose_centre_lies_inside_are_painted():
    labels = np.zeros((6, 6), int)
    paint(labels, [square(1, 1, 3, 4)], [7])
    assert (labels[1:4, 1:3] == 7).all()
    assert (labels > 0).sum() == 6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"type": "FeatureCollection", "features": []}', "no detections"),
        ('{"type": "FeatureCollection", "features": [{"type": "Fea', "not a complete GeoJSON"),
        ("", "not a complete GeoJSON"),
    ],
)
def test_files_without_nuclei_are_refused(tmp_path, content, words):
    (tmp_path / "g.geojson").write_text(content)
    with pytest.raises(PathotuneError, match=words):
        drain(import_detections(tmp_path / "g.geojson", tmp_path / "n.parquet", 0.5))
    assert not (tmp_path / "n.parquet").exists()


def test_of_a_cell_the_nucleus_is_taken_and_annotations_are_not(tmp_path):
    def polygon(box):
        return {"type": "Polygon", "coordinates": [square(*box).tolist()]}

    features = [
        {
            "type": "Feature",
            "geometry": polygon((0, 0, 20, 20)),
            "nucleusGeometry": polygon((5, 5, 10, 10)),
            "properties": {"objectType": "cell", "classification": {"names": ["Tumor", "pos"]}},
        },
        {
            "type": "Feature",
            "geometry": polygon((0, 0, 90, 90)),
            "properties": {"objectType": "annotation"},
        },
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [1, 2]},
            "properties": {"objectType": "detection"},
        },
    ]
    (tmp_path / "g.geojson").write_text(json.dumps(features))
    told = drain(import_detections(tmp_path / "g.geojson", tmp_path / "n.parquet", 0.5))
    assert (told["nuclei"], told["left_out"]) == (1, 1)
    nuclei = Nuclei.open(tmp_path / "n.parquet")
    assert nuclei.boxes.tolist() == [[5, 5, 10, 10]]
    assert nuclei.counts() == {"Tumor: pos": 1}


def test_a_large_file_is_read_in_bounded_memory(tmp_path):
    """A child reads 15,000 detections; memory grows by less than the file is long."""
    turn = np.linspace(0, 2 * np.pi, 40)
    ring = np.stack([10 * np.cos(turn), 10 * np.sin(turn)], 1)
    with (tmp_path / "g.geojson").open("w") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for i in range(15_000):
            points = np.round(ring + np.array([i % 200 * 30, i // 200 * 30]), 2).tolist()
            geometry = json.dumps({"type": "Polygon", "coordinates": [points]})
            file.write("," * bool(i) + '{"type": "Feature", "geometry": ' + geometry)
            file.write(', "properties": {"objectType": "detection"}}')
        file.write("]}")
    code = """
import resource, sys
from pathlib import Path
from pathotune.events import drain
from pathotune.nuclei.detections import import_detections
from pathotune.nuclei.query import Nuclei
import pyarrow.parquet, shapely
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
small, large, out = map(Path, sys.argv[1:])
drain(import_detections(small, out, 0.5))
before = peak()
told = drain(import_detections(large, out, 0.5))
assert told["nuclei"] == 15000, told
print(peak() - before)
"""
    text = (tmp_path / "g.geojson").read_text()
    first = text.index('{"type": "Feature"')
    (tmp_path / "s.geojson").write_text(text[: text.index('"}}', first) + 3] + "]}")
    root = Path(__file__).parents[2]
    asked = [tmp_path / "s.geojson", tmp_path / "g.geojson", tmp_path / "n.parquet"]
    env = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *asked], env=env, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < (tmp_path / "g.geojson").stat().st_size
    assert time.monotonic() - began < 120


def test_a_full_disk_leaves_the_old_file(store, tmp_path, monkeypatch):
    nuclei = Nuclei.open(store)
    (tmp_path / "l.tif").write_bytes(b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: write_labels(tmp_path / "l.tif", nuclei, 100, 100),
        lambda: exports.write_geojson(tmp_path / "g.geojson", nuclei),
        lambda: exports.write_parquet(tmp_path / "p.parquet", nuclei),
    ):
        with pytest.raises(PathotuneError, match="disk is full"):
            write()
    assert (tmp_path / "l.tif").read_bytes() == b"old"
    assert {p.name for p in tmp_path.iterdir()} == {"n.parquet", "l.tif"}


def told_by(capsys, *words):
    code = cli.main([*map(str, words), "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if code == 0 else said.err


def test_tiles_to_label_images_and_their_scores(shared, tmp_path, capsys):
    source = shared / "data/nuclei_dsb2018_he/train"
    tiles, truth = tmp_path / "tiles", tmp_path / "truth"
    for folder, place in (("images", tiles), ("masks", truth)):
        place.mkdir()
        for file in sorted((source / folder).iterdir())[:3]:
            (place / file.name).write_bytes(file.read_bytes())
    out = tmp_path / "made" / "labels"
    code, told = told_by(capsys, "segment", "--tiles", tiles, "--mpp", "0.4", "--out", out)
    assert code == 0
    assert sorted(p.stem for p in out.iterdir()) == sorted(p.stem for p in tiles.iterdir())
    for path in out.iterdir():
        labels = tifffile.imread(path)
        assert labels.dtype == np.uint16
        assert labels.shape == (256, 320)
        assert labels.max() == told["images"][path.stem] == len(np.unique(labels)) - 1
    assert not told["mpp_assumed"]
    assert told["nuclei"] > 10
    code, scored = told_by(capsys, "eval-nuclei", "--pred", out, "--truth", truth)
    assert code == 0
    assert scored["count"] == 3
    for name in ("dice", "aji", "dq", "sq", "pq", "detection_f1"):
        values = [row[name] for row in scored["images"].values()]
        assert scored["mean"][name] == pytest.approx(np.mean(values))
    code, same = told_by(capsys, "eval-nuclei", "--pred", truth, "--truth", truth)
    assert set(same["mean"].values()) == {1.0}
    next(out.iterdir()).unlink()
    code, said = told_by(capsys, "eval-nuclei", "--pred", out, "--truth", truth)
    assert code == 2
    assert "1 of 3 images have no answer" in said


def test_tiles_of_unknown_scale_are_told_and_labels_must_be_labels(tmp_path, capsys):
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    pixels = np.full((64, 80, 3), 240, np.uint8)
    tifffile.imwrite(tiles / "grey.tif", pixels, photometric="rgb")
    pixels[10:40, 10:40] = (230, 150, 190)
    tifffile.imwrite(tiles / "a.tif", pixels, photometric="rgb")
    code, told = told_by(capsys, "segment", "--tiles", tiles, "--out", tmp_path / "out")
    assert code == 0
    assert told["mpp_assumed"]
    assert told["images"] == {"a": 0, "grey": 0}
    assert "not a stained" in told["refused"]["grey"]
    assert tifffile.imread(tmp_path / "out" / "a.tif").shape == (64, 80)
    for wrong, words in (
        (("segment", "--tiles", tiles, "--out", tiles), "among the tiles"),
        (("segment", "--tiles", tiles, "--out", tmp_path / "o", "--csv", "t.csv"), "--csv belongs"),
        (("segment", "--out", tmp_path / "o"), "Nothing was named"),
        (("eval-nuclei", "--pred", tiles, "--truth", tiles), "no label image"),
        (("eval-nuclei", "--pred", tmp_path / "none", "--truth", tiles), "no folder"),
    ):
        code, said = told_by(capsys, *wrong)
        assert code == 2
        assert words in said


def test_a_new_run_keeps_what_was_corrected_and_every_file_says_so(shared, tmp_path, capsys):
    slide = shared / "data/wsi_cmu1_small_region/CMU-1-Small-Region.svs"
    out = tmp_path / "n.parquet"
    asked = ("nuclei", slide, "--tissue", "off", "--region", "900,900,400,400", "--out", out)
    _, first = told_by(capsys, *asked)
    with Nuclei.open(out) as nuclei:
        edits = Edits(nuclei)
        edits.delete([0, 1])
        edits.close()
    assert first["nuclei"] > 10
    files = ("--labels", tmp_path / "l.tif", "--csv", tmp_path / "t.csv")
    _, second = told_by(capsys, *asked, *files)
    assert second["nuclei"] == first["nuclei"] - 2
    assert second["edits"] == 1
    assert (tmp_path / "t.csv").read_text().count("\n") == second["nuclei"] + 1
    labels = tifffile.imread(tmp_path / "l.tif", level=0)
    assert len(np.unique(labels)) - 1 == second["nuclei"]
