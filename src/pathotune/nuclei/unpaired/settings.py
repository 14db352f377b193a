"""How long and how large: the settings of a learning, with what they cost."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Settings:
    """How nuclei are learnt.

    Attributes
    ----------
    tile_px : int
        Side of a field; a multiple of 16.
    batch, micro : int
        Fields a step, and how many of them at a time (a cancel waits for these).
    steps : int
        Steps of the first stage.
    rate : float
        Learning rate of the first stage.
    minutes : float
        The learning ends with the best so far after this long, however many steps it took.
    judge_every, judged : int
        Steps between two judgements, and fields of each colour that are judged.
    adversarial : bool
        Also learn to translate between masks and real tissue.
    warm, translating, second : int
        Steps in which G learns the formula; in which all four learn; and in which a fresh S
        learns from a slower G.
    gan_rate : float
        Learning rate of the adversarial stages.
    large : bool
        Wide G and D, for a graphics card.
    seed : int
    device : str
    """

    tile_px: int = 128
    batch: int = 4
    micro: int = 4
    steps: int = 1200
    rate: float = 1e-3
    minutes: float = 10.0
    judge_every: int = 100
    judged: int = 6
    adversarial: bool = False
    warm: int = 200
    translating: int = 1500
    second: int = 800
    gan_rate: float = 2e-4
    large: bool = False
    seed: int = 0
    device: str = "cpu"

    @staticmethod
    def for_device(device: str, adversarial: bool, minutes: float, seed: int = 0) -> Settings:
        """Return the settings for a device ("cpu", "cuda", ...)."""
        plain = Settings(adversarial=adversarial, minutes=minutes, seed=seed, device=device)
        if not device.startswith("cuda"):
            return plain
        return replace(
            plain,
            tile_px=256,
            batch=8,
            micro=8,
            steps=3000,
            warm=500,
            translating=8000,
            second=4000,
            large=True,
        )
