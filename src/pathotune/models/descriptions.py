"""Reads what a publisher wrote beside a weight file, and takes only plain numbers from it.

timm and transformers keep a config.json and perhaps a preprocessor_config.json next to
the weights. They tell the architecture and the normalisation, which the weights alone
do not. The files are a stranger's: names and numbers are taken, nothing that could
make a library load or fetch something.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ARGUMENTS = {
    *("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "init_values"),
    *("reg_tokens", "no_embed_class", "class_token", "global_pool", "pre_norm", "qkv_bias"),
}


def beside(file: Path) -> dict[str, Any]:
    """Return what config.json and preprocessor_config.json beside a file say, joined."""
    told: dict[str, Any] = {}
    for name in ("config.json", "preprocessor_config.json"):
        try:
            raw = json.loads((file.parent / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        told |= raw if isinstance(raw, dict) else {}
    return told


def normalisation(told: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return (mean, std) of pixels from 0 to 1, or (None, None) when they are not told."""
    timm_cfg = told.get("pretrained_cfg")
    cfg = timm_cfg if isinstance(timm_cfg, dict) else {}
    pair = (cfg.get("mean", told.get("image_mean")), cfg.get("std", told.get("image_std")))
    for values in pair:
        if not isinstance(values, list) or len(values) != 3:
            return None, None
        if not all(isinstance(v, int | float) for v in values):
            return None, None
    return tuple(map(float, pair[0] or ())), tuple(map(float, pair[1] or ()))


def architecture(told: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the architecture that a timm description names; only plain numbers are taken."""
    name, args = told.get("architecture"), told.get("model_args", {})
    if not isinstance(name, str) or not isinstance(args, dict):
        return []
    plain = {k: v for k, v in args.items() if k in _ARGUMENTS and isinstance(v, int | float | str)}
    return [(name, plain)]
