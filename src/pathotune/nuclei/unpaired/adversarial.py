"""Later stages: G learns to paint like the slide, S to read masks off it, critics judge both.

Three parts follow one another: G first copies the formula, so that nuclei lie in their masks
from the start; then all four networks learn together; then a fresh S learns from a G that has
grown up and goes on at a quarter of the speed. A step collects all gradients first, piece by
piece, and changes the networks only at its end, so it can be left at any time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pathotune.events import Event, Progress
from pathotune.models import runtime
from pathotune.nuclei.unpaired import critics, painter, pairs
from pathotune.nuclei.unpaired.augment import Adaptive
from pathotune.nuclei.unpaired.losses import Weights, cycle, fooled, nuclei_loss, told_apart
from pathotune.nuclei.unpaired.rendered import WARM, Averaged, exam, judged

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from numpy.typing import NDArray

    from pathotune.nuclei.unpaired.estimate import Estimate
    from pathotune.nuclei.unpaired.reader import Reader
    from pathotune.nuclei.unpaired.settings import Settings

COPY, TRANSLATE, SECOND, FRESH = 3, 4, 5, 6
LAZY = 16  # steps from one look at the critic's steepness to the next
SLOWER = 0.25  # G's speed in the second part
ANEW = 8  # masks that G paints for a judgement
WORDS = {
    COPY: "Learning to paint",
    TRANSLATE: "Learning to paint and to read",
    SECOND: "Reading anew",
}


class Networks:
    """The four, each of a size that fits the device.

    Parameters
    ----------
    reader : Reader
        S as the first stage left it.
    settings : Settings
    """

    def __init__(self, reader: Reader, settings: Settings) -> None:
        device = torch.device(settings.device)
        wide = settings.large
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed + 1)
            g = painter.Painter(painter.LARGE_WIDTHS if wide else painter.WIDTHS)
            d_g = critics.TissueCritic(critics.LARGE_WIDTHS if wide else critics.WIDTHS)
            d_s = critics.MaskCritic()
        self.reader = Averaged(reader.to(device))
        self.painter = Averaged(g.to(device))
        self.tissue_critic = d_g.to(device)
        self.mask_critic = d_s.to(device)

    @property
    def judges(self) -> list[nn.Module]:
        """The critics."""
        return [self.tissue_critic, self.mask_critic]

    @property
    def pupils(self) -> list[nn.Module]:
        """S and G."""
        return [self.reader.network, self.painter.network]


class TranslationStage:
    """Trains all four, in three parts.

    Parameters
    ----------
    reader : Reader
        As the first stage left it.
    estimate : Estimate
    settings : Settings
    weights : Weights, optional
    """

    name = "translated"

    def __init__(
        self,
        reader: Reader,
        estimate: Estimate,
        settings: Settings,
        weights: Weights | None = None,
    ) -> None:
        self.estimate, self.settings = estimate, settings
        self.weights = weights or Weights()
        self.device = torch.device(settings.device)
        self.nets = Networks(reader, settings)
        self.adaptive = Adaptive()
        rate = settings.gan_rate
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "reader": torch.optim.Adam(self.nets.reader.network.parameters(), rate, (0.5, 0.99)),
            "painter": torch.optim.Adam(self.nets.painter.network.parameters(), rate, (0.5, 0.99)),
            "tissue": torch.optim.Adam(self.nets.tissue_critic.parameters(), rate, (0.0, 0.99)),
            "mask": torch.optim.Adam(self.nets.mask_critic.parameters(), rate, (0.0, 0.99)),
        }
        self.step = 0
        self.loss = math.nan
        self.parts: dict[str, float] = {}
        self._exam: list[tuple[NDArray[Any], NDArray[Any]]] | None = None

    @property
    def steps(self) -> int:
        """Steps of all three parts."""
        s = self.settings
        return s.warm + s.translating + s.second

    @property
    def part(self) -> int:
        """The part that the next step belongs to."""
        s = self.settings
        if self.step < s.warm:
            return COPY
        return TRANSLATE if self.step < s.warm + s.translating else SECOND

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What is to be saved."""
        n = self.nets
        return {
            "reader": n.reader.network,
            "reader_mean": n.reader.mean,
            "painter": n.painter.network,
            "painter_mean": n.painter.mean,
            "tissue": n.tissue_critic,
            "mask": n.mask_critic,
        }

    def numbers(self) -> dict[str, Any]:
        """Return plain numbers that are to be saved."""
        return {"step": self.step, "p": self.adaptive.p}

    def restore(self, numbers: dict[str, Any]) -> None:
        """Take plain numbers back."""
        self.step, self.adaptive.p = int(numbers["step"]), float(numbers["p"])

    def advance(self) -> Generator[Event, None, None]:
        """Take one step; closed between its parts, it has changed nothing.

        Yields
        ------
        Progress
            After every part of the batch.
        """
        s, part = self.settings, self.part
        if part == SECOND and self.step == s.warm + s.translating:
            self._fresh()
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        self.parts = {}
        answers: list[Tensor] = []
        for at in range(0, s.batch, s.micro):
            count = min(s.micro, s.batch - at)
            key = (s.seed, part, self.step, at)
            share = count / s.batch
            with runtime.limited_threads():
                if part == COPY:
                    self.copy(count, key, share)
                else:
                    answers.append(self.gradients(count, key, share))
            yield Progress(self.step, self.steps, WORDS[part])
        self._apply(part, answers)

    def copy(self, count: int, key: tuple[int, ...], share: float) -> None:
        """Collect G's gradients for painting as the formula does."""
        data = pairs.batch(self.estimate, self.settings.tile_px, count, key, recolour=0.0)
        assert data.painted is not None
        z = self._codes(count, key, 0)
        made = self.nets.painter.network(self._on(data.masks), z)
        loss = self.weights.cycle * cycle(made, self._on(data.painted))
        (loss * share).backward()  # type: ignore[no-untyped-call]
        self._note("copy", loss, share)

    def gradients(self, count: int, key: tuple[int, ...], share: float) -> Tensor:
        """Collect the gradients of all four; return the critic's answers to real tissue.

        Parameters
        ----------
        count : int
            Fields.
        key : tuple of int
            What is drawn for this part of the batch.
        share : float
            Of the batch.
        """
        nets, w, size = self.nets, self.weights, self.settings.tile_px
        s, g = nets.reader.network, nets.painter.network
        data = pairs.batch(self.estimate, size, count, key, painted=False)
        x, wanted = self._on(data.masks), self._on(data.wanted)
        y = self._on(pairs.real(self.estimate, size, count, (*key, 1)))
        chance = torch.Generator().manual_seed(_seed((*key, 2)))
        with _still(nets.judges):  # the critics only pass gradients on
            made = g(x, self._codes(count, key, 0))
            mask_back, dense = s(made)
            read = s(y)[0]
            tissue_back = g(read, self._codes(count, key, 1))
            terms = {
                "gan_g": fooled(nets.tissue_critic(self.adaptive.change(made, chance))),
                "gan_s": fooled(nets.mask_critic(read)),
                "cycle_x": w.cycle * cycle(mask_back, x),
                "cycle_y": w.cycle * cycle(tissue_back, y),
                "nuclei": w.nuclei * nuclei_loss(dense, wanted),
            }
            (torch.stack(list(terms.values())).sum() * share).backward()  # type: ignore[no-untyped-call]
        for name, value in terms.items():
            self._note(name, value, share)
        return self._critics(x, y, made.detach(), read.detach(), chance, share)

    def _critics(
        self,
        x: Tensor,
        y: Tensor,
        made: Tensor,
        read: Tensor,
        chance: torch.Generator,
        share: float,
    ) -> Tensor:
        """Collect the critics' gradients; what was made for the others is used, not followed."""
        nets = self.nets
        answer = nets.tissue_critic(self.adaptive.change(y, chance))
        other = nets.tissue_critic(self.adaptive.change(made, chance))
        tissue = told_apart(answer, other)
        mask = told_apart(nets.mask_critic(x), nets.mask_critic(read))
        loss = tissue + mask
        if self.step % LAZY == 0:
            # asked for rarely, so it counts for all the steps between
            changed = self.adaptive.change(y, chance)
            steep = critics.steepness(nets.tissue_critic, changed)
            loss = loss + self.weights.steepness / 2 * LAZY * steep
            self._note("steepness", steep, share)
        (loss * share).backward()  # type: ignore[no-untyped-call]
        self._note("critic_tissue", tissue, share)
        self._note("critic_mask", mask, share)
        seen: Tensor = answer.detach()
        return seen

    def _apply(self, part: int, answers: list[Tensor]) -> None:
        rate = self.settings.gan_rate * min(1.0, (self.step + 1) / WARM)
        rates = dict.fromkeys(self.optimisers, rate)
        active = ["painter"] if part == COPY else list(self.optimisers)
        if part == COPY:
            rates["painter"] = 5 * rate
        elif part == SECOND:
            # S has everything to learn again; the others are nearly done
            rates["painter"] = rates["tissue"] = SLOWER * rate
            rates["reader"] = 5 * rate
        for name in active:
            for group in self.optimisers[name].param_groups:
                group["lr"] = rates[name]
        for pupil in self.nets.pupils:
            torch.nn.utils.clip_grad_norm_(pupil.parameters(), 20.0)
        for name in active:
            self.optimisers[name].step()
        if answers:
            self.adaptive.follow(torch.cat(answers))
        self.step += 1
        self.nets.painter.follow(self.step)
        if part != COPY:
            self.nets.reader.follow(self.step)
        self.loss = sum(self.parts.values())

    def _fresh(self) -> None:
        """Let S forget everything, its optimiser too."""
        from pathotune.nuclei.unpaired.reader import Reader

        old = self.nets.reader.network
        assert isinstance(old, Reader)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed + FRESH)
            new = Reader(old.widths, old.pyramid)
        old.load_state_dict(new.state_dict())
        self.nets.reader.mean.load_state_dict(new.state_dict())
        self.optimisers["reader"].state.clear()

    def judge(self) -> dict[str, float]:
        """Judge S on painted fields kept apart and on what G paints of masks kept apart.

        Returns
        -------
        dict
            As of the first stage, and `aji_made`; `score` is the mean of all three AJI.
        """
        mean = self.nets.reader.mean
        if self._exam is None:
            self._exam = exam(self.estimate, self.settings)
        told = judged(mean, self._exam, self.estimate.mpp, self.device)
        made = judged(mean, self.made(ANEW), self.estimate.mpp, self.device)
        told["aji_made"] = made["score"]
        told["score"] = (2 * told["score"] + told["aji_made"]) / 3
        return told

    @torch.no_grad()
    def made(self, count: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Return what G's mean paints of masks kept apart, float32 (3, s, s), and their nuclei."""
        s = self.settings
        key = (s.seed, FRESH, 0)
        data = pairs.batch(self.estimate, s.tile_px, count, key, painted=False)
        with runtime.limited_threads():
            fields = self.nets.painter.mean(self._on(data.masks), self._codes(count, key, 0))
        return list(zip(fields.cpu().numpy(), data.instances, strict=True))

    def _codes(self, count: int, key: tuple[int, ...], which: int) -> Tensor:
        chance = torch.Generator().manual_seed(_seed((*key, 3, which)))
        return torch.randn((count, painter.CODE), generator=chance).to(self.device)

    def _on(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _note(self, name: str, value: Tensor, share: float) -> None:
        self.parts[name] = self.parts.get(name, 0.0) + float(value.detach()) * share


class _still:
    """Keeps networks from collecting gradients for a while."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        self.numbers = [p for network in networks for p in network.parameters()]

    def __enter__(self) -> None:
        for number in self.numbers:
            number.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for number in self.numbers:
            number.requires_grad_(True)


def _seed(key: tuple[int, ...]) -> int:
    """Return one number of a key."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])
