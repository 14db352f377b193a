"""What can be set about a training, whatever the method; the defaults need no touching."""

from __future__ import annotations

from dataclasses import dataclass

from pathotune.models.tuning._delta import setting


@dataclass(frozen=True)
class Training:
    """Settings of the training that all tuning methods share."""

    epochs: int = setting(
        0,
        "Passes",
        "How often the marked tissue is seen; 0: 15 on a CPU, 40 on a graphics card.",
        0,
        1000,
    )
    batch: int = setting(16, "Tiles a step", "Tiles that are learnt from together.", 1, 512)
    speed: float = setting(
        1.0, "Speed", "Multiplies the learning rate that the method asks for.", 0.001, 100.0
    )
    repeats: int = setting(
        3,
        "Repeats",
        "How often regions are kept apart and the rest is learnt, for the verdict.",
        0,
        20,
    )
    patience: int = setting(
        5, "Patience", "Passes without progress on the regions kept apart before it stops.", 1, 1000
    )
    views: int = setting(
        2, "Extra views", "Turned and recoloured copies that are kept beside each tile.", 0, 16
    )
    recolour: float = setting(
        0.15, "Stain variation", "How far the amounts of the stains are varied.", 0.0, 0.6
    )
    limit: int = setting(
        0,
        "Most tiles",
        "Tiles that are learnt from at most; 0: 96 on a CPU, 1024 on a graphics card.",
        0,
        100_000,
    )
