"""Every engine gives the same answers; the faster one is taken only where it does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pathotune import places
from pathotune.events import Note
from pathotune.models import extract, runtime
from pathotune.models.backbones import load_backbone
from pathotune.models.bundle import ModelBundle
from pathotune.models.cards import DEFAULT_ID, card
from pathotune.models.engines import apart, choice, compiled, openvino, trust
from pathotune.models.engines import batch as batch_of
from pathotune.models.features import FeatureStore, box_mean
from pathotune.models.tuning.linear import LinearHead
from pathotune.slides.sample import sample_slide
from pathotune.slides.slide import open_slide
from pathotune.slides.tiles import TileGrid, read_batches
from pathotune.slides.tissue import tissue_mask

needs_openvino = pytest.mark.skipif(not openvino.available(), reason="OpenVINO is not installed")


@pytest.fixture(autouse=True)
def nothing_loaded():
    extract._loaded.clear()
    yield
    extract._loaded.clear()


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Nothing was converted yet."""
    monkeypatch.setenv("PATHOTUNE_COMPILED", str(tmp_path / "compiled"))
    return tmp_path / "compiled"


def tiles(n: int, side: int = 64):
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def real_tiles(path, count: int):
    model = card(DEFAULT_ID)
    with open_slide(path) as slide:
        grid = TileGrid.plan(
            slide.width,
            slide.height,
            slide.mpp or model.mpp,
            mpp=model.mpp,
            tile_px=model.tile_px,
            token_px=model.token_px,
            halo=model.halo,
        )
        cells = grid.cells(tissue_mask(slide))
        cells = cells[:: max(1, len(cells) // count)][:count]
        return np.concatenate([t for _, t in read_batches(slide, grid, cells, 4)])


def classes(tokens):
    bundle = ModelBundle.load(places.resources() / "bundles" / "crc_nine.safetensors")
    head = LinearHead.from_arrays(bundle.arrays)
    inside = np.ones(tokens.shape[1:3], bool)
    means = [box_mean(head.logits(t), inside, card(DEFAULT_ID).neighbourhood) for t in tokens]
    return np.stack(means)[:, 2:-2, 2:-2].argmax(-1)


@needs_openvino
@pytest.mark.parametrize("where", ["sample", "mosaic"])
def test_the_fast_engine_gives_the_classes_of_torch(where, request):
    if where == "sample":
        path = sample_slide()
    else:
        folder = request.getfixturevalue("shared") / "data" / "regions_crc_mosaic"
        path = folder / "crc_mosaic_dev.ome.tif"
    batch = real_tiles(path, 6)
    fast = extract.backbone_for(card(DEFAULT_ID), "cpu")
    assert fast.engine.name.startswith("OpenVINO")
    got, expected = fast.tokens_full(batch), load_backbone(card(DEFAULT_ID)).tokens_full(batch)
    assert len(np.unique(classes(expected))) > 3
    assert (classes(got) == classes(expected)).mean() >= 0.995
    assert trust.change(expected, got) <= trust.LIMIT


@needs_openvino
def test_exact_is_exact_and_has_its_own_graphs(tiny_card, monkeypatch):
    monkeypatch.setattr(openvino, "_timed_torch", lambda g, t, n: (_torch(g, t), 9.0))
    exact = extract.backbone_for(tiny_card, "cpu-f32")
    assert exact.engine.name == "OpenVINO, f32"
    expected = load_backbone(tiny_card).tokens(tiles(2))
    np.testing.assert_allclose(exact.tokens(tiles(2)), expected, atol=2e-3)
    assert compiled.folder("x", True) != compiled.folder("x", False)


@needs_openvino
@pytest.mark.skipif(not runtime.has_bf16(), reason="no 16-bit arithmetic in this processor")
def test_sixteen_bits_go_only_where_they_do_no_harm():
    """The transformer bears them, the small EfficientNet does not."""
    engine = extract.backbone_for(card(DEFAULT_ID), "cpu").engine
    assert engine._precisions == ["bf16", "f32"]


@needs_openvino
def test_order_and_batch_mates_do_not_matter(tiny_card):
    backbone = extract.backbone_for(tiny_card, "cpu")
    batch = tiles(7)
    together = backbone.tokens(batch)
    np.testing.assert_array_equal(backbone.tokens(batch[::-1])[::-1], together)
    alone = np.concatenate([backbone.tokens(batch[i : i + 1]) for i in range(7)])
    np.testing.assert_array_equal(alone, together)


@needs_openvino
def test_a_second_start_needs_no_torch(tiny_folder, fresh):
    code = f"""
import sys, numpy as np
from pathlib import Path
from pathotune.models.cards import read_card
from pathotune.models.extract import backbone_for
backbone = backbone_for(read_card(Path({str(tiny_folder)!r}) / "tiny.toml"), "cpu")
tokens = backbone.tokens(np.full((2, 64, 64, 3), 200, np.uint8))
import threading
print(backbone.engine.name.split(",")[0], "torch" in sys.modules, threading.active_count(),
      "openvino_telemetry" in sys.modules, float(np.abs(tokens).sum()))
"""
    ran = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    if ran[0][0] == "torch,":
        pytest.skip("torch is faster with so small a network here")
    assert ran[0][0] == ran[1][0] == "OpenVINO"
    assert ran[0][1] == "True"
    assert ran[1][1:4] == ["False", "1", "False"]
    assert float(ran[0][4]) == pytest.approx(float(ran[1][4]), rel=1e-6)


def in_a_thread(work):
    """Run something as a window does, beside the main thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@needs_openvino
def test_beside_a_window_another_process_converts(tiny_card, fresh, monkeypatch):
    expected = load_backbone(tiny_card).tokens(tiles(2))
    monkeypatch.setattr(openvino, "convert", lambda *_: pytest.fail("converted here"))
    monkeypatch.setattr(apart.subprocess, "run", counted := Counted(subprocess.run))
    for _ in range(2):
        extract._loaded.clear()
        # (where torch is faster with so small a network, that is the verdict that comes back)
        backbone = in_a_thread(lambda: extract.backbone_for(tiny_card, "cpu"))
        assert backbone.engine.name.startswith(("OpenVINO", "torch"))
        assert trust.change(expected, backbone.tokens(tiles(2))) <= 2 * trust.LIMIT
    assert counted.times == 1  # the second time it is there
    assert len(list(fresh.glob("*/" + compiled.ABOUT))) == 1


class Counted:
    def __init__(self, call):
        self.call, self.times = call, 0

    def __call__(self, *args, **kwargs):
        self.times += 1
        return self.call(*args, **kwargs)


@needs_openvino
@pytest.mark.parametrize("trouble", ["no second Python", "it ends at once", "another card"])
def test_where_no_other_process_converts_this_one_does(tiny_card, fresh, monkeypatch, trouble):
    monkeypatch.setattr(openvino, "_timed_torch", lambda g, t, n: (_torch(g, t), 9.0))
    if trouble == "no second Python":
        monkeypatch.setattr(sys, "executable", str(fresh / "python"))
    elif trouble == "it ends at once":
        ended = SimpleNamespace(returncode=1, stderr="Killed")
        monkeypatch.setattr(apart.subprocess, "run", lambda *_, **__: ended)
    else:
        tiny_card = replace(tiny_card, source=None)
    backbone = in_a_thread(lambda: extract.backbone_for(tiny_card, "cpu"))
    assert backbone.engine.name.startswith("OpenVINO")
    assert backbone.notes() == []


@needs_openvino
def test_a_card_that_has_changed_meanwhile_is_not_converted_apart(tiny_card, fresh):
    wrong = replace(tiny_card, mpp=tiny_card.mpp * 2)
    assert not apart.convert_apart(wrong, fresh / "x", False, 1)
    assert not (fresh / "x").exists()


def test_without_openvino_torch_computes(tiny_card, monkeypatch):
    monkeypatch.setattr(openvino, "available", lambda: False)
    backbone = extract.backbone_for(tiny_card, "cpu")
    assert backbone.engine.name == "torch, f32" and backbone.notes() == []
    np.testing.assert_array_equal(
        backbone.tokens(tiles(3)), load_backbone(tiny_card).tokens(tiles(3))
    )


@needs_openvino
def test_a_network_that_cannot_be_converted_runs_in_torch_and_that_is_told(
    tiny_card, fresh, monkeypatch
):
    def broken(*_):
        raise RuntimeError("operator aten::odd is not known\nand more")

    monkeypatch.setattr(openvino, "traced_model", broken)
    backbone = extract.backbone_for(tiny_card, "cpu")
    (note,) = backbone.notes()
    assert isinstance(note, Note) and "aten::odd" in note.text and "torch" in note.text
    np.testing.assert_array_equal(
        backbone.tokens(tiles(2)), load_backbone(tiny_card).tokens(tiles(2))
    )
    monkeypatch.undo()
    monkeypatch.setenv("PATHOTUNE_COMPILED", str(fresh))
    extract._loaded.clear()
    again = extract.backbone_for(tiny_card, "cpu")  # the verdict is remembered
    assert again.engine.name.startswith("torch") and len(again.notes()) == 1


@needs_openvino
@pytest.mark.parametrize("error", [ImportError("libtbb.so.12 is missing"), OSError("libtbb")])
def test_an_openvino_that_does_not_load_is_told_and_torch_computes(
    tiny_card, fresh, monkeypatch, error
):
    def broken():
        raise error

    monkeypatch.setattr(openvino, "import_openvino", broken)
    backbone = extract.backbone_for(tiny_card, "cpu")
    assert backbone.engine.name == "torch, f32"
    assert "libtbb" in backbone.notes()[0].text
    assert not list(fresh.glob("*/" + compiled.ABOUT))  # it may be mended tomorrow


@needs_openvino
def test_other_features_and_a_slower_engine_are_refused(tiny_card, fresh, monkeypatch):
    monkeypatch.setattr(trust, "change", lambda *_: 0.2)
    backbone = extract.backbone_for(tiny_card, "cpu")
    assert "other features" in backbone.notes()[0].text
    monkeypatch.undo()
    monkeypatch.setenv("PATHOTUNE_COMPILED", str(fresh / "two"))
    monkeypatch.setattr(openvino, "_timed_torch", lambda g, t, n: (_torch(g, t), 0.0))
    extract._loaded.clear()
    backbone = extract.backbone_for(tiny_card, "cpu")
    assert "slower" in backbone.notes()[0].text and backbone.engine.name == "torch, f32"


def _torch(graph, pixels):
    import torch

    with torch.inference_mode():
        return graph(torch.from_numpy(pixels)).numpy()


@needs_openvino
def test_memory_that_ran_out_is_no_verdict(tiny_card, fresh, monkeypatch):
    for error in (MemoryError(), RuntimeError("std::bad_alloc")):

        def hungry(*_, error=error):
            raise error

        monkeypatch.setattr(openvino, "traced_model", hungry)
        extract._loaded.clear()
        assert extract.backbone_for(tiny_card, "cpu").engine.name == "torch, f32"
    assert not list(fresh.glob("*/" + compiled.ABOUT))


@needs_openvino
def test_a_damaged_graph_is_made_anew(tiny_card, fresh, monkeypatch):
    monkeypatch.setattr(openvino, "_timed_torch", lambda g, t, n: (_torch(g, t), 9.0))
    expected = extract.backbone_for(tiny_card, "cpu").tokens(tiles(2))
    (about,) = fresh.glob("*/" + compiled.ABOUT)
    assert json.loads(about.read_text())["why_not"] == ""
    for damage in (about, about.parent / "part0.xml", about.parent / "part0.weights"):
        damage.write_text("{")
        extract._loaded.clear()
        backbone = extract.backbone_for(tiny_card, "cpu")
        assert backbone.engine.name.startswith("OpenVINO")
        np.testing.assert_array_equal(backbone.tokens(tiles(2)), expected)


@needs_openvino
def test_a_folder_that_cannot_be_written_costs_the_keeping_only(tiny_card, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PATHOTUNE_COMPILED", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(openvino, "_timed_torch", lambda g, t, n: (_torch(g, t), 9.0))
    backbone = extract.backbone_for(tiny_card, "cpu")
    assert backbone.engine.name.startswith("OpenVINO")
    assert backbone.tokens(tiles(2)).shape == (2, 6, 6, 48)


def test_old_graphs_go_when_the_folder_grows(fresh, monkeypatch):
    monkeypatch.setattr(compiled, "LIMIT_BYTES", 120)
    import os

    for number in range(4):
        assert compiled.keep(fresh / str(number), [], {"why_not": "x" * 20})
        os.utime(fresh / str(number) / compiled.ABOUT, (number, number))
    left = sorted(p.name for p in fresh.iterdir())
    assert "3" in left and "0" not in left and len(left) < 4
    assert not compiled.keep(fresh / "big", [], {"why_not": "x" * 200})
    assert not (fresh / "big").exists()


def test_bf16_is_read_from_the_processor(monkeypatch):
    for flags, expected in (("avx2 avx512f", False), ("avx512_bf16 x", True), ("amx_bf16", True)):
        runtime.has_bf16.cache_clear()
        text = f"processor : 0\nflags\t\t: fpu {flags}\n"
        monkeypatch.setattr(runtime.Path, "read_text", lambda *_, text=text, **__: text)
        assert runtime.has_bf16() is expected
    runtime.has_bf16.cache_clear()


def test_work_begun_ahead_comes_back_in_order(tiny_card):
    backbone = load_backbone(tiny_card)
    batches = [tiles(n) for n in (2, 3, 1)]
    with backbone.ahead() as begin:
        waiting = [begin(b) for b in batches]
        done = [w.result() for w in waiting]
    assert not [t for t in threading.enumerate() if t.name.startswith("pathotune-model")]
    for batch, result in zip(batches, done, strict=True):
        np.testing.assert_array_equal(result, backbone.tokens(batch))


def test_choice_asks_for_no_converter_on_a_graphics_card(tiny_card):
    loaded = []

    def load():
        loaded.append(True)
        return [], None

    engine, notes = choice.choose(tiny_card, "cuda", load)
    assert engine.half and engine.lanes == 2 and loaded and notes == []
    assert not choice.choose(tiny_card, "cuda-f32", load)[0].half


def test_the_batch_grows_while_a_tile_gets_cheaper_and_stops_before_memory_ends():
    sizes = []

    def run(batch, costs, limit=10**9):
        sizes.append(len(batch))
        if len(batch) > limit:
            raise RuntimeError("CUDA out of memory")
        clock[0] += costs(len(batch))

    clock = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_of.time, "perf_counter", lambda: clock[0])
        fixed = 0.01  # a start costs ten tiles

        def search(costs, limit=10**9, most=512):
            return batch_of.find(lambda b: run(b, costs, limit), 8, released.append_none, most)

        released = _Released()
        assert search(lambda n: fixed + 0.001 * n) == 128  # 256 would save less than a twentieth
        assert search(lambda n: 0.001 * n) == 1
        assert search(lambda n: 0.1 + 1e-6 * n) == 64 * 8  # until no more is allowed
        assert search(lambda n: 0.1 + 1e-6 * n, most=16) == 16
        assert search(lambda n: 0.3) == 1  # the next could keep a cancel waiting
        assert not released.times
        assert search(lambda n: fixed, limit=40) == 16 and released.times == 1
        with pytest.raises(ValueError, match="a bug"):
            batch_of.find(_bug, 8, released.append_none)


class _Released:
    times = 0

    def append_none(self):
        self.times += 1


def _bug(_batch):
    raise ValueError("a bug")


def test_a_batch_is_remembered(fresh):
    found = iter([7, 9])
    assert batch_of.remembered(["card", "net"], lambda: next(found)) == 7
    assert batch_of.remembered(["card", "net"], lambda: next(found)) == 7
    assert batch_of.remembered(["card", "other"], lambda: next(found)) == 9


def test_two_lanes_that_run_out_of_memory_halve_once(tiny_card):
    backbone = load_backbone(tiny_card)
    backbone.batch = 8
    for _ in range(2):
        backbone._halve(MemoryError(), 8)
    assert backbone.batch == 4 and len(backbone.notes()) == 1


def test_exact_features_are_kept_apart(tiny_card, tmp_path):
    grid = TileGrid.plan(400, 400, 0.5, mpp=0.5, tile_px=64, token_px=8, halo=1)
    token = np.ones((grid.core, grid.core, tiny_card.dims), np.float32)
    with (
        FeatureStore.open("s", tiny_card, grid, tmp_path, device="auto") as fast,
        FeatureStore.open("s", tiny_card, grid, tmp_path, device="cpu") as same,
        FeatureStore.open("s", tiny_card, grid, tmp_path, device="cpu-f32") as exact,
    ):
        fast.put((0, 0), token)
        assert same.has((0, 0)) and not exact.has((0, 0))
