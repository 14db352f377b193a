"""Staged fine-tuning: the head first, then everything at a tenth of the rate.

A head that knows nothing yet would push large, random changes through the network. So
it is trained on frozen features first; its best weights are put back, and only then
do the network's own weights follow, slowly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathotune.models.tuning._delta import Delta, Setting, Stage, from_block, serves_all, setting
from pathotune.models.tuning.full import open_delta

if TYPE_CHECKING:
    from pathotune.models.tuning._trunk import Trunk

LABEL = "Staged fine-tuning"
ABOUT = "Head first, then all weights at a tenth of the rate; the model file is large."


@dataclass(frozen=True)
class Config:
    """Settings of staged fine-tuning."""

    rate: float = setting(1e-4, "Learning rate", "Of stage 1; stage 2 has a tenth.", 1e-8, 1e-2)
    block: int = from_block()


serves = serves_all


def build(trunk: Trunk, config: Config, setting: Setting) -> Delta:
    """Return a delta that trains in two stages.

    Notes
    -----
    The staged fine-tuning of CDTM (IEEE JBHI 2023) without its module.
    """
    delta = open_delta(trunk, config.block, setting)
    delta.rate = config.rate
    delta.stages = (Stage("head"), Stage("everything", 0.1, everything=True))
    return delta
