"""Train the network for nuclei and write its weights.

    python training/nucleus_net/train.py DEVELOPMENT_DATA --out FILE
        [--kinds outlined,rendered,tissue] [--without violet|white|pink]
        [--teacher FILE] [--marked] [--steps N] [--rate R] [--seed N] [--threads N]

The shipped weights took 2500 steps with everything else as it is; ``--teacher`` and ``--marked``
were tried and not taken. With a teacher it goes on from that network's weights, and the tissue
without outlines is labelled by what that network is sure of instead of by the watershed.

Runs on a processor. The state is kept beside FILE every two minutes; the same
command goes on from there. The weights written are the running mean over the
steps (Tarvainen & Valpola, NeurIPS 2017), in 16 bits, with a card in the header.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import time
from pathlib import Path
from typing import Any

import augment
import material
import numpy as np
import torch
from torch.nn import functional

from pathotune.nuclei.net.network import NucleusNet
from pathotune.nuclei.net.runner import runner
from pathotune.nuclei.net.weights import load, save

CROP = 128
BATCH = 12
MPP = 0.5
RATE = 2e-3
SHARES = {"outlined": 7, "rendered": 5, "tissue": 4}
OFTEN = {"violet": 0.45, "white": 0.35, "pink": 0.2}
RENDERED = 360
KEEP_SECONDS = 120


def fields(
    data: Path, kinds: list[str], without: str | None, seed: int, marked: bool = False
) -> dict[str, list[Any]]:
    """Return what each kind of crop is cut from."""
    found: dict[str, list[Any]] = {}
    if "outlined" in kinds:
        tiles = [t for t in material.outlined(data) if t.appearance != without]
        found["outlined"] = material.from_outlined(tiles)
    if "rendered" in kinds or "tissue" in kinds:
        tissue, stains, bare = _tissue(data, marked)
        if "tissue" in kinds:
            found["tissue"] = tissue + material.empty_fields(data)
        if "rendered" in kinds:
            rng = np.random.default_rng(seed)
            found["rendered"] = material.rendered(rng, RENDERED, stains, bare)
    return found


def _tissue(data: Path, marked: bool) -> Any:
    """Return the looked-at tissue, prepared once and kept in the system's temporary folder."""
    kept = Path(os.environ.get("TMPDIR", "/tmp")) / f"nucleus_net_tissue_{int(marked)}.pkl"
    if kept.exists():
        return pickle.loads(kept.read_bytes())
    made = material.from_tissue(material.open_tissue(data), marked)
    kept.write_bytes(pickle.dumps(made))
    return made


