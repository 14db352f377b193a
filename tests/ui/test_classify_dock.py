"""The Classify dock reads the map: legend, areas, what is shown, what leaves the window."""

from __future__ import annotations

import numpy as np
import pytest

from napari_pathotune import _exporting, _layers
from napari_pathotune._classify_dock import ClassifyDock


@pytest.fixture
def dock(window, qtbot):
    dock = ClassifyDock(window[0])
    dock.resize(320, 640)
    qtbot.addWidget(dock)
    dock.show()
    return dock


@pytest.fixture
def mapped(opened, dock, mark, wait_until):
    _, session = opened
    mark(session, "Red", 150, 200)
    mark(session, "Blue", 500, 200)
    wait_until(lambda: session.loop.classmap is not None)
    wait_until(lambda: session.jobs.idle and dock.legend.areas["Red"].text())
    return dock


def test_empty_it_says_what_to_do(dock):
    assert dock.empty.isVisible() and not dock.controls.isVisible()
    assert dock.primary.text() == "Go to Slide"
    wanted = []
    dock.session.dock_wanted.connect(wanted.append)
    dock.primary.click()
    assert wanted == ["slide"]


def test_without_marks_it_leads_to_them(opened, dock):
    assert dock.primary.text() == "Mark regions" and dock.hint.text()


def test_the_legend_has_names_areas_and_shares(mapped):
    legend = mapped.legend
    assert list(legend.boxes) == ["Blue", "Red"]  # sorted, as in a model file
    areas = mapped.session.loop.classmap.areas_mm2()
    for name in ("Red", "Blue"):
        assert legend.areas[name].text() == f"{areas[name]:.2f} mm²"
        assert 0.1 < areas[name] < 0.2  # 300 x 400 um each, and a rim
    assert legend.shares["Red"].text().endswith("%")
    assert mapped.primary.text() == "Export..."
    assert "done" in mapped.bar.format()


def test_hiding_a_class_and_opacity_reach_the_layer(mapped):
    layer = mapped.session.viewer.layers["Class map"]
    mapped.legend.boxes["Red"].setChecked(False)
    label = mapped.session.loop.classmap.classes.index("Red") + 1
    assert layer.colormap.color_dict[label][3] == 0
    mapped.legend.boxes["Red"].setChecked(True)
    assert layer.colormap.color_dict[label][3] == 1
    mapped.opacity.setValue(80)
    assert layer.opacity == pytest.approx(0.8)


def test_probability_and_uncertainty_have_a_colour_bar(mapped):
    viewer, session = mapped.session.viewer, mapped.session
    texts = [mapped.shown.itemText(i) for i in range(mapped.shown.count())]
    assert texts == [
        "Class map",
        "Probability of Blue",
        "Probability of Red",
        "Uncertainty",
        "Nothing",
    ]
    assert not mapped.colours.isVisible()
    mapped._on_shown(1)
    layer = viewer.layers["Probability of Blue"]
    assert mapped.colours.isVisible() and not viewer.layers["Class map"].visible
    classmap = session.loop.classmap
    probs = classmap.probs[..., classmap.classes.index("Blue")].astype(float)
    inside = classmap.labels > 0
    np.testing.assert_allclose((layer.data[inside] - 1) / 254, probs[inside], atol=0.01)
    assert not layer.data[~inside].any()
    mapped._on_shown(3)
    assert "Uncertainty" in viewer.layers and mapped.shown.currentText() == "Uncertainty"
    mapped._on_shown(4)
    assert not any(viewer.layers[n].visible for n in ("Class map", "Uncertainty"))
    mapped._on_shown(0)
    assert viewer.layers["Class map"].visible and not mapped.colours.isVisible()


def test_probability_follows_the_marks(mapped, mark, wait_until):
    session = mapped.session
    mapped._on_shown(2)
    layer = session.viewer.layers["Probability of Red"]
    before = layer.data.copy()
    mark(session, "Red", 600, 400)  # a correction
    wait_until(lambda: (layer.data != before).any())


def test_the_class_under_the_cursor_is_named(mapped):
    session = mapped.session
    slide = session.slide
    session.viewer.cursor.position = (299.5 * slide.mpp_y, 199.5 * slide.mpp_x)
    assert mapped.under.text().startswith("Under the cursor: Red ")
    session.viewer.cursor.position = (2.0, 2.0)
    assert mapped.under.text() == "Under the cursor: no map"


@pytest.mark.parametrize("key", ["geojson", "ome_tiff", "csv", "png"])
def test_every_export_writes_and_says_so(mapped, tmp_path, wait_until, key):
    from pathotune import plugins

    suffix = plugins.load(_exporting.FOLDER, key).SUFFIX
    path = tmp_path / f"out{suffix}"
    _exporting.export(mapped.session, key, path, mapped._exported)
    wait_until(path.exists)
    wait_until(lambda: mapped.notice.isVisible())
    assert path.name in mapped.notice.text and "Research use only" in mapped.notice.text


def test_a_failed_export_is_told_here(mapped, tmp_path, wait_until):
    _exporting.export(mapped.session, "csv", tmp_path / "no" / "x.csv", mapped._exported)
    wait_until(lambda: mapped.notice.isVisible())
    assert "Saved" not in mapped.notice.text


def test_a_recoloured_class_changes_map_and_legend(mapped, wait_until):
    session = mapped.session
    session.annotations.recolour_class("Red", (1, 2, 3))
    label = session.loop.classmap.classes.index("Red") + 1
    layer = session.viewer.layers["Class map"]
    np.testing.assert_allclose(layer.colormap.color_dict[label][:3], np.array([1, 2, 3]) / 255)


def test_the_map_layer_lies_on_the_lattice(mapped):
    session = mapped.session
    layer = session.viewer.layers["Class map"]
    lattice = session.loop.grid.lattice
    place = _layers.grid_place(session.slide, lattice.step, (lattice.x0, lattice.y0))
    np.testing.assert_allclose(layer.scale, place["scale"])
    np.testing.assert_allclose(layer.translate, place["translate"])


def test_nothing_is_wider_than_the_dock(mapped):
    assert mapped.minimumSizeHint().width() <= 320


def test_a_map_layer_that_was_deleted_comes_back(mapped, mark, wait_until):
    session = mapped.session
    session.viewer.layers.remove("Class map")
    mapped._on_shown(0)
    assert "Class map" in session.viewer.layers
