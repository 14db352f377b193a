"""A training that is cancelled, breaks, runs out of memory or is killed leaves its best behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import shapely
import torch

from pathotune import cli, drain
from pathotune.events import Note
from pathotune.learn import tune as tunes
from pathotune.learn.adapt.material import Material
from pathotune.learn.adapt.pace import Pace
from pathotune.learn.adapt.trainer import Trainer
from pathotune.learn.settings import Training
from pathotune.learn.train import train
from pathotune.marks.annotations import Annotation, AnnotationSet, new_id
from pathotune.marks.geojson import write_geojson
from pathotune.models.bundle import ModelBundle
from pathotune.models.tuning._net import Net

QUICK = Training(epochs=4, repeats=2, views=1)
STEP_S = 0.5  # what a cancel may take


def mark(name: str, x: float, y: float, side: float = 60) -> Annotation:
    return Annotation(new_id(), name, "rectangle", shapely.box(x, y, x + side, y + side))


def stroke(name: str, *places: tuple[float, float]) -> Annotation:
    return Annotation(new_id(), name, "stroke", shapely.LineString(places), width=12.0)


@pytest.fixture
def marks() -> AnnotationSet:
    found = AnnotationSet()
    found.add(
        *(mark(n, x + 80 * i, 30 + 110 * i) for n, x in (("A", 30), ("B", 330)) for i in range(3))
    )
    return found


PHASES = {
    "reading the tissue": ("Reading the marked tissue", None),
    "features": (Material, "prepare"),
    "features of a prompted network": (Material, "features"),
    "stage 1": (Trainer, "_step"),
    "stage 2": (Trainer, "_optimiser"),
    "judging": (Trainer, "_logits"),
    "the verdict": (tunes._Tuning, "_verdict"),
    "saving": (ModelBundle, "save"),
}


@pytest.mark.parametrize("phase", PHASES)
def test_cancel_in_every_phase_waits_for_one_small_step(
    card, slide, marks, tmp_path, monkeypatch, phase
):
    owner, name = PHASES[phase]
    now: list[str] = []
    nets: list[Net] = []
    if name is not None:
        real = getattr(owner, name)

        def entered(self, *args, **how):
            stage = args[0] if name == "_optimiser" else None
            if phase != "stage 2" or stage.everything:
                now.append(phase)
            return real(self, *args, **how)

        monkeypatch.setattr(owner, name, entered)
    release = Net.release
    monkeypatch.setattr(Net, "release", lambda self: (nets.append(self), release(self))[1])
    method = "pathotune" if "prompted" in phase else "staged"
    keep = tmp_path / "kept.safetensors"
    job = train([(slide, marks)], card=card, method=method, device="cpu", plan=QUICK, keep=keep)
    for event in job:
        if now or (name is None and getattr(event, "what", "") == owner):
            break
    else:
        pytest.fail(f"{phase} never came")
    began = time.monotonic()
    job.close()
    assert time.monotonic() - began < STEP_S
    assert next(job, "closed") == "closed"
    if name is not None:
        assert nets and nets[-1].delta is None  # the network is as it was loaded
        assert not any(p.requires_grad for p in nets[-1].trunk.network.parameters())
    if phase in ("stage 2", "the verdict", "saving"):
        assert ModelBundle.load(keep).classes == ("A", "B")
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".")]


def test_strokes_and_regions_teach_together(card, slide, marks, monkeypatch):
    """Tokens under a stroke and under a region weigh, and both move what is learnt."""
    mixed = AnnotationSet()
    lines = [stroke("A", (40, 300), (120, 340)), stroke("B", (340, 300), (420, 340))]
    point = Annotation(new_id(), "A", "point", shapely.Point(200, 50))
    speck = mark("B", 500, 50, 2)  # smaller than a token
    mixed.add(*marks.items, *lines, point, speck)
    seen = []
    real = Trainer.run

    def run(self, learnt, held, *rest):
        seen.append((self.material.pieces, learnt.copy()))
        return real(self, learnt, held, *rest)

    monkeypatch.setattr(Trainer, "run", run)
    plan = Training(epochs=2, repeats=2, views=1)
    both = drain(train([(slide, mixed)], card=card, method="head", device="cpu", plan=plan))
    pieces, everything = seen[-1]
    assert everything.all() and len(pieces.names) == 10
    weights = pieces.weights(everything)
    for number, key in enumerate(pieces.names):
        assert weights[pieces.regions == number].sum() > 0, key
    assert len(both.meta["regions"]) == 10 == both.meta["metrics"]["n_regions"]
    heads = [both.arrays["head.weight"]]
    for part in (marks.items, tuple(lines)):
        some = AnnotationSet()
        some.add(*part)
        made = train([(slide, some)], card=card, method="head", device="cpu", plan=plan)
        heads.append(drain(made).arrays["head.weight"])
    for other in heads[1:]:
        assert np.abs(heads[0] - other).max() > 1e-3


def test_a_number_that_becomes_infinite_is_told_and_the_best_is_given(
    card, slide, marks, tmp_path, monkeypatch
):
    real, calls = Trainer._loss, []

    def breaks(self, *rest):
        calls.append(1)
        return real(self, *rest) * (float("nan") if len(calls) > 6 else 1.0)

    monkeypatch.setattr(Trainer, "_loss", breaks)
    events = []
    keep = tmp_path / "kept.safetensors"
    job = train([(slide, marks)], card=card, method="adapter", device="cpu", plan=QUICK, keep=keep)
    bundle = drain(job, events.append)
    assert any(isinstance(e, Note) and "lost its footing" in e.text for e in events)
    assert all(np.isfinite(a).all() for a in bundle.arrays.values())
    assert bundle.meta["tuning"]["verdict"]["word"] == "too few"
    assert ModelBundle.load(keep).method == "adapter"


def test_memory_may_run_out_anywhere(card, slide, marks, monkeypatch):
    """The graphics card's error, wherever it comes, halves the tiles; the result is the same."""
    plan = Training(epochs=2, repeats=2, views=1, batch=4)
    make = {"card": card, "method": "adapter", "device": "cpu", "plan": plan}

    def bigger(cls, size, most):
        pace = Pace(4, 4)
        pace.took = lambda *_: None
        return pace

    for module in ("material", "trainer"):
        monkeypatch.setattr(f"pathotune.learn.adapt.{module}.Pace", bigger.__get__(Pace))
    real, upper = Net.lower, Net.upper

    def short(call, most):
        def called(self, what, *rest, **how):
            n = len(getattr(what, "x", what))
            if n > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return call(self, what, *rest, **how)

        return called

    for name, call in (("lower", real), ("upper", upper)):
        events = []
        with monkeypatch.context() as patch:
            patch.setattr(Net, name, short(call, 1))
            bundle = drain(train([(slide, marks)], **make), events.append)
        assert any(isinstance(e, Note) and "one tile at a time" in e.text for e in events)
        assert bundle.meta["tuning"]["verdict"]["word"] in {"better", "no better", "worse"}


