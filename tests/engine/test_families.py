"""Checkpoints under other projects' names give the numbers that the other project gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pathotune.models._torchvision import import_timm
from pathotune.models.families import build_kwargs, empty_network, misfit, to_timm

timm = import_timm()
DATA = Path(__file__).parent / "data"
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
NETWORKS = {
    "vit": ("vit_base_patch16_224", {"mlp_ratio": 2}),
    "dinov2": ("vit_base_patch14_dinov2", {"mlp_ratio": 2}),
    "dinov2_registers_swiglu": ("vit_base_patch14_reg4_dinov2", SWIGLU | {"mlp_ratio": 3}),
    "dinov3": ("vit_small_patch16_dinov3_qkvb", {"mlp_ratio": 2}),
    "dinov3_gated": ("vit_small_plus_patch16_dinov3_qkvb", {"mlp_ratio": 2}),
}


@pytest.mark.parametrize("version", ["v4", "v5"])
@pytest.mark.parametrize("name", NETWORKS)
def test_names_of_transformers_give_its_numbers(name, version):
    state = load_file(DATA / f"{name}.{version}.safetensors")
    picture, expected = state.pop("picture"), state.pop("tokens")
    architecture, more = NETWORKS[name]
    network = timm.create_model(architecture, num_classes=0, **build_kwargs(SMALL | more)).eval()
    fitted = to_timm(state, network)
    left = [k for k in fitted if k not in network.state_dict()]
    missing = [k for k in network.state_dict() if k not in fitted]
    assert not left and not [k for k in missing if not k.startswith("rope")]
    network.load_state_dict(fitted, strict=False)
    with torch.inference_mode():
        tokens = network.forward_features(picture)[:, network.num_prefix_tokens :]
    torch.testing.assert_close(tokens, expected, atol=2e-4, rtol=1e-3)


def whole(name="vit_small_patch14_reg4_dinov2", **more):
    torch.manual_seed(1)
    return timm.create_model(name, num_classes=0, **(SMALL | more)).eval()


def same(got, network):
    wanted = network.state_dict()
    assert got.keys() >= wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(got[key], value)


@pytest.mark.parametrize(
    "wrap",
    ["teacher.backbone.", "module.", "module.momentum_encoder.", "backbone.", "visual.trunk."],
)
def test_what_training_code_wraps_around_an_encoder_is_taken_off(wrap):
    network = whole("vit_tiny_patch16_224")
    state = {wrap + k: v for k, v in network.state_dict().items()}
    state |= {"logit_scale": torch.zeros(1), "text.token_embedding.weight": torch.zeros(2, 2)}
    state |= {"student.backbone.cls_token": torch.ones(1, 1, 16)}
    got = to_timm(state, network)
    same(got, network)
    assert not misfit(network, got, set(network.state_dict()))[1]


def test_metas_own_names_chunks_and_registers_are_understood():
    network = whole()
    state = network.state_dict()
    cls = torch.full((1, 1, 16), 0.5)
    native = {"mask_token": torch.zeros(1, 16), "dino_head.mlp.weight": torch.zeros(2)}
    native |= {re.sub(r"^blocks\.", "blocks.0.", key): value for key, value in state.items()}
    native["register_tokens"] = native.pop("reg_token")
    native["cls_token"] = state["cls_token"] - cls
    native["pos_embed"] = torch.cat([cls, state["pos_embed"]], dim=1)
    same(to_timm({f"teacher.backbone.{k}": v for k, v in native.items()}, network), network)


def test_pathoduets_pretext_token_is_a_register():
    """Its own order is pretext, class, patches, with a place in the table for each."""
    plain = whole("vit_tiny_patch16_224", no_embed_class=True)
    torch.manual_seed(2)
    pretext, pos = torch.randn(1, 1, 16), torch.randn(1, 18, 16)
    state = plain.state_dict() | {"pretext_token": pretext, "pos_embed": pos}
    picture = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        x = torch.cat([pretext, plain.cls_token, plain.patch_embed(picture)], dim=1) + pos
        expected = plain.norm(plain.blocks(x))[:, 2:]
        network = whole("vit_tiny_patch16_224", no_embed_class=True, reg_tokens=1)
        network.load_state_dict(to_timm(state, network))
        got = network.forward_features(picture)[:, network.num_prefix_tokens :]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_patches_of_another_size_are_not_quietly_resampled():
    network = whole("vit_tiny_patch16_224", patch_size=8)
    other = whole("vit_tiny_patch16_224", patch_size=16, img_size=64).state_dict()
    with pytest.raises(ValueError, match="patches of 16 px, the network 8 px"):
        to_timm(other, network)


def test_a_network_is_built_empty_and_moves_nobodys_seed():
    torch.manual_seed(4)
    before = torch.get_rng_state()
    network = empty_network("vit_giant_patch14_reg4_dinov2", {}, 224)
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.is_meta for p in network.parameters())
    assert network.patch_embed.grid_size == (16, 16)
    for wrong in ("hf-hub:timm/vit_tiny_patch16_224", "local-dir:/tmp", "no_such_network"):
        with pytest.raises(ValueError, match="no network called"):
            empty_network(wrong, {}, 224)
    with pytest.raises(ValueError, match="may not be given"):
        empty_network("resnet18", {"checkpoint_path": "x.pth"}, 224)
    with pytest.raises(ValueError, match="none of"):
        empty_network("vit_tiny_patch16_224", {"mlp_layer": "eval"}, 224)
