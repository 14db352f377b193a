"""CDTM: a bank of transfer matrices behind a frozen network, mixed for each image.

An image is compared with K centres; by its likeness to them K trained matrices are
mixed to one, which transforms the image's tokens. Channel mode mixes within a
token and keeps the map sharp. Token mode mixes places, so its map is only as sharp as
a tile. In stage 2 everything learns at a tenth of the rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pathotune.models.tuning._delta import Delta, Setting, Stage, from_block, serves_all, setting

if TYPE_CHECKING:
    from pathotune.models.tuning._trunk import Trunk

LABEL = "Cluster-wise transfer (CDTM)"
ABOUT = "A bank of trained matrices behind the network, mixed for each image; fast on a CPU."


@dataclass(frozen=True)
class Config:
    """Settings of the module and its stages."""

    mode: str = setting(
        "channel", "Mode", "Mix channels of a token, or places.", choices=("channel", "token")
    )
    clusters: int = setting(20, "Centres", "K; the first publication used 300.", 2, 1000)
    width: int = setting(256, "Width", "Channels that are mixed, in channel mode.", 4, 1024)
    residual: bool = setting(
        True,
        "Start at the frozen network",
        "Adds to the frozen tokens instead of replacing them; off is as published.",
    )
    temperature: float = setting(
        10.0, "Sharpness", "Of the likeness to the centres; 1 is as published.", 0.1, 100.0
    )
    staged: bool = setting(False, "Second stage", "Then all weights learn at a tenth of the rate.")
    rate: float = setting(1e-4, "Learning rate", "Of stage 1.", 1e-7, 1e-1)
    block: int = from_block()


serves = serves_all


class _Clustered(Delta):
    def finish(self, x: Any) -> Any:
        return self.modules["module"](x)


def build(trunk: Trunk, config: Config, setting: Setting) -> Delta:
    """Return the module for a trunk.

    Notes
    -----
    Li et al., CDTM with staged fine-tuning, IEEE JBHI 2023 (token mode, K = 300), and CLAdapter,
    NeurIPS 2025 (channel mode, K = 20, 256 channels). Departures: a learnable temperature of
    the likeness, without which the mixture is nearly uniform, and the residual start.
    """
    from pathotune.models.tuning._clusters import Clusters

    last = trunk.depth - 1
    first = 0 if trunk.kind == "stages" else min(setting.first(config.block, trunk.depth), last)
    delta = _Clustered(trunk, first if config.staged else trunk.depth)
    delta.modules["module"] = Clusters(
        trunk.channels,
        trunk.tokens**2,
        config.clusters,
        config.width if config.mode == "channel" else 0,
        config.residual,
        config.temperature,
    )
    delta.still = config.residual
    delta.direct = not config.residual
    delta.rate = config.rate
    delta.drops = config.mode == "channel"
    if config.staged:
        delta.opens = first
        delta.stages = (Stage("module and head"), Stage("everything", 0.1, everything=True))
    return delta
