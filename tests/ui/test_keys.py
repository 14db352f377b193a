"""Our keys do what they say, and take nothing of napari's without saying so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def naparis_keys(layer_or_viewer):
    """Return the keys that napari itself binds on a kind of layer, or on the viewer."""
    found = set()
    for kind in type(layer_or_viewer).__mro__:
        found |= {str(key) for key in getattr(kind, "class_keymap", {})}
    return found


def spelled(keys):
    from napari.utils.key_bindings import coerce_keybinding

    return {str(coerce_keybinding(key)) for key in keys}


def test_every_clash_with_napari_is_meant_and_told(desk):
    from napari_pathotune import _keys

    targets = {
        _keys.REGIONS: desk.board.regions.make(),
        _keys.POINTS: desk.board.points.make(),
        _keys.VIEWER: desk.viewer,
        _keys.SLIDE: desk.session.slide_layer,
        _keys.NUCLEI: desk.viewer.add_image(np.zeros((2, 2, 4), np.uint8), rgb=True),
    }
    actions = {b.action: lambda *_: None for b in _keys.bindings(_keys.NUCLEI)}
    _keys.bind(targets[_keys.NUCLEI], _keys.NUCLEI, actions)
    taken = {where: naparis_keys(target) for where, target in targets.items()}
    assert "3" in taken[_keys.REGIONS] and "B" in taken[_keys.REGIONS]
    told = set()
    for where, target in targets.items():
        for binding in _keys.bindings(where):
            assert spelled(binding.keys) <= {str(k) for k in target.keymap}, "not bound"
            clash = spelled(binding.keys) & taken[where]
            assert not clash or binding.instead_of, f"{where}: {clash} is napari's"
            if clash:
                told.add(binding.action)
    said = {b.action for _, group in _keys.BINDINGS for b in group if b.instead_of}
    # Space is bound by napari on the viewer, behind the layer.
    assert said - {"hold_to_pan"} == told


def test_what_napari_does_on_digits_keeps_a_letter(desk):
    from napari.utils.shortcuts import default_shortcuts

    desk.board.regions.make()
    lost = [
        name
        for name, keys in default_shortcuts.items()
        if "shapes" in name or "add_" in name or "vertex" in name
        if keys and all(str(key) in "123456789" for key in keys)
    ]
    # Transforming would move the layer off the slide; it is switched off on purpose.
    assert lost == ["napari:activate_shapes_transform_mode"]


def test_napari_still_has_the_keys_that_the_sheet_says_it_has():
    from napari.utils.shortcuts import default_shortcuts

    from napari_pathotune import _keys

    for _, group in _keys.BINDINGS:
        for binding in group:
            assert bool(binding.action) != bool(binding.naparis)
            if binding.naparis:
                theirs = {str(k) for k in default_shortcuts[f"napari:{binding.naparis}"]}
                assert spelled(binding.keys) <= theirs


def test_the_page_in_the_docs_is_the_table():
    from napari_pathotune import _keys

    page = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    assert _keys.as_markdown() in page


def test_digits_choose_the_class_and_never_delete(desk):
    from shapely.geometry import box

    from pathotune.marks.annotations import Annotation

    desk.marks.add(Annotation("a", "Tumour", "rectangle", box(300, 200, 500, 400)))
    desk.pen.take("rectangle")
    desk.key("2")
    assert desk.board.active_class == "Stroma" and desk.marks.get("a").class_name == "Tumour"
    desk.pen.take("select")
    desk.click((400, 300))
    desk.key("2")
    assert desk.marks.get("a").class_name == "Stroma"
    assert desk.board.selected() == ["a"]
    said = []
    desk.board.note.connect(said.append)
    desk.key("3")
    assert len(desk.marks.items) == 1 and "no class 3" in said[0]
    desk.key("Ctrl+Z")
    assert desk.marks.get("a").class_name == "Tumour"


def test_brush_keys(desk):
    desk.pen.take("select")
    desk.key("B")
    assert desk.pen.tool == "brush"
    size = desk.board.pen_um
    desk.key("]")
    larger = desk.board.pen_um
    assert larger > size and desk.board.regions.layer.cursor_size == larger
    assert str(desk.board.regions.layer.cursor) == "circle"
    desk.key("[")
    desk.key("[")
    assert desk.board.pen_um < size
    for _ in range(30):
        desk.pen._resize(-1)
    assert desk.board.pen_um == 5
    desk.key("P")
    assert desk.pen.tool == "polygon"


def test_space_moves_the_slide_and_the_polygon_goes_on(desk):
    desk.pen.take("polygon")
    desk.click((300, 300), (450, 300), (450, 450))
    before = desk.viewer.scene.camera.center
    desk.key("Space", release=False)
    desk.drag((700, 700), (720, 720), (800, 800))
    desk.key("Space", press=False)
    assert desk.viewer.scene.camera.center != before
    assert desk.board.drawing and not desk.marks.items
    desk.click((300, 450))
    desk.key("Return")
    (only,) = desk.marks.items
    assert only.geometry.area == pytest.approx(150 * 150, rel=0.05)
    assert desk.pen.tool == "polygon"


def test_undo_takes_back_the_last_corner_and_escape_the_whole(desk):
    desk.pen.take("polygon")
    desk.click((300, 300), (450, 300), (450, 450), (900, 900))
    desk.key("Ctrl+Z")
    desk.click((300, 450))
    desk.key("Return")
    (only,) = desk.marks.items
    assert only.geometry.bounds[2] < 460
    desk.click((600, 300), (750, 300), (750, 450))
    desk.key("Escape")
    assert len(desk.marks.items) == 1 and not desk.board.drawing
    assert desk.board.regions.layer.nshapes == 1 and desk.pen.tool == "polygon"
    desk.key("Escape")
    assert desk.pen.tool == "pan"


def test_the_layer_cannot_be_turned_off_the_slide(desk):
    layer = desk.board.regions.make()
    desk.viewer.layers.selection.active = layer
    layer.mode = "transform"
    assert str(layer.mode) == "select"


def test_the_map_is_toggled_by_a_key(desk):
    desk.pen.take("brush")
    desk.key("C")
    desk.viewer.layers.selection.active = desk.session.slide_layer
    desk.key("C")
    assert desk.session.toggled == [True, True]
    desk.key("B")
    assert desk.pen.tool == "brush"


def test_the_sheet_is_not_modal_and_names_every_key(desk, qtbot):
    from napari_pathotune import _keys

    sheet = _keys.KeySheet()
    qtbot.addWidget(sheet)
    text = sheet.label.text()
    assert sheet.sizeHint().height() < 640
    for _, group in _keys.BINDINGS:
        for binding in group:
            assert _keys.shown_keys(binding.keys) in text and binding.does in text
    sheet.toggle()
    assert sheet.isVisible() and not sheet.isModal()
    sheet.toggle()
    assert not sheet.isVisible()
