"""Tuning as a job: several trainings judged on regions kept apart, one model, one verdict.

Each repeat keeps other regions apart and learns the rest. How long to train is read
from the mean curve of the repeats, and a repeat is judged at the length that the
others chose, so that no figure comes from regions that picked it. The fast model is
fitted to the same regions and judged on the same ones. At the end all regions are
learnt. Nothing is switched: the verdict says what was found.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune import plugins
from pathotune.events import EpochDone, Job, Note, PathotuneError, Progress
from pathotune.learn.evaluate import Evaluation, figures
from pathotune.learn.settings import Training
from pathotune.learn.splits import splits
from pathotune.learn.verdict import at, best_lengths, plain, scope, words
from pathotune.models.bundle import ModelBundle
from pathotune.models.tuned import METHODS, config_of
from pathotune.models.tuning._calibration import calibrated
from pathotune.models.tuning.linear import LinearHead

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.learn.adapt.passes import Run
    from pathotune.learn.adapt.trainer import Trainer
    from pathotune.learn.pieces import Pieces
    from pathotune.marks.classes import Colour
    from pathotune.models.cards import ModelCard
    from pathotune.models.tuning._net import Net

_READY = "Getting the network ready"
_ANEW = (
    "The network is changed from its first block on: nothing can be computed once and kept, so "
    "every pass computes the whole network. A later block (setting block) is faster."
)
_CARRIED = 50 << 20  # bytes of a model that still travels with every event


def settings(method: str, values: Mapping[str, Any]) -> tuple[Any, Training]:
    """Return a method's settings and the training's from plain values, told apart by name.

    Raises
    ------
    PathotuneError
        A name that neither has, or a value out of range.
    """
    module = plugins.load(METHODS, method)
    shared = {f.name for f in dataclasses.fields(Training)}
    own = {f.name for f in dataclasses.fields(module.Config)}
    plan = {k: v for k, v in values.items() if k in shared and k not in own}
    rest = {k: v for k, v in values.items() if k not in plan}
    if method == "linear" and plan:
        raise PathotuneError(
            f"The fast model has no {', '.join(plan)}.", f"It has: {', '.join(sorted(own))}."
        )
    training = _Holder(Training)
    return config_of(module, rest), config_of(training, plan)


@dataclasses.dataclass(frozen=True)
class _Holder:
    """Gives the training's settings the shape of a method."""

    Config: Any


def too_many(device: str, plan: Training | None) -> int:
    """Return the most tiles that are learnt from on a device."""
    return (plan or Training()).limit or (1024 if device.startswith("cuda") else 96)


