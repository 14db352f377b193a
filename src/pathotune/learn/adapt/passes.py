"""What a training came to, pass by pass, and how a model does on the regions kept apart.

The tuned and the fast model are judged by the same tokens, the same views and the
same sums, so that a difference between them is one between the models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.learn.adapt.material import Material

VIEWS = 1  # turned views of a tile that it is judged by, tuned and fast alike
_JUDGED = 200  # tokens of a region that are kept for calibration


@dataclass
class Pass:
    """What one pass over the material came to.

    `held` maps a region's number to the logits of (some of) its tokens, `rows` to how many
    of them were taken for each class. `stage` and `epoch` say when it was; epoch 0 of stage
    0 is the start, before anything was learnt.
    """

    train_loss: float
    loss: float | None
    f1: float | None
    held: dict[int, NDArray[np.float16]]
    rows: dict[int, NDArray[np.float64]]
    stage: int = 0
    epoch: int = 0


@dataclass
class Run:
    """A whole training: its passes, the best of them, and the weights of the best."""

    passes: list[Pass] = field(default_factory=list)
    best: int = -1
    state: dict[str, Any] = field(default_factory=dict)
    stopped: bool = False
    broken: bool = False


def judged(
    material: Material, held: NDArray[np.bool_], logits: dict[int, NDArray[np.float32]]
) -> Pass:
    """Return loss and F1 of logits (n, C) a region: regions count alike in their class."""
    pieces = material.pieces
    n = int(pieces.classes.max()) + 1
    losses: list[list[float]] = [[] for _ in range(n)]
    kept: dict[int, NDArray[np.float16]] = {}
    rows: dict[int, NDArray[np.float64]] = {}
    for r, z in logits.items():
        if pieces.whole:
            z = z.mean(0, keepdims=True)  # a tile is asked about as a whole
        c = int(pieces.classes[r])
        shifted = z - z.max(1, keepdims=True)
        likely = shifted[:, c] - np.log(np.exp(shifted).sum(1))
        losses[c].append(float(-likely.mean()))
        rows[r] = np.bincount(z.argmax(1), minlength=n).astype(float)
        kept[r] = z[:: -(-len(z) // _JUDGED)].astype(np.float16)
    loss = float(np.mean([np.mean(each) for each in losses if each]))
    return Pass(math.nan, loss, macro_f1(rows, pieces.classes), kept, rows)


def macro_f1(rows: dict[int, NDArray[np.float64]], classes: NDArray[np.intp]) -> float:
    """Return the macro-F1 of each region's tokens a class found."""
    n = int(classes.max()) + 1
    table = np.zeros((n, n))
    for r, row in rows.items():
        table[classes[r]] += row
    present = table.sum(1) > 0
    f1 = 2 * np.diag(table) / np.maximum(table.sum(0) + table.sum(1), 1e-12)
    return float(f1[present].mean())


def frozen_logits(
    material: Material, train: NDArray[np.bool_], held: NDArray[np.bool_]
) -> dict[int, NDArray[np.float32]]:
    """Return what the fast model, fitted to `train`, says about the regions in `held`."""
    head = material.probe(train)
    out = {}
    for r in np.flatnonzero(held):
        x = material.frozen[:, material.region == r].astype(np.float32)
        if x.shape[1]:
            out[int(r)] = head.logits(x[:VIEWS].mean(0))
    return out
