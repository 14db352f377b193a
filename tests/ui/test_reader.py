"""What napari's File menu and a dropped file reach: readers that take ours and decline the rest."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from napari.components import ViewerModel
from npe2 import PluginManifest
from PIL import Image

from napari_pathotune import _contributions, _layers, _slide_facts

MANIFEST = Path(__file__).parents[2] / "napari_pathotune" / "napari.yaml"


def test_the_manifest_is_valid_and_every_command_can_be_imported():
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()


def test_the_top_level_manifest_is_the_same_file():
    top = Path(__file__).parents[2] / "napari.yaml"
    assert top.read_text() == MANIFEST.read_text()


def test_patterns_come_in_both_cases_and_cover_every_suffix():
    manifest = yaml.safe_load(MANIFEST.read_text())
    patterns = manifest["contributions"]["readers"][0]["filename_patterns"]
    for suffix in _slide_facts.SUFFIXES:
        assert f"*.{suffix}" in patterns and f"*.{suffix.upper()}" in patterns


@pytest.mark.parametrize(
    "path",
    [
        "wsi_cmu1_small_region/CMU-1-Small-Region.svs",
        "wsi_cmu1_small_region/CMU-1-Small-Region.dcm",
        "wsi_tcga_cr7395/TCGA-CR-7395-01A-01-TS1.svs",
        "wsi_her2st_sections/C2_pyramid.ome.tif",
        "wsi_ndpi_fluor/test3-DAPI-2-(387).ndpi",
        "img_skimage_ihc/ihc.png",
        "img_stardist_histo/histo.jpg",
        "img_instanseg_he/HE_example.tif",
    ],
)
def test_slides_open_as_layers_in_um(shared, path):
    file = str(shared / "data" / path)
    read = _contributions.slide_reader(file)
    assert read is not None
    (data, kwargs, kind) = read(file)[0]
    slide = kwargs["metadata"][_layers.KEY]["slide"]
    try:
        assert kind == "image" and kwargs["rgb"]
        viewer = ViewerModel()
        layer = viewer.add_image(data, **kwargs)
        assert layer.level_shapes[0][0] == slide.height if layer.multiscale else True
        assert np.asarray(layer.thumbnail).any()
    finally:
        slide.close()


def test_foreign_files_are_declined_fast(tmp_path):
    text = tmp_path / "notes.tif"
    text.write_text("not a slide")
    empty = tmp_path / "empty.svs"
    empty.write_bytes(b"")
    array = tmp_path / "array.dcm"
    np.save(array.open("wb"), np.zeros(9))
    began = time.monotonic()
    for path in (text, empty, array, tmp_path / "not there.svs"):
        assert _contributions.slide_reader(str(path)) is None, path
    assert time.monotonic() - began < 1.0


def test_several_files_at_once_are_not_a_slide(tmp_path):
    paths = []
    for i in range(2):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(paths[-1])
    assert _contributions.slide_reader(paths) is None
    assert _contributions.slide_reader(paths[:1]) is not None


def square(x, y, side, name):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    properties = {"objectType": "annotation", "classification": {"name": name, "color": [9, 9, 9]}}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def test_annotations_without_a_slide_become_shapes(tmp_path):
    path = tmp_path / "a.geojson"
    features = [square(10, 20, 30, "Tumour"), square(90, 20, 30, "Fat")]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    viewer = ViewerModel()
    read = _contributions.annotation_reader(str(path))
    assert read is not None
    data, kwargs, kind = read(str(path))[0]
    layer = viewer.add_shapes(data, **kwargs)
    assert kind == "shapes" and layer.nshapes == 2
    assert sorted(layer.features["class"]) == ["Fat", "Tumour"]
    tumour = layer.data[list(layer.features["class"]).index("Tumour")]
    np.testing.assert_allclose(tumour.min(axis=0), (19.5, 9.5))


def test_annotations_reach_the_session_of_an_open_slide(
    window, skin, tmp_path, wait_until, monkeypatch
):
    import napari

    viewer, session = window
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    session.open(skin)
    wait_until(lambda: session.slide is not None)
    path = tmp_path / "a.geojson"
    features = [square(100, 200, 30, "Tumour")]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    read = _contributions.annotation_reader(str(path))
    assert read is not None
    assert read(str(path)) == [(None,)]
    wait_until(lambda: len(session.annotations.items) == 1)
    out = tmp_path / "saved.geojson"
    assert _contributions.write_annotations(str(out), []) == [str(out)]
    assert json.loads(out.read_text())["features"]


def test_the_sample_is_a_slide():
    data, kwargs, _ = _contributions.sample()[0]
    slide = kwargs["metadata"][_layers.KEY]["slide"]
    try:
        assert slide.mpp is not None and slide.width > 2000
        assert data[0].shape[:2] == (slide.height, slide.width)
    finally:
        slide.close()
