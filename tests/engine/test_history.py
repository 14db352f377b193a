"""The models a slide has had: kept once, bounded, and whole after a restart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pathotune.models import history
from pathotune.models.bundle import ModelBundle


def bundle(seed=0, **meta):
    rng = np.random.default_rng(seed)
    arrays = {
        "weight": rng.normal(size=(32, 2)).astype(np.float32),
        "bias": np.zeros(2, np.float32),
        "temperature": np.ones(1, np.float32),
    }
    said = {
        "regions": [{"id": str(i), "class": "A"} for i in range(5)],
        "metrics": {"macro_f1": 0.8, "low": 0.7, "high": 0.9, "why_not": None},
    }
    colours = ((1, 2, 3), (4, 5, 6))
    return ModelBundle("card", "hash", "linear", ("A", "B"), colours, arrays, said | meta)


def test_a_kept_model_comes_back_bit_for_bit_with_its_story(tmp_path):
    made = history.keep(tmp_path, bundle(), "rest")
    (entry,) = history.entries(tmp_path)
    assert entry == made and (entry.score, entry.low, entry.high) == (0.8, 0.7, 0.9)
    assert (entry.why, entry.regions, entry.classes) == ("rest", 5, ("A", "B"))
    back = ModelBundle.load(entry.path, check=False)
    assert all(np.array_equal(back.arrays[k], v) for k, v in bundle().arrays.items())
    assert entry.path.stat().st_size < 4000


def test_without_a_score_the_reason_is_kept(tmp_path):
    metrics = {"macro_f1": None, "low": None, "high": None, "why_not": "B has only one region."}
    history.keep(tmp_path, bundle(metrics=metrics), "before")
    (entry,) = history.entries(tmp_path)
    assert entry.score is None and entry.why_not == "B has only one region."


def test_the_same_model_is_one_entry_and_takes_the_better_reason(tmp_path):
    first = history.keep(tmp_path, bundle(), "rest")
    assert history.keep(tmp_path, bundle(), "before") == first
    saved = history.keep(tmp_path, bundle(), "saved", "mine.safetensors")
    assert saved.path == first.path and (saved.why, saved.name) == ("saved", "mine.safetensors")
    assert history.keep(tmp_path, bundle(), "rest") == saved
    other = replace(bundle(), classes=("A", "C"))
    history.keep(tmp_path, other, "rest")
    assert len(history.entries(tmp_path)) == 2


def test_the_oldest_that_nobody_asked_for_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "MOST", 4)
    asked = history.keep(tmp_path, bundle(0), "kept")
    for seed in range(1, 8):
        history.keep(tmp_path, bundle(seed), "rest")
    left = history.entries(tmp_path)
    assert len(left) == 4 and left[-1] == asked
    last = history.keep(tmp_path, bundle(99), "rest")
    assert history.entries(tmp_path)[0] == last
    monkeypatch.setattr(history, "MOST_BYTES", 10)
    alone = history.keep(tmp_path, bundle(100), "rest")
    assert history.entries(tmp_path) == (alone,)


@pytest.mark.parametrize("content", [b"", b"junk" * 40])
def test_a_damaged_file_is_passed_over(tmp_path, content):
    made = history.keep(tmp_path, bundle(), "rest")
    (tmp_path / "1.safetensors").write_bytes(content)
    assert history.entries(tmp_path) == (made,)
    bundle().save(tmp_path / "2.safetensors")  # a model without a story is not of the history
    assert history.entries(tmp_path) == (made,)
