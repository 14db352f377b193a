"""Classes from a few named nuclei: right, honest about how right, and said when too few."""

from __future__ import annotations

import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from pathotune.events import Note, PathotuneError, drain
from pathotune.nuclei.classes import classify, judge, take_over
from pathotune.nuclei.edits import Edits
from pathotune.nuclei.measure import MEASURES
from pathotune.nuclei.query import Nuclei
from pathotune.nuclei.store import to_arrow

SMALL, LARGE = 0, 1


@pytest.fixture
def field(tmp_path):
    """1600 nuclei of two sizes, on both halves of a slide that differ in their surroundings."""
    rng = np.random.default_rng(0)
    n, box = 1600, np.array([(0, 0), (9, 0), (9, 9), (0, 9), (0, 0)], np.float32)
    xy = rng.uniform(0, 6000, (n, 2))
    kind = rng.integers(0, 2, n)
    rows = {"x": xy[:, 0], "y": xy[:, 1], "x0": xy[:, 0] - 4, "x1": xy[:, 0] + 4}
    rows |= {"y0": xy[:, 1] - 4, "y1": xy[:, 1] + 4, "outline": [box + p for p in xy]}
    rows |= {m: rng.normal(1, 0.1, n) for m in (*MEASURES, "confidence")}
    rows["area_um2"] = np.where(kind == LARGE, rng.normal(80, 10, n), rng.normal(30, 6, n))
    for side in ("major_um", "minor_um", "perimeter_um"):
        rows[side] = np.sqrt(rows["area_um2"]) * rng.normal(1, 0.1, n)
    pq.write_table(to_arrow(rows, {"mpp": 0.5}), tmp_path / "n.parquet")
    return Nuclei.open(tmp_path / "n.parquet"), kind


def named(kind, rows):
    return {int(r): ("small", "large")[kind[r]] for r in rows}


def test_a_few_named_nuclei_name_all(field):
    nuclei, kind = field
    told = drain(classify(nuclei, named(kind, range(20))))
    assert told.names == ("large", "small")
    right = np.array([told.names[c] for c in told.codes]) == np.where(kind, "large", "small")
    assert right.mean() > 0.95
    assert told.judged.macro > 0.85
    assert told.judged.nuclei == {"large": int(kind[:20].sum()), "small": int(20 - kind[:20].sum())}
    assert (told.confidence[:20] == 1).all()
    wrong = ~right
    assert told.confidence[wrong].mean() < told.confidence[right].mean()
    take_over(nuclei, told)
    assert sum(nuclei.counts().values()) == 1600
    asked = told.uncertain(nuclei, 5)
    assert len(asked) == 5
    assert told.margin[asked].max() < np.median(told.margin)
    assert not set(asked.tolist()) & set(range(20))


def test_surroundings_tell_apart_what_looks_the_same(field):
    nuclei, _ = field
    side = (nuclei.xy[:, 0] > 3000).astype(int)
    rng = np.random.default_rng(1)
    signs = rng.normal(0, 1, (2, 40))

    def tokens(xy):
        which = (xy[:, 0] > 3000).astype(int)
        out = signs[which] + rng.normal(0, 0.5, (len(xy), 40))
        out[xy[:, 1] > 5900] = np.nan  # never computed there
        return out

    alone = drain(classify(nuclei, named(side, range(30))))
    around = drain(classify(nuclei, named(side, range(30)), tokens))
    share = [(t.codes == (t.names.index("large") ^ (1 - side))).mean() for t in (alone, around)]
    assert share[0] < 0.7
    assert share[1] > 0.95
    assert around.judged.macro > 0.9


def test_chance_is_called_chance(field):
    nuclei, _ = field
    rng = np.random.default_rng(5)
    told = drain(classify(nuclei, named(rng.integers(0, 2, 1600), range(120))))
    assert 0.3 < told.judged.macro < 0.7


def test_nuclei_of_one_place_are_never_on_both_sides():
    """Each place has a look of its own: seen from inside it is perfect, from outside it is not."""
    rng = np.random.default_rng(2)
    places = np.repeat(np.arange(10), 10)
    truth = np.tile([0, 1], 50)
    look = rng.normal(0, 1, (10, 2, 30))
    x = look[places, truth] + rng.normal(0, 0.05, (100, 30))
    assert judge(x, truth, ("a", "b"), places).macro < 0.75
    assert judge(x, truth, ("a", "b"), np.arange(100)).macro > 0.9


def test_too_few_is_said(field):
    nuclei, _ = field
    with pytest.raises(PathotuneError, match="two classes"):
        drain(classify(nuclei, {0: "a", 1: "a", 2: "a"}))
    with pytest.raises(PathotuneError, match=r"Too few.*b \(1\)"):
        drain(classify(nuclei, {0: "a", 1: "a", 2: "a", 3: "b"}))
    near = nuclei.nearest(1000, 1000, 10)
    nuclei.xy[near] = 1000  # all named in one spot
    notes = []
    told = drain(
        classify(nuclei, {int(r): "ab"[i % 2] for i, r in enumerate(near)}),
        lambda e: notes.append(e) if isinstance(e, Note) else None,
    )
    assert told.judged.macro is None
    assert "one place only" in notes[0].text


def test_named_in_the_window_and_kept(field):
    nuclei, kind = field
    edits = Edits(nuclei)
    for name, code in (("small", 0), ("large", 1)):
        edits.name(np.flatnonzero(kind == code)[:8].tolist(), name)
    nuclei.append([np.array([(0, 0), (30, 0), (30, 30), (0, 30), (0, 0)], np.float32)])
    told = drain(classify(nuclei, edits.named))
    take_over(nuclei, told)
    assert len(told.rows) == 1601  # a drawn one has a shape and no colours
    assert nuclei.classes[nuclei.codes[1600]] == "large"
    edits.close()


def test_a_hundred_thousand_take_seconds(field, tmp_path):
    rng = np.random.default_rng(0)
    n = 100_000
    nuclei = Nuclei({"mpp": 0.5}, tmp_path / "none")
    nuclei._extend(
        rng.uniform(0, 9e4, (n, 2)), np.zeros((n, 4)), np.arange(n), np.zeros(n), np.ones(n)
    )
    kind = rng.integers(0, 2, n)
    nuclei._columns.clear()
    values = {m: rng.normal(kind, 1) for m in nuclei.measures}
    nuclei.read = values.__getitem__
    began = time.monotonic()
    told = drain(classify(nuclei, named(kind, range(60))))
    assert time.monotonic() - began < 20
    assert len(told.codes) == n
