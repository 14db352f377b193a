"""Families of networks: what a card's words and other projects' files mean to timm.

The same transformer is stored under different names by the code that trained
it: query, key and value apart or together, registers with or without a place in
the position table, a teacher behind a wrapper. Here those names become timm's,
from the names alone, so that a checkpoint works as it was published and nobody
has to convert it by hand. timm's own filter runs afterwards and fits position
tables and patch sizes. No torch at module level.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_OURS = ("pretrained", "checkpoint", "cache_dir", "features_only", "scriptable", "exportable")
_MLPS = ("Mlp", "GluMlp", "SwiGLU", "SwiGLUPacked")

# What training code wraps its encoder in; the first that holds a patch embedding wins.
_WRAPS = (
    "visual.trunk.",
    "module.visual.trunk.",
    "teacher.backbone.",
    "teacher_backbone.",
    "module.momentum_encoder.",
    "module.base_encoder.",
    "module.backbone.",
    "backbone.",
    "encoder.",
    "base_encoder.",
    "module.",
    "model.",
    "vit.",
    "dinov2.",
    "dinov2_with_registers.",
)
_ENTRANCES = ("patch_embed.proj.weight", "embeddings.cls_token", "conv1.weight", "stem.0.weight")

# transformers' names of ViT, DINOv2, DINOv2 with registers and DINOv3, in this order.
_RENAMED = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^(?:encoder\.|model\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
    (r"\.attn\.query\.", ".attn.q_proj."),
    (r"\.attn\.key\.", ".attn.k_proj."),
    (r"\.attn\.value\.", ".attn.v_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
)
_THIRDS = ("q_proj", "k_proj", "v_proj")
_TRAINING_ONLY = ("pooler.", "classifier.", "dino_head.", "ibot_head.", "rope_embeddings.")


# Keys of a whole network's file that a headless, shortened one may leave unused.
_UNUSED = ("head", "fc.", "fc_norm.", "classifier", "norm.", "attn_pool", "conv_head", "bn2.")
_TABLES_AGAIN = "init_non_persistent_buffers"
_UNUSED_ENDS = ("mask_token", "num_batches_tracked", "relative_position_index", "attn_mask")


def build_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card's arguments for ``timm.create_model``, with names turned into classes.

    Raises
    ------
    ValueError
        `mlp_layer` is none of the feed-forward layers that are known, or an argument
        would load something.
    """
    made = dict(kwargs)
    if wrong := [k for k in made if k.startswith(_NOT_OURS)]:
        raise ValueError(f"{wrong[0]} may not be given")
    mlp = made.get("mlp_layer")
    if isinstance(mlp, str):
        from timm import layers

        if mlp not in _MLPS:
            raise ValueError(f"mlp_layer {mlp!r} is none of {', '.join(_MLPS)}")
        made["mlp_layer"] = getattr(layers, mlp)
    return made


def empty_network(name: str, kwargs: Mapping[str, Any], side: int) -> Any:
    """Return a timm network without weights yet, for tiles of `side` pixels.

    It lies on torch's meta device, so that a network of a billion weights takes neither
    memory nor the half minute of drawing random ones; `fill` makes it real. Only a network
    with computed tables that timm cannot compute again is real from the start.

    Raises
    ------
    RuntimeError, ValueError, TypeError, AssertionError
        timm cannot build it with these arguments.
    """
    import timm
    import torch

    if not timm.is_model(name):  # names with a hub in them would go and fetch
        raise ValueError(f"timm has no network called {name!r}")

    def build(device: str) -> Any:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            made = timm.create_model(name, pretrained=False, num_classes=0, **build_kwargs(kwargs))
            if "img_size" not in kwargs and hasattr(made, "set_input_size"):
                made.set_input_size(img_size=(side, side))
        return made

    try:
        network = build("meta")
    except RuntimeError:  # it reads numbers back while it is built
        return build("cpu")
    again = all(hasattr(m, _TABLES_AGAIN) for m in _with_tables(network))
    return network if again else build("cpu")


def _with_tables(network: Any) -> list[Any]:
    """Return the modules that hold tables which no file stores: rotary, relative places."""
    return [m for m in network.modules() if m._non_persistent_buffers_set]


