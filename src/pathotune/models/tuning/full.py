"""Full fine-tuning: the network's own weights learn, all of them or from one block on.

The most that can be changed, and the most that can be spoilt with few regions. The
bundle holds the changed weights and is as large as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathotune.models.tuning._delta import Delta, Setting, Stage, from_block, serves_all, setting

if TYPE_CHECKING:
    from pathotune.models.tuning._trunk import Trunk

LABEL = "Full fine-tuning"
ABOUT = "All weights learn; needs much material, and the model file is large."


@dataclass(frozen=True)
class Config:
    """Settings of full fine-tuning."""

    rate: float = setting(1e-5, "Learning rate", "Of the network's own weights.", 1e-8, 1e-2)
    block: int = from_block()


serves = serves_all


def build(trunk: Trunk, config: Config, setting: Setting) -> Delta:
    """Return a delta whose trained tensors are the network's own."""
    delta = open_delta(trunk, config.block, setting)
    delta.rate = config.rate
    delta.stages = (Stage("everything", everything=True),)
    return delta


def open_delta(trunk: Trunk, block: int, setting: Setting) -> Delta:
    """Return a delta that opens a trunk's weights in its stages with `everything`."""
    last = trunk.depth - 1
    first = 0 if trunk.kind == "stages" else min(setting.first(block, trunk.depth), last)
    delta = Delta(trunk, first)
    delta.opens = first
    return delta
