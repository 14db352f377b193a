"""The map is the same whoever asks, in whatever order, after whatever interruption."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from pathotune import cli, drain
from pathotune.events import PathotuneError, TilesDone
from pathotune.learn.live import LiveProbe
from pathotune.learn.train import train, train_tiles
from pathotune.maps.classmap import ClassMap
from pathotune.maps.paint import paint
from pathotune.maps.predict import predict, predict_tiles
from pathotune.marks.annotations import Annotation, AnnotationSet, new_id
from pathotune.marks.geojson import write_geojson
from pathotune.models.cards import user_folder
from pathotune.models.features import FeatureStore, compute_features
from pathotune.models.tuning.linear import LinearHead
from pathotune.slides.slide import Region, open_slide
from pathotune.slides.tiles import TileGrid
from pathotune.slides.tissue import tissue_mask

MPP = 0.4  # not the card's, so that a token is 10 slide pixels


@pytest.fixture
def slide(tmp_path):
    """Return a slide of two textures with glass around them."""
    rng = np.random.default_rng(3)
    image = np.full((620, 900, 3), 243, np.uint8)
    image[60:560, 60:450] = rng.integers(60, 200, (500, 390, 1))
    image[60:560, 450:850] = np.kron(rng.integers(80, 180, (63, 50, 1)), np.ones((8, 8, 1)))[:500]
    image[60:560, 450:850, 0] = 220
    path = tmp_path / "two.tif"
    per_cm = 1e4 / MPP
    tifffile.imwrite(path, image, resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")
    with open_slide(path) as opened:
        yield opened


@pytest.fixture
def marks() -> AnnotationSet:
    found = AnnotationSet()
    for name, x in (("Specks", 90), ("Red", 480)):
        for i in range(3):
            box = shapely.box(x + 110 * i, 90 + 120 * i, x + 110 * i + 80, 170 + 120 * i)
            found.add(Annotation(new_id(), name, "rectangle", box))
    return found


@pytest.fixture
def card(tiny_card, tiny_folder):
    """Return the tiny card, known to the program as the user's own."""
    for file in tiny_folder.iterdir():
        user_folder().mkdir(parents=True, exist_ok=True)
        shutil.copy(file, user_folder())
    return tiny_card


@pytest.fixture
def bundle(slide, marks, card):
    return drain(train([(slide, marks)], card=card, device="cpu"))


def test_the_map_covers_the_slide_and_says_what_was_marked(slide, bundle, marks):
    found = drain(predict(slide, bundle, device="cpu"))
    assert found.labels.shape == (62, 90) and found.step == 10 and found.mpp == pytest.approx(4)
    assert found.origin == (0, 0) and found.classes == ("Red", "Specks")
    right = 0
    for item in marks.items:
        x, y = item.geometry.centroid.coords[0]
        right += found.at(x, y)[0] == item.class_name
    assert right >= 5
    assert found.at(890, 610) is None  # glass
    assert found.at(9000, 5) is None  # beside the slide
    sums = found.probs.astype(np.float32).sum(-1)
    assert np.abs(sums[found.labels > 0] - 1).max() < 2e-3 and sums[found.labels == 0].max() == 0


def test_order_interruption_and_extra_features_change_nothing(slide, bundle, card, tmp_path):
    whole = drain(predict(slide, bundle, device="cpu"))
    grid = plan(slide, card)
    with FeatureStore.open(slide.stamp, card, grid, root=tmp_path / "other") as store:
        # Some of the glass first, as an earlier model without a mask would have left it.
        drain(compute_features(slide, card, grid, store, grid.cells(None)[::3], device="cpu"))
        focus = Region(700, 400, 100, 100)
        job = predict(slide, bundle, device="cpu", store=store, focus=lambda: focus)
        for count, event in enumerate(job):
            if count > 6 and isinstance(event, TilesDone):
                break
        job.close()
        partial = ClassMap.empty(whole.classes, whole.colours, (0.0, 0.0), 10.0, 4.0, 62, 90)
        resumed = drain(predict(slide, bundle, device="cpu", store=store, into=partial))
        assert resumed is partial
    np.testing.assert_array_equal(resumed.labels, whole.labels)
    assert np.abs(resumed.probs.astype(float) - whole.probs.astype(float)).max() < 1e-3


def test_a_region_is_the_same_piece_of_the_map(slide, bundle):
    whole = drain(predict(slide, bundle, device="cpu"))
    region = Region(200, 150, 305, 200)
    part = drain(predict(slide, bundle, region=region, device="cpu"))
    assert part.labels.shape == (20, 31) and part.origin == (200, 150)
    np.testing.assert_array_equal(part.labels, whole.labels[15:35, 20:51])
    shifted = drain(predict(slide, bundle, region=Region(203, 157, 100, 100), device="cpu"))
    assert shifted.origin == (203, 157) and shifted.labels.shape == (10, 10)
    with pytest.raises(PathotuneError, match="outside"):
        drain(predict(slide, bundle, region=Region(5000, 0, 10, 10)))


