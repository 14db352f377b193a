"""Words about a task: every tier tells sentences apart and says who it is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pathotune.events import PathotuneError
from pathotune.models import text

DATA = Path(__file__).parent / "data" / "text"
SENTENCE = "an image of colon tissue for tumour and stroma"
OTHER = "an image of colon tissue for stroma and tumour tissue"


@pytest.mark.parametrize("kind", ["bert", "clip"])
def test_encoders_give_the_numbers_of_the_library_they_come_from(kind):
    pytest.importorskip("tokenizers")
    found = text.embed(SENTENCE, str(DATA / kind))
    expected = load_file(DATA / kind / "expected.safetensors")["hidden"]
    assert found.encoder == kind
    np.testing.assert_allclose(found.tokens, expected, atol=1e-4)
    assert text.embed(OTHER, str(DATA / kind)).tokens.shape != found.tokens.shape


def test_a_folder_that_is_no_encoder_is_refused(tmp_path):
    pytest.importorskip("tokenizers")
    with pytest.raises(PathotuneError, match="cannot be read"):
        text.embed(SENTENCE, str(tmp_path))
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes((DATA / "bert" / name).read_bytes())
    with pytest.raises(PathotuneError, match=r"no model\.safetensors"):
        text.embed(SENTENCE, str(tmp_path))


def test_hashed_words_are_the_same_everywhere_and_likeness_shows():
    one = text.hashed("adenoma").tokens[0]
    assert one[:3] == pytest.approx([-0.06979, -0.01995, -0.04854], abs=1e-4)
    likeness = {w: float(one @ text.hashed(w).tokens[0]) for w in ("adenomas", "stroma")}
    assert likeness["adenomas"] > 0.5 > likeness["stroma"]
    assert text.hashed("").tokens.shape == (1, text.DIMS)


def test_the_table_of_an_installed_package_is_used_without_importing_it():
    if importlib.util.find_spec("wordllama") is None:
        pytest.skip("the table is not installed")
    found = text.embed("tumour and stroma")
    assert found.encoder.startswith("wordllama") and found.tokens.shape[1] == 256
    assert "wordllama" not in sys.modules
    assert not np.array_equal(found.tokens, text.embed("nerve and muscle").tokens)


def test_without_a_table_words_are_hashed(monkeypatch):
    monkeypatch.setattr(text, "_TABLE", "no_such_package")
    assert text.embed("tumour").encoder == "hashed character trigrams"
    assert "glands" in text.sentence(["glands"], organ="colon") and "colon" in text.sentence(
        ["glands"], organ="colon"
    )
