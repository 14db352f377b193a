"""Every tuning method against the fast model, on real tissue, with few tiles a class.

For each draw, 1 to 4 tiles a class are learnt and four other tiles a class are judged:
macro-F1 over tiles, by four turned views for all alike. Every method trains for a
fixed number of passes, half of the default's; nothing is chosen on the judged
tiles. Prints the fast model's mean, each method's paired difference with its 95 %
interval over draws, the trained share and the seconds. The tiles are few and those of a
class may share a patient, so true spreads are wider.

    python benchmarks/methods.py DEVELOPMENT_FOLDER [--draws 5] [--per-class 2 4] [--only adapter]
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pathotune import drain, plugins
from pathotune.learn.adapt import passes, trainer
from pathotune.learn.adapt.material import Material
from pathotune.learn.pieces import of_tiles
from pathotune.learn.settings import Training
from pathotune.learn.tune import settings
from pathotune.models.backbones import load_networks
from pathotune.models.cards import DEFAULT_ID, card
from pathotune.models.text import sentence
from pathotune.models.tuned import METHODS
from pathotune.models.tuning import _net
from pathotune.models.tuning._delta import Setting
from pathotune.models.tuning._net import Net

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import open_tissue
from few_shot import FIRST_JUDGED_DRAW, draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

EPOCHS = 15
WANTED: dict[str, tuple[str, dict[str, Any]]] = {
    "pathotune": ("pathotune", {}),
    "pathotune, visual only": ("pathotune", {"text": False, "instance": False}),
    "pathotune, text only": ("pathotune", {"visual": False, "instance": False}),
    "pathotune, instance only": ("pathotune", {"visual": False, "text": False}),
    "vpt": ("vpt", {}),
    "adapter": ("adapter", {}),
    "lora": ("lora", {}),
    "staged": ("staged", {}),
    "full": ("full", {}),
    "cdtm": ("cdtm", {}),
    "cdtm, as published": ("cdtm", {"residual": False, "temperature": 1.0}),
    "cdtm, token mode": ("cdtm", {"mode": "token"}),
    "cdtm, token mode, 300 centres": ("cdtm", {"mode": "token", "clusters": 300}),
    "cdtm, 5 centres": ("cdtm", {"clusters": 5}),
    "cdtm, 100 centres": ("cdtm", {"clusters": 100}),
    "cdtm, two stages": ("cdtm", {"staged": True}),
    "head": ("head", {}),
}


def kather_tiles(data: Path) -> tuple[NDArray[np.uint8], NDArray[np.intp], list[str]]:
    """Return the eight-class tiles of 150 px, two a class, mirrored to 224 px."""
    root = data / "tiles_kather2016_8class"
    names = sorted(p.name for p in root.iterdir() if p.is_dir())
    files = [(i, f) for i, n in enumerate(names) for f in sorted((root / n).glob("*.*"))]
    tiles = np.stack([open_tissue.read(f)[:150, :150] for _, f in files])
    margin = (224 - tiles.shape[1]) // 2
    pad = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    return np.pad(tiles, pad, mode="reflect"), np.array([i for i, _ in files]), names


def with_random_weights(chosen: Any, device: str) -> Any:
    """Load a card's networks and draw every weight anew, as before any training."""
    networks, projection = load_networks(chosen, device)
    torch.manual_seed(0)
    for module in (m for network in networks for m in network.modules()):
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return networks, projection


class Bench:
    """The tiles, the networks, and what was computed of them for a first changed block."""

    def __init__(self, data: Path, plan: Training, args: argparse.Namespace) -> None:
        tiles, y, names = kather_tiles(data) if args.kather else open_tissue.crc_tiles(data)
        self.card = card(args.backbone)
        margin = (self.card.tile_px - tiles.shape[1]) // 2
        pad = ((0, 0), (margin, margin), (margin, margin), (0, 0))
        pixels = np.pad(tiles, pad, mode="reflect")
        keys = [str(i) for i in range(len(y))]
        self.pieces = of_tiles(pixels, np.arange(len(y)), y, keys, self.card.tokens)
        self.setting = Setting(True, {}, sentence(names, organ="colon"))
        self.plan = plan
        self._known: dict[tuple[int, bool], Material] = {}

    def ready(self, method: str, config: Any, seed: int) -> Material:
        """Return the material for a method, with its delta attached."""
        module = plugins.load(METHODS, method)
        for (first, direct), material in self._known.items():
            delta = material.net.attach(module, config, self.setting, seed)
            if (delta.first, delta.direct) == (first, direct):
                return material
            material.net.release()
        net = Net(self.card, "cpu")
        delta = net.attach(module, config, self.setting, seed)
        material = Material(net, self.pieces, self.plan)
        drain(material.prepare())
        self._known[delta.first, delta.direct] = material
        return material

    def learn(
        self, method: str, config: Any, train: NDArray[Any], test: NDArray[Any], seed: int
    ) -> tuple[float, float, float]:
        """Return macro-F1 of the method and of the fast model, and the seconds of training."""
        material = self.ready(method, config, seed)
        learnt, judged = (np.isin(np.arange(len(self.pieces)), t) for t in (train, test))
        job = trainer.Trainer(material)
        stages = len(material.net.delta.stages) if material.net.delta else 1
        begun = time.perf_counter()
        drain(job.run(learnt, None, EPOCHS, seed, "", [round(EPOCHS / stages / 2)] * stages))
        seconds = time.perf_counter() - begun
        found = drain(job.judge(judged))
        fast = passes.judged(material, judged, passes.frozen_logits(material, learnt, judged))
        return found.f1, fast.f1, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("development", type=Path, help="folder with data/")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--first", type=int, default=FIRST_JUDGED_DRAW, help="seed of the first")
    parser.add_argument("--per-class", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--backbone", default=DEFAULT_ID, help="card whose network is tuned")
    parser.add_argument("--random", action="store_true", help="control: its weights drawn anew")
    parser.add_argument("--kather", action="store_true", help="the other laboratory's tiles")
    parser.add_argument("--rows", type=Path, help="file that every training's figures are added to")
    parser.add_argument("--only", nargs="+", default=list(WANTED))
    args = parser.parse_args()
    trainer.VIEWS = passes.VIEWS = 4
    if args.random:
        _net.load_networks = with_random_weights
    bench = Bench(args.development / "data", Training(views=1), args)
    print("| method | k | draws | fast model | difference | 95 % interval | seconds | GB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in args.only:
        method, values = WANTED[name]
        config, _ = settings(method, values)
        for k in args.per_class:
            found = []
            for seed, (train, test) in enumerate(
                draws(bench.pieces.classes, k, args.draws, args.first)
            ):
                found.append(bench.learn(method, config, train, test, args.first + seed))
                if args.rows:
                    with args.rows.open("a", encoding="utf-8") as file:
                        file.write(json.dumps([name, k, args.first + seed, *found[-1]]) + "\n")
            rows = np.array(found)
            gain = rows[:, 0] - rows[:, 1]
            # Student's t for the few draws there are
            from scipy.stats import t

            half = t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5
            print(
                f"| {name} | {k} | {len(rows)} | {rows[:, 1].mean():.3f} | {gain.mean():+.3f} | "
                f"{gain.mean() - half:+.3f} to {gain.mean() + half:+.3f} | "
                f"{np.median(rows[:, 2]):.0f} | "
                f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
