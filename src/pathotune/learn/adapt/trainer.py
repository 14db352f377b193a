"""One training of a delta: stages, steps, the regions kept apart, and the best weights.

The head starts as the fast model. Losses weigh classes alike and regions by the root of
their size, on logits that are averaged over neighbours exactly as a map is painted.
After every pass the regions kept apart are judged; the best weights are kept, and
training stops when nothing improves. It yields often enough that a cancel waits for
one small step only.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pathotune.events import Event, Job, Note, Progress
from pathotune.learn.adapt.material import Material, back, smooth
from pathotune.learn.adapt.pace import Pace
from pathotune.learn.adapt.passes import VIEWS, Pass, Run, judged
from pathotune.learn.augment import view
from pathotune.models import runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from numpy.typing import NDArray

    from pathotune.models.tuning._delta import Stage

_BROKEN = (
    "The training lost its footing (a number became infinite); it was stopped and the best "
    "weights so far were put back."
)


class Trainer:
    """Trains the delta of a net on a material, `pace.size` tiles at a time.

    Parameters
    ----------
    material : Material
    stop : callable
        Asked before every small step; True ends the training with the best so far.
    """

    def __init__(self, material: Material, stop: Callable[[], bool] = lambda: False) -> None:
        self.material = material
        self.net = material.net
        self.stop = stop
        self.cuda = self.net.device.startswith("cuda")
        self.pace = Pace(64 if self.cuda else 1, material.plan.batch)
        self._looks = Pace(64 if self.cuda else 2, 64 if self.cuda else 2)  # judging never grows
        self._share = 0

    def start(self, train: NDArray[np.bool_], what: str = "Learning") -> Job[None]:
        """Set the head to the fast model fitted to the regions in `train`."""
        net, delta = self.net, self.net.delta
        assert delta is not None
        delta.modules.eval()
        features = None
        if not delta.still:
            features = yield from self.material.features(what)
        x = self.material.frozen if features is None else features
        head = self.material.probe(train, features)
        mine = x[:, train[self.material.region]].reshape(-1, x.shape[-1]).astype(np.float32)
        spread = mine.std(0) + 1e-3 * float(mine.std()) + 1e-6
        heat = np.float32(head.temperature)
        net.set_head(head.weight / heat, head.bias / heat, mine.mean(0), spread)

    def run(
        self,
        train: NDArray[np.bool_],
        held: NDArray[np.bool_] | None,
        epochs: int,
        seed: int,
        what: str,
        until: list[int] | None = None,
    ) -> Generator[Event | Pass, None, Run]:
        """Train from the start; the net holds the best weights at the end.

        Parameters
        ----------
        train, held : (R,) bool
            Regions that are learnt and that are judged; without `held` the last pass counts.
        epochs : int
            Passes, shared among the method's stages.
        seed : int
        what : str
            Words for the progress.
        until : list of int, optional
            Passes of each stage after which to end, with the same course as without.

        Yields
        ------
        Progress, Note, Pass
        """
        delta, plan = self.net.delta, self.material.plan
        assert delta is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._state = torch.get_rng_state()
        rng = np.random.default_rng(seed)
        yield from self.start(train, what)
        run = Run()
        index = self.material.pieces.of(train)
        weights = self.material.pieces.weights(train)
        length = max(1, round(epochs / len(delta.stages)))
        limits = until if until is not None else [length] * len(delta.stages)
        first = yield from self._passed(run, held, math.nan, 0, 0, what)
        if first is None:
            self.restore(run.state)
            return run
        yield first
        for number, stage in enumerate(delta.stages):
            if not limits[number]:
                continue
            if number:
                self.restore(run.state)  # a stage goes on from the best of the one before
            optimiser, opened = self._optimiser(stage)
            steps = length * max(1, math.ceil(len(index) / plan.batch))
            schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _warm_cosine(steps))
            worse = 0
            for epoch in range(1, limits[number] + 1):
                losses: list[float] = []
                share = (number * length + epoch - 1) / (len(delta.stages) * length)
                for part in _batches(index, plan.batch, rng):
                    loss = yield from self._step(
                        part, weights, len(index), optimiser, opened, rng, share, what
                    )
                    if loss is None:
                        run.stopped = True
                        break
                    losses.append(loss)
                    schedule.step()
                    if not math.isfinite(loss):
                        run.broken = True
                        yield Note(_BROKEN, "warning")
                        break
                if run.broken or run.stopped:
                    break
                mean = float(np.mean(losses))
                found = yield from self._passed(run, held, mean, number, epoch, what)
                if found is None:
                    break
                worse = 0 if run.best == len(run.passes) - 1 else worse + 1
                yield found
                if worse >= plan.patience:
                    break
            if run.broken or run.stopped:
                break
        self.restore(run.state)
        return run

    def _passed(
        self,
        run: Run,
        held: NDArray[np.bool_] | None,
        loss: float,
        stage: int,
        epoch: int,
        what: str,
    ) -> Job[Pass | None]:
        """Judge the net as it is, and keep it if it is the best so far; None: stopped."""
        if not run.state:
            run.state = self.state()
        found: Pass | None = Pass(0, None, None, {}, {})
        if held is not None:
            found = yield from self.judge(held, what)
        if found is None:
            run.stopped = True
            return None
        found.train_loss, found.stage, found.epoch = loss, stage, epoch
        before = [p.loss for p in run.passes if p.loss is not None]
        run.passes.append(found)
        if found.loss is None or not before or found.loss < min(before):
            run.best, run.state = len(run.passes) - 1, self.state()
        return found

    def _optimiser(self, stage: Stage) -> tuple[Any, list[Tensor]]:
        net, delta = self.net, self.net.delta
        assert delta is not None
        if stage.everything:
            delta.open()
        rate = delta.rate * stage.rate * self.material.plan.speed
        plain: list[Tensor] = []
        decayed: list[Tensor] = []
        for name, tensor in net.trained().items():
            (decayed if tensor.ndim == 2 and "prompt" not in name else plain).append(tensor)
        heads = [net.weight, net.bias]
        groups: list[dict[str, Any]] = [
            {"params": heads, "lr": 1e-3 * stage.rate * self.material.plan.speed}
        ]
        groups[0]["weight_decay"] = 0.0
        if decayed:
            groups.append({"params": decayed, "lr": rate, "weight_decay": 1e-2})
        if plain:
            groups.append({"params": plain, "lr": rate, "weight_decay": 0.0})
        return torch.optim.AdamW(groups), [*plain, *decayed, *heads]

    def _step(
        self,
        part: NDArray[np.intp],
        weights: NDArray[np.float32],
        of: int,
        optimiser: Any,
        opened: list[Tensor],
        rng: np.random.Generator,
        share: float,
        what: str,
    ) -> Job[float | None]:
        """Take one optimiser step in small pieces; None: a stop was asked for."""
        assert self.net.delta is not None
        optimiser.zero_grad(set_to_none=True)
        total, at = 0.0, 0
        scale = of / len(part) / (int(self.material.pieces.classes.max()) + 1)
        self.net.delta.modules.train()
        while at < len(part):
            if self.stop():
                return None
            now = part[at : at + self.pace.size]
            begun = time.monotonic()
            try:
                with runtime.limited_threads(), torch.random.fork_rng(devices=[]):
                    torch.set_rng_state(self._state)
                    loss = self._loss(now, weights[now], rng) * scale
                    if loss.requires_grad:
                        loss.backward()  # type: ignore[no-untyped-call]
                    self._state = torch.get_rng_state()
            except (RuntimeError, MemoryError) as error:
                note = self.pace.halve(error, self.net.device)
                optimiser.zero_grad(set_to_none=True)  # half a step may be in it already
                total, at = 0.0, 0
                yield note
                continue
            total += float(loss.detach())
            at += len(now)
            self.pace.took(time.monotonic() - begun, len(now))
            self._share = round(100 * share)
            yield Progress(self._share, 100, what)
        torch.nn.utils.clip_grad_norm_(opened, 1.0)
        optimiser.step()
        return total

    def _mixed(self) -> Any:
        """Return the context of half-precision arithmetic, where the processor has it."""
        kind = "cuda" if self.cuda else "cpu"
        fast = self.cuda or (self.net.device == "cpu" and runtime.has_bf16())
        return torch.autocast(kind, torch.bfloat16) if fast else nullcontext()

    def _loss(
        self, now: NDArray[np.intp], weights: NDArray[np.float32], rng: np.random.Generator
    ) -> Tensor:
        pieces, device = self.material.pieces, self.net.device
        lower, views = self.material.draw(now, rng)

        def turned(a: NDArray[Any]) -> Tensor:
            rows = [view(a[i : i + 1], w) for i, w in enumerate(views)]
            return torch.from_numpy(np.concatenate(rows)).to(device)

        labels, weight = turned(pieces.labels[now]).long(), turned(weights)
        allowed = turned(pieces.allowed[now])
        kept = self._kept(weight, rng)
        with self._mixed():
            features = self.net.upper(lower, kept=kept)
        z = self.net.logits(features.float())
        if kept is not None:
            there = torch.zeros(allowed[0].numel(), dtype=torch.bool, device=device)
            there[kept] = True
            allowed = allowed & there.view(allowed.shape[1:])
            weight = weight * allowed
        if pieces.whole:
            pooled = (z * allowed[..., None]).sum((1, 2)) / allowed.sum((1, 2))[:, None]
            owner = labels.flatten(1).max(1).values
            each = functional.cross_entropy(pooled, owner, reduction="none")
            return (each * weight.sum((1, 2))).sum()
        z = smooth(z, allowed, self.net.card.neighbourhood)
        some = weight > 0
        each = functional.cross_entropy(z[some], labels[some], reduction="none")
        return (each * weight[some]).sum()

    def _kept(self, weight: Tensor, rng: np.random.Generator) -> Tensor | None:
        """Return which patch tokens a step looks at: half of them, the labelled ones first."""
        delta = self.net.delta
        trunk = self.net.trunk
        if delta is None or not delta.drops or delta.first >= trunk.depth:
            return None
        if trunk.grid != (trunk.tokens, trunk.tokens):
            return None
        marked = (weight > 0).any(0).flatten().cpu().numpy()
        order = np.argsort(rng.random(len(marked)) - marked)
        chosen = np.sort(order[: (len(marked) + 1) // 2])
        return torch.from_numpy(chosen).to(self.net.device)

    def judge(self, held: NDArray[np.bool_], what: str = "Judging") -> Job[Pass | None]:
        """Judge the net on the regions in `held`; None: a stop was asked for."""
        assert self.net.delta is not None
        self.net.delta.modules.eval()
        logits = yield from self._logits(held, what)
        return None if logits is None else judged(self.material, held, logits)

    def _logits(
        self, held: NDArray[np.bool_], what: str
    ) -> Job[dict[int, NDArray[np.float32]] | None]:
        """Return the mean logits over the judged views of every token of these regions."""
        pieces, net = self.material.pieces, self.net
        found: dict[int, list[NDArray[np.float32]]] = {int(r): [] for r in np.flatnonzero(held)}
        index, at = pieces.of(held), 0
        while at < len(index):
            if self.stop():
                return None
            yield Progress(self._share, 100, what)
            now = index[at : at + self._looks.size]
            try:
                z = self._seen(now)
            except (RuntimeError, MemoryError) as error:
                yield self._looks.halve(error, net.device)
                continue
            at += len(now)
            regions = pieces.regions[now]
            for r in np.unique(regions[regions >= 0]):
                if held[r]:
                    found[int(r)].append(z[regions == r])
        return {r: np.concatenate(parts) for r, parts in found.items() if parts}

    def _seen(self, now: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the logits (n, T, T, C) of some pieces, as a map is painted with them."""
        net, total = self.net, torch.zeros(())
        views = self.material.clean[:VIEWS]
        for number, which in enumerate(views):
            with runtime.limited_threads(), torch.no_grad(), self._mixed():
                features = net.upper(self.material.lower(now, number))
                z = back(net.logits(features.float()), which)
                inside = torch.from_numpy(self.material.pieces.allowed[now]).to(net.device)
                total = total + smooth(z.float(), inside, net.card.neighbourhood).cpu()
        return np.asarray((total / len(views)).numpy(), np.float32)

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that is trained."""
        net = self.net
        table = {k: v.detach().clone() for k, v in net.trained().items()}
        return table | {"head": (net.weight.detach().clone(), net.bias.detach().clone())}

    def restore(self, state: dict[str, Any]) -> None:
        """Put a copy back."""
        net = self.net
        with torch.no_grad():
            for name, tensor in net.trained().items():
                if name in state:
                    tensor.copy_(state[name])
            net.weight.copy_(state["head"][0])
            net.bias.copy_(state["head"][1])


def _warm_cosine(steps: int) -> Callable[[int], float]:
    warm = max(1, round(0.05 * steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return factor


def _batches(
    index: NDArray[np.intp], batch: int, rng: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    yield from _parts(rng.permutation(index), batch)


def _parts(index: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    for at in range(0, len(index), size):
        yield index[at : at + size]