def batch(
    pools: dict[str, list[Any]], rng: np.random.Generator, size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return absorbed light (B, 3, h, w), targets (B, 3, h, w) and weights (B, h, w)."""
    share = np.array([SHARES[k] for k in pools], float)
    kinds = rng.choice(list(pools), size, p=share / share.sum())
    crops = []
    for kind in kinds:
        pool = pools[kind]
        if kind == "outlined":
            there = sorted({i.kind for i in pool})
            p = np.array([OFTEN[a] for a in there])
            chosen = rng.choice(there, p=p / p.sum())
            pool = [i for i in pool if i.kind == chosen]
        if kind == "tissue":
            p = np.array([np.sqrt(i.labels.size) for i in pool])
            item = pool[rng.choice(len(pool), p=p / p.sum())]
        else:
            item = pool[rng.integers(len(pool))]
        crops.append(augment.crop(item, rng, CROP, MPP, material.WORK_MPP))
    pixels, labels, rest = (torch.stack(x) for x in zip(*crops, strict=True))
    wanted, weight = augment.targets_of(labels, rest)
    light = 1 - augment.stained_anew(pixels, rng) / 255
    return light, wanted, weight


def loss_of(answer: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the loss: crossed entropy and overlap of nuclei, edges, and depth inside."""
    sum_w = weight.sum().clamp(min=1)
    inside = functional.binary_cross_entropy_with_logits(
        answer[:, 0], wanted[:, 0], reduction="none"
    )
    edge = functional.binary_cross_entropy_with_logits(
        answer[:, 1], wanted[:, 1], reduction="none", pos_weight=torch.tensor(2.0)
    )
    p = answer[:, 0].sigmoid() * weight
    t = wanted[:, 0] * weight
    overlap = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    deep = functional.smooth_l1_loss(answer[:, 2], wanted[:, 2], reduction="none", beta=0.1)
    per_pixel = inside + 0.5 * edge + 2 * deep * (0.3 + wanted[:, 0])
    return (per_pixel * weight).sum() / sum_w + 0.5 * overlap


def train(
    pools: dict[str, list[Any]],
    out: Path,
    steps: int,
    seed: int,
    about: dict[str, str],
    teacher: Path | None = None,
    top: float = RATE,
) -> None:
    """Train and write the weights; goes on where an earlier run of the same file stopped."""
    state_file = out.with_suffix(".state.pt")
    torch.manual_seed(seed)
    net = (load(teacher)[0].train() if teacher else NucleusNet()).to(
        memory_format=torch.channels_last
    )
    mean = NucleusNet()
    mean.load_state_dict(net.state_dict())
    best = torch.optim.AdamW(net.parameters(), lr=top, weight_decay=1e-3)
    first = 0
    if state_file.exists():
        kept = torch.load(state_file, weights_only=True)
        net.load_state_dict(kept["net"])
        mean.load_state_dict(kept["mean"])
        best.load_state_dict(kept["best"])
        first = int(kept["step"])
    rng = np.random.default_rng(seed * 1_000_003 + first)
    last, shown, total = time.monotonic(), time.monotonic(), []
    for step in range(first, steps):
        rate = top * min(1, (step + 1) / 100) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        for group in best.param_groups:
            group["lr"] = float(max(rate, 1e-6))
        light, wanted, weight = batch(pools, rng, BATCH)
        light = light.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            answer = net(light)
        loss = loss_of(answer.float(), wanted, weight)
        best.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        best.step()
        keep = min(0.998, (step + 1) / (step + 10))
        with torch.no_grad():
            new = net.state_dict()
            for name, value in mean.state_dict().items():
                if value.dtype.is_floating_point:
                    value.lerp_(new[name].to(value.dtype), 1 - keep)
                else:
                    value.copy_(new[name])
        total.append(loss.item())
        if step % 50 == 49:
            now = time.monotonic()
            print(f"{step + 1:6d} loss {np.mean(total[-50:]):.4f}  {(now - shown) / 50:.3f} s/step")
            shown = now
        if time.monotonic() - last > KEEP_SECONDS:
            state = {"net": net.state_dict(), "mean": mean.state_dict()}
            half = state_file.with_suffix(".part")
            torch.save({**state, "best": best.state_dict(), "step": step + 1}, half)
            half.replace(state_file)
            save(out, mean, {**about, "steps": str(step + 1)})
            last = time.monotonic()
    save(out, mean, {**about, "steps": str(steps)})
    state_file.unlink(missing_ok=True)


def main() -> None:
    """Read the arguments and train."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("data", type=Path)
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--kinds", default="outlined,rendered,tissue")
    ask.add_argument("--without", choices=material.APPEARANCES)
    ask.add_argument("--teacher", type=Path)
    ask.add_argument("--marked", action="store_true", help="use places marked by hand")
    ask.add_argument("--rate", type=float, default=RATE)
    ask.add_argument("--steps", type=int, default=2500)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--threads", type=int, default=1)
    told = ask.parse_args()
    torch.set_num_threads(told.threads)
    pools = fields(told.data, told.kinds.split(","), told.without, told.seed, told.marked)
    if told.teacher and "tissue" in pools:
        looked = [i for i in pools["tissue"] if i.weight.min() < 1 or i.labels.any()]
        empty = [i for i in pools["tissue"] if not (i.weight.min() < 1 or i.labels.any())]
        pools["tissue"] = material.taught(looked, runner(told.teacher).maps) + empty
    print({k: len(v) for k, v in pools.items()})
    about = {"kinds": told.kinds, "without": told.without or "", "seed": str(told.seed)}
    if told.teacher:
        about["teacher"] = hashlib.sha256(told.teacher.read_bytes()).hexdigest()[:16]
    train(pools, told.out, told.steps, told.seed, about, told.teacher, told.rate)


if __name__ == "__main__":
    main()
