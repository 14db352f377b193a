"""The screen and the annotation set never differ, whatever the hand, undo or a file does."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely.geometry import LineString, MultiPoint, MultiPolygon, Point, Polygon, box

from pathotune.marks import annotations

PIXEL = 2.5  # level-0 px under one pixel of the screen here, at most


def mark(id_, geometry, kind="polygon", class_name="Tumour", width=0.0, **how):
    return annotations.Annotation(
        id=id_, class_name=class_name, kind=kind, geometry=geometry, width=width, **how
    )


def in_step(desk):
    """Check that every region of the set is on the screen once, where it is, in its colour."""
    from napari_pathotune._annotation_geometry import is_points, outlines

    shown = desk.board.regions
    expected = [(a.id, o) for a in desk.marks.items if not is_points(a) for o in outlines(a)]
    if shown.layer is None:
        assert not expected
        return
    assert shown.layer.nshapes == len(expected) == len(shown._rows)
    colours = {c.name: np.array(c.colour) / 255 for c in desk.marks.classes}
    for id_, outline in expected:
        found = [
            i
            for i, row in enumerate(shown._rows)
            if row.id == id_
            and (row.outline.part, row.outline.ring) == (outline.part, outline.ring)
        ]
        assert len(found) == 1
        vertices = shown.layer.data[found[0]]
        assert shown.layer.shape_type[found[0]] == outline.shape_type
        # The order of the corners is napari's where the hand drew them.
        for corner in outline.vertices:
            assert np.abs(vertices - corner).max(axis=1).min() < 0.05
        name = desk.marks.get(id_).class_name
        if name in colours:
            np.testing.assert_allclose(
                shown.layer.edge_color[found[0]][:3], colours[name], atol=1e-3
            )


def test_a_pixel_of_the_slide_lies_where_napari_shows_it(bare_desk):
    bare_desk.marks.add(mark("a", box(100, 200, 110, 240), "rectangle"))
    layer = bare_desk.board.regions.layer
    world = np.array([layer.data_to_world(v) for v in layer.data[0]])
    # Level-0 px x covers [x, x + 1); napari's centre of pixel 0 is 0 um.
    assert np.allclose(world.min(axis=0), [(200 - 0.5) * 0.5, (100 - 0.5) * 0.5])
    assert np.allclose(world.max(axis=0), [(240 - 0.5) * 0.5, (110 - 0.5) * 0.5])
    assert str(layer.units[0]) in {"micrometer", "um", "µm"}


def test_a_rectangle_by_hand_is_one_annotation_when_the_button_is_lifted(desk):
    desk.pen.take("rectangle")
    desk.drag((300, 200), (400, 300), (500, 400), lift=False)
    assert not desk.marks.items
    desk.lift(500, 400)
    (only,) = desk.marks.items
    assert only.kind == "rectangle" and only.class_name == "Tumour"
    assert np.allclose(only.geometry.bounds, (300, 200, 500, 400), atol=PIXEL)
    in_step(desk)


def test_an_ellipse_is_one_through_undo_file_and_stretching(desk, tmp_path):
    from pathotune.marks.geojson import read_geojson, write_geojson

    desk.pen.take("ellipse")
    desk.drag((300, 200), (400, 300), (500, 400))
    (only,) = desk.marks.items
    assert only.kind == "ellipse"
    assert np.allclose(only.geometry.bounds, (300, 200, 500, 400), atol=PIXEL)
    assert only.geometry.area == pytest.approx(np.pi * 100 * 100, rel=0.02)
    in_step(desk)
    desk.marks.undo()
    desk.marks.redo()
    in_step(desk)
    write_geojson(tmp_path / "e.geojson", desk.marks)
    (back,) = read_geojson(tmp_path / "e.geojson").items
    assert back.kind == "ellipse"
    desk.marks.clear()
    desk.marks.add(back)
    in_step(desk)
    layer = desk.board.regions.layer
    assert layer.shape_type == ["ellipse"]
    stretched = np.array(layer.data[0]) * [1, 2]
    layer.data = [(stretched, "ellipse")]
    desk.board.regions._take_edited([0])
    (wide,) = desk.marks.items
    assert wide.kind == "ellipse" and wide.geometry.area == pytest.approx(2 * only.geometry.area)


def test_a_slip_of_the_hand_leaves_nothing(desk):
    desk.pen.take("rectangle")
    desk.click((700, 500))
    desk.drag((300, 200), (302, 201))
    desk.pen.take("polygon")
    desk.click((300, 300), (400, 300))
    desk.key("Return")
    assert (not desk.marks.items and not desk.marks.can_undo) or desk.marks.counts()["Tumour"] == 0
    in_step(desk)


def test_a_half_drawn_polygon_is_not_yet_a_mark(desk):
    desk.pen.take("polygon")
    desk.click((300, 300), (450, 300), (450, 450))
    assert not desk.marks.items and desk.board.drawing
    desk.click((300, 450))
    desk.key("Return")
    (only,) = desk.marks.items
    assert only.kind == "polygon" and not desk.board.drawing
    truth = box(300, 300, 450, 450)
    assert only.geometry.intersection(truth).area / only.geometry.union(truth).area > 0.97
    in_step(desk)


def test_choosing_another_tool_ends_the_polygon_without_its_loose_corner(desk):
    desk.pen.take("polygon")
    desk.click((300, 300), (450, 300), (450, 450))
    desk.hover(900, 900)
    desk.pen.take("rectangle")
    desk.settle()
    (only,) = desk.marks.items
    assert only.geometry.bounds[2] < 460
    in_step(desk)


def test_what_is_half_drawn_does_not_go_over_to_the_next_slide(desk):
    desk.pen.take("polygon")
    desk.click((300, 300), (450, 300), (450, 450))
    desk.session.take(annotations.AnnotationSet())
    desk.session.slide_changed.emit(desk.session.slide)
    desk.settle()
    assert not desk.marks.items and not desk.board.drawing and desk.pen.tool == "pan"
    assert desk.board.regions.layer.nshapes == 0


def test_a_stroke_has_the_width_of_the_brush_in_um(desk):
    desk.board.pen_um = 60.0
    desk.pen.take("brush")
    desk.drag((300, 300), (400, 320), (500, 300), (600, 340), lift=False)
    assert not desk.marks.items and desk.board.regions.layer.nshapes == 1
    desk.lift(600, 340)
    (only,) = desk.marks.items
    assert only.kind == "stroke" and only.width == 120.0  # 60 um at 0.5 um/px
    assert isinstance(only.geometry, LineString)
    assert np.allclose(only.geometry.bounds, (300, 300, 600, 340), atol=PIXEL)
    in_step(desk)


def test_a_tap_of_the_brush_is_a_dot(desk):
    desk.pen.take("brush")
    desk.click((500, 500))
    (only,) = desk.marks.items
    assert only.kind == "stroke"
    assert only.area().area == pytest.approx(np.pi * 60**2, rel=0.05)
    in_step(desk)


def test_points_by_hand(desk):
    desk.pen.take("point")
    desk.click((500, 500), (700, 600))
    assert [a.kind for a in desk.marks.items] == ["point", "point"]
    assert np.allclose(desk.marks.items[0].geometry.coords[0], (500, 500), atol=PIXEL)
    desk.marks.undo()
    assert len(desk.board.points.layer.data) == 1
    desk.board.points.layer.selected_data = {0}
    desk.key("Delete")
    assert not desk.marks.items
    desk.marks.undo()
    assert len(desk.board.points.layer.data) == 1


def test_moving_resizing_and_deleting_by_hand(desk):
    desk.marks.add(mark("a", box(300, 200, 500, 400), "rectangle"))
    desk.marks.add(mark("b", box(800, 200, 900, 400), "rectangle", "Stroma"))
    desk.pen.take("select")
    desk.click((400, 300))
    assert desk.board.selected() == ["a"]
    desk.drag((400, 300), (420, 320), (500, 400))
    moved = desk.marks.get("a")
    assert moved.kind == "rectangle"
    assert np.allclose(moved.geometry.bounds, (400, 300, 600, 500), atol=2 * PIXEL)
    in_step(desk)
    desk.drag((moved.geometry.bounds[2], moved.geometry.bounds[3]), (640, 540), (700, 600))
    larger = desk.marks.get("a")
    assert larger.kind == "rectangle" and larger.geometry.area > 1.3 * moved.geometry.area
    in_step(desk)
    desk.key("Delete")
    assert [a.id for a in desk.marks.items] == ["b"]
    in_step(desk)
    desk.key("Ctrl+Z")
    desk.key("Ctrl+Z")
    desk.key("Ctrl+Z")
    assert desk.marks.get("a").geometry.bounds == (300, 200, 500, 400)
    in_step(desk)
    desk.key("Ctrl+Shift+Z")
    assert desk.marks.get("a").geometry.equals(moved.geometry)
    in_step(desk)


def test_selecting_takes_what_is_pointed_at_region_or_point(desk):
    desk.marks.add(mark("a", box(300, 200, 500, 400), "rectangle"))
    desk.marks.add(mark("p", Point(800, 300), "point", "Stroma"))
    desk.pen.take("point")
    desk.pen.take("select")
    desk.click((400, 300))
    assert desk.board.selected() == ["a"] and desk.pen.tool == "select"
    desk.click((800, 300))
    assert desk.board.selected() == ["p"]
    desk.drag((800, 300), (810, 300), (860, 300))
    assert desk.marks.get("p").geometry.x == pytest.approx(860, abs=2 * PIXEL)
    desk.key("1")
    assert desk.marks.get("p").class_name == "Tumour"
    said = []
    desk.pen.pointed_at.connect(said.append)
    desk.hover(400, 300)
    desk.hover(1200, 800)
    assert said == ["Tumour, 0.010 mm²", ""]


def test_a_moved_corner_makes_a_polygon_of_a_stroke(desk):
    desk.marks.add(mark("s", LineString([(300, 300), (700, 300)]), "stroke", width=100.0))
    layer = desk.board.regions.layer
    desk.pen.take("corners")
    y, x = layer.data[0][0]
    desk.click((500, 300))
    desk.drag((x, y), (x + 20, y + 20), (x + 60, y + 60))
    assert desk.marks.get("s").kind == "polygon"
    in_step(desk)
    desk.marks.undo()
    assert desk.marks.get("s").kind == "stroke" and desk.marks.get("s").width == 100.0
    in_step(desk)


def test_what_was_imported_stays_as_it_was_until_it_is_touched(desk):
    hole = Polygon(
        [(100, 100), (400, 100), (400, 400), (100, 400)], [[(200, 200), (300, 200), (300, 300)]]
    )
    many = MultiPolygon([box(600, 100, 700, 200), box(800, 100, 900, 200)])
    marks = annotations.AnnotationSet()
    marks.add_class("Tumour")
    marks.add(mark("hole", hole, extra={"properties": {"x": 1}}, name="kept"))
    marks.add(mark("many", many, "multipolygon"))
    marks.add(mark("dots", MultiPoint([(50, 50), (60, 60)]), "multipoint"))
    marks.add(mark("plain", box(1000, 500, 1100, 600)))
    before = {a.id: a for a in marks.items}
    desk.session.take(marks)
    assert desk.board.regions.layer.nshapes == 2 + 2 + 1
    assert len(desk.board.points.layer.data) == 2
    in_step(desk)
    desk.pen.take("select")
    desk.click((1050, 550))
    desk.drag((1050, 550), (1060, 560), (1090, 590))
    for id_ in ("hole", "many", "dots"):
        assert marks.get(id_) is before[id_]
    # A region with a hole moves as one and keeps its hole and all that was written beside it.
    desk.click((130, 130))
    assert desk.board.selected() == ["hole"] and len(desk.board.regions.layer.selected_data) == 2
    desk.drag((130, 130), (140, 140), (180, 180))
    moved = marks.get("hole")
    assert len(moved.geometry.interiors) == 1 and moved.name == "kept" and moved.extra
    dx, dy = np.array(moved.geometry.bounds[:2]) - hole.bounds[:2]
    assert dx > 20
    shifted = shapely.affinity.translate(hole, dx, dy)
    assert moved.geometry.equals_exact(shifted, 1e-6)
    in_step(desk)


def test_locked_regions_stay(desk):
    desk.marks.add(mark("l", box(300, 200, 500, 400), "rectangle", locked=True))
    said = []
    desk.board.note.connect(said.append)
    desk.pen.take("select")
    desk.click((400, 300))
    desk.drag((400, 300), (420, 320), (500, 400))
    desk.settle()
    assert desk.marks.get("l").geometry.bounds == (300, 200, 500, 400)
    in_step(desk)
    desk.click((400, 300))
    desk.key("Delete")
    assert desk.marks.items and said
    in_step(desk)


def test_classes_colour_what_they_name(bare_desk):
    bare_desk.marks.add(mark("a", box(300, 200, 500, 400)))
    bare_desk.marks.recolour_class("Tumour", (10, 20, 30))
    in_step(bare_desk)
    bare_desk.marks.rename_class("Tumour", "Cancer")
    assert list(bare_desk.board.regions.layer.features["class"]) == ["Cancer"]
    bare_desk.marks.delete_class("Cancer")
    assert bare_desk.board.class_of("a") is None
    bare_desk.marks.undo()
    in_step(bare_desk)


def test_another_class_does_not_draw_the_shape_anew(bare_desk):
    bare_desk.marks.add(mark("a", box(300, 200, 500, 400)), mark("b", box(0, 0, 50, 50)))
    layer, heard = bare_desk.board.regions.layer, []
    layer.events.data.connect(heard.append)
    bare_desk.marks.reclass(["a"], "Stroma")
    bare_desk.marks.rename_class("Stroma", "Fat")
    bare_desk.marks.delete_class("Fat")
    bare_desk.marks.undo()
    assert not heard
    in_step(bare_desk)


def test_the_layer_may_be_thrown_away(bare_desk):
    bare_desk.marks.add(mark("a", box(300, 200, 500, 400)))
    bare_desk.board.regions.layer.visible = False
    bare_desk.viewer.layers.remove(bare_desk.board.regions.layer)
    assert bare_desk.board.regions.layer is None and len(bare_desk.marks.items) == 1
    bare_desk.marks.add(mark("b", box(600, 200, 700, 400)))
    bare_desk.pen.take("brush")
    bare_desk.board.redraw()
    in_step(bare_desk)


def test_more_than_napari_can_carry_leaves_out_detections_and_says_so(bare_desk, monkeypatch):
    from napari_pathotune import _region_layer

    monkeypatch.setattr(_region_layer, "MOST_DRAWN", 10)
    marks = annotations.AnnotationSet()
    marks.add_class("Tumour")
    for i in range(15):
        extra = {"properties": {"objectType": "detection"}} if i < 12 else {}
        marks.add(mark(str(i), box(20 * i, 0, 20 * i + 10, 10), extra=extra))
    said = []
    bare_desk.board.note.connect(said.append)
    bare_desk.session.take(marks)
    assert bare_desk.board.regions.layer.nshapes == 3
    assert len(marks.items) == 15
    assert "12 of 15" in said[0]
    more = [mark(f"more{i}", box(20 * i, 50, 20 * i + 10, 60)) for i in range(150)]
    marks.add(*more)
    assert bare_desk.board.regions.layer.nshapes <= 10
    marks.undo()
    assert bare_desk.board.regions.layer.nshapes == 3


def test_nothing_keeps_a_closed_viewer_alive(new_desk):
    import gc
    import weakref

    from napari.components import ViewerModel

    made = new_desk(ViewerModel())
    made.marks.add(mark("a", box(300, 200, 500, 400)))
    viewer, board = weakref.ref(made.viewer), weakref.ref(made.board)
    made.board.close()
    del made
    gc.collect()
    assert viewer() is None and board() is None


def test_an_edit_from_elsewhere_waits_until_the_polygon_is_ended(desk):
    desk.marks.add(mark("a", box(300, 200, 500, 400)))
    desk.pen.take("polygon")
    desk.click((600, 300), (750, 300), (750, 450))
    desk.marks.remove(["a"])
    desk.marks.add(mark("late", box(800, 600, 900, 700)))
    assert desk.board.drawing
    desk.click((600, 450))
    desk.key("Return")
    desk.settle()
    assert len(desk.marks.items) == 2
    in_step(desk)


def test_point_annotations_are_not_drawn_as_outlines(bare_desk):
    bare_desk.marks.add(mark("p", Point(10, 10), "point"))
    in_step(bare_desk)
    assert bare_desk.board.points.layer.symbol[0] is not None


def many(n, name="Tumour"):
    places = [(60 * (i % 20), 40 * (i // 20)) for i in range(n)]
    return [mark(f"{name}{i}", box(x, y, x + 20, y + 20)) for i, (x, y) in enumerate(places)]


def test_hundreds_of_regions_come_in_slices_and_stay_in_step(desk, wait_until, monkeypatch):
    """No slice holds the window up, and a pen that comes between finds the layer in order."""
    import time

    shown = desk.board.regions
    shown.make()
    slices = []
    real = shown._feed._put

    def timed(regions):
        began = time.thread_time()
        real(regions)
        slices.append((len(regions), (time.thread_time() - began) * 1000))

    monkeypatch.setattr(shown._feed, "_put", timed)
    holed = mark("holed", box(800, 800, 900, 900).difference(box(830, 830, 860, 860)))
    desk.marks.add(*many(300), holed)
    assert 0 < shown.layer.nshapes < 150 and len(shown._feed)
    desk.marks.remove(["Tumour5", "Tumour250"])
    desk.marks.reclass(["Tumour260"], "Stroma")
    desk.pen.take("rectangle")
    desk.drag((300, 200), (400, 300), (500, 400))
    assert desk.marks.items[-1].kind == "rectangle"
    wait_until(lambda: not len(shown._feed))
    desk.settle()
    in_step(desk)
    assert len(slices) > 4 and sum(n for n, _ in slices) >= 300
    assert sorted(ms for _, ms in slices)[len(slices) // 2] < 50
    for _ in range(4):
        desk.marks.undo()
    assert len(shown.layer.edge_color) == shown.layer.nshapes
    wait_until(lambda: not len(shown._feed))
    assert not desk.marks.items
    in_step(desk)
    desk.marks.redo()
    desk.marks.clear()
    in_step(desk)
    assert not len(shown._feed)


def test_few_that_are_left_of_many_are_there_at_once(desk, wait_until):
    desk.marks.add(*many(5, "Stroma"))
    desk.marks.add(*many(200))
    wait_until(lambda: not len(desk.board.regions._feed))
    in_step(desk)
    desk.marks.undo()
    in_step(desk)
    assert desk.board.regions.layer.nshapes == 5


def test_locked_points_stay_and_locked_regions_keep_their_class(bare_desk):
    from shapely.geometry import MultiPoint, Point

    desk = bare_desk
    places = MultiPoint([(300, 200), (400, 300)])
    desk.marks.add(mark("held", places, "multipoint", locked=True))
    desk.marks.add(mark("free", Point(500, 400), "point"))
    layer = desk.board.points.layer
    layer.selected_data = {0, 1, 2}
    layer.remove_selected()
    assert [a.id for a in desk.marks.items] == ["held"] and len(layer.data) == 2
    layer.data = np.array([[0.0, 0.0], [300.0, 400.0]])
    layer.events.data(value=layer.data, action="changed", data_indices=(0,), vertex_indices=((),))
    assert desk.marks.get("held").geometry.equals(places)
    assert np.allclose(np.sort(layer.data[:, 1]), [300, 400])
    desk.marks.add(mark("l", box(300, 200, 500, 400), "rectangle", locked=True))
    before = desk.marks.get("l").class_name
    desk.board.regions.layer.selected_data = {0}
    desk.viewer.layers.selection.active = desk.board.regions.layer
    desk.board.regions.layer.mode = "select"
    desk.pen.choose_class(2)
    assert desk.marks.get("l").class_name == before
