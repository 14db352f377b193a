"""How long to train, and whether it was worth it, from what the repeats came to.

A gain counts only beyond the spread of the repeats; otherwise the words are that the
tuned model is no better than the fast one, which is the usual finding with few regions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pathotune.learn.adapt.passes import Pass


def best_lengths(curves: Sequence[Sequence[Pass]], stages: int) -> list[int]:
    """Return how many passes of each stage are best on average over several curves.

    A curve that ended early keeps its last value. Stages after the best one are left out.
    """
    lengths, lowest = [], []
    for stage in range(stages):
        own = [[p.loss for p in c if p.stage == stage and p.loss is not None] for c in curves]
        own = [c for c in own if c]
        longest = max((len(c) for c in own), default=0)
        if not longest:
            lengths.append(0)
            lowest.append(np.inf)
            continue
        mean = np.mean([c + [c[-1]] * (longest - len(c)) for c in own], axis=0)
        best = int(np.argmin(mean))
        lengths.append(best if stage == 0 else best + 1)  # stage 0 counts its start
        lowest.append(float(mean[best]))
    for stage in range(int(np.argmin(lowest)) + 1, stages):
        lengths[stage] = 0
    return lengths


def at(passes: Sequence[Pass], lengths: Sequence[int]) -> Pass:
    """Return the pass of a training that these lengths end with, or its last one before."""
    stage = max((s for s, n in enumerate(lengths) if n), default=0)
    found = [p for p in passes if p.stage < stage]
    found += [p for p in passes if p.stage == stage and p.epoch <= lengths[stage]]
    return found[-1]


def plain(value: float) -> float | None:
    """Return a number that JSON can hold."""
    return value if np.isfinite(value) else None


def scope(by: str, whole: bool) -> str:
    """Return what the figures are about, in words."""
    if whole:
        return "tiles, some of which may share a patient"
    return "slides kept apart" if by == "slides" else "regions kept apart"


def words(tuned: list[float], fast: list[float], by: str, whole: bool) -> dict[str, Any]:
    """Return the verdict: better only when the gain is beyond the spread of the repeats."""
    gain = np.array(tuned) - np.array(fast)
    mean, spread = float(gain.mean()), float(gain.std(ddof=1)) if len(gain) > 1 else np.inf
    kept = "tiles" if whole else by
    numbers = f"macro-F1 {np.mean(tuned):.2f} against {np.mean(fast):.2f} on {kept} kept apart"
    if len(gain) > 1:
        numbers += f"; difference {mean:+.2f}, spread over {len(gain)} repeats {spread:.2f}"
    else:
        numbers += "; one repeat, which shows no spread"
    if mean > max(spread, 0.005):
        word, text = "better", f"Better than the fast model: {numbers}."
    elif mean < -max(spread, 0.005):
        word, text = "worse", f"Worse than the fast model: {numbers}."
    else:
        word, text = "no better", f"No better than the fast model: {numbers}."
    return {
        "word": word,
        "text": text,
        "split": kept,
        "tuned": tuned,
        "fast": fast,
        "gain": mean,
        "spread": None if not np.isfinite(spread) else spread,
    }
