"""What a weight file is, told from the names and shapes in it.

A file says nothing about um/px or normalisation, but its shapes tell the network:
blocks, width, patch, registers, gated layers. That is enough to say in words what
a file holds when it does not fit, and to build a plain transformer without anybody
knowing its name in timm. Nothing is computed and no numbers are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import isqrt
from typing import TYPE_CHECKING, Any

from pathotune.models.families import empty_network, misfit, plain_names, to_timm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pathotune.models.cards import ModelCard

_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large"}  # other widths are arguments
_HEADS = {1280: 16, 1408: 16, 1664: 16}  # the usual ones that are not of 64 channels a head
_CONVNEXT = ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge")
_SWIN = ("tiny", "small", "base", "large")
_RESNET = ("18", "34", "26", "50", "101", "152")
_EFFNET = ("tf_efficientnet_lite0", *(f"efficientnet_b{i}" for i in range(6)))


@dataclass(frozen=True, slots=True)
class Network:
    """A network that a file fills and how a slide is cut for it, before anybody said um/px."""

    timm: str
    kwargs: Mapping[str, Any]
    tile_px: int
    token_px: int
    taps: tuple[int, ...]
    dims: int
    norm: str
    halo: int


@dataclass(frozen=True, slots=True)
class Kind:
    """What a checkpoint is.

    Parameters
    ----------
    family : str
        The beginning of its names in timm, or "" for none that is known.
    words : str
        For the user: "a vision transformer of 12 blocks, 384 wide, patches of 16 px".
    candidates : tuple of (str, mapping)
        Names in timm with arguments that may take it, likeliest first.
    width, blocks : int
        Of a transformer; 0 for other networks.
    """

    family: str
    words: str
    candidates: tuple[tuple[str, Mapping[str, Any]], ...] = field(default=())
    width: int = 0
    blocks: int = 0


def kind(state: Mapping[str, Any]) -> Kind:
    """Tell what a checkpoint is from its names and shapes (tensors may lack numbers)."""
    names = plain_names(state)
    if any(".relative_position_bias_table" in k for k in names):
        return Kind("swin", "a Swin transformer", _named("swin_{}_patch4_window7_224", _SWIN))
    if any(k.startswith("stages.0.blocks.0.conv_dw") for k in names):
        return Kind("convnext", "a ConvNeXt", _named("convnext_{}", _CONVNEXT))
    if "layer1.0.conv1.weight" in names:
        return Kind("resnet", "a ResNet", _named("resnet{}", _RESNET))
    if "conv_stem.weight" in names:
        return Kind("efficientnet", "an EfficientNet", _named("{}", _EFFNET))
    patch = names.get("patch_embed.proj.weight")
    if patch is None or patch.ndim != 4:
        first = next(iter(sorted(names)), "")
        return Kind("", f"none of the networks that are known here (it begins with {first!r})")
    return _transformer(names, patch)


def _named(pattern: str, sizes: tuple[str, ...]) -> tuple[tuple[str, dict[str, Any]], ...]:
    return tuple((pattern.format(size), {}) for size in sizes)


def _transformer(names: Mapping[str, Any], patch: Any) -> Kind:
    width, side = int(patch.shape[0]), int(patch.shape[-1])
    numbers = [int(m[1]) for k in names if (m := re.match(r"blocks\.(\d+)\.", k))]
    blocks = max(numbers, default=-1) + 1
    tokens = next((names[k] for k in ("register_tokens", "reg_token") if k in names), None)
    registers = 0 if tokens is None else int(tokens.shape[1])
    hidden = names.get("blocks.0.mlp.fc1.weight", names.get("blocks.0.mlp.w12.weight"))
    back = names.get("blocks.0.mlp.fc2.weight", names.get("blocks.0.mlp.w3.weight"))
    gated = hidden is not None and back is not None and hidden.shape[0] == 2 * back.shape[1]
    apart = "blocks.0.mlp.fc1_x.weight" in names
    words = f"a vision transformer of {blocks} blocks, {width} wide, patches of {side} px"
    words += f", {registers} registers" if registers else ""
    words += ", gated layers" if gated or apart else ""
    if "pos_embed" not in names:
        sizes = {384: "small_plus" if apart else "small", 1024: "large", 1280: "huge_plus"}
        found = f"vit_{sizes.get(width, 'base')}_patch16_dinov3"
        both = _named("{}", (found, f"{found}_qkvb"))
        return Kind("vit", words + ", rotary positions", both, width, blocks)
    if "blocks.0.attn.q_bias" in names or "blocks.0.attn.q_proj.weight" in names:
        return Kind(
            "eva",
            words + ", rotary positions",
            _named("eva02_{}_patch14_224", _SWIN),
            width,
            blocks,
        )
    kwargs: dict[str, Any] = {
        "patch_size": side,
        "embed_dim": width,
        "depth": blocks,
        "num_heads": _HEADS.get(width, max(1, width // 64)),
    }
    if hidden is not None and hidden.shape[0] != 4 * width:
        kwargs["mlp_ratio"] = hidden.shape[0] / width
    if any(".ls1.gamma" in k for k in names):
        kwargs["init_values"] = 1e-5
    if gated:
        kwargs |= {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
    if "norm_pre.weight" in names:
        kwargs["pre_norm"] = True
    if "blocks.0.attn.qkv.weight" in names and "blocks.0.attn.qkv.bias" not in names:
        kwargs["qkv_bias"] = False
    if registers:
        kwargs["reg_tokens"] = registers
        kwargs["no_embed_class"] = not _is_square(names["pos_embed"].shape[1] - 1 - registers)
    if "cls_token" not in names:
        kwargs |= {"class_token": False, "global_pool": "avg"}
    name = f"vit_{_SIZES.get(width, 'base')}_patch16_224"
    return Kind("vit", words, ((name, kwargs),), width, blocks)


def _is_square(number: int) -> bool:
    return number > 0 and isqrt(number) ** 2 == number


def fits(state: Mapping[str, Any], kind: Kind, card: ModelCard) -> bool:
    """Tell whether a checkpoint of this kind fills the only network of a card.

    Most cards are told apart without building theirs.
    """
    part = card.parts[0]
    known: dict[str, tuple[str, ...]] = {"vit": ("vit", "deit", "eva"), "eva": ("eva",), "": ()}
    if not part.timm.startswith(known.get(kind.family, (kind.family, f"tf_{kind.family}"))):
        return False
    if kind.width and len(part.taps) == 1:
        last = part.taps[0] + 1
        if card.dims != kind.width or last > kind.blocks:
            return False
        if part.norm == "final" and last != kind.blocks:
            return False
    side = part.input_px or card.tile_px
    return fits_network(state, part.timm, part.kwargs, side, taps=part.taps, norm=part.norm)


def fits_network(
    state: Mapping[str, Any],
    name: str,
    kwargs: Mapping[str, Any],
    side: int,
    taps: tuple[int, ...] | None = None,
    norm: str = "final",
) -> bool:
    """Tell whether a checkpoint fills a timm network, shortened after its last tap."""
    try:
        network = empty_network(name, kwargs, side).to("meta")
        whole = set(network.state_dict())
        fitted = to_timm(state, network)
        if taps is not None:
            network.prune_intermediate_layers(list(taps), prune_norm=norm != "final")
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError, IndexError):
        return False
    return not any(misfit(network, fitted, whole))


def network_for(state: Mapping[str, Any], name: str, kwargs: Mapping[str, Any]) -> Network | None:
    """Return the geometry of a timm network that the checkpoint fills, or None."""
    import torch

    if not fits_network(state, name, kwargs, 224):
        return None
    network = empty_network(name, kwargs, 224).to("meta").eval()
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if hasattr(network, "blocks") and patch is not None:
        token, norm = int(patch[0]), "final"
        taps: tuple[int, ...] = (len(network.blocks) - 1,)
        tile, halo = 224 // token * token, 1 if len(network.blocks) > 12 else 2
    else:
        strides = [int(i["reduction"]) for i in network.feature_info]
        taps = tuple(i for i, s in enumerate(strides) if s in (8, 16)) or (len(strides) - 1,)
        token, norm, halo = strides[taps[-1]], "token", 2
        tile = 224 if hasattr(network, "patch_embed") else 256
    try:
        network = empty_network(name, kwargs, tile).to("meta").eval()
        with torch.inference_mode():
            maps = network.forward_intermediates(
                torch.empty(1, 3, tile, tile, device="meta"),
                indices=list(taps),
                output_fmt="NCHW",
                intermediates_only=True,
            )
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError):
        return None
    return Network(name, kwargs, tile, token, taps, sum(m.shape[1] for m in maps), norm, halo)
