"""A weight file on this computer becomes a backbone, or is refused in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pathotune import cli
from pathotune.events import PathotuneError, drain
from pathotune.models import cards, weights
from pathotune.models._torchvision import import_timm
from pathotune.models.backbones import load_backbone
from pathotune.models.families import empty_network
from pathotune.models.importing import Answers, import_weights, look
from pathotune.models.own_cards import NORMALISATIONS

timm = import_timm()
SMALL = {"img_size": 224, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 1}
GOOD = {"mpp": 0.5, "licence": "own work", "name": "Ours"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PATHOTUNE_HOME", str(tmp_path / "home"))


@pytest.fixture
def vit_s(tmp_path):
    """Return a file with the weights of a whole ViT-S/16, all alike."""
    shapes = empty_network("vit_small_patch16_224", {}, 224).state_dict()
    path = tmp_path / "vits16.pth"
    torch.save({k: torch.full(v.shape, 0.01) for k, v in shapes.items()}, path)
    return path


@pytest.fixture
def own(tmp_path):
    """Return a file of a small transformer that no card knows."""
    torch.manual_seed(3)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL)
    path = tmp_path / "ours.safetensors"
    save_file(network.state_dict(), path)
    return path


def answers(**more):
    mean, std = NORMALISATIONS["imagenet"]
    return Answers(**(GOOD | {"mean": mean, "std": std} | more))


def test_a_known_model_is_recognised_and_becomes_its_cards_weights(vit_s):
    looked = drain(look(vit_s))
    assert looked.words == "a vision transformer of 12 blocks, 384 wide, patches of 16 px"
    assert set(looked.cards) == {"imagenet-vit-s16", "kaiko-s16", "lunit-dino-s16"}
    assert not cards.card("kaiko-s16").here
    card = drain(import_weights(looked, Answers(like="kaiko-s16")))
    assert card.id == "kaiko-s16" and card.here and not card.needs_download
    assert not cards.card("lunit-dino-s16").here
    assert card.hash() == cards.card("kaiko-s16").hash()
    side = card.tile_px
    tile = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    assert load_backbone(card).tokens(tile).shape == (1, card.core, card.core, 384)
    vit_s.unlink()  # the share is away: nothing pretends that the model is here
    assert not cards.card("kaiko-s16").here


def test_a_known_model_with_another_umpx_gets_a_card_of_its_own(vit_s):
    looked = drain(look(vit_s))
    card = drain(import_weights(looked, Answers(like="lunit-dino-s16", mpp=0.25)))
    theirs = cards.card("lunit-dino-s16")
    assert card.id == "lunit-dino-vit-s-16-own-file" and card.mpp == 0.25 and card.here
    assert card.parts[0].mean == theirs.parts[0].mean and card.licence == theirs.licence
    assert not theirs.here


def test_a_model_of_ones_own_works_end_to_end(own):
    looked = drain(look(own))
    assert looked.cards == () and looked.network is not None
    card = drain(import_weights(looked, answers()))
    assert card == cards.card("ours") and card.here
    assert (card.tile_px, card.token_px, card.dims, card.tokens) == (224, 16, 64, 14)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL).eval()
    network.load_state_dict(load_file(own))
    tile = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in NORMALISATIONS["imagenet"])
    with torch.inference_mode():
        x = (torch.from_numpy(tile).permute(0, 3, 1, 2) / 255.0 - mean) / std
        expected = network.forward_features(x)[0, 1:]
    got = load_backbone(card).tokens_full(tile)
    np.testing.assert_allclose(got.reshape(196, 64), expected.numpy(), atol=1e-4)
    again = drain(import_weights(looked, answers()))
    assert again.id == "ours-2"


def test_the_wrong_model_is_told_in_words(own, vit_s):
    with pytest.raises(PathotuneError, match="is not UNI: it holds a vision transformer of 2 bl"):
        drain(import_weights(drain(look(own)), Answers(like="uni")))
    with pytest.raises(PathotuneError, match=r"It could be: .*Kaiko ViT-S/16"):
        drain(import_weights(drain(look(vit_s)), Answers(like="virchow2")))
    with pytest.raises(PathotuneError, match=r"holds a vision transformer.*does not fill resnet50"):
        drain(look(own, "resnet50"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"mpp": None}, "um/px .* not known"),
        ({"mpp": 50.0}, "50 um/px cannot be"),
        ({"licence": " "}, "licence .* not known"),
        ({"mean": None}, "three means"),
        ({"std": (0.2, 0.0, 0.2)}, "three means"),
        ({"mean": (123.7, 116.3, 103.5)}, "from 0 to 1"),
    ],
)
def test_an_answer_that_is_missing_or_cannot_be_is_refused(own, more, words):
    with pytest.raises(PathotuneError, match=words):
        drain(import_weights(drain(look(own)), answers(**more)))
    assert not list(cards.user_folder().glob("*.toml"))


class Bomb:
    def __reduce__(self):
        return (print, ("boom",))


def test_files_that_run_code_or_are_no_weights_are_refused(tmp_path, capsys):
    evil = tmp_path / "evil.pth"
    torch.save({"model": {"w": torch.zeros(1)}, "args": Bomb()}, evil)
    with pytest.raises(PathotuneError, match="could run foreign code"):
        drain(look(evil))
    assert "boom" not in capsys.readouterr().out
    pickled = tmp_path / "model.pkl"
    pickled.write_bytes(b"\x80\x04.")
    with pytest.raises(PathotuneError, match="opened safely"):
        drain(look(pickled))
    broken = tmp_path / "half.safetensors"
    broken.write_bytes(b"\x00" * 64)
    with pytest.raises(PathotuneError, match="damaged"):
        drain(look(broken))
    with pytest.raises(PathotuneError, match="no weight file"):
        drain(look(tmp_path / "nothing"))
    words = tmp_path / "text.safetensors"
    save_file({"encoder.word_embeddings.weight": torch.zeros(4, 4)}, words)
    with pytest.raises(PathotuneError, match="none of the networks that are known"):
        drain(look(words))


def test_a_file_of_an_old_pytorch_is_read_too(tmp_path):
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL)
    old = tmp_path / "old.pth"
    torch.save(network.state_dict(), old, _use_new_zipfile_serialization=False)
    assert drain(look(old)).words.startswith("a vision transformer of 2 blocks")
    state = weights.read_state(old)
    assert torch.equal(state["cls_token"], network.cls_token)
    torch.save(
        {"model": network.state_dict(), "args": Bomb()}, old, _use_new_zipfile_serialization=False
    )
    with pytest.raises(PathotuneError, match="could run foreign code"):
        drain(look(old))


def test_a_folder_says_its_normalisation_itself(tmp_path):
    folder = tmp_path / "hospital" / "vit"
    folder.mkdir(parents=True)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL)
    save_file(network.state_dict(), folder / "model.safetensors")
    told = {"image_mean": [0.7, 0.6, 0.7], "image_std": [0.2, 0.2, 0.2]}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    model_args = {"checkpoint_path": "evil.pth", "depth": 2}
    config = {"architecture": "vit_tiny_patch16_224", "model_args": model_args}
    (folder / "config.json").write_text(json.dumps(config))
    looked = drain(look(folder))
    assert looked.mean == (0.7, 0.6, 0.7) and looked.std == (0.2, 0.2, 0.2)
    assert "checkpoint_path" not in looked.network.kwargs


def test_a_share_with_the_wrong_file_is_told_in_words(tmp_path, monkeypatch, own, vit_s):
    folder = tmp_path / "share" / "1aurent" / "vit_small_patch16_224.lunit_dino"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PATHOTUNE_MODELS", str(tmp_path / "share"))
    save_file(load_file(own), folder / "model.safetensors")
    words = "Lunit DINO ViT-S/16 do not fit .* holds a vision transformer of 2 blocks, 64 wide"
    with pytest.raises(PathotuneError, match=words):
        load_backbone(cards.card("lunit-dino-s16"))
    state = torch.load(vit_s, weights_only=True)
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][..., :8, :8].contiguous()
    save_file(state, folder / "model.safetensors")
    with pytest.raises(PathotuneError, match="patches of 8 px, the network 16 px"):
        load_backbone(cards.card("lunit-dino-s16"))


def test_a_share_laid_out_as_the_hub_leaves_it_is_searched(tmp_path, monkeypatch, vit_s):
    share = tmp_path / "share" / "1aurent--vit_small_patch16_224.lunit_dino"
    share.mkdir(parents=True)
    state = torch.load(vit_s, weights_only=True)
    save_file(state, share / "model.safetensors")
    assert not cards.card("lunit-dino-s16").here
    monkeypatch.setenv("PATHOTUNE_MODELS", str(tmp_path / "share"))
    assert cards.card("lunit-dino-s16").here


def test_a_model_of_no_hub_says_where_it_comes_from():
    with pytest.raises(PathotuneError, match=r"lies on no hub.*openmedlab.*--like pathoduet-he"):
        load_backbone(cards.card("pathoduet-he"))


def test_the_digest_of_a_large_file_is_kept_for_the_next_start(own, monkeypatch):
    monkeypatch.setattr(weights, "_LARGE", 1)
    monkeypatch.setattr(weights, "_digests", {})
    true = weights.digest(own)
    weights._digests.clear()
    monkeypatch.setattr(weights.hashlib, "file_digest", None)  # would fail if it were read
    assert weights.digest(own) == true
    monkeypatch.undo()
    weights._digests.clear()
    own.write_bytes(own.read_bytes() + b" ")
    assert weights.digest(own) != true


def test_cards_cannot_make_timm_fetch_or_load(tmp_path, own):
    drain(import_weights(drain(look(own)), answers()))
    path = cards.user_folder() / "ours.toml"
    good = path.read_text()
    for wrong in (
        good.replace('timm = "vit', 'timm = "hf-hub:somebody/vit'),
        good.replace("kwargs = {", 'kwargs = { checkpoint_path = "evil.pth", '),
    ):
        assert wrong != good
        path.write_text(wrong)
        with pytest.raises(PathotuneError, match="does not describe a network"):
            load_backbone(cards.card("ours"))


def test_the_command_line_imports(own, vit_s, capsys):
    line = ["models", "--json", "--import", str(own), "--mpp", "0.5", "--normalise", "imagenet"]
    assert cli.main([*line, "--licence", "own work", "--name", "Ours"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["imported"]["id"] == "ours" and told["imported"]["here"]
    assert cli.main(["models", "--json", "--import", str(vit_s), "--like", "kaiko-s16"]) == 0
    capsys.readouterr()
    assert cli.main(["models", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert rows["kaiko-s16"]["here"] and rows["ours"]["here"] and not rows["uni"]["here"]
    assert rows["uni"]["gated"] and "CC-BY-NC-ND" in rows["uni"]["licence"]
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 60 and any(n.split()[:2] == ["kaiko-s16", "here"] for n in lines)
    assert cli.main(["models", "--import", str(vit_s)]) == 2
    assert "Say which with --like" in capsys.readouterr().err
    assert cli.main(["models", "--mpp", "0.5"]) == 2
    assert "--import" in capsys.readouterr().err
    assert cli.main([*line[:-1], "1,2", "--licence", "x"]) == 2
    assert "six numbers" in capsys.readouterr().err
