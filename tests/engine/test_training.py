"""Trainings that can be trusted: splits, repeats, little memory, broken numbers, cancels."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

from pathotune import drain, plugins
from pathotune.events import Note, PathotuneError
from pathotune.learn.adapt import pace as paces
from pathotune.learn.adapt.material import Material, back, smooth
from pathotune.learn.adapt.pace import Pace
from pathotune.learn.adapt.passes import Pass
from pathotune.learn.adapt.trainer import Trainer
from pathotune.learn.augment import recoloured, view
from pathotune.learn.pieces import of_tiles
from pathotune.learn.settings import Training
from pathotune.learn.splits import splits
from pathotune.learn.tune import settings
from pathotune.learn.verdict import at, best_lengths, words
from pathotune.models.features import box_mean
from pathotune.models.tuned import METHODS
from pathotune.models.tuning._delta import Setting
from pathotune.models.tuning._net import Net


def tissue(n: int = 12, seed: int = 0):
    """Return pieces of two textures, a region each."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(60, 200, (n // 2, 64, 64, 3), dtype=np.uint8)
    coarse = np.kron(rng.integers(60, 200, (n // 2, 8, 8, 3)), np.ones((1, 8, 8, 1)))
    pixels = np.concatenate([fine, coarse.astype(np.uint8)])
    classes = np.repeat([0, 1], n // 2)
    return of_tiles(pixels, np.arange(n), classes, [str(i) for i in range(n)], 8)


def ready(card, method="adapter", plan=None, late=True):
    net, module = Net(card, "cpu"), plugins.load(METHODS, method)
    net.attach(module, module.Config(), Setting(late, sentence="fine or coarse"))
    material = Material(net, tissue(), plan or Training(batch=4, views=1))
    drain(material.prepare())
    return material


def pump(run):
    """Return the passes, the other events and the result of a training."""
    passes, events = [], []
    while True:
        try:
            event = next(run)
        except StopIteration as end:
            return passes, events, end.value
        (passes if isinstance(event, Pass) else events).append(event)


def split(n: int = 12):
    held = np.zeros(n, bool)
    held[[0, 1, 6, 7]] = True
    return ~held, held


def test_regions_stay_whole_and_each_is_held_out_about_once():
    classes = np.array([0] * 5 + [1] * 3 + [2] * 2)
    found, by = splits(classes, ["0"] * 10, 3)
    assert by == "regions" and len(found) == 3
    for held in found:
        assert set(classes[held]) == set(classes[~held]) == {0, 1, 2}
    assert (np.sum(found, 0)[:8] == 1).all()
    assert splits(np.array([0, 0, 1]), ["0"] * 3, 3) == ([], "")


def test_slides_are_held_out_whole_where_every_class_allows_it():
    classes = np.array([0, 1, 0, 1, 0, 1])
    slides = ["0", "0", "1", "1", "2", "2"]
    found, by = splits(classes, slides, 3)
    assert by == "slides"
    for held in found:
        assert len({slides[i] for i in np.flatnonzero(held)}) == 1
        assert not {slides[i] for i in np.flatnonzero(held)} & {
            slides[i] for i in np.flatnonzero(~held)
        }
    assert splits(classes, ["0", "0", "0", "1", "0", "0"], 3)[1] == "regions"


def test_views_turn_back_and_stain_jitter_is_moderate():
    tiles = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    for which in range(8):
        turned = back(torch.from_numpy(view(tiles, which)), which)
        assert np.array_equal(turned.numpy(), tiles)
    assert len({view(tiles[:1], w).tobytes() for w in range(8)}) == 8
    pink = np.full((4, 16, 16, 3), (220, 140, 190), np.uint8)
    changed = recoloured(pink, np.random.default_rng(1), 0.15).astype(int)
    assert 2 < np.abs(changed - pink).max() < 60
    assert np.abs(recoloured(pink, np.random.default_rng(1), 0.0).astype(int) - pink).max() <= 1
    assert len(np.unique(changed[:, 0, 0], axis=0)) == 4


def test_smoothing_is_that_of_the_painted_map():
    rng = np.random.default_rng(2)
    maps, allowed = rng.normal(size=(9, 9, 4)).astype(np.float32), rng.random((9, 9)) > 0.3
    ours = smooth(torch.from_numpy(maps)[None], torch.from_numpy(allowed)[None], 5)[0].numpy()
    theirs = box_mean(np.where(allowed[..., None], maps, 0), allowed, 5)
    np.testing.assert_allclose(ours[allowed], theirs[allowed], atol=1e-5)


def test_the_start_is_the_fast_model(tiny_card):
    material = ready(tiny_card)
    train, held = split()
    trainer = Trainer(material)
    drain(trainer.start(train))
    ours = drain(trainer.judge(held))
    from pathotune.learn.adapt.passes import frozen_logits, judged

    fast = judged(material, held, frozen_logits(material, train, held))
    assert ours.loss == pytest.approx(fast.loss, abs=2e-2)
    assert ours.f1 == fast.f1


@pytest.mark.parametrize("method", ["adapter", "pathotune"])
def test_training_fits_and_the_same_seed_gives_the_same(tiny_card, method, monkeypatch):
    train, held = split()
    monkeypatch.setattr(paces, "STEP_SECONDS", math.inf)  # other small steps draw other views
    states = []
    for _ in range(2):
        material = ready(tiny_card, method)
        passes, _, run = pump(Trainer(material).run(train, held, 4, 7, "x"))
        states.append(run.state)
        assert passes[-1].train_loss < passes[1].train_loss
        assert run.best == int(np.argmin([p.loss for p in passes]))
    for name, tensor in states[0].items():
        if name != "head":
            assert torch.equal(tensor, states[1][name]), name


def test_too_little_memory_halves_the_step_and_gives_the_same(tiny_card, monkeypatch):
    train, held = split()
    material = ready(tiny_card, "head")
    plain = pump(Trainer(material).run(train, held, 1, 0, "x"))[2].state
    real = Trainer._loss

    def short(self, now, *rest):
        if len(now) > 2:
            raise RuntimeError("CUDA out of memory")
        return real(self, now, *rest)

    monkeypatch.setattr(Trainer, "_loss", short)
    trainer = Trainer(material)
    _, events, run = pump(trainer.run(train, held, 1, 0, "x"))
    assert trainer.pace.size <= 2
    assert any(isinstance(e, Note) and "Memory ran short" in e.text for e in events)
    # other views are drawn for other small steps; the tiles and the number of steps are the same
    assert torch.allclose(run.state["head"][0], plain["head"][0], atol=0.02)

    def never(self, now, *rest):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "_loss", never)
    with pytest.raises(PathotuneError, match="too little memory"):
        pump(Trainer(material).run(train, held, 1, 0, "x"))


def test_half_a_step_does_not_count_twice(tiny_card, monkeypatch):
    train, _ = split()
    material, real, clip = ready(tiny_card, "head"), Trainer._loss, torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(Trainer, "_kept", lambda *_: None)
    material._views = [0]  # every draw is the same
    calls, grads = [], []

    def noted(opened, most):
        grads.append([p.grad.clone() for p in opened if p.grad is not None])
        return clip(opened, most)

    def fails(self, *rest):
        calls.append(1)
        if len(calls) == 2:  # the first small step has left its gradients
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, *rest)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", noted)
    for loss in (real, fails):
        monkeypatch.setattr(Trainer, "_loss", loss)
        trainer = Trainer(material)
        trainer.pace = Pace(2, 2)
        pump(trainer.run(train, None, 1, 0, "x", [1]))
    first, again = grads[0], grads[len(grads) // 2]
    for one, other in zip(first, again, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)
    assert float(first[0].abs().max()) > 1e-4


def test_a_number_that_becomes_infinite_ends_it_with_the_best(tiny_card, monkeypatch):
    train, held = split()
    trainer = Trainer(ready(tiny_card))
    real, calls = Trainer._loss, []

    def breaks(self, now, *rest):
        calls.append(1)
        loss = real(self, now, *rest)
        return loss * (math.nan if len(calls) > 4 else 1.0)

    monkeypatch.setattr(Trainer, "_loss", breaks)
    _, events, run = pump(trainer.run(train, held, 9, 0, "x"))
    assert run.broken and any(isinstance(e, Note) and "infinite" in e.text for e in events)
    assert all(torch.isfinite(t).all() for k, t in run.state.items() if k != "head")
    again = drain(trainer.judge(held))
    assert again.loss == pytest.approx(run.passes[run.best].loss, abs=1e-5)


def test_a_cancel_waits_for_one_small_step(tiny_card, monkeypatch):
    train, held = split()
    trainer = Trainer(ready(tiny_card))
    real = Trainer._loss
    monkeypatch.setattr(paces, "STEP_SECONDS", 0.05)
    monkeypatch.setattr(Trainer, "_loss", lambda *a: (time.sleep(0.06), real(*a))[1])
    trainer.pace = Pace(4, 4)
    run = trainer.run(train, held, 9, 0, "x")
    for _ in range(25):
        next(run)
    assert trainer.pace.size == 1  # steps that take too long become smaller
    run.close()


def test_the_length_is_that_of_the_mean_curve_and_stages_end_at_the_best():
    def curve(*losses, stage=0, first=0):
        return [Pass(0.0, v, 0.0, {}, {}, stage, first + i) for i, v in enumerate(losses)]

    one, two = curve(1.0, 0.6, 0.8), curve(1.0, 0.9, 0.5, 0.7)
    assert best_lengths([one, two], 1) == [2]  # (0.8 + 0.5) / 2 is the lowest mean
    assert at(one, [1]).loss == 0.6 and at(one, [9]).loss == 0.8
    staged = [one + curve(0.7, 0.4, stage=1, first=1), two + curve(0.6, 0.3, stage=1, first=1)]
    assert best_lengths(staged, 2) == [2, 2]
    worse = [one + curve(2.0, 3.0, stage=1, first=1)]
    assert best_lengths(worse, 2) == [1, 0]
    assert at(staged[0], [1, 1]).loss == 0.7


def test_a_gain_counts_only_beyond_the_spread():
    assert words([0.9, 0.8, 0.85], [0.8, 0.7, 0.76], "regions", False)["word"] == "better"
    told = words([0.9, 0.6, 0.8], [0.7, 0.7, 0.75], "slides", False)
    assert told["word"] == "no better" and "slides" in told["text"]
    assert words([0.6, 0.5], [0.8, 0.7], "regions", True)["word"] == "worse"
    assert words([0.9], [0.5], "regions", False)["word"] == "no better"  # one repeat has no spread


def test_settings_are_told_apart_and_checked():
    config, plan = settings("adapter", {"width": "8", "epochs": "3"})
    assert config.width == 8 and plan.epochs == 3
    config, _ = settings("pathotune", {"text": "off"})
    assert config.text is False
    for bad in ({"width": "wide"}, {"width": "0"}, {"colour": "1"}, {"epochs": "-1"}):
        with pytest.raises(PathotuneError):
            settings("adapter", bad)
    assert paces.STEP_SECONDS <= 0.5
