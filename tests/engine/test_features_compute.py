"""Filling a store: screen first, cancel and resume, and the same numbers whatever the way."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from pathotune.events import Note, PathotuneError, Progress, TilesDone, drain
from pathotune.models import extract
from pathotune.models.features import FeatureStore, compute_features
from pathotune.slides.geometry import Region
from pathotune.slides.tiles import TileGrid


class Picture:
    """A slide of coloured noise at 0.5 um/px, read as the tile reader reads one."""

    def __init__(self, width=700, height=500, seed=0):
        rng = np.random.default_rng(seed)
        small = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        self.pixels = np.pad(
            small.repeat(4, 0).repeat(4, 1), ((64, 640), (64, 840), (0, 0)), constant_values=255
        )
        self.width, self.height, self.stamp = width, height, f"picture {seed}"
        self.reads = 0
        self.broken = False

    def read_scaled(self, x, y, mpp, width, height):
        if self.broken:
            raise PathotuneError("The slide cannot be read any more.")
        self.reads += 1
        r, c = round(y) + 64, round(x) + 64
        return self.pixels[r : r + height, c : c + width]


@pytest.fixture
def slide():
    return Picture()


@pytest.fixture
def grid(slide, tiny_card):
    return plan(slide, tiny_card)


def plan(slide, card, **more):
    return TileGrid.plan(
        slide.width,
        slide.height,
        0.5,
        mpp=card.mpp,
        tile_px=card.tile_px,
        token_px=card.token_px,
        halo=card.halo,
        **more,
    )


def jobs_threads() -> int:
    """Count the threads; the decoders of JPEG tiles are the process's own and stay."""
    names = [t.name for t in threading.enumerate()]
    return sum(not name.startswith("pathotune-decoder") for name in names)


@pytest.fixture(autouse=True)
def nothing_loaded():
    extract._loaded.clear()
    before = jobs_threads()
    yield
    extract._loaded.clear()
    deadline = time.monotonic() + 2
    while jobs_threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert jobs_threads() <= before, "reading threads are left"


def run(slide, card, grid, store, cells, **more):
    events = []
    drain(compute_features(slide, card, grid, store, cells, device="cpu", **more), events.append)
    return events


def test_everything_is_computed_told_and_not_computed_again(slide, tiny_card, grid, tmp_path):
    cells = grid.cells(None)
    with FeatureStore.open(slide.stamp, tiny_card, grid, tmp_path) as store:
        events = run(slide, tiny_card, grid, store, cells)
        progress = [e for e in events if isinstance(e, Progress)]
        assert (progress[0].done, progress[-1].done) == (0, len(cells))
        assert progress[-1].total == len(cells) and progress[-1].seconds_left == 0
        boxes = [e for e in events if isinstance(e, TilesDone)]
        area = sum((b.row1 - b.row0) * (b.col1 - b.col0) for b in boxes)
        assert area == grid.lattice.rows * grid.lattice.cols
        assert store.window(0, 0, grid.lattice.rows, grid.lattice.cols)[1].all()
        reads, extract._loaded = slide.reads, {}
        again = run(slide, tiny_card, grid, store, cells)
        assert again == [Progress(len(cells), len(cells), progress[0].what)]
        assert slide.reads == reads and not extract._loaded


