"""Goes on training a nucleus network on a few corrected views.

Normalisation stays as it was learnt, the rate is small, and every step also sees
the slide as the network saw it before, so that what was right stays right. The
weights kept are the running mean, judged on views that were never learnt from.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import NucleiJudged, Progress
from pathotune.nuclei.net.outlines import outlines
from pathotune.nuclei.net.targets import targets
from pathotune.nuclei.refine import MPP, Window, agreement

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.events import Job

BATCH = 6
RATE = 3e-4
KEPT = 1 / 3  # of a batch: the slide as it was answered before


def tune(
    learnt: list[Window],
    judged: list[Window],
    rest: list[NDArray[Any]],
    out: Path,
    *,
    base: Path | None,
    steps: int,
    seed: int,
) -> Job[dict[str, Any]]:
    """Train, judge before and after, and write the weights.

    Parameters
    ----------
    learnt, judged : list of Window
    rest : list of uint8 (h, w, 3)
        Fields of the slide without corrections.
    out, base, steps, seed
        As for `refine`.

    Yields
    ------
    Progress, NucleiJudged

    Returns
    -------
    dict
        before, after, steps, base.
    """
    from pathotune.models.quiet import import_torch

    import_torch()
    import torch

    from pathotune.models import runtime
    from pathotune.nuclei.net.weights import load, save
    from pathotune.nuclei.segmenters.nucleus_net import shipped

    source = base or shipped()
    network, about = load(source)
    rng = np.random.default_rng(seed)

    def maps(net: Any, pixels: NDArray[Any]) -> NDArray[np.float32]:
        with torch.inference_mode(), runtime.limited_threads():
            light = 1 - torch.from_numpy(np.moveaxis(pixels, -1, 0)[None].copy()).float() / 255
            answer = net(light)[0]
            found = torch.cat([answer[:2].sigmoid(), answer[2:].clamp(0, 1)])
            told: NDArray[np.float32] = found.numpy()
        return told

    def score(net: Any) -> dict[str, float]:
        return agreement([outlines(maps(net, w.pixels), MPP) for w in judged], judged)

    before = score(network)
    yield NucleiJudged("refined", 0, steps, before["aji"])
    wanted = [(w.pixels, targets(w.labels), w.weight) for w in learnt]
    plain = np.ones(learnt[0].weight.shape, np.float32)
    held = [(p, maps(network, p), plain) for p in rest if p.shape[:2] == plain.shape]
    mean = copy.deepcopy(network)
    # evaluation mode throughout: the few views must not move the normalisation
    best = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-4)
    for step in range(steps):
        for group in best.param_groups:
            group["lr"] = (
                RATE * min(1, (step + 1) / 10) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
            )
        with runtime.limited_threads():
            light, target, weight = _batch(torch, wanted, held, rng)
            loss = _loss(torch, network(light), target, weight)
            best.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            best.step()
            share = min(0.98, (step + 1) / (step + 10))
            with torch.no_grad():
                for slow, fast in zip(mean.parameters(), network.parameters(), strict=True):
                    slow.lerp_(fast, 1 - share)
        yield Progress(step + 1, steps, "Learning from corrections", None)
    after = score(mean)
    yield NucleiJudged("refined", steps, steps, after["aji"])
    told = {k: v for k, v in about.items() if k not in ("kind", "widths")}
    told |= {"refined": f"{steps} steps on {len(learnt)} corrected views", "base": source.name}
    save(out, mean, told)
    return {"before": before, "after": after, "steps": steps, "base": source.name}


def _batch(torch: Any, wanted: Any, held: Any, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    lights, targets_, weights = [], [], []
    for _ in range(BATCH):
        pool = held if held and rng.random() < KEPT else wanted
        pixels, target, weight = pool[rng.integers(len(pool))]
        turn, flip = int(rng.integers(4)), bool(rng.integers(2))
        dense = -np.log10(np.maximum(pixels, 1) / np.float32(255))
        dense = dense * np.exp(rng.normal(0, 0.08, 3)) + rng.normal(0, 0.01, 3)
        light = np.moveaxis(1 - 10 ** -np.clip(dense, 0, 3), -1, 0)
        both = np.concatenate([light, target, weight[None]]).astype(np.float32)
        both = np.rot90(both[:, :, ::-1] if flip else both, turn, axes=(1, 2)).copy()
        lights.append(both[:3])
        targets_.append(both[3:6])
        weights.append(both[6])
    made = [torch.from_numpy(np.stack(v)) for v in (lights, targets_, weights)]
    return made[0], made[1], made[2]


def _loss(torch: Any, answer: Any, target: Any, weight: Any) -> Any:
    """Return the loss the network was trained with: crossed entropy, overlap, depth inside."""
    functional = torch.nn.functional
    total = weight.sum().clamp(min=1)
    entropy = functional.binary_cross_entropy_with_logits
    inside = entropy(answer[:, 0], target[:, 0], reduction="none")
    edge = entropy(answer[:, 1], target[:, 1], reduction="none", pos_weight=torch.tensor(2.0))
    p, t = answer[:, 0].sigmoid() * weight, target[:, 0] * weight
    overlap = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    deep = functional.smooth_l1_loss(answer[:, 2], target[:, 2], reduction="none", beta=0.1)
    pixel = inside + 0.5 * edge + 2 * deep * (0.3 + target[:, 0])
    return (pixel * weight).sum() / total + 0.5 * overlap
