"""The head alone: the control that every tuning method has to beat.

The fast model's weights are trained further on the frozen tokens and nothing
else changes. A method that does no better than this has learnt nothing about the
tissue that the frozen network did not already show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathotune.models.tuning._delta import Delta, Setting, serves_all

if TYPE_CHECKING:
    from pathotune.models.tuning._trunk import Trunk

LABEL = "Head only (control)"
ABOUT = "Trains the fast model further on frozen tokens; for comparison."


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


serves = serves_all


def build(trunk: Trunk, config: Config, setting: Setting) -> Delta:
    """Return a delta that changes nothing."""
    return Delta(trunk)
