"""Tokens of every family of networks, and the ways in which weights can be wrong."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pathotune.events import PathotuneError
from pathotune.models import cards
from pathotune.models._torchvision import import_timm
from pathotune.models.backbones import load_backbone
from pathotune.models.cards import ModelCard, Part, Weights
from pathotune.models.weights import digest

timm = import_timm()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiles(n: int, side: int, seed: int = 0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def make_card(folder, name, taps, dims, *, tile_px=64, token_px=8, seed=0, **more) -> ModelCard:
    """Write random weights of a timm network and return the card for them."""
    kwargs = more.pop("kwargs", {})
    torch.manual_seed(seed)
    network = timm.create_model(name, num_classes=0, **kwargs)
    save_file(network.state_dict(), folder / "weights.safetensors")
    part = Part(
        name,
        Weights("file", str(folder / "weights.safetensors")),
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
        taps,
        kwargs,
        **more,
    )
    return ModelCard(
        id="x",
        name="X",
        about="",
        mpp=0.5,
        tile_px=tile_px,
        token_px=token_px,
        halo=1,
        neighbourhood=3,
        parts=(part,),
        projection=None,
        dims=dims,
        licence="CC0-1.0",
        gated=False,
        size_mb=1,
        url="",
        made_for="",
    )


SMALL_VIT = {"img_size": 64, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
SMALL_EVA = SMALL_VIT | {"mlp_ratio": 2.0}
SMALL_SWIN = {
    "img_size": 64,
    "window_size": 4,
    "embed_dim": 12,
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 1, 2, 2),
}
SMALL_CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}

FAMILIES = [
    ("vit_tiny_patch16_224", SMALL_VIT, (0, 2), 48),
    ("vit_small_patch14_reg4_dinov2", SMALL_VIT, (1,), 24),
    ("deit_tiny_distilled_patch16_224", SMALL_VIT, (1,), 24),
    ("vit_base_patch16_siglip_224", SMALL_VIT, (2,), 24),
    ("vit_base_patch16_clip_224", SMALL_VIT, (2,), 24),
    ("vit_small_patch16_dinov3", SMALL_EVA, (0, 2), 48),
    ("eva02_tiny_patch14_224", SMALL_EVA, (2,), 24),
    ("convnext_atto", SMALL_CONVNEXT, (0, 1), 24),
    ("swin_tiny_patch4_window7_224", SMALL_SWIN, (0, 1), 36),
    ("resnet10t", {}, (1, 2), 192),
    ("tf_efficientnet_lite0", {}, (2, 3), 152),
]


@pytest.mark.parametrize(("name", "kwargs", "taps", "dims"), FAMILIES, ids=lambda v: str(v)[:30])
def test_every_family_gives_tokens_on_the_cards_grid(tmp_path, name, kwargs, taps, dims):
    card = make_card(tmp_path, name, taps, dims, kwargs=kwargs)
    backbone = load_backbone(card)
    batch = tiles(2, 64)
    full = backbone.tokens_full(batch)
    assert full.shape == (2, 8, 8, dims)
    assert full.dtype == np.float32 and np.isfinite(full).all()
    assert full.std() > 0
    np.testing.assert_allclose(backbone.tokens(batch), full[:, 1:-1, 1:-1], atol=1e-5)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_the_last_block_with_the_final_norm_is_what_timm_gives(tmp_path, name):
    card = make_card(tmp_path, name, (2,), 24, kwargs=SMALL_VIT, norm="final")
    batch = tiles(1, 64)
    network = timm.create_model(name, num_classes=0, **SMALL_VIT).eval()
    network.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    with torch.inference_mode():
        expected = network.forward_features(pixels(batch))[:, network.num_prefix_tokens :]
    got = load_backbone(card).tokens_full(batch)
    np.testing.assert_allclose(got.reshape(1, 64, 24), expected.numpy(), atol=1e-4)


def pixels(batch):
    return (torch.from_numpy(batch).permute(0, 3, 1, 2) / 255.0 - 0.5) / 0.5


@pytest.mark.parametrize(("name", "kwargs", "taps", "dims"), FAMILIES, ids=lambda v: str(v)[:30])
def test_every_family_computes_what_timm_computes(tmp_path, name, kwargs, taps, dims):
    """The network is built empty and filled; tables that no file holds must be right too."""
    card = make_card(tmp_path, name, taps[-1:], dims, kwargs=kwargs)
    network = timm.create_model(name, num_classes=0, **kwargs).eval()
    network.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    if hasattr(network, "set_input_size") and "img_size" not in kwargs:
        network.set_input_size(img_size=(64, 64))
    batch = tiles(1, 64)
    with torch.inference_mode():
        maps = network.forward_intermediates(
            pixels(batch), indices=list(taps[-1:]), output_fmt="NCHW", intermediates_only=True
        )[0]
    card = replace(card, dims=maps.shape[1], tile_px=64, token_px=64 // maps.shape[-1], halo=0)
    got = load_backbone(card).tokens_full(batch)
    np.testing.assert_allclose(got, maps.permute(0, 2, 3, 1).numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "kwargs", "taps", "dims"), FAMILIES, ids=lambda v: str(v)[:30])
@pytest.mark.parametrize("at", [(1, 6), (5, 2)])
def test_a_local_change_shows_most_in_its_own_token(tmp_path, name, kwargs, taps, dims, at):
    """Prefix tokens counted wrongly, or rows taken for columns, would move the change."""
    card = make_card(tmp_path, name, taps, dims, kwargs=kwargs)
    backbone = load_backbone(card)
    tile = tiles(1, 64) // 8 + 112
    before = backbone.tokens_full(tile)
    row, col = at
    tile[0, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8] = (255, 0, 128)
    change = np.abs(backbone.tokens_full(tile) - before).sum(-1)[0]
    most = np.array(np.unravel_index(change.argmax(), change.shape))
    coarse = max(1, 8 // min(8, _map_side(backbone, taps[-1])))
    assert np.abs(most - at).max() <= (coarse if coarse > 1 else 0)


def _map_side(backbone, tap: int) -> int:
    """Return the side of the coarsest tapped map, before it is brought to the card's grid."""
    with torch.inference_mode():
        maps = backbone._networks[0].forward_intermediates(
            torch.zeros(1, 3, 64, 64), indices=[tap], output_fmt="NCHW", intermediates_only=True
        )
    return maps[0].shape[-1]


