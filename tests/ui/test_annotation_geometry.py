"""What the hand meant: a shift, a stretch, a moved corner; imported shapes lose nothing."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely.affinity import rotate, scale, translate
from shapely.geometry import LineString, MultiPolygon, Polygon, box

from pathotune.marks import annotations


def mark(geometry, kind="polygon", width=0.0):
    return annotations.Annotation(
        id="a", class_name="Tumour", kind=kind, geometry=geometry, width=width
    )


HOLED = Polygon([(0, 0), (90, 0), (80, 70), (5, 60)], [[(20, 20), (40, 20), (30, 40)]])
CASES = [
    mark(HOLED),
    mark(MultiPolygon([HOLED, box(200, 0, 250, 60)]), "multipolygon"),
    mark(box(10, 20, 50, 90), "rectangle"),
    mark(LineString([(0, 0), (100, 30), (60, 120)]), "stroke", 20.0),
]


def moved(annotation, change):
    """Return the annotation after its outlines were changed as napari would."""
    from napari_pathotune._annotation_geometry import edited, outlines

    before = outlines(annotation)
    after = []
    for outline in before:
        ring = change(LineString(outline.vertices[:, ::-1]))
        after.append(np.float32(shapely.get_coordinates(ring)[:, ::-1]).astype(float))
    return edited(annotation, before, after)


@pytest.mark.parametrize("annotation", CASES, ids=lambda a: a.kind)
def test_a_shift_moves_the_geometry_and_nothing_else(annotation):
    far = translate(annotation.geometry, 60000, 40000)
    there = mark(far, annotation.kind, annotation.width)
    now = moved(there, lambda g: translate(g, 12.3, -4.5))
    assert now.kind == annotation.kind and now.width == annotation.width
    assert now.geometry.equals_exact(translate(far, 12.3, -4.5), 0.02)
    assert shapely.get_num_coordinates(now.geometry) == shapely.get_num_coordinates(far)


@pytest.mark.parametrize("annotation", CASES, ids=lambda a: a.kind)
def test_a_stretch_keeps_holes_and_parts(annotation):
    now = moved(annotation, lambda g: scale(g, 2, 2, origin=(0, 0)))
    assert now.kind == annotation.kind
    assert now.geometry.equals_exact(scale(annotation.geometry, 2, 2, origin=(0, 0)), 0.02)
    assert now.width == pytest.approx(2 * annotation.width, rel=1e-3)


def test_what_no_longer_fits_its_kind_becomes_a_polygon():
    assert moved(CASES[2], lambda g: rotate(g, 30, origin=(0, 0))).kind == "polygon"
    squeezed = moved(CASES[3], lambda g: scale(g, 2, 0.5, origin=(0, 0)))
    assert squeezed.kind == "polygon" and squeezed.width == 0
    turned = moved(CASES[3], lambda g: rotate(g, 30, origin=(0, 0)))
    assert turned.kind == "stroke" and turned.width == pytest.approx(20, rel=1e-3)


def test_a_moved_corner_changes_only_its_ring():
    from napari_pathotune._annotation_geometry import edited, outlines

    annotation = CASES[1]
    before = outlines(annotation)
    after = [o.vertices.copy() for o in before]
    after[0][0] = (-10, -10)
    now = edited(annotation, before, after)
    assert now.kind == "multipolygon"
    assert len(now.geometry.geoms) == 2 and len(now.geometry.geoms[0].interiors) == 1
    assert now.geometry.geoms[1].equals(annotation.geometry.geoms[1])
    assert now.geometry.bounds[:2] == (-10, -10)


def test_a_ring_that_crosses_itself_is_mended():
    from napari_pathotune._annotation_geometry import drawn

    kind, geometry, _ = drawn(np.array([(0, 0), (100, 100), (100, 0), (0, 100)]), "polygon", 1)
    assert kind == "multipolygon" and geometry.is_valid and geometry.area == 5000
    assert drawn(np.zeros((5, 2)), "polygon", 1) is None


def test_napari_shapes_become_kinds():
    from napari_pathotune._annotation_geometry import drawn

    corners = np.array([(10, 20), (10, 60), (40, 60), (40, 20)], np.float32)
    assert drawn(corners, "rectangle", 1)[0] == "rectangle"
    assert drawn(corners, "rectangle", 1)[1].bounds == (20, 10, 60, 40)
    kind, ellipse, _ = drawn(corners, "ellipse", 1)
    assert kind == "ellipse" and ellipse.area == pytest.approx(np.pi * 20 * 15, rel=0.01)
    kind, line, width = drawn(corners[:2], "line", 30.0)
    assert kind == "stroke" and width == 30.0 and line.length == 40


def test_only_what_is_an_upright_ellipse_is_drawn_as_one():
    from shapely import affinity
    from shapely.geometry import Point, Polygon, box

    from napari_pathotune._annotation_geometry import is_ellipse, outlines

    circle = Point(500, 300).buffer(100, quad_segs=16)
    flat = affinity.scale(circle, 1.0, 0.2)
    assert is_ellipse(circle) and is_ellipse(flat)
    assert not is_ellipse(affinity.rotate(flat, 20))
    assert not is_ellipse(circle.difference(box(480, 280, 520, 320)))
    assert not is_ellipse(circle.union(box(400, 380, 500, 400)))
    assert not is_ellipse(Polygon())
    reshaped = mark(affinity.rotate(flat, 20), "ellipse")
    assert [o.shape_type for o in outlines(reshaped)] == ["polygon"]
    (shown,) = outlines(mark(flat, "ellipse"))
    assert shown.shape_type == "ellipse" and len(shown.vertices) == 4
    assert np.array_equal(shown.vertices.min(axis=0), np.array(flat.bounds)[[1, 0]])
