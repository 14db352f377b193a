"""Nuclei by place: against a plain search, after edits, from threads and of stopped runs."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow.parquet as pq
import pytest

from pathotune.events import PathotuneError
from pathotune.nuclei.measure import MEASURES
from pathotune.nuclei.query import Nuclei
from pathotune.nuclei.shape import shape_measures
from pathotune.nuclei.store import schema, to_arrow

ABOUT = {"mpp": 0.5}


def made(n, seed=0, span=4000.0):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(20, span, n), rng.uniform(20, span, n)
    r = rng.uniform(4, 12, n)
    turn = np.linspace(0, 2 * np.pi, 17)
    rings = [
        np.stack([a + c * np.cos(turn), b + c * np.sin(turn)], 1).astype(np.float32)
        for a, b, c in zip(x, y, r, strict=True)
    ]
    rows = {"x": x, "y": y, "x0": x - r, "x1": x + r, "y0": y - r, "y1": y + r, "outline": rings}
    rows |= {m: rng.random(n) for m in MEASURES} | {"confidence": rng.random(n)}
    rows["class"] = [("tumour", "immune")[i % 2] for i in range(n)]
    return rows


def written(path, n, groups=5, seed=0):
    rows = made(n, seed)
    table = to_arrow(rows, ABOUT)
    with pq.ParquetWriter(path, schema(ABOUT)) as writer:
        for part in np.array_split(np.arange(n), groups):
            writer.write_table(table.take(part))
    return rows


@pytest.fixture
def store(tmp_path):
    rows = written(tmp_path / "n.parquet", 3000)
    with Nuclei.open(tmp_path / "n.parquet") as nuclei:
        yield nuclei, rows


def test_rectangles_as_a_plain_search_finds_them(store):
    nuclei, rows = store
    rng = np.random.default_rng(3)
    for side in (1, 30, 300, 5000):
        for x, y in rng.uniform(-100, 4100, (20, 2)):
            hit = (rows["x0"] <= x + side) & (rows["x1"] >= x)
            hit &= (rows["y0"] <= y + side) & (rows["y1"] >= y)
            got = nuclei.within(x, y, x + side, y + side)
            np.testing.assert_array_equal(got, np.flatnonzero(hit))


def test_outlines_come_in_the_order_asked_for(store):
    nuclei, rows = store
    asked = np.array([2999, 0, 1500, 17, 17])
    found = nuclei.outlines(asked)
    for i, row in enumerate(asked):
        np.testing.assert_array_equal(found.ring(i), rows["outline"][row])


def test_a_point_a_neighbour_a_column_a_density(store):
    nuclei, rows = store
    far = np.hypot(rows["x"] - 2000, rows["y"] - 2000)
    np.testing.assert_array_equal(nuclei.nearest(2000, 2000, 4), np.argsort(far)[:4])
    row = int(far.argmin())
    under = nuclei.at(rows["x"][row], rows["y"][row])
    assert np.hypot(rows["x"][under] - rows["x"][row], rows["y"][under] - rows["y"][row]) < 12
    assert nuclei.at(-50, -50) is None
    np.testing.assert_allclose(nuclei.column("area_um2"), rows["area_um2"], rtol=1e-6)
    assert nuclei.values(7)["solidity"] == pytest.approx(rows["solidity"][7])
    assert nuclei.values(7)["class"] == "immune"
    counts, step = nuclei.density(2)
    assert step == 128
    assert counts.sum() == 3000
    column, line = int(rows["x"][0] / step), int(rows["y"][0] / step)
    here = (rows["x"] // step == column) & (rows["y"] // step == line)
    assert counts[line, column] == here.sum()
    assert nuclei.density(2, "tumour")[0].sum() == 1500
    with pytest.raises(PathotuneError, match="no measurement"):
        nuclei.column("weight")


def test_hidden_appended_and_named_rows(store):
    nuclei, _ = store
    ring = np.array([[5000, 5000], [5010, 5000], [5010, 5010], [5000, 5010], [5000, 5000]])
    (new,) = nuclei.append([ring.astype(np.float32)], ["drawn"])
    assert nuclei.at(5005, 5005) == new == 3000
    assert nuclei.column("area_um2")[new] == 25
    assert np.isnan(nuclei.column("eosin_mean")[new])
    assert nuclei.values(new)["class"] == "drawn"
    np.testing.assert_array_equal(nuclei.outlines([new]).points, ring)
    nuclei.hide([new, 5])
    assert nuclei.at(5005, 5005) is None
    assert len(nuclei) == 2999
    assert 5 not in nuclei.within(0, 0, 9000, 9000)
    nuclei.hide([5], hidden=False)
    nuclei.set_classes(np.array([0, 1]), ["stroma", "tumour"], [0, 1], [0.5, 0.25])
    assert [nuclei.classes[nuclei.codes[i]] for i in (0, 1)] == ["stroma", "tumour"]
    assert nuclei.counts() == {"stroma": 1, "tumour": 1500, "immune": 1499}


def test_a_run_that_is_under_way_grows(tmp_path):
    first, second = written(tmp_path / "a", 40, 1), written(tmp_path / "b", 50, 1, seed=9)
    nuclei = Nuclei.growing(ABOUT)
    nuclei.add(tmp_path / "a")
    rows = nuclei.add(tmp_path / "b")
    assert rows.tolist() == list(range(40, 90))
    np.testing.assert_array_equal(nuclei.outlines([41, 3]).ring(0), second["outline"][1])
    np.testing.assert_array_equal(nuclei.outlines([41, 3]).ring(1), first["outline"][3])
    assert len(nuclei.within(0, 0, 5000, 5000)) == 90


def test_threads_may_ask_at_once(store, monkeypatch):
    nuclei, rows = store
    monkeypatch.setattr("pathotune.nuclei.pages.OUTLINE_BYTES", 1)
    wrong = []

    def ask(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            i = int(rng.integers(3000))
            if not np.array_equal(nuclei.outlines([i]).points, rows["outline"][i]):
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(s,)) for s in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_what_a_stopped_run_found_opens(tmp_path):
    parts = tmp_path / "n.parquet.parts"
    parts.mkdir()
    (parts / "tile_0_0.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(PathotuneError, match="stopped before its first tile"):
        Nuclei.open(tmp_path / "n.parquet")
    written(parts / "tile_0_1.parquet", 12, 1)
    nuclei = Nuclei.open(tmp_path / "n.parquet")
    assert len(nuclei) == 12
    assert not nuclei.finished
    with pytest.raises(PathotuneError, match="no file"):
        Nuclei.open(tmp_path / "other.parquet")


def test_an_empty_store_answers(tmp_path):
    written(tmp_path / "n.parquet", 0, 1)
    nuclei = Nuclei.open(tmp_path / "n.parquet")
    assert len(nuclei) == len(nuclei.within(0, 0, 9, 9)) == len(nuclei.nearest(1, 1)) == 0
    assert nuclei.density(0)[0].shape == (1, 1)
    assert nuclei.outlines([]).points.shape == (0, 2)


def test_shape_of_a_rectangle_and_of_an_ellipse():
    box = np.array([[0, 0], [8, 0], [8, 4], [0, 4], [0, 0]]) + 1e5
    told = shape_measures(box, 0.5)
    assert told["area_um2"] == pytest.approx(8)
    assert told["perimeter_um"] == pytest.approx(12)
    assert told["eccentricity"] == pytest.approx(np.sqrt(0.75))
    assert told["major_um"] == pytest.approx(4 * np.sqrt(64 / 12) * 0.5)
    turn = np.linspace(0, 2 * np.pi, 200)
    x, y = 10 * np.cos(turn), 4 * np.sin(turn)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    told = shape_measures(np.stack([c * x - s * y, s * x + c * y], 1), 1.0)
    assert told["major_um"] == pytest.approx(20, rel=1e-3)
    assert told["minor_um"] == pytest.approx(8, rel=1e-3)
    assert told["orientation_deg"] == pytest.approx(30, abs=0.1)
    assert told["solidity"] == pytest.approx(1)
