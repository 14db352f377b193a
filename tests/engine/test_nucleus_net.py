"""The network for nuclei: targets by hand, outlines from perfect maps, and the shipped weights."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pathotune import places
from pathotune.events import PathotuneError, drain
from pathotune.nuclei.net import runner as running
from pathotune.nuclei.net.network import FromPixels, NucleusNet, parameters
from pathotune.nuclei.net.outlines import outlines
from pathotune.nuclei.net.runner import Runner, runner
from pathotune.nuclei.net.targets import depth, edges, targets
from pathotune.nuclei.net.weights import load, save
from pathotune.nuclei.run import segment_slide
from pathotune.nuclei.scores import scores
from pathotune.nuclei.segmenter import prepare
from pathotune.nuclei.segmenters import nucleus_net
from pathotune.nuclei.synth.masks import Sizes, pseudo_mask
from pathotune.slides.geometry import Region
from pathotune.slides.sample import sample_slide
from pathotune.slides.slide import open_slide

TRAINING = Path(__file__).parents[2] / "training" / "nucleus_net"


@pytest.fixture
def tiny(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = NucleusNet((8, 12)).eval()
    path = tmp_path / "tiny.safetensors"
    save(path, network, {"where": "here"})
    return path


@pytest.fixture
def in_torch(monkeypatch):
    monkeypatch.setattr(running.openvino, "available", lambda: False)


def test_targets_of_two_touching_squares_worked_by_hand():
    labels = np.zeros((7, 12), np.int32)
    labels[1:6, 1:6], labels[1:6, 6:11] = 1, 2
    inside, edge, middle = targets(labels)
    assert inside.sum() == 50
    assert edge[3, 5] and edge[3, 6]  # where they touch
    assert not edge[3, 3] and not edge[3, 8]
    assert middle[3, 3] == middle[3, 8] == 1
    assert middle[1, 1] == pytest.approx(1 / 3)
    assert not depth(np.zeros((4, 4), np.int32)).any() and not edges(labels * 0).any()


def test_perfect_maps_give_the_nuclei_back():
    sizes = Sizes(8, per_mm2=4500, lined=0.6)  # many that touch
    field = pseudo_mask(np.random.default_rng(2), 256, 0.5, sizes).instances
    found = outlines(targets(field), 0.5)
    told = scores(found.labels, field)
    assert told["aji"] > 0.9 and told["dq"] > 0.9
    assert np.array_equal(np.unique(found.labels), np.arange(len(found.confidence) + 1))
    assert (found.confidence > 0.99).all()
    nothing = outlines(np.zeros((3, 32, 32), np.float32), 0.5)
    assert not nothing.labels.any() and not len(nothing.confidence)


def test_specks_and_sheets_are_no_nuclei():
    maps = np.zeros((3, 200, 200), np.float32)
    maps[0, 10:12, 10:12] = maps[2, 10:12, 10:12] = 1  # 1 um2
    maps[0, 40:190, 40:190] = maps[2, 40:190, 40:190] = 1  # 5600 um2
    assert not outlines(maps, 0.5).labels.any()


def test_weights_travel_with_what_they_are(tiny, tmp_path):
    network, header = load(tiny)
    assert header["where"] == "here" and network.widths == (8, 12)
    x = torch.rand(1, 3, 32, 48)
    assert network(x).shape == (1, 3, 32, 48)
    again, _ = load(tiny)
    assert torch.equal(network(x), again(x))
    for bad, words in ((tiny.read_bytes()[:200], "cannot be read"), (b"", "cannot be read")):
        (tmp_path / "bad.safetensors").write_bytes(bad)
        with pytest.raises(PathotuneError, match=words):
            load(tmp_path / "bad.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(PathotuneError, match="does not hold a nucleus network"):
        load(tmp_path / "other.safetensors")


def test_blocks_give_what_one_field_gives(tiny, in_torch, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (150, 203, 3), np.uint8)
    run = runner(tiny, "cpu")
    assert run.name == "torch, cpu"
    whole = run.maps(pixels)
    assert whole.shape == (3, 150, 203) and 0 <= whole.min() <= whole.max() <= 1
    monkeypatch.setattr(running, "BLOCK", 96)
    monkeypatch.setattr(running, "SEEN", 32)
    assert np.abs(run.maps(pixels) - whole).max() < 1e-5


def test_the_compiled_graph_is_trusted_kept_and_read_again(tiny, monkeypatch):
    pytest.importorskip("openvino")
    pixels = np.random.default_rng(0).integers(0, 255, (96, 112, 3), np.uint8)
    with torch.inference_mode():
        wanted = FromPixels(load(tiny)[0]).eval()(torch.from_numpy(pixels[None]))[0].numpy()
    first = runner(tiny, "cpu")
    assert first.name.startswith("OpenVINO")
    assert np.abs(first.maps(pixels) - wanted).mean() < 0.01
    monkeypatch.setattr(running, "_network", lambda _: pytest.fail("torch was asked for"))
    again = runner(tiny, "cpu")
    assert np.array_equal(again.maps(pixels), first.maps(pixels))


def test_a_graph_with_other_answers_is_not_taken(tiny, monkeypatch, tmp_path):
    pytest.importorskip("openvino")
    monkeypatch.setenv("PATHOTUNE_COMPILED", str(tmp_path / "none kept"))
    reference = running._reference
    monkeypatch.setattr(running, "_reference", lambda *a: 1 - reference(*a))
    assert runner(tiny, "cpu").name == "torch, cpu"


def test_the_card_tells_of_the_shipped_weights():
    card, weights = nucleus_net.card(), nucleus_net.shipped()
    assert weights.stat().st_size <= 12_000_000
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == card["sha256"]
    network, header = load(weights)
    assert 0.3e6 < parameters(network) < 2e6
    assert header["without"] == ""
    assert card["mpp"] == 0.5 and all(d["licence"] for d in card["data"])


def test_counts_of_a_published_field(shared):
    with open_slide(shared / "data" / "img_os1_he_crop" / "OS-1-detail.ome.tif", mpp=0.2271) as s:
        finder = prepare("nucleus_net", s)
        count = finder.segment(s.read(s.bounds, finder.mpp)).labels.max()
    for published in (319, 331):
        assert count == pytest.approx(published, rel=0.15)


def test_glass_and_pen_hold_no_nuclei(shared):
    for name in ("no-tissue-red-pen.png", "no-tissue-green-pen.png"):
        with open_slide(shared / "data" / "img_histolab_artifacts" / name, mpp=0.5) as s:
            finder = prepare("nucleus_net", s)
            assert finder.segment(s.read(s.bounds, 0.5)).labels.max() <= 1


def test_tiles_count_what_one_field_counts(tmp_path):
    with open_slide(places.resources() / "sample" / "CMU-1-Small-Region.svs") as slide:
        finder = prepare("nucleus_net", slide)
        box = Region(700, 1100, 700, 600)
        whole = drain(segment_slide(slide, finder, tmp_path / "a", region=box, tile_um=1000))
        tiled = drain(segment_slide(slide, finder, tmp_path / "b", region=box, tile_um=128))
    assert tiled["tiles"] >= 9 and whole["nuclei"] > 100
    assert tiled["nuclei"] == pytest.approx(whole["nuclei"], rel=0.01)


def test_other_settings_have_another_key(tiny, shared):
    with open_slide(sample_slide()) as slide:
        keys = {
            nucleus_net.prepare(slide, config=c).key
            for c in (nucleus_net.Config(), nucleus_net.Config(weights=tiny))
        }
    assert len(keys) == 2


def test_training_learns_rendered_nuclei_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TRAINING))
    for name in ("train", "material", "augment"):
        sys.modules.pop(name, None)
    import material
    import train

    items = material.rendered(np.random.default_rng(0), 6, [], [])
    monkeypatch.setattr(train, "NucleusNet", lambda: NucleusNet((8, 16)))
    monkeypatch.setattr(train, "BATCH", 4)
    monkeypatch.setattr(train, "CROP", 64)
    light, wanted, weight = train.batch({"rendered": items}, np.random.default_rng(9), 8)
    assert light.shape == (8, 3, 64, 64) and 0 <= light.min() <= light.max() <= 1
    assert wanted.shape == (8, 3, 64, 64) and weight.min() == 1

    def judged(path):
        with torch.inference_mode():
            return float(train.loss_of(load(path)[0](light), wanted, weight))

    out = tmp_path / "net.safetensors"
    monkeypatch.setattr(train, "KEEP_SECONDS", 0)  # keep the state after every step
    given, cut = [], train.batch

    def stopped(*args):
        given.append(1)
        if len(given) == 4:
            raise KeyboardInterrupt
        return cut(*args)

    monkeypatch.setattr(train, "batch", stopped)
    with pytest.raises(KeyboardInterrupt):
        train.train({"rendered": items}, out, 40, 0, {}, top=2e-2)
    assert load(out)[1]["steps"] == "3" and out.with_suffix(".state.pt").exists()
    before = judged(out)
    monkeypatch.setattr(train, "KEEP_SECONDS", 1e9)
    train.train({"rendered": items}, out, 40, 0, {}, top=2e-2)
    assert len(given) == 4 + 37  # three steps were not taken again
    assert judged(out) < 0.9 * before
    assert load(out)[1]["steps"] == "40" and not out.with_suffix(".state.pt").exists()


def test_a_runner_pads_and_cuts_back():
    class Same:
        name = "same"

        def __call__(self, pixels):
            assert pixels.shape[0] % 16 == pixels.shape[1] % 16 == 0
            return np.moveaxis(pixels, -1, 0).astype(np.float32)

    pixels = np.random.default_rng(0).integers(0, 255, (33, 50, 3), np.uint8)
    assert np.array_equal(Runner(Same()).maps(pixels), np.moveaxis(pixels, -1, 0))
