"""Low-rank updates: frozen layers with a trained product of two thin matrices beside each.

The queries, keys, values and outputs of attention (or all layers) get an update of low
rank that starts at zero. On convolutional networks the same is done to linear
layers and convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pathotune.models.tuning._delta import Delta, Setting, from_block, serves_all, setting

if TYPE_CHECKING:
    from pathotune.models.tuning._trunk import Trunk

LABEL = "Low-rank updates (LoRA)"
ABOUT = "Thin trained matrices beside the frozen layers."
_ATTENTION = ("qkv", "q_proj", "k_proj", "v_proj", "proj")


@dataclass(frozen=True)
class Config:
    """Settings of the updates."""

    rank: int = setting(8, "Rank", "How thin the matrices are.", 1, 256)
    alpha: float = setting(16.0, "Strength", "The update counts alpha / rank.", 0.1, 1000.0)
    layers: str = setting(
        "attention", "Layers", "Attention only, or all layers.", choices=("attention", "all")
    )
    block: int = from_block()


serves = serves_all


def build(trunk: Trunk, config: Config, setting: Setting) -> Delta:
    """Return low-rank updates of a trunk's layers.

    Notes
    -----
    Hu et al., LoRA, ICLR 2022, section 4.1.
    """
    from torch import nn

    from pathotune.models.tuning._layers import LowRank

    stages = trunk.kind == "stages"
    first = 0 if stages else min(setting.first(config.block, trunk.depth), trunk.depth - 1)
    delta = Delta(trunk, first)
    delta.rate = 5e-4
    roots = (
        [("stage", trunk.network)]
        if stages
        else [(str(level), trunk.block(level)) for level in range(first, trunk.depth)]
    )
    attention = config.layers == "attention" and any(
        name.endswith(_ATTENTION) for _, root in roots for name, _ in root.named_modules()
    )
    for root_name, root in roots:
        for name, layer in list(root.named_modules()):
            thin = isinstance(layer, nn.Linear) or (type(layer) is nn.Conv2d and layer.groups == 1)
            leaf = name.rpartition(".")[2]
            if not thin or (attention and leaf not in _ATTENTION):
                continue
            update = LowRank(layer, config.rank, config.alpha)
            key = f"{root_name}.{name}".replace(".", "_")
            delta.modules[key] = nn.ParameterDict({"a": update.a, "b": update.b})
            _replace(delta, root, name, layer, update)
    return delta


def _replace(delta: Delta, root: Any, name: str, layer: Any, update: Any) -> None:
    """Put an update in a layer's place until the delta is detached."""
    parent_name, _, leaf = name.rpartition(".")
    parent = root.get_submodule(parent_name)
    setattr(parent, leaf, update)
    delta.undo(lambda: setattr(parent, leaf, layer))