def test_what_is_on_the_screen_comes_first_wherever_it_goes(slide, tiny_card, grid, tmp_path):
    screens = [Region(600, 400, 60, 60), Region(0, 0, 60, 60)]
    screen = [screens[0]]
    cells = grid.cells(None)
    done = []
    with FeatureStore.open(slide.stamp, tiny_card, grid, tmp_path) as store:
        job = compute_features(
            slide, tiny_card, grid, store, cells, device="cpu", focus=lambda: screen[0]
        )
        for event in job:
            if isinstance(event, TilesDone):
                done.append((event.row0 // grid.core, event.col0 // grid.core))
                if len(done) == 8:
                    screen[0] = screens[1]
    assert len(done) == len(set(done)) == len(cells)
    assert done[0] == (8, 13)
    # two batches were already being read when the user moved
    assert (0, 0) in done[8 : 8 + 3 * 49]
    ahead = 3 * extract_batch(tiny_card)
    assert done.index((0, 0)) <= 8 + ahead


def extract_batch(card):
    return extract.backbone_for(card, "cpu").batch


def test_cancel_keeps_what_is_done_and_resume_goes_on(slide, tiny_card, grid, tmp_path):
    cells = grid.cells(None)
    with FeatureStore.open(slide.stamp, tiny_card, grid, tmp_path / "a") as store:
        job = compute_features(slide, tiny_card, grid, store, cells, device="cpu")
        while not isinstance(next(job), TilesDone):
            pass
        start = time.monotonic()
        job.close()
        assert time.monotonic() - start < 0.5
        kept = len(cells) - len(store.missing(cells))
        assert 0 < kept < len(cells)
    with FeatureStore.open(slide.stamp, tiny_card, grid, tmp_path / "a") as store:
        events = run(slide, tiny_card, grid, store, cells)
        assert events[0].done == kept
        resumed = store.window(0, 0, *store.shape)[0]
    with FeatureStore.open(slide.stamp, tiny_card, grid, tmp_path / "b") as store:
        run(slide, tiny_card, grid, store, cells[::-1])
        fresh = store.window(0, 0, *store.shape)[0]
    np.testing.assert_allclose(resumed, fresh, atol=np.abs(fresh).max() / 127 * 1.01)
    assert np.mean(resumed == fresh) > 0.999


def test_a_tile_grid_does_not_show(slide, tiny_card, tmp_path):
    """Moving the grid by half a tile moves the features with it, but for the far context."""
    grid = plan(slide, tiny_card)
    shift = tiny_card.core // 2
    moved = plan(slide, tiny_card, origin=(shift * 8.0, shift * 8.0))
    windows = []
    for g in (grid, moved):
        with FeatureStore.open(slide.stamp, tiny_card, g, tmp_path) as store:
            run(slide, tiny_card, g, store, g.cells(None))
            windows.append(store.window(0, 0, *store.shape)[0])
    a, b = windows[0][shift:, shift:], windows[1]
    h, w = min(len(a), len(b)), min(a.shape[1], b.shape[1])
    a, b = (x[:h, :w].reshape(-1, x.shape[-1]) for x in (a, b))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.8


def test_a_slide_that_goes_away_stops_with_its_own_words(slide, tiny_card, grid, tmp_path):
    cells = grid.cells(None)
    with FeatureStore.open(slide.stamp, tiny_card, grid, tmp_path) as store:
        job = compute_features(slide, tiny_card, grid, store, cells, device="cpu")
        while not isinstance(next(job), TilesDone):
            pass
        slide.broken = True
        with pytest.raises(PathotuneError, match="cannot be read"):
            drain(job)
        assert len(store.missing(cells)) < len(cells)


def test_a_full_disk_is_noted_once_and_the_work_goes_on(
    slide, tiny_card, grid, tmp_path, monkeypatch
):
    from pathotune.models import _blockfile

    def full(_file, _data):
        raise OSError(28, "No space left on device")

    cells = grid.cells(None)
    with FeatureStore.open(slide.stamp, tiny_card, grid, tmp_path) as store:
        monkeypatch.setattr(_blockfile, "_write", full)
        events = run(slide, tiny_card, grid, store, cells)
        notes = [e for e in events if isinstance(e, Note)]
        assert len(notes) == 1 and "disk is full" in notes[0].text
        assert store.window(0, 0, *store.shape)[1].all()


def test_short_memory_is_noted_in_the_job(slide, tiny_card, grid, tmp_path, monkeypatch):
    import torch

    backbone = extract.backbone_for(tiny_card, "cpu")
    forward = backbone._forward

    def hungry(batch, crop):
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(batch, crop)

    monkeypatch.setattr(backbone, "_forward", hungry)
    with FeatureStore.open(slide.stamp, tiny_card, grid, tmp_path) as store:
        events = run(slide, tiny_card, grid, store, grid.cells(None)[:9])
        assert any(isinstance(e, Note) and "2 tiles at a time" in e.text for e in events)
        assert len(store.missing(grid.cells(None)[:9])) == 0


def test_missing_weights_are_told_before_torch_is_imported(slide, tiny_card, grid, tmp_path):
    from dataclasses import replace

    part = tiny_card.parts[0]
    gone = replace(tiny_card, parts=(replace(part, weights=replace(part.weights, where="gone")),))
    with (
        FeatureStore.open(slide.stamp, gone, grid, tmp_path) as store,
        pytest.raises(PathotuneError, match="not where the model card says"),
    ):
        run(slide, gone, grid, store, grid.cells(None))
