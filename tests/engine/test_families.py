"""Checkpoints under other projects' names give the numbers that the other project gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pathotune.models._torchvision import import_timm
from pathotune.models.families import build_kwargs, to_timm

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
