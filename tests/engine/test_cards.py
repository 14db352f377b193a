"""Cards: what ships is right, and a mistake in one names the file and the key."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pathotune import places
from pathotune.events import PathotuneError, drain
from pathotune.models import cards, weights


def write(folder, text, name="mine.toml"):
    path = folder / name
    path.write_text(text)
    return path


GOOD = """
name = "Mine"
about = "trained on tests"
mpp = 0.5
tile_px = 64
token_px = 8
halo = 1
neighbourhood = 3
dims = 24
licence = "MIT"
size_mb = 1.0
[[parts]]
timm = "vit_tiny_patch16_224"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
taps = [1]
weights = { kind = "file", where = "w.safetensors" }
"""


def test_what_ships_is_valid_and_says_its_licence():
    known = cards.cards()
    assert {"effnet-lite0", "dinov2-small"} <= set(known)
    for card_id, card in known.items():
        assert card.id == card_id
        assert card.licence and card.about and card.made_for
        assert 4 <= card.token_um <= 10
        if all(part.weights.kind == "embedded" for part in card.parts):
            assert card.bytes_per_mm2 <= 6e6


def test_geometry(tmp_path):
    card = cards.read_card(write(tmp_path, GOOD))
    assert (card.id, card.tokens, card.core, card.token_um) == ("mine", 8, 6, 4.0)
    assert card.parts[0].weights.home == tmp_path


def test_the_users_folder_is_read_and_a_clash_of_ids_is_told():
    folder = cards.user_folder()
    write(folder, GOOD)
    assert cards.card("mine").name == "Mine"
    write(folder, 'id = "mine"\n' + GOOD, "other.toml")
    with pytest.raises(PathotuneError, match=r"mine\.toml and .*other\.toml"):
        cards.cards()


def test_the_example_in_the_docs_is_a_card(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    card = cards.read_card(write(tmp_path, example))
    assert card.dims == 384 * len(card.parts[0].taps)


def test_an_unknown_id_lists_the_known():
    with pytest.raises(PathotuneError, match="effnet-lite0"):
        cards.card("nonsense")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "Mine"', "", "name is missing"),
        ("mpp = 0.5", "mpp = -1", "mpp must be a number above 0"),
        ("mpp = 0.5", 'mpp = "a"', "mpp must be a number"),
        ("mpp = 0.5", "mpp = nan", "mpp must be a number"),
        ("mpp = 0.5", "mpp = true", "mpp must be a number"),
        ("tile_px = 64", "tile_px = 63", "tile_px must be a multiple"),
        ("halo = 1", "halo = 4", "halo leaves nothing"),
        ("halo = 1", "hallo = 1", "halo is missing"),
        ("halo = 1", "halo = 1\nhallo = 2", "hallo is not a key"),
        ("neighbourhood = 3", "neighbourhood = 4", "neighbourhood must be odd"),
        ("taps = [1]", "taps = []", r"parts\[0\]\.taps must be one or more"),
        ("taps = [1]", "taps = [2, 1]", "rising order"),
        ("taps = [1]", "taps = [1]\ndepth = 1", "reach beyond the 1 blocks"),
        ("mean = [0.5, 0.5, 0.5]", "mean = [0.5]", "must be a list of 3 numbers"),
        ("std = [0.5, 0.5, 0.5]", "std = [0.5, 0.5, 0]", "must be a list of 3 numbers"),
        ('kind = "file"', 'kind = "web"', r"parts\[0\]\.weights\.kind must be one of"),
        ('kind = "file"', 'kind = "embedded"', "sha256 is needed"),
        ('where = "w.safetensors"', 'where = "w", sha256 = "12"', "64 hex digits"),
        ("[[parts]]", "[parts]", "parts must be one or more"),
        ("dims = 24", "dims = = 24", "cannot be read"),
    ],
)
def test_a_mistake_names_the_file_and_the_key(tmp_path, old, new, says):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(PathotuneError, match=says) as caught:
        cards.read_card(path)
    assert "mine.toml" in caught.value.message and str(path) in caught.value.hint


def test_the_hash_is_the_identity_of_the_features(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"one")
    first = cards.read_card(write(tmp_path, GOOD)).hash()
    assert len(first) == 16
    other_words = GOOD.replace("Mine", "Yours").replace("MIT", "X").replace("= 3", "= 5")
    assert cards.read_card(write(tmp_path, other_words)).hash() == first
    for old, new in [("taps = [1]", "taps = [0]"), ("mpp = 0.5", "mpp = 0.25"), ("= 1\n", "= 2\n")]:
        assert cards.read_card(write(tmp_path, GOOD.replace(old, new))).hash() != first
    (tmp_path / "w.safetensors").write_bytes(b"another")
    changed = cards.read_card(write(tmp_path, GOOD)).hash()
    assert changed != first
    digest = weights.digest(tmp_path / "w.safetensors")
    same = GOOD.replace('"w.safetensors"', f'"gone.safetensors", sha256 = "{digest}"')
    assert cards.read_card(write(tmp_path, same)).hash() == changed


def test_a_hub_model_is_never_fetched_unasked(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    card = cards.card("dinov2-small")
    assert card.needs_download
    with pytest.raises(PathotuneError) as caught:
        weights.resolve(card.parts[0].weights, card)
    assert "88 MB" in caught.value.message and "Apache-2.0" in caught.value.message
    assert "Agree" in caught.value.hint
    monkeypatch.setattr(weights, "_download", lambda *_: pytest.fail("went to the network"))
    weights.set_offline(True)
    try:
        with pytest.raises(PathotuneError, match="switched off"):
            weights.resolve(card.parts[0].weights, card, allow_download=True)
    finally:
        weights.set_offline(False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert weights.is_offline()
    with pytest.raises(PathotuneError, match="not on this computer"):
        card.hash()


def test_a_gated_model_says_so(tmp_path):
    text = GOOD.replace('kind = "file", where = "w.safetensors"', 'kind = "hub", where = "a/b"')
    card = cards.read_card(write(tmp_path, text.replace("[[parts]]", "gated = true\n[[parts]]")))
    with pytest.raises(PathotuneError, match="gated: ask for access at a/b"):
        weights.resolve(card.parts[0].weights, card)


def _failures():
    from huggingface_hub import errors

    def made(kind):  # without the answer of a server that the real ones carry
        return kind.__new__(kind)

    return [
        (OSError("connection refused"), "could not be downloaded.*OSError", "network"),
        (errors.LocalEntryNotFoundError("no cache, no network"), "cannot be reached", "network"),
        (made(errors.GatedRepoError), "gated: its owners", "sign in"),
        (made(errors.RepositoryNotFoundError), "has no timm/vit", "id"),
        (errors.EntryNotFoundError("none"), "has none of model.safetensors", "local file"),
    ]


@pytest.mark.parametrize(("error", "says", "hint"), _failures(), ids=lambda v: type(v).__name__)
def test_a_failed_download_is_told_in_words(monkeypatch, error, says, hint):
    import huggingface_hub

    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    card = cards.card("dinov2-small")
    with pytest.raises(PathotuneError, match=says) as caught:
        weights.resolve(card.parts[0].weights, card, allow_download=True)
    assert hint in caught.value.hint


def test_a_model_in_the_hubs_cache_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--timm--vit_small_patch14_dinov2.lvd142m"
    card = cards.card("dinov2-small")
    assert not card.here
    for snapshot in ("aaa", "abc"):
        (repo / "snapshots" / snapshot).mkdir(parents=True)
        (repo / "snapshots" / snapshot / "model.safetensors").write_text(snapshot)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    found = weights.resolve(card.parts[0].weights, card)
    assert found.read_text() == "abc"
    assert not card.needs_download and card.here and len(card.hash()) == 16
    pinned = replace(card.parts[0].weights, where=card.parts[0].weights.where + "@aaa")
    assert weights.resolve(pinned, card).read_text() == "aaa"
    pinned = replace(pinned, where=card.parts[0].weights.where + "@bbb")
    assert not weights.present(pinned)


def test_the_hubs_cache_is_where_the_hubs_own_library_has_it(monkeypatch):
    code = (
        "from huggingface_hub.constants import HF_HUB_CACHE; "
        "from pathotune.models.weights import _hub_cache; "
        "assert str(_hub_cache()) == HF_HUB_CACHE, (_hub_cache(), HF_HUB_CACHE)"
    )
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    monkeypatch.setenv("HF_HOME", "/somewhere")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_download_that_was_agreed_to_lands_and_is_checked(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    asked = []

    def fetch(repo, name, revision=None):
        asked.append((repo, name, revision))
        if name == "model.safetensors":
            raise EntryNotFoundError("no such file")
        (tmp_path / name).write_bytes(b"from the hub")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    card = cards.card("dinov2-small")
    events = []
    drain(weights.download(card), events.append)
    assert [name for _, name, _ in asked] == ["model.safetensors", "pytorch_model.bin"]
    assert asked[0][0] == "timm/vit_small_patch14_dinov2.lvd142m"
    assert "88 MB" in events[0].text and events[-1].done == 1
    part = card.parts[0]
    wrong = replace(part.weights, sha256="0" * 64)
    with pytest.raises(PathotuneError, match="sha256 begins with"):
        weights.resolve(wrong, card, allow_download=True)


def test_embedded_weights_that_are_gone_ask_for_a_new_installation(tmp_path):
    text = GOOD.replace(
        'kind = "file", where = "w.safetensors"',
        f'kind = "embedded", where = "w.safetensors", sha256 = "{"0" * 64}"',
    )
    card = cards.read_card(write(tmp_path, text))
    with pytest.raises(PathotuneError, match="missing") as caught:
        weights.resolve(card.parts[0].weights, card)
    assert "Install" in caught.value.hint
    assert places.resources().is_dir()


def test_listing_cards_costs_no_torch():
    code = (
        "import sys; from pathotune.models.cards import cards; cards(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
