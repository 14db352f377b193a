"""Learn the nuclei of a slide: look, paint, learn, judge, refuse what is not sound, save.

The job runs the same in the window and on the command line. What it has reached lies in a file
beside the result, so that a cancel or a crash costs seconds; the same call takes it up and,
on a processor, ends with the same numbers. A painter that paints nuclei where there are none
is refused, and the segmenter of the first stage is kept.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import Event, Note, NucleiJudged, Progress
from pathotune.nuclei.unpaired import guard, pairs, saved
from pathotune.nuclei.unpaired.estimate import estimate_nuclei

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from torch import Tensor

    from pathotune.events import Job
    from pathotune.nuclei.unpaired.adversarial import TranslationStage
    from pathotune.nuclei.unpaired.estimate import Estimate
    from pathotune.nuclei.unpaired.rendered import RenderedStage
    from pathotune.nuclei.unpaired.settings import Settings
    from pathotune.slides.geometry import Region
    from pathotune.slides.slide import Slide
    from pathotune.slides.tissue import TissueMask

FIRST_SHARE = 0.25  # of the time, for the first stage where others follow
CODES = 8
Shown = tuple[tuple[str, Any, Any], ...]


def preview(estimate: Estimate, count: int = 4, size_px: int = 128, seed: int = 0) -> Shown:
    """Return what would be learnt from, before anything is learnt; needs no torch.

    Returns
    -------
    tuple of (what, uint8 (s, s, 3), int32 (s, s))
        "real" fields, without nuclei, and "painted" ones with theirs, in turn.
    """
    fields = pairs.telling(estimate, size_px, count, (seed, 9))
    data = pairs.batch(estimate, size_px, count, (seed, 10), recolour=0.0)
    assert data.painted is not None
    nobody = np.zeros((size_px, size_px), np.int32)
    shown: list[tuple[str, Any, Any]] = []
    for field, painted, truth in zip(fields, data.painted, data.instances, strict=True):
        shown.append(("real", pairs.unscaled(field), nobody))
        shown.append(("painted", pairs.unscaled(painted), truth))
    return tuple(shown)


def learn_nuclei(
    slide: Slide,
    out: Path,
    settings: Settings,
    *,
    tissue: TissueMask | None = None,
    region: Region | None = None,
    estimate: Estimate | None = None,
) -> Job[dict[str, Any]]:
    """Learn a segmenter from a slide nobody outlined nuclei on, and save it.

    Parameters
    ----------
    slide : Slide
    out : Path
        The segmenter. ``OUT.part`` beside it holds what is reached until it is there.
    settings : Settings
    tissue : TissueMask, optional
        Where to look.
    region : Region, optional
        Look here only; level-0 pixels.
    estimate : Estimate, optional
        Corrected by the user; else the slide is looked at.

    Yields
    ------
    Note, Progress, NucleiJudged

    Returns
    -------
    dict
        stage, agreement, steps, seconds, refused (why, or None), estimate, alignment, out.

    Raises
    ------
    PathotuneError
        um/px is missing, the slide is not brightfield, the region is beside it, or the
        result cannot be written.
    """
    yield Progress(0, 1, "Looking at the nuclei of the slide")
    seen = estimate or estimate_nuclei(slide, tissue, region)
    for note in seen.notes:
        yield Note(note, "warning")
    asked = {k: v for k, v in asdict(settings).items() if k != "minutes"}
    told = json.dumps([slide.stamp, seen.told(), asked], sort_keys=True)
    fields = hashlib.sha256(b"".join(f.tobytes() for f in seen.fields)).hexdigest()
    key = hashlib.sha256((told + fields).encode()).hexdigest()
    return (yield from _Learning(out, settings, seen, key).run())


class _Learning:
    """One learning: its stages, its file, the best so far."""

    def __init__(self, out: Path, settings: Settings, seen: Estimate, key: str) -> None:
        self.out, self.settings, self.seen, self.key = out, settings, seen, key
        self.part = out.with_name(out.name + ".part")
        self.spent = 0.0
        self.stage = 1
        self.best: dict[str, Tensor] = {}
        self.score = -1.0
        self.first: dict[str, Tensor] = {}
        self.first_score = -1.0
        self.saved_at = -1

    def run(self) -> Job[dict[str, Any]]:
        """Run the stages that are left; see `learn_nuclei`."""
        import torch

        from pathotune.nuclei.unpaired import state
        from pathotune.nuclei.unpaired.reader import Reader
        from pathotune.nuclei.unpaired.rendered import RenderedStage

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            reader = Reader()
        before = state.load(self.part, self.key)
        if before is not None:
            self._take(before[0], before[1])
            yield Note(f"Taken up where it was stopped, after {self.spent / 60:.1f} minutes.")
        limit = self.settings.minutes * 60
        if self.stage == 1:
            first = RenderedStage(reader, self.seen, self.settings)
            if before is not None:
                state.scatter(before[1], first.networks, first.optimisers)
                first.restore(before[0]["numbers"])
            share = FIRST_SHARE if self.settings.adversarial else 1.0
            yield from self._train(first, self.settings.steps, share * limit)
            self.first, self.first_score = self.best, self.score
        result: dict[str, Any] = {"stage": "rendered", "agreement": self.first_score}
        result |= {"refused": None, "alignment": None}
        chosen = self.first
        if self.settings.adversarial:
            again = before if self.stage == 2 else None
            reader.load_state_dict(self.first)
            found = yield from self._translate(reader, again, limit)
            result |= found
            if found["refused"] is None:
                chosen = self.best
        reader.load_state_dict(chosen)
        steps = self.saved_at
        result |= {"steps": steps, "seconds": round(self.spent, 1), "estimate": self.seen.told()}
        saved.save(self.out, reader, self.seen.mpp, result | {"settings": asdict(self.settings)})
        self.part.unlink(missing_ok=True)
        return result | {"out": str(self.out)}

    def _translate(
        self, reader: Any, before: tuple[dict[str, Any], dict[str, Tensor]] | None, limit: float
    ) -> Generator[Event, None, dict[str, Any]]:
        """Run the adversarial stage; return what it came to."""
        from pathotune.nuclei.unpaired import state
        from pathotune.nuclei.unpaired.adversarial import TranslationStage

        stage = TranslationStage(reader, self.seen, self.settings)
        if before is None:
            self.stage, self.best, self.score = 2, {}, -1.0
        else:
            state.scatter(before[1], stage.networks, stage.optimisers)
            stage.restore(before[0]["numbers"])
        yield from self._train(stage, stage.steps, limit)
        seen = examined(stage)
        refused = None
        if not seen["good"]:
            refused = seen["why"]
            yield Note(
                f"The painter is not used: {refused}. The segmenter learnt from painted nuclei "
                "alone is kept.",
                "warning",
            )
        elif not self.best:
            refused = "it never read the nuclei it painted"
        told: dict[str, Any] = {"refused": refused, "alignment": seen}
        if refused is None:
            told |= {"stage": "translated", "agreement": self.score}
        return told

    def _train(
        self, stage: RenderedStage | TranslationStage, steps: int, limit: float
    ) -> Generator[Event, None, None]:
        """Take steps until there are enough or the time is over; the best is kept."""
        began, base = time.monotonic(), self.spent
        self.saved_at = stage.step
        try:
            while stage.step < steps and self.spent < limit:
                yield from stage.advance()
                self.spent = base + time.monotonic() - began
                if stage.step % self.settings.judge_every == 0 or stage.step == steps:
                    yield self._judged(stage, steps)
                    self._keep(stage)
            if not self.best or stage.step % self.settings.judge_every:
                yield self._judged(stage, steps)
            self._keep(stage)
        finally:
            if self.saved_at != stage.step:
                self._keep(stage)

    def _judged(self, stage: RenderedStage | TranslationStage, steps: int) -> NucleiJudged:
        told = stage.judge()
        sound = True
        painted: list[tuple[Any, Any]] = []
        if stage.name == "translated":
            painted = stage.made(CODES)  # type: ignore[union-attr]
            sound = guard.alignment(painted, self.seen.stains, self.seen.mpp).good
        if sound and told["score"] > self.score:
            self.score, self.best = told["score"], self._mean(stage)
        return NucleiJudged(
            stage.name, stage.step, steps, told["score"], self._shown(stage, painted)
        )

    def _mean(self, stage: RenderedStage | TranslationStage) -> dict[str, Tensor]:
        mean = _reader(stage)
        return {k: v.detach().to("cpu", copy=True) for k, v in mean.state_dict().items()}

    def _shown(self, stage: RenderedStage | TranslationStage, painted: list[Any]) -> Shown:
        """Return four real fields with what is read off them, and what was painted last."""
        from pathotune.nuclei.unpaired.rendered import read

        size = self.settings.tile_px
        found: list[tuple[str, Any, Any]] = []
        for field in pairs.telling(self.seen, size, 4, (self.settings.seed, 11)):
            labels = read(_reader(stage), field, self.seen.mpp, stage.device)
            found.append(("real", pairs.unscaled(field), labels))
        found += [("translated", pairs.unscaled(a), truth) for a, truth in painted[:4]]
        return tuple(found)

    def _keep(self, stage: RenderedStage | TranslationStage) -> None:
        """Write where the learning stands."""
        from pathotune.nuclei.unpaired import state

        tensors = state.gather(stage.networks, stage.optimisers)
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        tensors |= {f"first.{k}": v.clone() for k, v in self.first.items()}
        about = {
            "stage": self.stage,
            "numbers": stage.numbers(),
            "spent": self.spent,
            "score": self.score,
            "first_score": self.first_score,
        }
        state.save(self.part, self.key, about, tensors)
        self.saved_at = stage.step

    def _take(self, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.stage, self.spent = int(about["stage"]), float(about["spent"])
        self.score, self.first_score = float(about["score"]), float(about["first_score"])
        self.best = _under("best.", tensors)
        self.first = _under("first.", tensors)


def examined(stage: TranslationStage) -> dict[str, Any]:
    """Tell whether a painter may be used, with everything that was measured.

    Returns
    -------
    dict
        good, why, contrast, outside, change and agreement (see `guard`). Only contrast and
        outside decide; the other two are reported.
    """
    import torch

    from pathotune.nuclei.unpaired.rendered import read

    seen, settings = stage.estimate, stage.settings
    found = guard.alignment(stage.made(2 * CODES), seen.stains, seen.mpp)
    one = pairs.batch(seen, settings.tile_px, 1, (settings.seed, 12), painted=False)
    masks = torch.from_numpy(np.repeat(one.masks, CODES, 0)).to(stage.device)
    codes = torch.randn((CODES, 64), generator=torch.Generator().manual_seed(settings.seed))
    with torch.no_grad():
        many = stage.nets.painter.mean(masks, codes.to(stage.device)).cpu().numpy()
    labels = [read(stage.nets.reader.mean, m, seen.mpp, stage.device) for m in many]
    return found.told() | {
        "why": "" if found.good else found.words(),
        "change": guard.change(many),
        "agreement": guard.agreement(labels),
    }


def _reader(stage: RenderedStage | TranslationStage) -> Any:
    return stage.reader.mean if stage.name == "rendered" else stage.nets.reader.mean  # type: ignore[union-attr]


def _under(head: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(head): v for k, v in tensors.items() if k.startswith(head)}
