"""Writes the small networks that show how transformers names and computes things.

Version 5 has other names than version 4, with which most files were published, so both
are kept. Each is a network of transformers with random weights, its state as transformers
saves it, one picture and the tokens that transformers gives for it. The tests load
the state into timm and must get the same tokens. transformers is not a dependency:
run this in an environment of its own when its names change.

    python training/transformers_names.py tests/engine/data
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from pathotune.models._torchvision import import_timm

import_timm()  # mends torchvision beside a CPU build of torch, which transformers imports
from transformers import (  # noqa: E402
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ViTConfig,
    ViTModel,
)
from transformers import __version__ as VERSION  # noqa: E402

SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def networks() -> dict[str, torch.nn.Module]:
    """Return one small network of every naming."""
    return {
        "vit": ViTModel(ViTConfig(**SIZE, intermediate_size=32), add_pooling_layer=False),
        "dinov2": Dinov2Model(Dinov2Config(**SIZE, mlp_ratio=2)),
        "dinov2_registers_swiglu": Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(
                **SIZE, mlp_ratio=2, num_register_tokens=4, use_swiglu_ffn=True
            )
        ),
        "dinov3": DINOv3ViTModel(
            DINOv3ViTConfig(**SIZE, intermediate_size=32, num_register_tokens=4)
        ),
        "dinov3_gated": DINOv3ViTModel(
            DINOv3ViTConfig(
                **SIZE,
                intermediate_size=32,
                num_register_tokens=4,
                use_gated_mlp=True,
                hidden_act="silu",
            )
        ),
    }


def main(folder: Path) -> None:
    """Write one file a network."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in networks().items():
        torch.manual_seed(5)
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.2)
        picture = torch.randn(1, 3, 32, 32)
        with torch.inference_mode():
            tokens = network.eval()(pixel_values=picture).last_hidden_state[:, -16:]
        state = {k: v.contiguous() for k, v in network.state_dict().items()}
        state |= {"picture": picture, "tokens": tokens.contiguous()}
        save_file(state, folder / f"{name}.v{VERSION[0]}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
