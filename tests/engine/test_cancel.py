"""Every job stops between two batches, leaves no thread behind, and goes on where it stopped."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from pathotune import drain
from pathotune.events import Progress, TilesDone
from pathotune.learn.train import train, train_tiles
from pathotune.maps.dense import shell
from pathotune.maps.predict import predict, predict_tiles
from pathotune.marks.annotations import Annotation, AnnotationSet, new_id
from pathotune.models.bundle import ModelBundle
from pathotune.models.cards import user_folder
from pathotune.models.tuning.linear import LinearHead
from pathotune.slides.slide import open_slide


@pytest.fixture
def slide(tmp_path):
    rng = np.random.default_rng(3)
    image = np.full((700, 1300, 3), 243, np.uint8)
    image[50:650, 50:1250] = rng.integers(60, 200, (600, 1200, 3))
    path = tmp_path / "specks.tif"
    tifffile.imwrite(path, image, resolution=(20000,) * 2, resolutionunit="CENTIMETER")
    with open_slide(path) as opened:
        yield opened


@pytest.fixture
def card(tiny_card, tiny_folder):
    user_folder().mkdir(parents=True, exist_ok=True)
    for file in tiny_folder.iterdir():
        (user_folder() / file.name).write_bytes(file.read_bytes())
    return tiny_card


@pytest.fixture
def bundle(card):
    rng = np.random.default_rng(0)
    head = LinearHead(
        rng.normal(size=(card.dims, 2)).astype(np.float32), np.zeros(2, np.float32), 1.0
    )
    colours = ((200, 0, 0), (0, 0, 200))
    return ModelBundle.create(card, "linear", ("A", "B"), colours, head.to_arrays())


@pytest.fixture
def tiles(tmp_path):
    rng = np.random.default_rng(5)
    for name in ("A", "B"):
        (tmp_path / "tiles" / name).mkdir(parents=True)
        for i in range(9):
            tile = rng.integers(0, 200, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(tile).save(tmp_path / "tiles" / name / f"{i}.png")
    return tmp_path / "tiles"


def marks() -> AnnotationSet:
    found = AnnotationSet()
    for i in range(8):
        box = shapely.box(80 + 140 * i, 100, 180 + 140 * i, 500)
        found.add(Annotation(new_id(), "AB"[i % 2], "rectangle", box))
    return found


def under_way(job) -> int:
    """Pump a job until it has done a part of its work; return how much."""
    for event in job:
        if isinstance(event, Progress) and 0 < event.done < event.total:
            return event.done
    pytest.fail("the job ended before it could be stopped")


def stop(job) -> None:
    """Close a job and see that it ends at once and takes its threads along."""
    start = time.monotonic()
    job.close()
    assert time.monotonic() - start < 2
    left = [t.name for t in threading.enumerate() if t.name.startswith("pathotune")]
    # The decoders of JPEG tiles are the process's own and outlive every job.
    assert [name for name in left if not name.startswith("pathotune-decoder")] == []
    assert next(job, "closed") == "closed"


def test_training_stops_and_goes_on(slide, card):
    job = train([(slide, marks())], card=card, device="cpu")
    under_way(job)
    stop(job)
    first = []
    bundle = drain(
        train([(slide, marks())], card=card, device="cpu"),
        # the step before, finding the tissue, is one
        lambda e: first.append(e.done) if isinstance(e, Progress) and e.total > 1 else None,
    )
    assert first[0] > 0 and bundle.classes == ("A", "B")


def test_predicting_stops_keeps_its_map_and_goes_on(slide, bundle, monkeypatch):
    whole = drain(predict(slide, bundle, tissue="off", device="cpu"))
    from pathotune.maps.classmap import ClassMap
    from pathotune.models.features import FeatureStore

    monkeypatch.setattr(FeatureStore, "limit_bytes", FeatureStore.limit_bytes)  # comes back
    FeatureStore.evict(0)
    FeatureStore.evict(10**9)
    shape = whole.labels.shape
    partial = ClassMap.empty(
        whole.classes, whole.colours, whole.origin, whole.step, whole.mpp, *shape
    )
    job = predict(slide, bundle, tissue="off", device="cpu", into=partial)
    under_way(job)
    stop(job)
    kept = partial.labels > 0
    assert 0 < kept.sum() < kept.size
    again = drain(predict(slide, bundle, tissue="off", device="cpu", into=partial))
    assert again is partial
    np.testing.assert_array_equal(again.labels, whole.labels)
    assert np.abs(again.probs.astype(float) - whole.probs.astype(float)).max() < 1e-3


def test_tile_jobs_stop(tiles, card, bundle):
    for job in (
        train_tiles(tiles, card=card, device="cpu"),
        predict_tiles(tiles, bundle, device="cpu"),
    ):
        under_way(job)
        stop(job)


def test_shell_stops_keeps_its_map_and_goes_on(slide):
    pytest.importorskip("onnxruntime")
    partial = shell.empty(slide)
    job = shell.predict(slide, "off", into=partial)
    under_way(job)
    stop(job)
    before = partial.labels.copy()
    assert 0 < (before > 0).sum() < before.size
    steps = []
    done = drain(
        shell.predict(slide, "off", into=partial),
        lambda e: steps.append(e) if isinstance(e, TilesDone) else None,
    )
    assert done is partial and (done.labels > 0).all() and len(steps) == 1
    np.testing.assert_array_equal(done.labels[before > 0], before[before > 0])