def test_a_transposed_grid_would_be_seen(tmp_path):
    """A bright corner of the tile must show in the same corner of the tokens."""
    card = make_card(tmp_path, "tf_efficientnet_lite0", (1,), 24)
    tile = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    plain = load_backbone(card).tokens_full(tile)
    tile[0, :16, 48:] = 255
    change = np.abs(load_backbone(card).tokens_full(tile) - plain).sum(-1)[0]
    assert change[:2, 6:].mean() > 10 * change[6:, :2].mean()


def test_a_tile_gives_the_same_tokens_whatever_its_batch_mates(tiny_card):
    backbone = load_backbone(tiny_card)
    batch = tiles(7, 64)
    together = backbone.tokens(batch)
    alone = np.concatenate([backbone.tokens(batch[i : i + 1]) for i in range(7)])
    shuffled = backbone.tokens(batch[::-1])[::-1]
    assert np.abs(together - alone).max() < 1e-4
    assert np.abs(together - shuffled).max() < 1e-4


def test_weights_of_the_first_blocks_are_enough(tmp_path):
    card = make_card(tmp_path, "vit_tiny_patch16_224", (0, 1), 48, kwargs=SMALL_VIT)
    batch = tiles(1, 64)
    whole = load_backbone(card).tokens(batch)
    path = tmp_path / "weights.safetensors"
    state = load_file(path)
    kept = {k: v for k, v in state.items() if not k.startswith(("blocks.2.", "norm."))}
    assert len(kept) < len(state)
    save_file(kept, path)
    np.testing.assert_array_equal(load_backbone(card).tokens(batch), whole)


