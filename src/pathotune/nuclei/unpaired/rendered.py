"""First stage: S learns from masks painted by formula, in minutes and without a graphics card.

A field, its painting and what is wanted of it are drawn anew for every step, so nothing can
be learnt by heart. A running mean of the weights (Polyak & Juditsky 1992) is what is judged,
on fields that are kept apart, in the slide's colours and in others; the best one is kept.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pathotune.events import Event, Progress
from pathotune.models import runtime
from pathotune.nuclei.scores import scores
from pathotune.nuclei.unpaired import pairs
from pathotune.nuclei.unpaired.dense import separate
from pathotune.nuclei.unpaired.losses import Weights, cycle, nuclei_loss

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from pathotune.nuclei.unpaired.estimate import Estimate
    from pathotune.nuclei.unpaired.reader import Reader
    from pathotune.nuclei.unpaired.settings import Settings

TRAIN, JUDGE, WARM = 1, 2, 20
LEAST_UM2 = 8.0
AVERAGED = 0.99

Tiles = list[tuple["NDArray[Any]", "NDArray[Any]"]]


class Averaged:
    """A network and the running mean of its weights."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.mean = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Take the weights after `step` steps in; early on the mean is short."""
        keep = min(AVERAGED, (1 + step) / (10 + step))
        for slow, now in zip(self.mean.parameters(), self.network.parameters(), strict=True):
            slow.lerp_(now, 1 - keep)


class RenderedStage:
    """Trains a reader on painted masks, or on tissue that a person outlined nuclei on.

    Parameters
    ----------
    reader : Reader
    estimate : Estimate
    settings : Settings
    tiles : list of (uint8 (h, w, 3), int (h, w)), optional
        Outlined tissue at the estimate's um/px. With it these are learnt from, and painted
        masks make up `mixed` of each batch.
    mixed : float
    """

    name = "rendered"

    def __init__(
        self,
        reader: Reader,
        estimate: Estimate,
        settings: Settings,
        tiles: Tiles | None = None,
        mixed: float = 0.0,
    ) -> None:
        self.estimate, self.settings, self.tiles, self.mixed = estimate, settings, tiles, mixed
        self.device = torch.device(settings.device)
        self.reader = Averaged(reader.to(self.device))
        self.optimiser = torch.optim.AdamW(reader.parameters(), settings.rate, weight_decay=1e-4)
        self.step = 0
        self.loss = math.nan
        self._exam: list[tuple[NDArray[Any], NDArray[Any]]] | None = None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What is to be saved."""
        return {"reader": self.reader.network, "mean": self.reader.mean}

    @property
    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """What is to be saved."""
        return {"reader": self.optimiser}

    def numbers(self) -> dict[str, Any]:
        """Return plain numbers that are to be saved."""
        return {"step": self.step}

    def restore(self, numbers: dict[str, Any]) -> None:
        """Take plain numbers back."""
        self.step = int(numbers["step"])

    def advance(self) -> Generator[Event, None, None]:
        """Take one step; closed between its parts, it has changed nothing.

        Yields
        ------
        Progress
            After every part of the batch.
        """
        s = self.settings
        key = (s.seed, TRAIN, self.step)
        self.reader.network.train()
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for at in range(0, s.batch, s.micro):
            count = min(s.micro, s.batch - at)
            data = self._batch(count, (*key, at))
            with runtime.limited_threads():
                loss = self._loss(data) * (count / s.batch)
                loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            yield Progress(self.step, s.steps, "Learning from painted nuclei")
        for group in self.optimiser.param_groups:
            group["lr"] = s.rate * min(1.0, (self.step + 1) / WARM)
        torch.nn.utils.clip_grad_norm_(self.reader.network.parameters(), 5.0)
        self.optimiser.step()
        self.step += 1
        self.loss = total
        self.reader.follow(self.step)

    def _batch(self, count: int, key: tuple[int, ...]) -> pairs.Batch:
        size = self.settings.tile_px
        if self.tiles is None:
            return pairs.batch(self.estimate, size, count, key)
        if np.random.default_rng((*key, 7)).random() < self.mixed:
            return pairs.batch(self.estimate, size, count, key)
        return pairs.annotated(self.tiles, size, count, key)

    def _loss(self, data: pairs.Batch) -> Tensor:
        assert data.painted is not None
        weights = Weights()
        mask, dense = self.reader.network(torch.from_numpy(data.painted).to(self.device))
        wanted = torch.from_numpy(data.wanted).to(self.device)
        loss = weights.nuclei * nuclei_loss(dense, wanted)
        if data.drawn:
            loss = loss + weights.cycle * cycle(mask, torch.from_numpy(data.masks).to(self.device))
        return loss

    def judge(self) -> dict[str, float]:
        """Judge the running mean on fields that are kept apart.

        Returns
        -------
        dict
            aji and dice in the slide's colours (same) and in others (shifted), and `score`,
            the mean of both AJI.
        """
        if self._exam is None:
            self._exam = exam(self.estimate, self.settings)
        return judged(self.reader.mean, self._exam, self.estimate.mpp, self.device)


def exam(estimate: Estimate, settings: Settings) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return painted fields, float32 (3, s, s), and their nuclei; the second half recoloured."""
    found = []
    for number, colour in enumerate((0.0, 2.0)):
        data = pairs.batch(
            estimate,
            settings.tile_px,
            settings.judged,
            (settings.seed, JUDGE, number),
            True,
            colour,
        )
        assert data.painted is not None
        found += list(zip(data.painted, data.instances, strict=True))
    return found


def judged(
    reader: nn.Module,
    fields: list[tuple[NDArray[Any], NDArray[Any]]],
    mpp: float,
    device: torch.device,
) -> dict[str, float]:
    """Judge a reader on fields, the first half in the slide's colours, the second in others."""
    rows = []
    for image, truth in fields:
        found = read(reader, image, mpp, device)
        rows.append(scores(found, truth))
    half = len(rows) // 2
    parts = {"same": rows[:half], "shifted": rows[half:]}
    told = {
        f"{key}_{part}": float(np.mean([r[key] for r in some]))
        for part, some in parts.items()
        for key in ("aji", "dice")
    }
    return told | {"score": (told["aji_same"] + told["aji_shifted"]) / 2}


@torch.no_grad()
def read(
    reader: nn.Module, image: NDArray[Any], mpp: float, device: torch.device
) -> NDArray[np.int32]:
    """Return the nuclei, int32 (h, w), that a reader finds in an image (3, h, w) in -1..1."""
    reader.eval()
    with runtime.limited_threads():
        dense = reader(torch.from_numpy(image[None]).to(device))[1][0].sigmoid().cpu().numpy()
    labels: NDArray[np.int32] = separate(dense[0], dense[1], LEAST_UM2 / mpp**2).labels
    return labels