def misfit(
    network: Any, state: Mapping[str, Any], whole: set[str]
) -> tuple[list[str], list[str], list[str]]:
    """Return the names that are missing, unknown, and of another shape.

    Parameters
    ----------
    network : torch.nn.Module
        Perhaps shortened.
    state : mapping of str to torch.Tensor
        As `to_timm` returns it.
    whole : set of str
        The names of the network before it was shortened: those may be there unused.
    """
    wanted = network.state_dict()
    missing = sorted(k for k in wanted if k not in state and not k.endswith(_UNUSED_ENDS))
    foreign = sorted(
        k
        for k in state
        if k not in whole and not k.startswith(_UNUSED) and not k.endswith(_UNUSED_ENDS)
    )
    shapes = [k for k, v in wanted.items() if k in state and state[k].shape != v.shape]
    return missing, foreign, shapes


def fill(network: Any, state: Mapping[str, Any]) -> None:
    """Give a network of `empty_network` its weights, in memory of their own.

    The tensors of `state` may be windows onto a file that can vanish with its drive.
    """
    import torch

    wanted = network.state_dict()
    if not any(v.is_meta for v in wanted.values()):
        network.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)
        return
    fitting = {k: v.clone() for k, v in state.items() if k in wanted}
    for key, value in wanted.items():  # counters and such that a file may leave out
        if key not in fitting:
            fitting[key] = torch.zeros(value.shape, dtype=value.dtype)
    network.load_state_dict(fitting, assign=True)
    for module in _with_tables(network):
        for name, table in module.named_buffers(recurse=False):
            if table.is_meta:
                module._buffers[name] = torch.empty_like(table, device="cpu")
        getattr(module, _TABLES_AGAIN)()


def to_timm(state: Mapping[str, Any], network: Any) -> dict[str, Any]:
    """Return a checkpoint under timm's names, fitted to a network's grid.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
        As published: by timm, by transformers (ViT, DINOv2 with or without registers,
        DINOv3), by Meta's DINO code, MoCo v3, open_clip or CoCa.
    network : torch.nn.Module
        The timm network that is to take it.

    Raises
    ------
    ValueError
        The checkpoint cuts pictures into patches of another size.

    Notes
    -----
    Names that belong to none of these pass through; whether they fit is the
    caller's to judge. A register without a place of its own in timm's position table
    is one whose place is added to it here, which is the same sum.
    """
    found = plain_names(state)
    _same_patches(found, network)
    if getattr(network, "no_embed_class", False):
        found = _registers_off_the_table(found, network)
    if getattr(network, "reg_token", None) is not None and "storage_tokens" not in found:
        found = {_reg_name(k): v for k, v in found.items()}
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    fitted: dict[str, Any] = found if convert is None else convert(found, network)
    return _as_split_there(fitted, network)


def _same_patches(state: Mapping[str, Any], network: Any) -> None:
    """Refuse patches of another size, which timm would quietly resample."""
    mine = state.get("patch_embed.proj.weight")
    theirs = getattr(getattr(getattr(network, "patch_embed", None), "proj", None), "weight", None)
    if theirs is None or mine is None or mine.ndim != 4 or mine.shape[2:] == theirs.shape[2:]:
        return
    raise ValueError(f"it has patches of {mine.shape[-1]} px, the network {theirs.shape[-1]} px")


def plain_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's encoder with its wrapper gone and blocks named as timm does."""
    found = _unwrap(dict(state))
    if any(k.startswith("embeddings.") for k in found):
        found = _from_transformers(found)
    found = {_unchunked(k): v for k, v in found.items() if not k.startswith(_TRAINING_ONLY)}
    return _from_pathoduet(found) if "pretext_token" in found else found


def _unwrap(state: dict[str, Any]) -> dict[str, Any]:
    """Strip the wrapper around the encoder, and what lies beside it."""
    if any(entrance in state for entrance in _ENTRANCES):
        return state
    for wrap in _WRAPS:
        if any(wrap + entrance in state for entrance in _ENTRANCES):
            return {k[len(wrap) :]: v for k, v in state.items() if k.startswith(wrap)}
    return state


