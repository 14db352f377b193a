"""Every tuning method: served families, honest deltas, and bundles that say the same again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
import torch

from pathotune import cli, drain, places, plugins
from pathotune.events import EpochDone, PathotuneError
from pathotune.learn.settings import Training
from pathotune.learn.train import train
from pathotune.learn.tune import _Tuning
from pathotune.maps.predict import predict
from pathotune.marks.annotations import Annotation, AnnotationSet, new_id
from pathotune.marks.geojson import write_geojson
from pathotune.models import extract
from pathotune.models.backbones import load_backbone
from pathotune.models.bundle import ModelBundle
from pathotune.models.cards import card as known_card
from pathotune.models.tuned import METHODS, card_of, config_of
from pathotune.models.tuning._delta import Setting
from pathotune.models.tuning._net import Net
from pathotune.models.tuning._running import TunedEngine, net_of
from pathotune.slides.slide import Region

QUICK = Training(epochs=3, repeats=2, views=1)
TUNING = tuple(n for n in plugins.names(METHODS) if n != "linear")


@pytest.fixture
def marks() -> AnnotationSet:
    found = AnnotationSet()
    for name, x in (("Specks", 30), ("Red", 330)):
        for i in range(3):
            box = shapely.box(x + 80 * i, 30 + 110 * i, x + 80 * i + 60, 90 + 110 * i)
            found.add(Annotation(new_id(), name, "rectangle", box))
    return found


def tiles(seed: int = 0, n: int = 2, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (n, side, side, 3), dtype=np.uint8)


def made(card, method: str, late: bool = True, seed: int = 0, net=None, **values):
    net, module = net or Net(card, "cpu"), plugins.load(METHODS, method)
    setting = Setting(late, sentence="An H&E image of colon; classes: tumour, stroma.")
    net.attach(module, config_of(module, values), setting, seed)
    net.delta.modules.eval()
    return net


@pytest.mark.parametrize("method", TUNING)
def test_only_the_delta_learns_and_leaves_no_trace(card, method):
    frozen = load_backbone(card).tokens_full(tiles())
    for late in (True, False):
        net = Net(card, "cpu")
        before = {k: v.clone() for k, v in net.trunk.network.state_dict().items()}
        made(card, method, late, net=net)
        lower = net.lower(net.pixels(tiles()))
        features = net.upper(lower)
        still = np.abs(features.detach().numpy() - frozen).max() < 1e-4
        assert still == net.delta.still
        plain = net.upper(lower, changed=False).detach().numpy()
        assert np.abs(plain - frozen).max() < 1e-4 or not net.delta.first
        net.set_head(np.random.default_rng(0).normal(size=(net.dims, 2)), np.zeros(2))
        net.logits(features).square().mean().backward()
        if net.trained():
            assert any(
                p.grad is not None and p.grad.abs().sum() > 0 for p in net.trained().values()
            )
        own = {id(p) for p in net.trained().values()}
        assert all(p.grad is None for p in net.trunk.network.parameters() if id(p) not in own)
        assert not net.trunk.network.training
        net.release()
        after = net.trunk.network.state_dict()
        assert all(torch.equal(v, after[k]) for k, v in before.items())
        assert set(before) == set(after)
        again = net.upper(net.lower(net.pixels(tiles()))).detach().numpy()
        assert np.abs(again - frozen).max() < 1e-4


@pytest.mark.parametrize("method", TUNING)
def test_a_bundle_says_the_same_again_at_the_token_step(card, slide, marks, method, tmp_path):
    events = []
    bundle = drain(
        train([(slide, marks)], card=card, method=method, device="cpu", plan=QUICK), events.append
    )
    epochs = [e for e in events if isinstance(e, EpochDone)]
    assert epochs and isinstance(epochs[0].bundle, ModelBundle)
    assert [e.epoch for e in epochs] == list(range(len(epochs)))
    told = bundle.meta["tuning"]
    assert told["verdict"]["word"] in {"better", "no better", "worse"}
    assert len(told["verdict"]["tuned"]) == 2 and told["verdict"]["split"] == "regions"
    assert bundle.meta["metrics"]["n_regions"] == 6
    path = bundle.save(tmp_path / "b.safetensors")
    loaded = ModelBundle.load(path)
    assert card_of(loaded).hash() == card_of(bundle).hash() != card.hash()
    first = drain(predict(slide, bundle, device="cpu"))
    shutil.rmtree(places.cache_dir())  # nothing computed before may help
    extract._loaded.clear()
    second = drain(predict(slide, loaded, device="cpu"))
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.step == 8 and first.labels.shape == (50, 75)
    part = drain(predict(slide, loaded, device="cpu", region=Region(160, 80, 160, 160)))
    same = part.labels == first.labels[10:30, 20:40]
    assert same.mean() > 0.9  # another lattice of tiles, the same places


ELSEWHERE = """
import sys
import numpy as np
from pathotune.models.bundle import ModelBundle
from pathotune.models.tuning._running import TunedEngine, net_of
for path in sys.argv[2:]:
    engine = TunedEngine(net_of(ModelBundle.load(path), "cpu"))
    np.save(path + ".npy", engine.run(np.load(sys.argv[1]), 1))