def tune(
    pieces: Pieces,
    card: ModelCard,
    method: str,
    names: Sequence[str],
    colours: Sequence[Colour],
    *,
    groups: Sequence[str],
    config: Any = None,
    plan: Training | None = None,
    sentence: str = "",
    text_folder: str = "",
    seed: int = 0,
    device: str = "auto",
    stop: Callable[[], bool] = lambda: False,
    keep: Path | None = None,
    about: Mapping[str, Any] | None = None,
) -> Job[ModelBundle]:
    """Tune a backbone to labelled pieces.

    Parameters
    ----------
    pieces : Pieces
    card : ModelCard
        The backbone.
    method : str
        Key of the method.
    names, colours
        The classes.
    groups : sequence of str
        Slide of each region.
    config : Config, optional
        Settings of the method.
    plan : Training, optional
        Settings of the training.
    sentence, text_folder : str
        Words about the task and the folder of a text encoder, for methods that read them.
    seed : int
    device : str
    stop : callable
        Asked before every small step: True ends the training and keeps the best.
    keep : Path, optional
        Where the best model so far is saved whenever there is a better one.
    about : mapping, optional
        More for `ModelBundle.create`: tissue, regions, trained_on.

    Yields
    ------
    Note, Progress, EpochDone
        Every `EpochDone` carries the curve's next point and the best model so far.

    Returns
    -------
    ModelBundle
        ``meta["tuning"]`` holds settings, trained share, curves and the verdict.

    Raises
    ------
    PathotuneError
        The method cannot serve the backbone, or there is too little memory.
    """
    yield Progress(0, 2, _READY)  # importing torch takes seconds where nothing has yet
    from pathotune.learn.adapt.material import Material
    from pathotune.learn.adapt.trainer import Trainer
    from pathotune.models import text
    from pathotune.models.runtime import pick_device, split
    from pathotune.models.tuning._delta import Setting
    from pathotune.models.tuning._net import Net
    from pathotune.models.tuning._trunk import tuned_part

    module = plugins.load(METHODS, method)
    config, plan = config or module.Config(), plan or Training()
    reason = module.serves(card.parts[tuned_part(card)].timm)
    if reason is not None:
        raise PathotuneError(
            f"{module.LABEL} cannot tune {card.name}. {reason}",
            "Choose another method or another backbone.",
        )
    bare = sorted(set(range(len(names))) - set(pieces.classes.tolist()))
    if bare:
        raise PathotuneError(
            f"No region of {', '.join(names[c] for c in bare)} lies on the slide.",
            "Check that the annotations belong to this slide and are in its full-size pixels.",
        )
    device = split(pick_device(device))[0]
    cuda = device.startswith("cuda")
    setting = Setting(not cuda, {}, sentence or text.sentence(names), text_folder)
    yield Progress(1, 2, _READY)
    net = Net(card, device)
    try:
        delta = net.attach(module, config, setting, seed)
        material = Material(net, pieces, plan, seed)
        if not material.keeps:
            yield Note(_ANEW)
        yield from material.prepare()
        epochs = plan.epochs or (40 if cuda else 15)
        held, by = splits(pieces.classes, groups, plan.repeats, seed)
        job = _Tuning(
            net, Trainer(material, stop), module, config, setting, card, names, colours, seed
        )
        job.about, job.keep = dict(about or {}), keep
        job.facts = {
            "config": dataclasses.asdict(config) | _placed(config, delta),
            "training": dataclasses.asdict(plan),
            "share_percent": job.share(),
            "sentence": setting.sentence if "sentence" in delta.facts else "",
            "encoder": delta.facts.get("encoder", ""),
        }
        bundle = yield from job.all(held, by, epochs)
        return bundle
    finally:
        net.release()


def _placed(config: Any, delta: Any) -> dict[str, Any]:
    """Return the settings that were automatic as they came out."""
    return {"block": delta.first} if hasattr(config, "block") else {}


