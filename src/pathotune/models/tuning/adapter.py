"""Bottleneck adapters: a small detour behind every block.

Behind each block a token is squeezed through a few channels and the result added
back. The way up starts at zero, so training begins at the frozen network. Works
on transformers and, channel by channel, on the stages of convolutional networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pathotune.models.tuning._delta import Delta, Setting, from_block, serves_all, setting

if TYPE_CHECKING:
    from pathotune.models.tuning._trunk import Trunk

LABEL = "Adapters"
ABOUT = "A small trained detour behind every block."


@dataclass(frozen=True)
class Config:
    """Settings of the adapters."""

    width: int = setting(48, "Width", "Channels of the detour.", 1, 1024)
    block: int = from_block()


serves = serves_all


class _Adapters(Delta):
    def behind(self, level: int, x: Any) -> Any:
        return self.modules[str(level)](x) if str(level) in self.modules else x


def build(trunk: Trunk, config: Config, setting: Setting) -> Delta:
    """Return adapters for a trunk.

    Notes
    -----
    Houlsby et al., Parameter-Efficient Transfer Learning for NLP, ICML 2019, section 2;
    one adapter a block, behind its MLP, as in Pfeiffer et al., EACL 2021.
    """
    from pathotune.models.tuning._layers import Bottleneck

    if trunk.kind != "stages":
        delta = _Adapters(trunk, setting.first(config.block, trunk.depth))
        delta.rate = 1e-4
        for level in range(delta.first, trunk.depth):
            delta.modules[str(level)] = Bottleneck(trunk.width, config.width)
        return delta
    whole = Delta(trunk, 0)
    whole.rate = 1e-4
    for number, (stage, channels) in enumerate(trunk.stages()):
        detour = Bottleneck(channels, config.width)
        whole.modules[str(number)] = detour
        hook = stage.register_forward_hook(lambda _m, _i, y, d=detour: d(y))
        whole.undo(hook.remove)
    return whole
