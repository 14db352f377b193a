"""QuPath's GeoJSON: everything it writes around a region comes back, whatever its version."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shapely.affinity import translate
from shapely.geometry import LineString, Point, Polygon, box

from pathotune.events import PathotuneError
from pathotune.marks.annotations import Annotation, AnnotationSet
from pathotune.marks.geojson import read_geojson, write_geojson
from pathotune.marks.journal import Journal, replay

SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9.25], [0, 9], [0, 0]]]}


def feature(geometry: Any = SQUARE, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "id": "x", "geometry": geometry, "properties": properties}


def read(folder: Path, *features: Any, **members: Any) -> AnnotationSet:
    path = folder / "in.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **members}))
    return read_geojson(path)


def write(folder: Path, marks: AnnotationSet) -> dict[str, Any]:
    write_geojson(folder / "out.geojson", marks)
    return json.loads((folder / "out.geojson").read_text())


@pytest.mark.parametrize(
    "geometry",
    [
        SQUARE | {"plane": {"c": -1, "z": 3, "t": 1}},
        {"type": "Point", "coordinates": [3.125, 4]},
        {"type": "MultiPoint", "coordinates": [[3, 4], [5, 6.5]]},
        {"type": "LineString", "coordinates": [[0, 0], [0.1, 1e-7], [123456.789012345, 2]]},
        {"type": "MultiLineString", "coordinates": [[[0, 0], [1, 1]], [[5, 5], [6, 7]]]},
        {"type": "Polygon", "coordinates": [[[0, 0, 1], [9, 0, 1], [9, 9, 2.5], [0, 0, 1]]]},
        {"type": "GeometryCollection", "geometries": [SQUARE, SQUARE]},
    ],
)  # fmt: skip
def test_every_geometry_comes_back_number_for_number(tmp_path, geometry):
    marks = read(tmp_path, feature(geometry))
    assert write(tmp_path, marks)["features"][0]["geometry"] == geometry


def test_members_and_properties_nobody_knows_come_back(tmp_path):
    one = feature(
        objectType="tile",
        name=None,
        isLocked=False,
        classification={"names": ["Tumor", "Positive"], "color": [1, 2, 3], "more": {"x": 1}},
        measurements=[{"name": "Area µm^2", "value": 1.5}, {"name": "n", "value": float("nan")}],
        metadata={"ANNOTATION_DESCRIPTION": "seen"},
        isMissing=True,
        unknown=[None, {"a": [1, 2]}],
    ) | {"id": 17, "nucleusGeometry": SQUARE, "bbox": [0, 0, 9, 9]}
    marks = read(tmp_path, one, crs={"type": "name"}, name="made by hand")
    out = write(tmp_path, marks)
    assert repr(out["features"][0]) == repr(one) or out["features"][0].keys() == one.keys()
    assert json.dumps(out["features"][0], sort_keys=True) == json.dumps(one, sort_keys=True)
    assert out["crs"] == {"type": "name"} and out["name"] == "made by hand"


def test_qupath_0_2_wrote_types_as_ids(tmp_path):
    kinds = ["PathDetectionObject", "PathCellObject", "PathAnnotationObject", "PathDetectionObject"]
    marks = read(tmp_path, *(feature(classification={"name": "A"}) | {"id": k} for k in kinds))
    out = write(tmp_path, marks)["features"]
    types = [f["properties"]["objectType"] for f in out]
    assert types == ["detection", "cell", "annotation", "detection"]
    assert len({f["id"] for f in out}) == 4


def test_another_word_for_the_type_is_left_as_it_is(tmp_path):
    for key in ("object_type", "type"):
        properties = write(tmp_path, read(tmp_path, feature(**{key: "detection"})))["features"][0][
            "properties"
        ]
        assert properties == {key: "detection"}


def test_objects_inside_objects_are_found(tmp_path):
    child = feature(classification={"name": "Inner"}) | {"id": "c"}
    root = feature(None, objectType="root", childObjects=[feature(childObjects=[child])])
    marks = read(tmp_path, root)
    assert [a.class_name for a in marks.items] == [None, "Inner"] and not marks.notes
    assert all("childObjects" not in f["properties"] for f in write(tmp_path, marks)["features"])


def test_one_bad_entry_does_not_cost_the_rest(tmp_path):
    marks = read(
        tmp_path,
        feature(),
        feature({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}),
        feature({"type": "Polygon", "coordinates": [[[0, 0], [1, float("nan")], [2, 2], [0, 0]]]}),
        feature({"type": "Curve", "coordinates": []}),
        feature(None),
    )
    assert len(marks) == 1
    assert any("3 entries" in n for n in marks.notes) and any("1 region" in n for n in marks.notes)
    with pytest.raises(PathotuneError):
        read(tmp_path, feature({"type": "Curve"}))


@pytest.mark.parametrize(
    "properties",
    [
        None,
        [1],
        {"pathotune": "x"},
        {"pathotune": {"kind": "stroke"}},
        {"classification": {"name": 5, "color": "red"}},
        {"classification": {"name": "A", "color": ["a", "b", "c"]}},
        {"classification": 7, "name": 12, "childObjects": "none"},
    ],
)
def test_odd_properties_are_lived_with(tmp_path, properties):
    marks = read(tmp_path, {"type": "Feature", "geometry": SQUARE, "properties": properties})
    assert len(marks) == 1
    write(tmp_path, marks)


@pytest.mark.parametrize(
    ("said", "colour"),
    [
        ({"color": [200, 0, 10]}, (200, 0, 10)),
        ({"colorRGB": -3670016}, (200, 0, 0)),
        ({"colorRGB": 255}, (0, 0, 255)),
        ({"color": -3670006}, (200, 0, 10)),
    ],
)
def test_colours_in_every_form_qupath_has_written(tmp_path, said, colour):
    marks = read(tmp_path, feature(classification={"name": "A", **said}))
    assert marks.classes[0].colour == colour
    back = write(tmp_path, marks)["features"][0]["properties"]["classification"]
    assert back == {"name": "A", **said}
    marks.recolour_class("A", (9, 8, 7))
    back = write(tmp_path, marks)["features"][0]["properties"]["classification"]
    assert back == {"name": "A", "color": [9, 8, 7]}


def test_edits_reach_the_file_and_leave_the_rest(tmp_path):
    known = {"name": "A", "color": [1, 2, 3], "more": 5}
    marks = read(tmp_path, feature(classification=known, name="old", isLocked=True, rest=1))
    marks.rename_class("A", "B")
    (item,) = marks.items
    marks.replace(replace(item, class_name="B", name=None, locked=False))
    got = write(tmp_path, marks)["features"][0]["properties"]
    assert got == {
        "objectType": "annotation",
        "classification": {"name": "B", "color": [1, 2, 3], "more": 5},
        "isLocked": False,
        "rest": 1,
    }
    marks.delete_class("B")
    assert "classification" not in write(tmp_path, marks)["features"][0]["properties"]


def test_an_ellipse_stays_one_until_its_shape_is_edited(tmp_path):
    circle = Point(50, 50).buffer(20)
    geometry = {"type": "Polygon", "coordinates": [[list(p) for p in circle.exterior.coords]]}
    marks = read(tmp_path, feature(geometry | {"isEllipse": True}))
    (item,) = marks.items
    assert item.kind == "ellipse"
    assert write(tmp_path, marks)["features"][0]["geometry"]["isEllipse"] is True
    marks.replace(replace(item, kind="polygon", geometry=box(0, 0, 5, 9)))
    assert write(tmp_path, marks)["features"][0]["geometry"]["isEllipse"] is False


def test_a_stroke_that_was_reshaped_elsewhere_is_what_it_was_reshaped_to(tmp_path):
    stroke = Annotation("s", "A", "stroke", LineString([(0, 0), (50, 10)]), width=8)
    marks = AnnotationSet()
    marks.add(stroke, Annotation("r", "A", "rectangle", box(0, 0, 5, 5)))
    out = write(tmp_path, marks)
    assert [a.kind for a in read(tmp_path, *out["features"]).items] == ["stroke", "rectangle"]
    for one in out["features"]:
        one["geometry"] = {"type": "Polygon", "coordinates": [[[0, 0], [7, 0], [3, 90], [0, 0]]]}
    again = read(tmp_path, *out["features"])
    assert [a.kind for a in again.items] == ["polygon", "polygon"]
    assert again.items[0].geometry.equals(Polygon([(0, 0), (7, 0), (3, 90)]))


def test_writing_twice_gives_the_same_bytes(tmp_path):
    marks = read(tmp_path, feature(name="ä", classification={"name": "A"}))
    for name in ("a.geojson", "b.geojson", "a.geojson.gz", "b.geojson.gz"):
        write_geojson(tmp_path / name, marks)
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()
    assert (tmp_path / "a.geojson.gz").read_bytes() == (tmp_path / "b.geojson.gz").read_bytes()


def test_a_mistake_early_in_a_large_file_is_told(tmp_path):
    path = tmp_path / "large.geojson"
    body = ",".join([json.dumps(feature())] * 20000)
    path.write_text('{"type": "FeatureCollection", "features": [{"a" 1}, ' + body + "]}")
    with pytest.raises(PathotuneError, match="not a complete GeoJSON"):
        read_geojson(path)


QUPATH = Path(__file__).parent / "data" / "qupath-0.5.geojson"


def by_id(path: Path) -> dict[str, str]:
    """Return every feature as text, by its id: NaN equals NaN there, and 1.0 is not 1."""
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    return {f["id"]: json.dumps(f, sort_keys=True) for f in features}


def test_what_qupath_measured_comes_back_word_for_word(tmp_path):
    """Measurements, cells with nuclei, tiles, cores, nested classes, metadata, planes, locks.

    The file is laid out as `PathObjectTypeAdapters` and `ROITypeAdapters` of QuPath 0.5 write it.
    """
    marks = read_geojson(QUPATH)
    assert not marks.notes
    kinds = [a.kind for a in marks.items]
    assert kinds[1] == "ellipse" and kinds[3] == "multipolygon" and kinds[5] == "multipoint"
    names = [a.class_name for a in marks.items]
    assert names[2:4] == ["Tumor: Positive", "Stroma: Negative"]
    write_geojson(tmp_path / "out.geojson", marks)
    assert by_id(tmp_path / "out.geojson") == by_id(QUPATH)
    # and through the journal, which a crash or the next start reads
    journal = Journal(tmp_path / "j.jsonl")
    journal.attach(marks)
    journal.close()
    write_geojson(tmp_path / "again.geojson", replay(tmp_path / "j.jsonl"))
    assert by_id(tmp_path / "again.geojson") == by_id(QUPATH)


def test_edits_here_leave_what_qupath_measured(tmp_path):
    marks = read_geojson(QUPATH)
    cell = marks.items[2]
    marks.reclass([cell.id], "Necrosis")
    marks.rename_class("Tumor", "Carcinoma")
    marks.undo()
    marks.redo()
    moved = replace(marks.items[1], geometry=translate(marks.items[1].geometry, 10, 0))
    marks.replace(moved)
    write_geojson(tmp_path / "out.geojson", marks)
    before = {k: json.loads(v) for k, v in by_id(QUPATH).items()}
    after = {k: json.loads(v) for k, v in by_id(tmp_path / "out.geojson").items()}
    new, old = after[cell.id], before[cell.id]
    assert new["nucleusGeometry"] == old["nucleusGeometry"]
    assert str(new["properties"]["measurements"]) == str(old["properties"]["measurements"])
    assert new["properties"]["objectType"] == "cell"
    assert new["properties"]["classification"] == {"name": "Necrosis", "color": [50, 50, 50]}
    first = after[marks.items[0].id]["properties"]
    assert first["classification"]["name"] == "Carcinoma" and first["measurements"]["H-score"]
    assert first["metadata"] == {"ANNOTATION_DESCRIPTION": "margin, to be reviewed"}
    assert after[moved.id]["geometry"]["isEllipse"] is True