def test_position_embeddings_are_resampled_to_the_tile(tmp_path):
    large = SMALL_VIT | {"img_size": 96}
    card = make_card(tmp_path, "vit_small_patch14_reg4_dinov2", (1,), 24, kwargs=large)
    part = replace(card.parts[0], kwargs=SMALL_VIT)
    small = replace(card, parts=(part,))
    assert load_backbone(small).tokens_full(tiles(1, 64)).shape == (1, 8, 8, 24)


def test_parts_are_resampled_joined_and_projected(tmp_path, tiny_card):
    other = make_card(tmp_path, "tf_efficientnet_lite0", (2, 3), 152)
    both = replace(tiny_card, parts=(*tiny_card.parts, *other.parts), dims=200)
    batch = tiles(2, 64)
    joined = load_backbone(both).tokens(batch)
    np.testing.assert_allclose(joined[..., :48], load_backbone(tiny_card).tokens(batch), atol=1e-5)
    rng = np.random.default_rng(1)
    mean, basis, scale = (
        torch.from_numpy(a.astype(np.float32))
        for a in (rng.normal(size=200), rng.normal(size=(200, 16)), rng.uniform(1, 2, size=16))
    )
    save_file({"mean": mean, "basis": basis, "scale": scale}, tmp_path / "p.safetensors")
    small = replace(both, projection=Weights("file", str(tmp_path / "p.safetensors")), dims=16)
    got = load_backbone(small).tokens(batch)
    expected = (joined - mean.numpy()) @ basis.numpy() / scale.numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-2)
    assert both.hash() != small.hash() != tiny_card.hash()
    with pytest.raises(PathotuneError, match="does not give 17 features"):
        load_backbone(replace(small, dims=17))
    with pytest.raises(PathotuneError, match="expects 200 channels"):
        load_backbone(replace(small, parts=tiny_card.parts))


def test_a_part_may_look_at_a_resized_tile(tmp_path):
    card = make_card(tmp_path, "resnet10t", (3,), 256, tile_px=56, token_px=7, input_px=128)
    assert load_backbone(card).tokens_full(tiles(1, 56)).shape == (1, 8, 8, 256)


def test_token_norm_has_no_scale_of_its_own(tmp_path):
    card = make_card(tmp_path, "vit_tiny_patch16_224", (2,), 24, kwargs=SMALL_VIT, norm="token")
    got = load_backbone(card).tokens_full(tiles(1, 64))
    np.testing.assert_allclose(got.mean(-1), 0, atol=1e-4)
    np.testing.assert_allclose(got.std(-1), 1, atol=1e-2)


def test_the_seed_of_others_is_left_alone(tiny_card):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_backbone(tiny_card)
    assert torch.rand(1) == expected


def test_a_local_folder_as_a_hub_lays_it_out(tmp_path, tiny_card, tiny_folder):
    folder = tmp_path / "vit"
    folder.mkdir()
    shutil.copy(tiny_folder / "tiny.safetensors", folder / "model.safetensors")
    (folder / "config.json").write_text('{"architecture": "vit_tiny_patch16_224"}')
    card = _with(tiny_card, where=str(folder))
    batch = tiles(1, 64)
    expected = load_backbone(tiny_card).tokens(batch)
    np.testing.assert_array_equal(load_backbone(card).tokens(batch), expected)
    assert card.hash() == tiny_card.hash()
    cache = tmp_path / "models--someone--vit"
    (cache / "snapshots" / "abc").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    shutil.copy(folder / "model.safetensors", cache / "snapshots" / "abc")
    card = _with(tiny_card, where=str(cache))
    np.testing.assert_array_equal(load_backbone(card).tokens(batch), expected)


def _with(card, **changes):
    part = card.parts[0]
    return replace(card, parts=(replace(part, weights=replace(part.weights, **changes)),))


