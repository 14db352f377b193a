"""Bundles come back as they were, and refuse everything that is not one of ours."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from pathotune.events import PathotuneError
from pathotune.models import cards
from pathotune.models.bundle import FORMAT, ModelBundle


@pytest.fixture
def known_card(tiny_folder, tiny_card):
    """Put the tiny card among the user's own."""
    text = (tiny_folder / "tiny.toml").read_text()
    (cards.user_folder() / "tiny.toml").write_text(text)
    return tiny_card


def make(card, **more) -> ModelBundle:
    rng = np.random.default_rng(0)
    arrays = {
        "weight": rng.normal(size=(48, 2)).astype(np.float32),
        "bias": np.zeros(2, np.float32),
    }
    return ModelBundle.create(
        card,
        "linear",
        ["Stroma", "Tumör"],
        [(1, 2, 3), (200, 100, 0)],
        arrays,
        regions=[{"id": "a", "class": "Stroma"}],
        metrics={"macro_f1": 0.9},
        **more,
    )


def test_a_bundle_comes_back_as_it_was(tmp_path, known_card):
    bundle = make(known_card, tissue="off", made_for="colorectal H&E", seed=3)
    path = bundle.save(tmp_path / "new" / "b.safetensors")
    back = ModelBundle.load(path)
    assert back.classes == ("Stroma", "Tumör") and back.colours == ((1, 2, 3), (200, 100, 0))
    assert (back.card_id, back.card_hash) == ("tiny", known_card.hash())
    assert (back.method, back.tissue, back.card_name) == ("linear", "off", "Tiny test network")
    assert back.meta == bundle.meta
    for key in ("mpp", "token_um", "neighbourhood", "normalisation", "versions", "trained_on"):
        assert key in back.meta
    assert back.meta["made_for"] == "colorectal H&E" and back.meta["seed"] == 3
    for key, value in bundle.arrays.items():
        np.testing.assert_array_equal(back.arrays[key], value)
    assert back.card() == known_card
    assert path.stat().st_size < 5000
    assert [p.name for p in path.parent.iterdir()] == ["b.safetensors"]


def test_another_backbone_is_refused_in_the_users_words(tmp_path, known_card, tiny_folder):
    path = make(known_card).save(tmp_path / "b.safetensors")
    other = cards.card("effnet-lite0")
    with pytest.raises(PathotuneError, match=r"Tiny test network, not on EfficientNet-Lite0"):
        ModelBundle.load(path).check(other)
    changed = (tiny_folder / "tiny.toml").read_text().replace("taps = [0, 1]", "taps = [1]")
    (cards.user_folder() / "tiny.toml").write_text(changed)
    with pytest.raises(PathotuneError, match="another version of the backbone Tiny test network"):
        ModelBundle.load(path)
    (cards.user_folder() / "tiny.toml").unlink()
    with pytest.raises(PathotuneError, match="not known on this computer") as caught:
        ModelBundle.load(path)
    assert str(cards.user_folder()) in caught.value.hint
    assert ModelBundle.load(path, check=False).card_id == "tiny"


def _with_header(path, **changes):
    header = {
        "format": FORMAT,
        "version": 1,
        "card_id": "tiny",
        "card_hash": "0" * 16,
        "method": "linear",
        "classes": ["A", "B"],
        "colours": [[0, 0, 0], [1, 1, 1]],
        "meta": {},
    } | changes
    arrays = {"weight": np.zeros((4, 2), np.float32)}
    save_file(arrays, path, {"pathotune": json.dumps(header)})
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "other"}, "not a model saved by this program"),
        ({"version": 2}, "newer version"),
        ({"version": "1"}, "newer version"),
        ({"classes": []}, "damaged"),
        ({"classes": ["A", "A"]}, "damaged"),
        ({"classes": ["A", 3]}, "damaged"),
        ({"classes": None}, "damaged"),
        ({"colours": [[0, 0, 0]]}, "damaged"),
        ({"colours": [[0, 0, 0], [0, 0, 256]]}, "damaged"),
        ({"colours": [[0, 0, 0], [0, 0]]}, "damaged"),
        ({"card_id": ""}, "damaged"),
        ({"meta": 3}, "damaged"),
    ],
)
def test_headers_that_are_not_right_are_refused(tmp_path, changes, says):
    path = _with_header(tmp_path / "b.safetensors", **changes)
    with pytest.raises(PathotuneError, match=says):
        ModelBundle.load(path, check=False)


def test_foreign_files_are_refused(tmp_path, tiny_folder):
    with pytest.raises(PathotuneError, match="not a model saved by this program"):
        ModelBundle.load(tiny_folder / "tiny.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "bomb.safetensors").write_bytes(b"\xff" * 64)
    for name in ("text", "empty", "bomb"):
        with pytest.raises(PathotuneError, match="not a model saved by this program"):
            ModelBundle.load(tmp_path / f"{name}.safetensors")
    with pytest.raises(PathotuneError, match="no file"):
        ModelBundle.load(tmp_path / "nothing.safetensors")
    with pytest.raises(PathotuneError, match="not a model saved by this program"):
        ModelBundle.load(tmp_path)


def test_a_cut_file_and_numbers_that_are_none_are_refused(tmp_path, known_card):
    path = make(known_card).save(tmp_path / "b.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PathotuneError, match="damaged"):
        ModelBundle.load(path)
    bundle = make(known_card)
    bundle.arrays["bias"][0] = np.nan
    bundle.save(path)
    with pytest.raises(PathotuneError, match="damaged"):
        ModelBundle.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, known_card, monkeypatch):
    path = make(known_card).save(tmp_path / "b.safetensors")
    before = path.read_bytes()

    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PathotuneError, match="No space left"):
        make(known_card, seed=1).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.glob("*b.safetensors*")] == ["b.safetensors"]
    (tmp_path / "file").write_text("")
    with pytest.raises(PathotuneError, match="could not be saved"):
        make(known_card).save(tmp_path / "file" / "b.safetensors")


def test_no_torch_for_a_bundle(tmp_path, known_card):
    path = make(known_card).save(tmp_path / "b.safetensors")
    code = (
        "import sys; from pathotune.models.bundle import ModelBundle; "
        f"ModelBundle.load({str(path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
