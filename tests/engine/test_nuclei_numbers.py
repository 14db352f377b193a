"""Measurements, DAB grades and summaries of nuclei against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from scipy import ndimage

from pathotune.events import PathotuneError, drain
from pathotune.maps.classmap import ClassMap
from pathotune.nuclei import rules
from pathotune.nuclei.dab import DAB
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
