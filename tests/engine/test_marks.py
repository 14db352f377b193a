"""Marks survive edits, undo, files and killed programs."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from pathotune.events import PathotuneError
from pathotune.marks import journal as journals
from pathotune.marks.annotations import Annotation, AnnotationClass, AnnotationSet, new_id
from pathotune.marks.classes import next_colour, palette
from pathotune.marks.features import to_feature
from pathotune.marks.geojson import read_geojson, write_geojson
from pathotune.marks.journal import Journal, journal_for, replay
from pathotune.marks.labels import label_tokens

SRC = Path(__file__).parents[2] / "src"


def mark(geometry, class_name="Tumour", kind="polygon", **how) -> Annotation:
    return Annotation(how.pop("id", new_id()), class_name, kind, geometry, **how)


def state(marks: AnnotationSet):
    return marks.classes, marks.items


def written(marks: AnnotationSet):
    """What a file would say, the measure of `without loss`."""
    known = {c.name: c for c in marks.classes}
    return marks.classes, [to_feature(a, known) for a in marks.items]


def two_classes() -> AnnotationSet:
    marks = AnnotationSet()
    marks.add_class("Tumour")
    marks.add_class("Fat")
    return marks


def test_every_edit_can_be_taken_back_and_made_again():
    marks = two_classes()
    a, b = mark(box(0, 0, 10, 10)), mark(box(5, 5, 20, 20), "Fat")
    edits = [
        lambda: marks.add(a, b),
        lambda: marks.add(mark(box(9, 9, 12, 12), "Stroma")),
        lambda: marks.rename_class("Tumour", "Carcinoma"),
        lambda: marks.recolour_class("Fat", (1, 2, 3)),
        lambda: marks.reclass([a.id, b.id], "Stroma"),
        lambda: marks.replace(replace(marks.get(a.id), geometry=box(1, 1, 4, 4))),
        lambda: marks.delete_class("Stroma"),
        lambda: marks.remove([a.id]),
        lambda: marks.clear(),
    ]
    states = [state(marks)]
    for edit in edits:
        edit()
        states.append(state(marks))
    for want in reversed(states[:-1]):
        marks.undo()
        assert state(marks) == want
    for want in states[1:]:
        marks.redo()
        assert state(marks) == want
    assert not marks.can_redo and marks.can_undo


@given(st.lists(st.integers(0, 6), max_size=25), st.randoms())
@settings(max_examples=40, deadline=None)
def test_any_sequence_of_edits_undoes_to_nothing(steps, random):
    marks = AnnotationSet()
    for step in steps:
        ids = [a.id for a in marks.items]
        names = [c.name for c in marks.classes]
        if step == 0:
            marks.add_class(new_id())
        elif step in (1, 2):
            marks.add(mark(box(0, 0, 3, 3), random.choice(names or ["first"])))
        elif step == 3 and ids:
            marks.remove(random.sample(ids, min(2, len(ids))))
        elif step == 4 and names:
            marks.delete_class(random.choice(names))
        elif step == 5 and marks.can_undo:
            marks.undo()
        elif step == 6 and marks.can_redo:
            marks.redo()
    after = state(marks)
    count = 0
    while marks.can_undo:
        marks.undo()
        count += 1
    assert state(marks) == ((), ())
    for _ in range(count):
        marks.redo()
    assert state(marks) == after


def test_removed_regions_come_back_in_their_place():
    marks = two_classes()
    items = [mark(box(i, 0, i + 1, 1)) for i in range(5)]
    marks.add(*items)
    marks.remove([items[1].id, items[3].id])
    marks.undo()
    assert marks.items == tuple(items)


def test_listeners_hear_what_changed_and_can_leave():
    marks = two_classes()
    heard = []
    leave = marks.subscribe(heard.append)
    item = mark(box(0, 0, 1, 1))
    marks.add(item)
    marks.recolour_class("Fat", (9, 9, 9))
    assert heard[0].ids == (item.id,) and not heard[0].classes_changed
    assert heard[1].classes_changed
    leave()
    marks.undo()
    assert len(heard) == 2


def test_class_names_are_checked_and_colours_differ():
    marks = two_classes()
    for wrong in ("", "  ", "Fat"):
        with pytest.raises(PathotuneError):
            marks.add_class(wrong)
    with pytest.raises(PathotuneError):
        marks.rename_class("Tumour", "Fat")
    for i in range(6):
        marks.add_class(f"more {i}")
    assert len({c.colour for c in marks.classes}) == 8
    assert next_colour(palette()) in palette()
    assert marks.counts()["Fat"] == 0


# -- GeoJSON ------------------------------------------------------------------------

QUPATH = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "id": "11111111-2222-3333-4444-555555555555",
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [[0, 0], [100.25, 0], [100, 100], [0, 100], [0, 0]],
                    [[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]],
                ],
                "plane": {"c": -1, "z": 2, "t": 0},
            },
            "properties": {
                "objectType": "annotation",
                "name": "left lobe",
                "color": [12, 13, 14],
                "classification": {"name": "Tumor: Positive", "color": [200, 0, 0]},
                "isLocked": True,
                "measurements": {"Area µm^2": 12.5},
                "metadata": {"ANNOTATION_DESCRIPTION": "checked"},
            },
            "somethingNew": [1, {"a": None}],
        },
        {
            "type": "Feature",
            "id": "PathAnnotationObject",
            "geometry": {
                "type": "MultiPolygon",
                "coordinates": [
                    [[[200, 200], [210, 200], [210, 210], [200, 200]]],
                    [[[300, 300], [310, 300], [310, 310], [300, 300]]],
                ],
            },
            "properties": {"classification": {"name": "Stroma", "colorRGB": -3670016}},
        },
        {
            "type": "Feature",
            "id": "PathAnnotationObject",
            "geometry": {"type": "MultiPoint", "coordinates": [[5, 6], [7, 8]]},
            "properties": {"objectType": "annotation", "isLocked": False},
        },
        {
            "type": "Feature",
            "id": "cell-1",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[1, 1], [2, 1], [2, 2], [1, 1]]],
            },
            "nucleusGeometry": {
                "type": "Polygon",
                "coordinates": [[[1, 1], [1.5, 1], [1.5, 1.5], [1, 1]]],
            },
            "properties": {"objectType": "cell", "classification": {"names": ["A", "B"]}},
        },
        {
            "type": "Feature",
            "id": "line",
            "geometry": {"type": "LineString", "coordinates": [[0, 0], [50, 60]]},
            "properties": {"objectType": "annotation"},
        },
    ],
}


def dump(path: Path, thing) -> Path:
    text = json.dumps(thing).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["q.geojson", "q.geojson.gz", "q.json"])
def test_what_qupath_wrote_comes_back_as_it_was(tmp_path, name):
    marks = read_geojson(dump(tmp_path / name, QUPATH))
    assert [c.name for c in marks.classes] == ["Tumor: Positive", "Stroma", "A: B"]
    assert marks.classes[0].colour == (200, 0, 0)
    assert marks.classes[1].colour == (200, 0, 0)  # -3670016 is 0xFFC80000
    first = marks.items[0]
    assert first.locked and first.name == "left lobe"
    assert len(first.geometry.interiors) == 1
    assert len({a.id for a in marks.items}) == 5
    out = tmp_path / ("out" + "".join(Path(name).suffixes))
    write_geojson(out, marks)
    raw = out.read_bytes()
    features = json.loads(gzip.decompress(raw) if name.endswith("gz") else raw)["features"]
    for before, after in zip(QUPATH["features"], features, strict=True):
        assert after["geometry"] == before["geometry"]
        for key, value in before.items():
            if key == "id" and value == "PathAnnotationObject":
                continue
            if key != "properties":
                assert after[key] == value
        for key, value in before["properties"].items():
            if key == "isLocked" and not value:
                continue
            if key == "classification" and "color" not in value and "colorRGB" not in value:
                value = value | {"color": after["properties"][key]["color"]}
            assert after["properties"][key] == value
    assert written(read_geojson(out)) == written(marks)


def test_what_is_drawn_here_comes_back_as_it_was(tmp_path):
    marks = two_classes()
    marks.add(
        mark(LineString([(10.5, 10), (40, 30.25), (80, 20)]), "Fat", "stroke", width=12.5),
        mark(box(100, 100, 150.75, 160), kind="rectangle"),
        mark(Point(3.5, 4), kind="point"),
        mark(MultiPolygon([box(0, 0, 1, 1), box(5, 5, 7, 7)]), kind="multipolygon"),
        mark(Polygon([(0, 0), (9, 0), (9, 9)]), None),
    )
    write_geojson(tmp_path / "o.geojson", marks)
    again = read_geojson(tmp_path / "o.geojson")
    assert again.classes == tuple(c for c in (marks.classes[1], marks.classes[0]))
    for a, b in zip(marks.items, again.items, strict=True):
        assert (a.id, a.class_name, a.kind, a.width) == (b.id, b.class_name, b.kind, b.width)
        assert a.geometry.equals(b.geometry)
    feature = json.loads((tmp_path / "o.geojson").read_text())["features"][0]
    assert feature["geometry"]["type"] == "Polygon"  # QuPath sees the stroke's area
    assert feature["properties"]["classification"]["color"] == list(marks.classes[1].colour)


def test_real_files_round_trip(shared, tmp_path):
    for name in ("regions_crc_mosaic/crc_mosaic_dev.geojson", "regions_her2st_A1/A1_spots.geojson"):
        marks = read_geojson(shared / "data" / name)
        assert len(marks) > 5 and len(marks.classes) >= 6
        write_geojson(tmp_path / "r.geojson", marks)
        assert written(read_geojson(tmp_path / "r.geojson")) == written(marks)


@pytest.mark.parametrize(
    "thing",
    [
        QUPATH["features"],
        QUPATH["features"][0],
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]},
        {"features": QUPATH["features"][:1], "type": "FeatureCollection", "x": {"features": 3}},
    ],
)
def test_other_shapes_of_geojson_are_read(tmp_path, thing):
    assert len(read_geojson(dump(tmp_path / "s.geojson", thing))) >= 1


def test_an_empty_collection_is_no_error(tmp_path):
    marks = read_geojson(
        dump(tmp_path / "e.geojson", {"type": "FeatureCollection", "features": []})
    )
    assert len(marks) == 0


def test_a_polygon_that_crosses_itself_is_mended_and_said(tmp_path):
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    marks = read_geojson(dump(tmp_path / "b.geojson", bow))
    (item,) = marks.items
    assert item.geometry.is_valid and item.geometry.area == pytest.approx(50)
    assert "crossed itself" in marks.notes[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"{}",
        b'{"type": "FeatureCollection", "features": [{"type": "Feature", "geom',
        b'[{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": "x"}}]',
        b"[1, 2]",
        b'{"features": [',
        gzip.compress(json.dumps(QUPATH).encode())[:-30],
        b"\x1f\x8bnot gzip",
        b"\xff\xfe\x00bad",
    ],
)
def test_foreign_files_are_refused_in_words(tmp_path, content):
    (tmp_path / "bad.geojson").write_bytes(content)
    with pytest.raises(PathotuneError) as caught:
        read_geojson(tmp_path / "bad.geojson")
    assert caught.value.hint


def test_twenty_thousand_detections_are_read_in_a_stream(tmp_path):
    path = tmp_path / "many.geojson.gz"
    with gzip.open(path, "wt", compresslevel=1) as out:
        out.write('{"type":"FeatureCollection","features":[')
        for i in range(20000):
            out.write(("," if i else "") + json.dumps(QUPATH["features"][3] | {"id": str(i)}))
        out.write("]}")
    assert len(read_geojson(path)) == 20000


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    marks = two_classes()
    marks.add(mark(box(0, 0, 5, 5)))
    path = tmp_path / "keep.geojson"
    write_geojson(path, marks)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.ENOSPC, "x")))
    with pytest.raises(PathotuneError, match="full"):
        write_geojson(path, marks)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name != "pathotune-home"] == ["keep.geojson"]
    with pytest.raises(PathotuneError):
        write_geojson(tmp_path / "no" / "folder.geojson", marks)


# -- journal ------------------------------------------------------------------------


def test_a_journal_brings_everything_back(tmp_path):
    path = journal_for("abc")
    marks = two_classes()
    journal = Journal(path)
    journal.attach(marks)
    stroke = mark(LineString([(0, 0), (30, 9)]), "Fat", "stroke", width=7)
    marks.add(mark(box(0, 0, 10, 10)), stroke)
    marks.rename_class("Tumour", "Carcinoma")
    marks.remove([stroke.id])
    marks.undo()
    marks.recolour_class("Fat", (4, 5, 6))
    assert written(replay(path)) == written(marks)  # before it is closed
    journal.close()
    assert written(replay(path)) == written(marks)
    second = replay(path)
    journal = Journal(path)
    journal.attach(second)
    second.add(mark(box(50, 50, 60, 60)))
    journal.compact()
    second.clear()
    second.undo()
    journal.close()
    assert written(replay(path)) == written(second)


def test_after_a_kill_nothing_drawn_is_lost(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from shapely.geometry import box\n"
        "from pathotune.marks.annotations import Annotation, AnnotationSet\n"
        "from pathotune.marks.journal import Journal, journal_for\n"
        "marks = AnnotationSet(); j = Journal(journal_for('k')); j.attach(marks)\n"
        "marks.add_class('A')\n"
        "for i in range(25): marks.add(Annotation(str(i), 'A', 'polygon', box(i, 0, i + 1, 1)))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = os.environ | {"PYTHONPATH": str(SRC)}
    done = subprocess.run([sys.executable, "-c", code], env=env, timeout=60)
    assert done.returncode == -signal.SIGKILL
    marks = replay(journal_for("k"))
    assert [a.id for a in marks.items] == [str(i) for i in range(25)]


@pytest.mark.parametrize("damage", ["torn", "middle"])
def test_a_damaged_journal_gives_what_stands_before_and_is_kept_aside(damage):
    path = journal_for("d")
    marks = two_classes()
    journal = Journal(path)
    journal.attach(marks)
    for i in range(6):
        marks.add(mark(box(i, 0, i + 1, 1), id=str(i)))
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    if damage == "torn":
        path.write_bytes(b"".join(lines)[:-25])
        expected = 5
    else:
        lines[5] = b'{"do": "add", "put": [[0, \x00garbage\n'
        path.write_bytes(b"".join(lines))
        expected = 3
    back = replay(path)
    assert len(back) == expected
    journal = Journal(path)
    journal.attach(back)
    back.add(mark(box(9, 9, 10, 10)))
    journal.close()
    assert len(replay(path)) == expected + 1
    assert list(path.parent.glob("d.damaged-*"))


def test_two_windows_on_one_slide_do_not_harm_each_other():
    path = journal_for("w")
    one, other = two_classes(), two_classes()
    first, second = Journal(path), Journal(path)
    first.attach(one)
    second.attach(other)
    assert first.path != second.path
    one.add(mark(box(0, 0, 1, 1)))
    other.add(mark(box(5, 5, 6, 6)), mark(box(7, 7, 8, 8)))
    first.close()
    second.close()
    assert len(replay(second.path)) == 2
    both = replay(first.path)  # a closed window's marks join those of the first
    assert len(both) == 3 and [c.name for c in both.classes] == ["Tumour", "Fat"]
    again = Journal(path)
    again.attach(both)
    both.remove([i.id for i in both.items[1:]])
    again.close()
    assert len(replay(path)) == 1  # and are not brought back once deleted


def test_a_full_disk_is_said_and_nothing_is_lost():
    class Full:
        def __init__(self, file):
            self.file = file
            self.full = True

        def write(self, data):
            if self.full:
                self.file.write(data[:4])
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    told = []
    path = journal_for("f")
    marks = two_classes()
    journal = Journal(path, told.append)
    journal.attach(marks)
    journal._file = full = Full(journal._file)
    marks.add(mark(box(0, 0, 1, 1)))
    assert len(marks) == 1 and told and "saved" in told[0].message
    assert len(replay(path)) == 0
    full.full = False
    marks.add(mark(box(2, 2, 3, 3)))
    assert len(replay(path)) == 2 and journal.problem is None
    journal.close()


def test_a_journal_of_a_newer_version_is_left_alone():
    path = journal_for("n")
    path.write_text(json.dumps({"pathotune-journal": journals.FORMAT + 1}) + "\n")
    with pytest.raises(PathotuneError, match="newer"):
        replay(path)


# -- labels -------------------------------------------------------------------------


def test_tokens_under_a_region_are_those_whose_centres_lie_inside():
    shape = Polygon([(12, 7), (333, 40), (280, 301), (35, 250)])
    got = label_tokens([mark(shape)], 0, 0, 10.0, 40, 50, ["Tumour"])
    y, x = np.mgrid[:40, :50]
    want = shapely.contains_xy(shape, (x + 0.5) * 10, (y + 0.5) * 10)
    found = np.zeros((40, 50), bool)
    found[got.rows, got.cols] = True
    assert np.array_equal(found, want)
    assert got.region_ids and (got.class_index == 0).all()


def test_small_marks_label_what_they_touch_and_later_ones_win():
    items = [
        mark(box(0, 0, 100, 100)),
        mark(box(50, 50, 200, 100), "Fat"),
        mark(Point(305.0, 305.0), "Fat", "point"),
        mark(LineString([(400, 401), (440, 401)]), "Tumour", "stroke", width=2.0),
        mark(box(600, 600, 601, 601), "Tumour"),
        mark(box(0, 0, 900, 900), "elsewhere"),
        mark(box(-500, -500, -400, -400)),
    ]
    got = label_tokens(items, 0, 0, 10.0, 90, 90, ["Tumour", "Fat"])
    assert len(set(zip(got.rows.tolist(), got.cols.tolist(), strict=True))) == len(got.rows)
    where = {(r, c): k for r, c, k in zip(got.rows, got.cols, got.class_index, strict=True)}
    assert where[(7, 7)] == 1 and where[(2, 2)] == 0
    assert where[(30, 30)] == 1
    assert (40, 40) in where or (39, 40) in where
    assert (60, 60) in where
    assert len(got.region_ids) == 5
    assert np.array_equal(got.region_class[got.region_index], got.class_index)


def test_no_marks_give_no_labels():
    got = label_tokens([], 0, 0, 10.0, 5, 5, ["a"])
    assert len(got.rows) == len(got.region_ids) == 0
    assert AnnotationClass("a", (1, 2, 3)).colour == (1, 2, 3)