def plan(slide, card) -> TileGrid:
    return TileGrid.plan(
        slide.width,
        slide.height,
        slide.mpp,
        mpp=card.mpp,
        tile_px=card.tile_px,
        token_px=card.token_px,
        halo=card.halo,
    )


def test_the_window_paints_what_the_command_line_writes(slide, marks, bundle, card):
    written = drain(predict(slide, bundle, device="cpu"))
    grid = plan(slide, card)
    with FeatureStore.open(slide.stamp, card, grid) as store:
        mask = tissue_mask(slide)
        live = LiveProbe(card.neighbourhood)
        head, _ = live.update(marks, store, grid, mask)
        window, on_tissue = (0, 0, *store.shape), grid.tokens(mask)
        labels, probs = paint(store, head, window, on_tissue, card.neighbourhood)
    assert live.classes == written.classes
    np.testing.assert_array_equal(labels, written.labels)
    assert np.abs(probs.astype(float) - written.probs.astype(float)).max() < 1e-3


def test_averaging_logits_is_averaging_features(slide, bundle, card):
    drain(predict(slide, bundle, tissue="off", device="cpu"))
    grid, head = plan(slide, card), LinearHead.from_arrays(bundle.arrays)
    with FeatureStore.open(slide.stamp, card, grid) as store:
        features, valid = store.window(0, 0, *store.shape, card.neighbourhood)
        _, probs = paint(store, head, (0, 0, *store.shape), None, card.neighbourhood)
    assert valid.all()
    assert np.abs(head.probs(features) - probs.astype(np.float32)).max() < 1e-3


def test_tissue_can_be_off_or_a_file(slide, bundle, tmp_path):
    everywhere = drain(predict(slide, bundle, tissue="off", device="cpu"))
    assert (everywhere.labels > 0).all()
    box = AnnotationSet()
    box.add(Annotation(new_id(), "Here", "rectangle", shapely.box(100, 100, 300, 300)))
    write_geojson(tmp_path / "here.geojson", box)
    some = drain(predict(slide, bundle, tissue=tmp_path / "here.geojson", device="cpu"))
    assert 350 < (some.labels > 0).sum() < 500


def test_the_command_line_trains_and_predicts(slide, marks, card, tmp_path, capsys):
    write_geojson(tmp_path / "m.geojson", marks)
    out = tmp_path / "b.safetensors"
    words = ["train", str(slide.path), "--annotations", str(tmp_path / "m.geojson")]
    words += ["--model", card.id, "--device", "cpu", "--out", str(out), "--json"]
    assert cli.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["classes"] == ["Red", "Specks"] and told["n_regions"] == 6
    assert told["macro_f1"] is not None and told["seconds"] >= 0
    words = ["predict", str(slide.path), "--bundle", str(out), "--device", "cpu", "--json"]
    words += ["--out", str(tmp_path / "map.ome.tif"), "--csv", str(tmp_path / "a.csv")]
    words += ["--geojson", str(tmp_path / "g.geojson"), "--region", "200,150,305,200"]
    assert cli.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["origin"] == [200, 150] and told["step"] == 10 and told["mpp"] == pytest.approx(MPP)
    assert set(told["areas_mm2"]) == {"Red", "Specks"}
    with tifffile.TiffFile(tmp_path / "map.ome.tif") as tiff:
        assert tiff.asarray().shape == (20, 31) and "200.0" in tiff.ome_metadata
    assert (tmp_path / "a.csv").exists() and (tmp_path / "g.geojson").exists()


def test_tiles_are_classified_into_a_table(card, tmp_path, capsys):
    rng = np.random.default_rng(5)
    for name, low in (("dark", 20), ("bright", 150)):
        (tmp_path / "tiles" / name).mkdir(parents=True)
        for i in range(3):
            tile = rng.integers(low, low + 60, (80, 70, 3), dtype=np.uint8)
            Image.fromarray(tile).save(tmp_path / "tiles" / name / f"{i}.png")
    bundle = drain(train_tiles(tmp_path / "tiles", card=card, device="cpu"))
    found = drain(predict_tiles(tmp_path / "tiles", bundle, device="cpu"))
    assert found.mpp_assumed and found.files[0] == "bright/0.png"
    bundle.save(tmp_path / "b.safetensors")
    words = ["predict", "--tiles", str(tmp_path / "tiles"), "--bundle"]
    words += [str(tmp_path / "b.safetensors"), "--out", str(tmp_path / "p.csv"), "--json"]
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["mpp_assumed"] is True
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(r["class"] == r["file"].split("/")[0] for r in rows)
    assert list(rows[0]) == ["file", "class", "p_bright", "p_dark"]
