"""Learning from marks: the live probe and the job agree, and verdicts are honest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from pathotune import drain
from pathotune.events import PathotuneError
from pathotune.learn.evaluate import apart, judge
from pathotune.learn.live import LiveProbe
from pathotune.learn.marked import Marked
from pathotune.learn.train import train, train_tiles
from pathotune.marks.annotations import Annotation, AnnotationSet, new_id
from pathotune.models.bundle import ModelBundle
from pathotune.models.features import FeatureStore, compute_features
from pathotune.models.tuning.linear import LinearHead
from pathotune.slides.slide import open_slide
from pathotune.slides.tile_folder import at_mpp, class_folders, windows
from pathotune.slides.tiles import TileGrid
from pathotune.slides.tissue import tissue_mask


@pytest.fixture
def slide(tmp_path):
    """Return a slide of two textures: fine dark specks on the left, coarse red on the right."""
    rng = np.random.default_rng(3)
    image = np.full((512, 768, 3), 225, np.uint8)
    image[:, :384] = rng.integers(60, 200, (512, 384, 1))
    image[:, 384:] = np.kron(rng.integers(80, 180, (64, 48, 1)), np.ones((8, 8, 1)))
    image[:, 384:, 0] = 220
    path = tmp_path / "two.tif"
    per_cm = 1e4 / 0.5
    tifffile.imwrite(path, image, resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")
    with open_slide(path) as opened:
        yield opened


def mark(name: str, x: float, y: float, side: float = 60.0) -> Annotation:
    return Annotation(new_id(), name, "rectangle", shapely.box(x, y, x + side, y + side))


@pytest.fixture
def marks() -> AnnotationSet:
    found = AnnotationSet()
    found.add(*(mark("Specks", 40 + 90 * i, 60 + 100 * i) for i in range(3)))
    found.add(*(mark("Red", 420 + 90 * i, 60 + 100 * i) for i in range(3)))
    return found


def grid_of(slide, card) -> TileGrid:
    return TileGrid.plan(
        slide.width,
        slide.height,
        slide.mpp,
        mpp=card.mpp,
        tile_px=card.tile_px,
        token_px=card.token_px,
        halo=card.halo,
    )


def test_live_probe_and_training_give_the_same_model(slide, marks, tiny_card, tmp_path):
    bundle = drain(train([(slide, marks)], card=tiny_card, device="cpu"))
    assert bundle.classes == ("Red", "Specks") and bundle.tissue in {"auto", "off"}
    grid = grid_of(slide, tiny_card)
    with FeatureStore.open(slide.stamp, tiny_card, grid, root=tmp_path / "f") as store:
        drain(compute_features(slide, tiny_card, grid, store, grid.cells(None), device="cpu"))
        live = LiveProbe(tiny_card.neighbourhood)
        tissue = None if bundle.tissue == "off" else tissue_mask(slide)
        head, missing = live.update(marks, store, grid, tissue)
        assert missing is None and live.classes == bundle.classes
        verdict = live.validation()
        saved = LinearHead.from_arrays(bundle.arrays)
        features, _ = store.window(0, 0, *store.shape, tiny_card.neighbourhood)
        assert np.abs(head.probs(features) - saved.probs(features)).max() < 1e-3
        assert live.update(marks, store, grid, tissue)[0] is head  # nothing changed, nothing done
        assert verdict.macro_f1 == pytest.approx(bundle.meta["metrics"]["macro_f1"], abs=1e-6)
        assert verdict.n_regions == 6 and verdict.scope == "this slide"
        assert verdict.low <= verdict.macro_f1 <= verdict.high
        turned = AnnotationSet()
        for one in reversed(marks.items):
            turned.add(replace(one, id=new_id()))
        again = LiveProbe(tiny_card.neighbourhood)
        again.update(turned, store, grid, tissue)
        assert again.validation().as_dict() == verdict.as_dict()  # whatever order, whatever names
        told = bundle.meta["metrics"]
        assert (told["low"], told["high"]) == pytest.approx((verdict.low, verdict.high), abs=1e-6)


def test_a_changed_stroke_equals_learning_afresh(slide, marks, tiny_card, tmp_path):
    grid = grid_of(slide, tiny_card)
    with FeatureStore.open(slide.stamp, tiny_card, grid, root=tmp_path / "f") as store:
        drain(compute_features(slide, tiny_card, grid, store, grid.cells(None), device="cpu"))
        live = LiveProbe(tiny_card.neighbourhood)
        live.update(marks, store, grid)
        marks.add(mark("Red", 600, 400))
        marks.remove([marks.items[0].id])
        marks.rename_class("Red", "Rose")
        followed, _ = live.update(marks, store, grid)
        afresh, _ = LiveProbe(tiny_card.neighbourhood).update(marks, store, grid)
        np.testing.assert_allclose(followed.weight, afresh.weight, rtol=1e-4, atol=1e-4)


def test_what_is_missing_is_said(slide, tiny_card, tmp_path):
    grid = grid_of(slide, tiny_card)
    marks = AnnotationSet()
    live = LiveProbe(tiny_card.neighbourhood)
    with FeatureStore.open(slide.stamp, tiny_card, grid, root=tmp_path / "f") as store:
        assert live.update(marks, store, grid) == (
            None,
            "What do you want to tell apart? Add two classes.",
        )
        marks.add(mark("Red", 420, 60))
        assert live.update(marks, store, grid)[1] == "Add a second class to compare with."
        marks.add_class("Fat")
        assert live.update(marks, store, grid)[1] == "Mark at least one Fat region."
        marks.add(mark("Fat", 40, 60))
        assert live.update(marks, store, grid) == (None, "The marked regions are being read.")
        drain(compute_features(slide, tiny_card, grid, store, grid.cells(None), device="cpu"))
        head, missing = live.update(marks, store, grid)
        assert head is not None and missing is None
        verdict = live.validation()
        assert verdict.macro_f1 is None and "only one region" in verdict.why_not


def test_regions_of_one_kind_do_not_flatter():
    """Features that are the region's own, not the class's, must not look like knowledge."""
    rng = np.random.default_rng(0)
    marked = Marked(2, 16)
    for c in range(2):
        for r in range(4):
            own = rng.normal(0, 5, 16)
            marked.add(f"{c}{r}", c, (own + rng.normal(0, 0.1, (200, 16))).astype(np.float32))
    _, verdict = judge(marked, ("A", "B"))
    assert verdict.macro_f1 < 0.9
    assert verdict.high - verdict.low > 0.1
    assert verdict.confusion.sum() == pytest.approx(1600, abs=4)


def test_whole_slides_are_left_out_when_there_are_two():
    rng = np.random.default_rng(1)
    marked = Marked(2, 8)
    for s in range(2):
        for c in range(2):
            # On slide 1 the classes look the other way round.
            mean = np.full(8, (1.0 if c else -1.0) * (1 if s == 0 else -1))
            for r in range(2):
                x = (mean + rng.normal(0, 0.3, (50, 8))).astype(np.float32)
                marked.add(f"{s}/{c}{r}", c, x)
    _, verdict = judge(marked, ("A", "B"), scope="2 slides", slides=("0/", "1/"))
    assert verdict.macro_f1 < 0.1 and verdict.scope == "2 slides"


def test_a_class_on_one_slide_only_keeps_to_regions_and_says_so():
    rng = np.random.default_rng(2)
    marked = Marked(3, 8)
    for key, c in (("0/a", 0), ("0/b", 0), ("0/c", 1), ("1/a", 0), ("1/b", 1), ("1/c", 1)):
        marked.add(key, c, rng.normal(c, 0.2, (30, 8)).astype(np.float32))
    assert apart(marked, ("0/",)) == ((), "this slide")
    assert apart(marked, ("0/", "1/")) == (("0/", "1/"), "2 slides")
    for key in ("1/d", "1/e"):
        marked.add(key, 2, rng.normal(-1, 0.2, (30, 8)).astype(np.float32))
    slides, scope = apart(marked, ("0/", "1/"))
    assert slides == () and scope == "regions of 2 slides"
    _, verdict = judge(marked, ("A", "B", "C"), scope=scope, slides=slides)
    assert verdict.macro_f1 is not None and verdict.scope == scope


def test_input_that_cannot_be_learnt_is_refused(slide, marks, tiny_card):
    with pytest.raises(PathotuneError, match="Fat"):
        drain(train([(slide, marks)], card=tiny_card, classes=["Red", "Fat"]))
    with pytest.raises(PathotuneError, match="two classes"):
        drain(train([(slide, AnnotationSet())], card=tiny_card))
    away = AnnotationSet()
    away.add(mark("Red", 9000, 9000), mark("Specks", 50, 50))
    with pytest.raises(PathotuneError, match="Red"):
        drain(train([(slide, away)], card=tiny_card, device="cpu"))


def test_tiles_are_learnt_from_folders(tmp_path, tiny_card):
    rng = np.random.default_rng(5)
    for name, low in (("dark", 20), ("bright", 150)):
        for i in range(3):
            folder = tmp_path / "tiles" / name / f"patient {i}"
            folder.mkdir(parents=True)
            tile = rng.integers(low, low + 60, (80, 70, 3), dtype=np.uint8)
            Image.fromarray(tile).save(folder / "a.png")
    bundle = drain(train_tiles(tmp_path / "tiles", card=tiny_card, device="cpu"))
    assert bundle.classes == ("bright", "dark")
    assert bundle.meta["mpp_assumed"] is True and bundle.meta["trained_on"] == "tiles"
    assert bundle.meta["metrics"]["macro_f1"] > 0.9
    assert "share a patient" in bundle.meta["metrics"]["scope"]
    path = bundle.save(tmp_path / "b.safetensors")
    assert ModelBundle.load(path, check=False).classes == bundle.classes


def test_windows_cover_a_tile_and_mirror_a_small_one(tmp_path):
    tile = np.arange(100 * 130 * 3, dtype=np.uint32).reshape(100, 130, 3).astype(np.uint8)
    assert windows(tile, 64).shape == (6, 64, 64, 3)
    small = windows(tile[:40, :50], 64)
    assert small.shape == (1, 64, 64, 3)
    np.testing.assert_array_equal(small[0, 12:52, 7:57], tile[:40, :50])
    np.testing.assert_array_equal(small[0, 11, 7:57], tile[1, :50])
    assert windows(tile[:9, :9], 64).shape == (1, 64, 64, 3)
    assert at_mpp(tile, 0.25, 0.5).shape == (50, 65, 3)
    assert at_mpp(tile, 0.5, 0.5) is tile
    with pytest.raises(PathotuneError):
        class_folders(tmp_path / "nowhere")


def test_a_slide_given_twice_is_one_slide(slide, marks, tiny_card):
    """What is learnt of a slide must not be judged on the same slide as if it were another."""
    halves = [AnnotationSet(), AnnotationSet()]
    for i, one in enumerate(marks.items):
        halves[i % 2].add(one)
    bundle = drain(train([(slide, half) for half in halves], card=tiny_card, device="cpu"))
    told = bundle.meta["metrics"]
    assert told["scope"] != "2 slides" and told["n_regions"] == len(marks.items)


def test_hidden_folders_are_no_classes_and_linked_ones_are(tmp_path):
    tile = Image.fromarray(np.zeros((9, 9, 3), np.uint8))
    for place in ("tiles/A", "tiles/.ipynb_checkpoints", "elsewhere"):
        (tmp_path / place).mkdir(parents=True)
        tile.save(tmp_path / place / "1.png")
    (tmp_path / "tiles" / "C").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tiles" / "A" / "back").symlink_to(tmp_path / "tiles")
    found = class_folders(tmp_path / "tiles")
    assert {name: len(files) for name, files in found.items()} == {"A": 1, "C": 1}
