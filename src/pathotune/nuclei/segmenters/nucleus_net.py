"""A small network that has seen outlined, rendered and merely looked-at tissue.

Ships with its weights. It works at 0.5 um/px whatever the scan, and its answer
does not depend on the slide's stains, which are estimated for the measurements
alone. How it was trained and how far it can be trusted is told by its card.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

from pathotune import places
from pathotune.events import PathotuneError
from pathotune.nuclei.net.outlines import Cut, outlines
from pathotune.nuclei.stains import Stains, estimate, look

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.nuclei.net.runner import Runner
    from pathotune.nuclei.segmenter import Found
    from pathotune.slides.slide import Slide
    from pathotune.slides.tissue import TissueMask

LABEL = "Nucleus network"
ABOUT = "A small network trained on outlined, rendered and open tissue. Its weights ship with it."


@dataclass(frozen=True)
class Config:
    """Which network, where it runs, and its bars.

    Attributes
    ----------
    weights : Path, optional
        Another network's weights; else the card's.
    device : str
        As `runtime.pick_device` takes it.
    mpp : float
        um/px it was trained at.
    cut : Cut
    """

    weights: Path | None = None
    device: str = "auto"
    mpp: float = 0.5
    cut: Cut = field(default_factory=Cut)


class NucleusNet:
    """The segmenter, with its network ready to run.

    Parameters
    ----------
    runner : Runner
    weights : Path
        What the runner runs; its bytes are part of the key.
    stains : Stains
        For the measurements.
    config : Config
    notes : tuple of str
    """

    halo_um = 48.0

    def __init__(
        self, runner: Runner, weights: Path, stains: Stains, config: Config, notes: tuple[str, ...]
    ) -> None:
        self.runner, self.stains, self.config, self.notes = runner, stains, config, notes
        self.mpp = config.mpp
        told = hashlib.sha256(weights.read_bytes())
        told.update(repr((astuple(config.cut), config.mpp, astuple(stains))).encode())
        self.key = "nucleus_net-" + told.hexdigest()[:16]

    def segment(self, pixels: NDArray[Any]) -> Found:
        """Find the nuclei of a field, uint8 (h, w, 3) at `mpp`."""
        return outlines(self.runner.maps(pixels), self.mpp, self.config.cut)


def card() -> dict[str, Any]:
    """Return the shipped network's card: um/px, licence, data and figures."""
    path = places.resources() / "nuclei" / "nucleus_net.toml"
    with path.open("rb") as file:
        return tomllib.load(file)


def shipped() -> Path:
    """Return the file of the shipped weights."""
    return places.resources() / "weights" / str(card()["weights"])


def prepare(
    slide: Slide, tissue: TissueMask | None = None, config: Config | None = None
) -> NucleusNet:
    """Load the network and estimate the slide's stains.

    Raises
    ------
    PathotuneError
        um/px is missing, the slide is fluorescence or grey, or the weights are damaged.
    """
    from pathotune.nuclei.net.runner import runner

    slide.need_mpp()
    if slide.kind != "brightfield":
        raise PathotuneError(
            f"This is not a stained slide ({slide.kind}); the network knows stained tissue only.",
            "Open an H&E slide.",
        )
    config = config or Config()
    weights = config.weights or shipped()
    stains = estimate(look(slide, config.mpp, tissue))
    notes = (
        ()
        if stains.estimated
        else ("This slide's stains could not be told apart; measurements use the textbook's.",)
    )
    return NucleusNet(runner(weights, config.device), weights, stains, config, notes)