class _Tuning:
    """The repeats, the last training and the verdict of one job."""

    def __init__(
        self,
        net: Net,
        trainer: Trainer,
        module: Any,
        config: Any,
        setting: Any,
        card: ModelCard,
        names: Sequence[str],
        colours: Sequence[Colour],
        seed: int,
    ) -> None:
        self.net, self.trainer, self.module = net, trainer, module
        self.config, self.setting, self.card = config, setting, card
        self.names, self.colours, self.seed = tuple(names), tuple(colours), seed
        self.about: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}
        self.keep: Path | None = None
        self._last: ModelBundle | None = None
        self._epoch = 0

    def share(self) -> float:
        """Return what is trained beside the head, in percent of the tuned network's numbers."""
        delta = self.net.delta
        assert delta is not None
        own = sum(p.numel() for p in delta.modules.parameters())
        if any(s.everything for s in delta.stages) and delta.opens is not None:
            opened = self.net.trunk.open(delta.opens)
            own += sum(p.numel() for p in opened.values())
            self.net.trunk.close()
        return round(100 * own / self.net.trunk.size, 3)

    def all(self, held: list[NDArray[np.bool_]], by: str, epochs: int) -> Job[ModelBundle]:
        """Run the repeats, choose the length, learn everything, and say what came of it."""
        pieces = self.trainer.material.pieces
        runs: list[Run] = []
        stages = len(self.net.delta.stages) if self.net.delta else 1
        total = (len(held) + 1) * epochs
        for r, out in enumerate(held):
            what = f"Learning, regions kept apart ({r + 1} of {len(held)})"
            self._fresh()
            run = yield from self._told(
                self.trainer.run(~out, out, epochs, self.seed + r, what), r, total
            )
            runs.append(run)
            if run.stopped or run.broken:
                break
        whole = runs and not (runs[-1].stopped or runs[-1].broken)
        judging = self._verdict(runs if whole else runs[:-1], held, by)
        verdict, evaluation, heat = yield from judging
        if runs and not whole:
            return self._bundle(evaluation, verdict, heat, runs)
        if runs:
            until = best_lengths([run.passes for run in runs], stages)
        else:
            half = max(1, round(epochs / stages / 2))
            until = [half] * stages
        self._fresh()
        everything = np.ones(len(pieces.classes), bool)
        final = self.trainer.run(everything, None, epochs, self.seed, "Learning all regions", until)
        yield from self._told(final, None, total)
        bundle = self._bundle(evaluation, verdict, heat, runs)
        self._save(bundle)
        yield Note(verdict["text"])
        return bundle

    def _fresh(self) -> None:
        self.net.attach(self.module, self.config, self.setting, self.seed)

    def _told(self, run: Any, repeat: int | None, total: int) -> Job[Any]:
        """Pump a training; its passes become events with the best model so far."""
        from pathotune.learn.adapt.passes import Pass

        best: float | None = None
        try:
            while True:
                try:
                    event = next(run)
                except StopIteration as end:
                    return end.value
                if not isinstance(event, Pass):
                    yield event
                    continue
                better = event.loss is None or best is None or event.loss < best
                if better and repeat in (0, None):
                    best = event.loss
                    self._last = self._bundle(None, None, 1.0, [])
                    if repeat == 0:
                        self._save(self._last)
                size = (
                    0 if self._last is None else sum(a.nbytes for a in self._last.arrays.values())
                )
                yield EpochDone(
                    self._epoch,
                    total,
                    event.train_loss,
                    event.loss,
                    event.f1,
                    self._last if size <= _CARRIED else None,
                )
                self._epoch += 1
        finally:
            run.close()

    def _save(self, bundle: ModelBundle) -> None:
        if self.keep is not None:
            bundle.save(self.keep)

    def _bundle(
        self,
        evaluation: Evaluation | None,
        verdict: Mapping[str, Any] | None,
        heat: float,
        runs: Sequence[Run],
    ) -> ModelBundle:
        curves = [[[plain(p.train_loss), p.loss, p.f1] for p in run.passes] for run in runs]
        facts = self.facts | {"verdict": None if verdict is None else dict(verdict)}
        facts["curves"] = curves
        arrays = self.net.arrays() | {"temperature": np.array([heat], np.float32)}
        return ModelBundle.create(
            self.card,
            self.module.__name__.rpartition(".")[2],
            self.names,
            self.colours,
            arrays,
            metrics=None if evaluation is None else evaluation.as_dict(),
            tuning=facts,
            **self.about,
        )

    def _verdict(
        self, runs: Sequence[Run], held: Sequence[NDArray[np.bool_]], by: str
    ) -> Job[tuple[dict[str, Any], Evaluation | None, float]]:
        """Return the verdict, the figures on held-out regions, and the temperature."""
        from pathotune.learn.adapt.passes import frozen_logits, judged, macro_f1

        pieces = self.trainer.material.pieces
        if not runs:
            few = [n for c, n in enumerate(self.names) if (pieces.classes == c).sum() < 2]
            text = (
                f"Too few regions to tell: {', '.join(few)} has only one."
                if few
                else "Too little was learnt to tell."
            )
            return {"word": "too few", "text": text, "split": by}, None, 1.0
        tuned, fast = [], []
        rows: dict[int, list[NDArray[np.float64]]] = {}
        logits: list[NDArray[Any]] = []
        owners: list[int] = []
        for r, run in enumerate(runs):
            yield Progress(r, len(runs), "Judging beside the fast model")
            others = [o.passes for i, o in enumerate(runs) if i != r] or [run.passes]
            found = at(run.passes, best_lengths(others, 1 + max(p.stage for p in run.passes)))
            tuned.append(macro_f1(found.rows, pieces.classes))
            frozen = frozen_logits(self.trainer.material, ~held[r], held[r])
            fast.append(judged(self.trainer.material, held[r], frozen).f1 or 0.0)
            for region, row in found.rows.items():
                rows.setdefault(region, []).append(row)
                logits.append(found.held[region].astype(np.float32))
                owners.append(int(pieces.classes[region]))
        order = sorted(rows)
        table = np.stack([np.mean(rows[r], 0) for r in order])
        kinds = np.array([pieces.classes[r] for r in order], np.intp)
        n = len(self.names)
        about = scope(by, pieces.whole)
        evaluation = None
        if len(set(kinds.tolist())) == n:
            evaluation = figures(table, kinds, self.names, self.seed, about)
        eye = LinearHead(np.eye(n, dtype=np.float32), np.zeros(n, np.float32))
        heat = calibrated(eye, logits, owners, 1.0).temperature
        return words(tuned, fast, by, pieces.whole), evaluation, heat