def test_a_torch_file_with_weights_only_is_fine_and_a_pickle_is_refused(tmp_path, tiny_card):
    source = tiny_card.parts[0].weights
    state = load_file(source.home / source.where)
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    batch = tiles(1, 64)
    card = _with(tiny_card, where=str(tmp_path / "w.pth"), sha256=None)
    expected = load_backbone(tiny_card).tokens(batch)
    np.testing.assert_array_equal(load_backbone(card).tokens(batch), expected)
    torch.save({"state_dict": state, "code": np.random.default_rng}, tmp_path / "bad.pt")
    with pytest.raises(PathotuneError, match="could run foreign code"):
        load_backbone(_with(tiny_card, where=str(tmp_path / "bad.pt"), sha256=None))
    (tmp_path / "w.pkl").write_bytes(b"x")
    with pytest.raises(PathotuneError, match="opened safely"):
        load_backbone(_with(tiny_card, where=str(tmp_path / "w.pkl"), sha256=None))


def test_missing_damaged_and_wrong_weights_are_told_apart(tmp_path, tiny_card):
    with pytest.raises(PathotuneError, match="not where the model card says"):
        load_backbone(_with(tiny_card, where="nowhere.safetensors"))
    with pytest.raises(PathotuneError, match="sha256 begins with"):
        load_backbone(_with(tiny_card, sha256="0" * 64))
    source = tiny_card.parts[0].weights
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes((source.home / source.where).read_bytes()[:5000])
    with pytest.raises(PathotuneError, match="damaged"):
        load_backbone(_with(tiny_card, where=str(torn), sha256=None))
    other = make_card(tmp_path, "vit_tiny_patch16_224", (1,), 24, kwargs=SMALL_VIT)
    path = other.parts[0].weights.where
    assert digest(tmp_path / "weights.safetensors")
    with pytest.raises(
        PathotuneError, match=r"do not fit .*the file holds a vision transformer of \d blocks"
    ):
        load_backbone(replace(_with(tiny_card, where=path, sha256=None)))
    assert "blocks.2" in str(_error(_with(tiny_card, where=path, sha256=None)))


def _error(card):
    with pytest.raises(PathotuneError) as caught:
        load_backbone(card)
    return caught.value


def test_cards_that_cannot_be_built_name_the_card(tiny_card):
    part = tiny_card.parts[0]
    for change in ({"timm": "no_such_net"}, {"kwargs": {"nonsense": 1}}, {"taps": (9,)}):
        error = _error(replace(tiny_card, parts=(replace(part, **change),)))
        assert "network that can be built" in error.message and "tiny.toml" in error.hint
    assert "dims = 48" in _error(replace(tiny_card, dims=47)).hint


def test_the_shipped_hub_card_loads_from_the_hubs_cache(shared, tmp_path, monkeypatch):
    """The whole way of a downloaded model, with weights of the same architecture."""
    file = next((shared / "weights" / "weights_dinov2_vits14").glob("*.safetensors"))
    snapshot = tmp_path / "models--timm--vit_small_patch14_dinov2.lvd142m" / "snapshots" / "a"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(file)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    card = cards.card("dinov2-small")
    tokens = load_backbone(card).tokens(tiles(1, 224))
    assert tokens.shape == (1, 12, 12, 384) and 0.1 < tokens.std() < 10


def test_the_shipped_lite_card_agrees_with_the_weights_it_comes_from(shared):
    card = cards.card("effnet-lite0")
    tokens = load_backbone(card).tokens(tiles(1, 256))
    assert tokens.shape == (1, 12, 12, 112) and 0.1 < tokens.std() < 10
    (source,) = (shared / "weights" / "weights_efficientnet_lite0").glob("*.safetensors")
    whole = _with(card, kind="file", where=str(source), sha256=None)
    expected = load_backbone(whole).tokens(tiles(1, 256))
    assert np.abs(tokens - expected).max() < 0.02 * expected.std()


def test_the_default_works_from_what_ships():
    card = cards.card(cards.DEFAULT_ID)
    assert next(iter(cards.cards())) == card.id and card.here and not card.gated
    assert all(w.kind == "embedded" for w in card.weights)
    assert card.bytes_per_mm2 < 6e6 and card.size_mb < 50
    batch = tiles(2, card.tile_px)
    batch[1] = 240
    tokens = load_backbone(card).tokens(batch)
    assert tokens.shape == (2, card.core, card.core, card.dims)
    assert np.isfinite(tokens).all() and tokens[0].std() > 0.1