def test_killed_in_the_middle_the_best_is_found_again(card, slide, marks, tmp_path, capsys):
    path = slide.path
    write_geojson(tmp_path / "m.geojson", marks)
    out, so_far = tmp_path / "b.safetensors", tmp_path / "b.so-far.safetensors"
    words = ["train", str(path), "--annotations", str(tmp_path / "m.geojson"), "--model", card.id]
    words += ["--method", "adapter", "--device", "cpu", "--out", str(out), "--set", "repeats=2"]
    command = [sys.executable, "-m", "pathotune.cli", *words, "epochs=1000", "patience=1000"]
    process = subprocess.Popen(command, env=os.environ.copy(), stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not so_far.is_file():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        time.sleep(0.3)  # in the middle of whatever it does
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL and not out.exists()
    bundle = ModelBundle.load(so_far)
    assert bundle.method == "adapter" and bundle.meta["tuning"]["verdict"] is None
    words = ["predict", str(path), "--bundle", str(so_far), "--device", "cpu", "--out"]
    assert cli.main([*words, str(tmp_path / "map.ome.tif")]) == 0
    words = ["train", str(path), "--annotations", str(tmp_path / "m.geojson"), "--model", card.id]
    words += ["--method", "head", "--device", "cpu", "--out", str(out), "--set", "epochs=1"]
    capsys.readouterr()
    assert cli.main([*words, "repeats=0"]) == 0
    assert "b.before.safetensors" in capsys.readouterr().err
    assert ModelBundle.load(tmp_path / "b.before.safetensors").method == "adapter"
    assert ModelBundle.load(out).method == "head" and not so_far.exists()