"""


def test_another_process_says_the_same_from_the_file(card, tmp_path):
    """Logits of a saved bundle are the same to the bit where nothing is in memory."""
    seen, paths = tiles(n=3), []
    np.save(tmp_path / "tiles.npy", seen)
    for method in TUNING:
        net = made(card, method, False)
        net.delta.open()
        rng = np.random.default_rng(1)
        net.set_head(rng.normal(size=(net.dims, 2)), np.zeros(2))
        with torch.no_grad():  # as if it had learnt something
            for tensor in net.trained().values():
                tensor += 0.01 * torch.from_numpy(rng.normal(size=tensor.shape)).float()
        told = {"config": {}, "sentence": "An H&E image of colon; classes: tumour, stroma."}
        if hasattr(plugins.load(METHODS, method).Config, "block"):
            told["config"] = {"block": net.delta.first}
        colours = ((0, 0, 0), (9, 9, 9))
        bundle = ModelBundle.create(card, method, ("a", "b"), colours, net.arrays(), tuning=told)
        paths.append(str(bundle.save(tmp_path / f"{method}.safetensors")))
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "tiles.npy"), *paths]
    subprocess.run(command, check=True, env=os.environ.copy())
    for path in paths:
        here = TunedEngine(net_of(ModelBundle.load(path), "cpu")).run(seen, 1)
        np.testing.assert_array_equal(np.load(path + ".npy"), here, err_msg=path)
        assert np.ptp(here) > 0


def test_the_guide_tells_the_trained_share(request):
    """Numbers and shares in the guide are those of the embedded backbone."""
    guide = request.config.rootpath / "docs" / "methods" / "tuning.md"
    rows = [r.split("|") for r in guide.read_text().splitlines() if r.startswith("| `")]
    told = {
        r[1].strip(" `"): (r[3].replace(" ", ""), r[4].strip(" %")) for r in rows if len(r) == 6
    }
    assert set(told) == set(TUNING)
    net = Net(known_card("pathotune-small"), "cpu")
    for name, (numbers, share) in told.items():
        module = plugins.load(METHODS, name)
        delta = net.attach(module, module.Config(), Setting(True, {}, "tissue"))
        delta.open()
        own = sum(p.numel() for p in net.trained().values())
        assert int(numbers) == own, name
        assert float(share) == round(100 * own / net.trunk.size, 2), name
        job = SimpleNamespace(net=net)
        delta.detach()
        net.attach(module, module.Config(), Setting(True, {}, "tissue"))
        assert float(share) == round(_Tuning.share(job), 2), name  # what the dock shows


def test_text_makes_the_prompts_and_is_kept(card):
    sentences = ("An H&E image of colon.", "An IHC image of brain.")
    found = []
    for words in sentences:
        net, module = Net(card, "cpu"), plugins.load(METHODS, "pathotune")
        delta = net.attach(module, module.Config(), Setting(False, sentence=words))
        delta.modules.eval()
        features = net.upper(net.lower(net.pixels(tiles()))).detach()
        found.append((delta.modules["text"](1).detach(), features))
        kept = {"text": delta.stored["text"]}
        again = net.attach(module, module.Config(), Setting(False, kept))
        again.modules.eval()
        features = net.upper(net.lower(net.pixels(tiles()))).detach()
        assert torch.equal(features, found[-1][1])  # the words are not needed any more
    assert not torch.allclose(found[0][0], found[1][0], atol=1e-3)
    assert not torch.allclose(found[0][1], found[1][1], atol=1e-5)


def test_each_kind_of_prompt_can_be_off(card):
    sizes = set()
    for off in ({"visual"}, {"text"}, {"instance"}, {"text", "instance"}, set()):
        net = made(card, "pathotune", False, **dict.fromkeys(off, False))
        assert not {"visual", "text", "instance"} - off - set(net.delta.modules)
        net.upper(net.lower(net.pixels(tiles())))
        sizes.add(sum(p.numel() for p in net.trained().values()))
    assert len(sizes) == 5
    with pytest.raises(PathotuneError, match="nothing to train"):
        made(card, "pathotune", visual=False, text=False, instance=False)


def test_stop_keeps_the_best_and_closing_leaves_nothing(card, slide, marks, tmp_path):
    seen = []
    job = train(
        [(slide, marks)],
        card=card,
        method="adapter",
        device="cpu",
        plan=QUICK,
        stop=lambda: len(seen) >= 2,
        keep=tmp_path / "last.safetensors",
    )
    bundle = drain(job, lambda e: seen.append(e) if isinstance(e, EpochDone) else None)
    assert len(seen) == 2 and bundle.method == "adapter"
    assert bundle.meta["tuning"]["verdict"]["word"] == "too few"
    assert ModelBundle.load(tmp_path / "last.safetensors").classes == bundle.classes
    job = train([(slide, marks)], card=card, method="vpt", device="cpu", plan=QUICK)
    for event in job:
        if isinstance(event, EpochDone):
            break
    job.close()


def test_a_class_off_the_slide_is_told_before_anything_is_learnt(card, slide, marks):
    away = AnnotationSet()
    box = shapely.box(9000, 9000, 9050, 9050)
    away.add(*marks.items[:3], Annotation(new_id(), "Far", "rectangle", box))
    with pytest.raises(PathotuneError, match="No region of Far"):
        drain(train([(slide, away)], card=card, method="adapter", device="cpu", plan=QUICK))


def test_one_region_a_class_is_too_few_to_tell(card, slide, marks):
    few = AnnotationSet()
    few.add(marks.items[0], marks.items[3])
    bundle = drain(train([(slide, few)], card=card, method="adapter", device="cpu", plan=QUICK))
    verdict = bundle.meta["tuning"]["verdict"]
    assert verdict["word"] == "too few" and "Red" in verdict["text"]
    assert bundle.meta["metrics"] is None


def test_the_command_line_tunes_and_maps(card, slide, marks, tmp_path, capsys):
    write_geojson(tmp_path / "m.geojson", marks)
    words = ["train", str(slide.path), "--annotations", str(tmp_path / "m.geojson"), "--model"]
    words += [card.id, "--method", "pathotune", "--device", "cpu", "--json", "--out"]
    words += [str(tmp_path / "b.safetensors"), "--set", "epochs=2", "repeats=2", "prompts=4"]
    assert cli.main([*words, "block=0", "--sentence", "Specks or red?"]) == 0
    out = capsys.readouterr()
    told = json.loads(out.out)
    assert "nothing can be computed once" in out.err
    assert told["tuning"]["config"]["prompts"] == 4 and told["tuning"]["config"]["block"] == 0
    assert told["tuning"]["sentence"] == "Specks or red?" and told["tuning"]["share_percent"] > 0
    assert 0 < told["size_mb"] < 1
    words = ["predict", str(slide.path), "--bundle", str(tmp_path / "b.safetensors"), "--json"]
    assert cli.main([*words, "--device", "cpu", "--out", str(tmp_path / "map.ome.tif")]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 8
    bad = ["train", "--tiles", str(tmp_path), "--out", str(tmp_path / "c.safetensors")]
    assert cli.main([*bad, "--method", "vpt", "--set", "depth=sideways"]) == 2
    assert cli.main([*bad, "--method", "nothing"]) == 2


def test_all_that_can_be_set_is_listed_with_defaults_and_reasons(capsys):
    assert cli.main(["methods", "--model", "effnet-lite0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    known = {m["id"]: m for m in told["methods"]}
    assert set(known) == {"linear", *TUNING}
    assert "transformer" in known["vpt"]["why_not"] and known["cdtm"]["why_not"] is None
    for method in [*told["methods"], {"settings": told["training"]}]:
        for field in method["settings"]:
            assert field["label"] and field["help"].endswith(".") and "default" in field
    assert cli.main(["methods"]) == 0 and "--set NAME=VALUE" in capsys.readouterr().out