def _unchunked(key: str) -> str:
    """Turn Meta's blocks in chunks, ``blocks.2.7.norm1``, into ``blocks.7.norm1``."""
    return re.sub(r"^blocks\.\d+\.(\d+\.(?:norm|attn|mlp|ls))", r"blocks.\1", key)


def _reg_name(key: str) -> str:
    return "reg_token" if key == "register_tokens" else key


def _from_transformers(state: dict[str, Any]) -> dict[str, Any]:
    """Rename, and join query, key and value; a third without a bias has a bias of zero."""
    gated = any(".mlp.gate_proj." in k for k in state)
    named = {}
    for key, value in state.items():
        name = key
        for pattern, to in _RENAMED:
            name = re.sub(pattern, to, name)
        name = name.replace(".mlp.gate_proj.", ".mlp.fc1_g.")
        named[name.replace(".mlp.up_proj.", ".mlp.fc1_x." if gated else ".mlp.fc1.")] = value
    named.pop("mask_token", None)
    for block in {m[1] for k in named if (m := re.match(r"(blocks\.\d+)\.", k))}:
        for kind in ("weight", "bias"):
            thirds = [named.pop(f"{block}.attn.{t}.{kind}", None) for t in _THIRDS]
            some = next((t for t in thirds if t is not None), None)
            if some is not None:
                named[f"{block}.attn.qkv.{kind}"] = _joined(thirds, some)
    return named


def _joined(thirds: list[Any], like: Any) -> Any:
    import torch

    return torch.cat([torch.zeros_like(like) if t is None else t for t in thirds])


def _from_pathoduet(state: dict[str, Any]) -> dict[str, Any]:
    """PathoDuet's pretext token is a register that stands before the class token.

    Order among prefix tokens does not matter to attention, only what is added to them.
    """
    pos = state.pop("pos_embed")
    state["register_tokens"] = state.pop("pretext_token") + pos[:, :1]
    state["cls_token"] = state["cls_token"] + pos[:, 1:2]
    return state | {"pos_embed": pos[:, 2:]}


def _registers_off_the_table(state: dict[str, Any], network: Any) -> dict[str, Any]:
    """Move the class token's place from the position table into the token."""
    pos, cls = state.get("pos_embed"), state.get("cls_token")
    if pos is None or cls is None or "register_tokens" not in state:
        return state
    grid = int((pos.shape[1] - 1) ** 0.5)
    if grid * grid == pos.shape[1] - 1:
        state = state | {"cls_token": cls + pos[:, :1], "pos_embed": pos[:, 1:]}
    state["reg_token"] = state.pop("register_tokens")
    state.pop("mask_token", None)
    return {re.sub(r"\.mlp\.w(12|3)\.", _swiglu, k): v for k, v in state.items()}


def _swiglu(match: re.Match[str]) -> str:
    return ".mlp.fc1." if match[1] == "12" else ".mlp.fc2."


def _as_split_there(state: dict[str, Any], network: Any) -> dict[str, Any]:
    """Join or part what timm's layer keeps together or apart, and name its scales.

    A gated layer has one matrix or two; EVA networks, DINOv3 among them, keep the biases
    of query and value apart and have none for the key. timm leaves biases out that the
    authors trained to zero; only zeros are dropped here.
    """
    import torch

    wanted = network.state_dict().keys()
    out = {}
    for key, value in state.items():
        scale = re.sub(r"\.ls(\d)\.gamma$", r".gamma_\1", key)
        packed = key.replace(".mlp.fc1_g.", ".mlp.fc1.")
        if key in wanted:
            out[key] = value
        elif scale in wanted:
            out[scale] = value
        elif packed in wanted:
            out[packed] = torch.cat([value, state[key.replace("fc1_g", "fc1_x")]])
        elif ".mlp.fc1_x." in key and key.replace("fc1_x", "fc1") in wanted:
            continue
        elif key.endswith("attn.qkv.bias") and key.replace("qkv.bias", "q_bias") in wanted:
            query, _, values = value.chunk(3)
            out[key.replace("qkv.bias", "q_bias")] = query
            out[key.replace("qkv.bias", "v_bias")] = values
        elif not (key.endswith("attn.qkv.bias") and (value.is_meta or not value.any())):
            out[key] = value
    return out
