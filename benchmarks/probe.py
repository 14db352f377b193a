"""How long the probe takes, as multiples of one X^T X measured beside it.

Prints the time of a fit from 2,000 labelled tokens, of a stroke added to a fitted
model (its sums and a new solve), and of leave-out validation, each as a ratio to
forming X^T X of the 2,000 tokens in the same process, so that the answer does not
depend on the machine. Features are random: the arithmetic is the same.

    python benchmarks/probe.py
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from pathotune.models.cards import DEFAULT_ID, card
from pathotune.models.tuning.linear import RegionStats

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS, REGIONS, CLASSES, STROKE = 2000, 10, 5, 100


def interleaved(tasks: dict[str, Callable[[], object]], rounds: int = 60) -> dict[str, float]:
    """Return the median seconds of each task, all timed in turn in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(s)) for name, s in seconds.items()}


def main() -> None:
    dims = card(DEFAULT_ID).dims
    rng = np.random.default_rng(0)
    x = rng.normal(size=(TOKENS, dims)).astype(np.float32)
    regions = np.split(x, REGIONS)
    stroke = rng.normal(size=(STROKE, dims)).astype(np.float32)

    def filled() -> RegionStats:
        stats = RegionStats(CLASSES, dims)
        for i, region in enumerate(regions):
            stats.add(str(i), i % CLASSES, region)
        return stats

    live = filled()

    def added() -> None:
        live.add("new", 0, stroke)
        live.fit()

    def forgotten() -> None:
        live.remove("new")

    tasks: dict[str, Callable[[], object]] = {
        "X^T X": lambda: x.T @ x,
        f"fit of {TOKENS} tokens in {REGIONS} regions": lambda: filled().fit(),
        f"a stroke of {STROKE} tokens added": added,
        "(the stroke removed)": forgotten,
        "validation, every region left out once": lambda: list(live.held_out()),
    }
    seconds = interleaved(tasks)
    base = seconds["X^T X"]
    print(f"D = {dims}, {CLASSES} classes\n")
    print("| step | ms | times X^T X |")
    print("|---|---|---|")
    for name, s in seconds.items():
        print(f"| {name} | {1000 * s:.2f} | {s / base:.2f} |")


if __name__ == "__main__":
    main()
