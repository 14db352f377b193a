"""Measurements, DAB grades and summaries of nuclei against numbers worked by hand."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
from scipy import ndimage

from pathotune import cli
from pathotune.events import PathotuneError, drain
from pathotune.maps.classmap import ClassMap
from pathotune.nuclei import rules
from pathotune.nuclei.dab import DAB
from pathotune.nuclei.kept import load_classes, save_classes
from pathotune.nuclei.measure import MEASURES, measure
from pathotune.nuclei.neighbours import neighbours
from pathotune.nuclei.query import Nuclei
from pathotune.nuclei.raster import paint
from pathotune.nuclei.run import segment_slide
from pathotune.nuclei.segmenter import Found, prepare
from pathotune.nuclei.stains import Stains
from pathotune.nuclei.store import to_arrow
from pathotune.nuclei.summaries import summarise, tissue_under
from pathotune.slides.slide import open_slide


def test_neighbours_on_a_line():
    xy = np.array([[0, 0], [0, 10], [0, 40], [4000, 0]], float)
    told = neighbours(xy, 2.0)
    assert told["nearest_um"].tolist() == [20, 20, 60, pytest.approx(8000)]
    disc = np.pi * 50**2 / 1e6
    assert told["around_per_mm2"] == pytest.approx(np.array([2, 2, 1, 1]) / disc)
    assert np.isnan(neighbours(xy[:1], 1.0)["nearest_um"]).all()
    assert not len(neighbours(xy[:0], 1.0)["nearest_um"])


def test_brown_is_told_from_blue_and_pink():
    stains = Stains()
    amounts = {"h": stains.haematoxylin, "e": stains.eosin, "d": DAB}
    pixels = np.full((10, 30, 3), 255, np.uint8)
    labels = np.zeros((10, 30), np.int32)
    for i, vector in enumerate(amounts.values()):
        unit = np.array(vector) / np.linalg.norm(vector)
        pixels[2:8, 10 * i + 2 : 10 * i + 8] = np.round(255 * 10 ** (-0.5 * unit))
        labels[2:8, 10 * i + 2 : 10 * i + 8] = i + 1
    found = Found(labels, np.ones(3, np.float32))
    rows = measure(pixels, found, np.ones(3, bool), (0, 0), 1.0, 0.5, stains)
    assert rows["dab_mean"] == pytest.approx([0, 0, 0.5], abs=0.01)
    assert rows["dab_std"] == pytest.approx([0, 0, 0], abs=0.01)
    assert rows["texture"] == pytest.approx([0, 0, 0], abs=1e-6)  # the edge does not count


def test_texture_of_stripes():
    pixels = np.full((8, 8, 3), 100, np.uint8)
    pixels[:, ::2] = 50
    found = Found(np.ones((8, 8), np.int32), np.ones(1, np.float32))
    rows = measure(pixels, found, np.ones(1, bool), (0, 0), 1.0, 0.5, Stains())
    step = np.log10(2)
    # each pixel of the first seven columns sees one step and, but in the last row, one 0
    assert rows["texture"][0] == pytest.approx((49 * step / 2 + 7 * step) / 64, rel=1e-4)


def test_grades_index_and_h_score_by_hand():
    values = np.array([0.0, 0.19, 0.2, 0.39, 0.4, 0.6, 2.0, np.nan])
    graded = rules.grades(values)
    assert graded.tolist() == [0, 0, 1, 1, 2, 3, 3, -1]
    told = rules.index(graded)
    assert (told.counted, told.unknown, told.counts) == (7, 1, (2, 2, 1, 2))
    assert told.positive == pytest.approx(500 / 7)
    assert told.h_score == pytest.approx((2 + 2 + 6) * 100 / 7)
    nothing = rules.index(graded[:0])
    assert nothing.positive is None
    assert nothing.h_score is None
    for wrong in ((0.4, 0.2, 0.6), (0.2, 0.4)):
        with pytest.raises(PathotuneError, match="three rising"):
            rules.grades(values, wrong)


@pytest.fixture
def four(tmp_path):
    """Four nuclei of 10 x 10 px at 1 um/px; the last one beside the map."""
    corners = np.array([(10, 10), (60, 10), (110, 10), (500, 500)], float)
    rows = {"x": corners[:, 0] + 5, "y": corners[:, 1] + 5}
    rows |= {"x0": corners[:, 0], "y0": corners[:, 1]}
    rows |= {"x1": corners[:, 0] + 10, "y1": corners[:, 1] + 10}
    rows["outline"] = [
        np.array([(0, 0), (10, 0), (10, 10), (0, 10), (0, 0)], np.float32) + c for c in corners
    ]
    rows |= {m: np.zeros(4) for m in (*MEASURES, "confidence")}
    rows["area_um2"] = np.array([100, 200, 300, 400.0])
    rows["dab_mean"] = np.array([0.1, 0.3, 0.7, np.nan])
    about = {"mpp": 1.0, "area_mm2": 0.5}
    pq.write_table(to_arrow(rows, about), tmp_path / "n.parquet")
    return Nuclei.open(tmp_path / "n.parquet")


def test_classes_by_dab(four):
    told = rules.by_dab(four)
    assert (told.counted, told.unknown) == (3, 1)
    assert four.counts() == {"Negative": 1, "1+": 1, "3+": 1, "Nucleus": 1}
    rules.by_dab(four, graded=False)
    assert four.counts() == {"Negative": 1, "Positive": 2, "Nucleus": 1}


def test_summaries_by_region_tissue_and_class(four):
    rules.by_dab(four, graded=False)
    labels = np.zeros((4, 4), np.uint8)
    labels[:, :2], labels[:, 2:] = 1, 2
    ground = ClassMap(("tumour", "stroma"), ((0, 0, 0),) * 2, (0, 0), 50.0, 50.0, labels)
    assert tissue_under(four.xy, ground).tolist() == [1, 1, 2, 0]
    region = shapely.box(0, 0, 100, 100)
    told = {
        (r["region"], r["tissue"], r["class"]): r for r in summarise(four, {"hot": region}, ground)
    }
    whole = told["Whole slide", "All", "All"]
    assert (whole["count"], whole["per_mm2"], whole["area_um2"]) == (4, 8, 250)
    tumour = told["Whole slide", "tumour", "Positive"]
    assert (tumour["count"], tumour["fraction"]) == (1, 0.5)
    assert tumour["area_mm2"] == pytest.approx(100 * 200 / 1e6)
    hot = told["hot", "tumour", "All"]
    assert (hot["count"], hot["per_mm2"]) == (2, pytest.approx(2 / 0.01))
    nothing = told["hot", "stroma", "All"]
    assert (nothing["count"], nothing["per_mm2"], nothing["fraction"]) == (0, None, None)


def test_dab_of_a_real_immunostain_is_that_of_skimage(shared, tmp_path):
    from skimage import color, io

    file = shared / "data/img_skimage_ihc/ihc.png"
    with open_slide(file, mpp=0.5) as slide:
        drain(segment_slide(slide, prepare("watershed", slide), tmp_path / "n.parquet"))
    nuclei = Nuclei.open(tmp_path / "n.parquet")
    assert len(nuclei) > 100
    theirs = color.rgb2hed(io.imread(file)[..., :3])[..., 2]
    rings = nuclei.outlines(np.arange(len(nuclei)))
    labels = np.zeros(theirs.shape, int)
    paint(labels, [rings.ring(i) for i in range(len(nuclei))], np.arange(1, len(nuclei) + 1))
    mean = ndimage.mean(theirs, labels, np.arange(1, len(nuclei) + 1))
    ours = nuclei.column("dab_mean")
    assert np.corrcoef(mean, ours)[0, 1] > 0.95
    told = rules.by_dab(nuclei)
    assert 0 < told.positive < 100
    brown = nuclei.column("dab_mean")[nuclei.codes == nuclei.code("2+")]
    assert len(brown) == 0 or brown.min() >= 0.4
    assert np.isfinite(nuclei.column("nearest_um")).all()


def test_classes_are_kept_for_their_own_run_only(four, tmp_path):
    rules.by_dab(four)
    file = save_classes(four)
    again = Nuclei.open(four.path)
    assert load_classes(again)
    assert again.counts() == four.counts()
    assert again.confidence.tolist() == four.confidence.tolist()
    again.xy[0] += 1  # another run found it elsewhere
    assert not load_classes(again)
    file.write_bytes(b"PAR1 torn")
    assert not load_classes(Nuclei.open(four.path))
    file.unlink()
    assert not load_classes(Nuclei.open(four.path))


def test_the_command_grades_and_counts(shared, tmp_path, capsys):
    file = str(shared / "data/img_skimage_ihc/ihc.png")
    box = {"type": "Polygon", "coordinates": [[[0, 0], [256, 0], [256, 512], [0, 512], [0, 0]]]}
    feature = {"type": "Feature", "geometry": box, "properties": {"name": "left"}}
    (tmp_path / "r.geojson").write_text(json.dumps(feature))
    labels = np.full((8, 8), 1, np.uint8)
    ClassMap(("gland",), ((0, 0, 0),), (0, 0), 64.0, 32.0, labels).save(tmp_path / "m.safetensors")
    asked = [
        "nuclei",
        file,
        "--mpp",
        "0.5",
        "--tissue",
        "off",
        "--out",
        str(tmp_path / "n.parquet"),
    ]
    more = ["--dab", "--map", str(tmp_path / "m.safetensors")]
    more += ["--regions", str(tmp_path / "r.geojson"), "--json"]
    assert cli.main([*asked, *more]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(told["grades"].values()) == told["nuclei"]
    one, two, three = (told["grades"][g] for g in ("1+", "2+", "3+"))
    assert told["h_score"] == pytest.approx(100 * (one + 2 * two + 3 * three) / told["nuclei"])
    rows = {(r["region"], r["tissue"], r["class"]): r for r in told["summary"]}
    assert rows["Whole slide", "gland", "All"]["count"] == told["nuclei"]
    left = rows["left", "gland", "All"]
    assert 0 < left["count"] < told["nuclei"]
    assert left["area_mm2"] == pytest.approx(256 * 512 * 0.25 / 1e6)
    assert cli.main([*asked, "--dab", "a,b", "--json"]) == 2
    assert "three rising" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pen", "blood", "blur", "only nuclei"])
def test_bad_fields_end_in_numbers_and_not_in_a_crash(kind, tmp_path):
    """What is no tissue gives few nuclei; a field full of nuclei gives many."""
    rng = np.random.default_rng(0)
    pixels = np.full((256, 256, 3), 240, np.uint8)
    if kind == "pen":
        pixels[100:140] = (20, 60, 200)
    elif kind == "blood":
        pixels[40:220, 40:220] = (215, 60, 80)
    else:
        yy, xx = np.mgrid[:256, :256]
        dye = np.zeros((256, 256))
        for y in range(10, 256, 18):
            for x in range(10, 256, 18):
                dye[(yy - y) ** 2 + (xx - x) ** 2 < 64] = 0.7
        if kind == "blur":
            dye = ndimage.gaussian_filter(dye, 25)
        density = dye[..., None] * np.array(Stains().haematoxylin) + 0.02
        pixels = np.round(255 * 10**-density).astype(np.uint8)
    pixels = np.clip(pixels + rng.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
    tifffile.imwrite(tmp_path / "f.tif", pixels, photometric="rgb")
    with open_slide(tmp_path / "f.tif", mpp=0.5) as slide:
        told = drain(segment_slide(slide, prepare("watershed", slide), tmp_path / "n"))
    if kind == "only nuclei":
        assert told["nuclei"] == pytest.approx(196, rel=0.1)
    else:
        # out of focus there were 196: what is left of them is not many, and none are made up
        assert told["nuclei"] < (98 if kind == "blur" else 40)
    assert not told["stains_estimated"] or kind == "blood"
