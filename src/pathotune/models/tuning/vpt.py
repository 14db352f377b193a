"""Visual prompt tuning: learned tokens beside the image's own.

The network stays as it is and reads a few extra tokens that are trained for the
task: before its first changed block only (shallow), or fresh ones before every
block (deep).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pathotune.models.tuning._delta import Delta, Setting, from_block, setting
from pathotune.models.tuning._prompting import Prompted, needs_tokens

if TYPE_CHECKING:
    from pathotune.models.tuning._trunk import State, Trunk

LABEL = "Visual prompts (VPT)"
ABOUT = "Learned tokens beside the image's own, before every block."


@dataclass(frozen=True)
class Config:
    """Settings of the prompts."""

    prompts: int = setting(20, "Prompts", "Learned tokens before a block.", 1, 200)
    depth: str = setting(
        "deep",
        "Depth",
        "Fresh prompts before every block, or one set.",
        choices=("deep", "shallow"),
    )
    dropout: float = setting(0.1, "Dropout", "Share of prompt values left out in training.", 0, 0.9)
    block: int = from_block()


serves = needs_tokens


class _Visual(Prompted):
    deep: bool = True

    def start(self, state: State) -> Any:
        return None

    def fresh(self, level: int, x: Any, context: Any) -> Any:
        if level == self.first or self.deep:
            return self.modules["visual"](level - self.first, len(x))
        return None


def build(trunk: Trunk, config: Config, setting: Setting) -> Delta:
    """Return prompts for a trunk.

    Notes
    -----
    Jia et al., Visual Prompt Tuning, ECCV 2022, section 3.2.
    """
    from pathotune.models.tuning._layers import Prompts

    delta = _Visual(trunk, setting.first(config.block, trunk.depth))
    delta.deep = config.depth == "deep"
    levels = trunk.depth - delta.first if delta.deep else 1
    delta.modules["visual"] = Prompts(
        levels, config.prompts, trunk.width, delta.patch, config.dropout
    )
    delta.take(config.prompts)
    return delta
