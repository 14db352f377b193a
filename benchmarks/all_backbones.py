"""Time every backbone against the embedded one, with random weights, in one run.

Speed does not depend on what the numbers are, so nothing is downloaded. The embedded
default and the other take turns on the same noise, on a processor in processor time of one
thread, so that other programs' work does not count, and the ratio of their medians is
printed: for a tile, and for an area of tissue, which is what a user waits for (tiles
and halos differ). A network of more than 200 million weights is not built whole:
it is timed with two and with six of its blocks and extended to all of them in a straight
line, and its row says so. Batches are the program's own, but a single tile where one
takes over 50 GFLOP. Both sides run in torch with 32 bits; with ``--fast`` both run in the
engine that the program takes, and nothing is written into the cards.

    python benchmarks/all_backbones.py [ID ...] [--rounds N] [--device D] [--write | --fast]

``--write`` puts the ratio for an area into the shipped cards as `slower`.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from pathotune import places
from pathotune.models._torchvision import import_timm
from pathotune.models.backbones import Backbone, load_backbone
from pathotune.models.cards import DEFAULT_ID, Weights, card, cards
from pathotune.models.families import empty_network, fill

if TYPE_CHECKING:
    from pathotune.models.cards import ModelCard

GIANT = 200e6
FEW, MORE = 2, 6
HEAVY_GFLOP = 50.0


def network_of(model: ModelCard, blocks: int | None = None, *, real: bool = True) -> Any:
    """Return a card's only network with random weights, or without any, cut after its last tap."""
    part = model.parts[0]
    kwargs = dict(part.kwargs) | ({} if blocks is None else {"depth": blocks})
    taps = list(part.taps) if blocks is None else [blocks - 1]
    network = empty_network(part.timm, kwargs, part.input_px or model.tile_px)
    network.prune_intermediate_layers(taps, prune_norm=part.norm != "final")
    if real:
        shapes = network.state_dict()
        fill(network, {k: 0.02 * torch.randn(v.shape) for k, v in shapes.items()})
    return network.eval().requires_grad_(False)


def gflop(model: ModelCard) -> float:
    """Return the GFLOP (multiply and add counted as two) that a tile takes."""
    part = model.parts[0]
    side = part.input_px or model.tile_px
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        network_of(model, real=False).to("meta").forward_intermediates(
            torch.empty(1, 3, side, side, device="meta"),
            indices=list(part.taps),
            norm=part.norm == "final",
            intermediates_only=True,
        )
    return counter.get_total_flops() / 1e9


def random_backbone(
    model: ModelCard, device: str, fast: Path | None, blocks: int | None = None
) -> Backbone:
    """Return a card's backbone with random weights; `fast`: through the engine of the program."""
    network = network_of(model, blocks)
    part = model.parts[0]
    if blocks is not None:
        part = replace(part, taps=(blocks - 1,), kwargs=dict(part.kwargs) | {"depth": blocks})
    if fast is None:
        network = network.to(device, memory_format=torch.channels_last)
        return Backbone(replace(model, parts=(part,)), device, [network], None)
    path = fast / f"{model.id}-{blocks}.safetensors"
    save_file(network.state_dict(), path)
    part = replace(part, weights=Weights("file", str(path)))
    return load_backbone(replace(model, parts=(part,)), device, fast=True)


def seconds(backbone: Backbone) -> float:
    """Return the seconds a tile takes now: processor time, or real time on a graphics card."""
    side = backbone.card.tile_px
    shape = (backbone.batch, side, side, 3)
    tiles = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    clock = time.process_time if backbone.device == "cpu" else time.perf_counter
    begun = clock()
    backbone.tokens(tiles)
    return (clock() - begun) / len(tiles)


def area(model: ModelCard) -> float:
    """Return the mm2 of tissue that a tile gives."""
    return (model.core * model.token_um / 1000) ** 2


def measure(
    model: ModelCard, default: Backbone, rounds: int, fast: Path | None
) -> tuple[float, float, str]:
    """Return (seconds a tile, the default's seconds a tile, how it was measured)."""
    millions = sum(p.numel() for p in network_of(model, real=False).parameters())
    giant = millions > GIANT
    sizes = (FEW, MORE) if giant else (None,)
    many = [random_backbone(model, default.device, fast, b) for b in sizes]
    if gflop(model) > HEAVY_GFLOP:
        for backbone in many:
            backbone.batch = 1
    for backbone in (default, *many):
        seconds(backbone)  # the first run chooses kernels
    turns = [[seconds(b) for b in (default, *many)] for _ in range(rounds)]
    base, *took = (statistics.median(column) for column in zip(*turns, strict=True))
    if not giant:
        return took[0], base, "whole"
    depth = model.parts[0].taps[-1] + 1
    block = (took[1] - took[0]) / (MORE - FEW)
    return took[0] + (depth - FEW) * block, base, f"{MORE} of {depth} blocks"


def build(model: ModelCard) -> tuple[object, ...]:
    """Return what makes two cards one network to a clock."""
    part = model.parts[0]
    kwargs = {k: v for k, v in part.kwargs.items() if k not in ("img_size", "init_values")}
    return part.timm, str(sorted(kwargs.items())), part.taps, model.tile_px, model.core


def write(card_id: str, slower: float) -> None:
    """Put the ratio into a shipped card."""
    path = places.resources() / "models" / f"{card_id}.toml"
    text = re.sub(r"^slower = .*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    line = f"slower = {float(f'{slower:.2g}'):g}\n"
    path.write_text(text.replace("\n\n[", f"\n{line}\n[", 1), encoding="utf-8")


def main() -> None:
    """Print a row a card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ids", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--fast", action="store_true")
    args = parser.parse_args()
    import_timm()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    fast = Path(tempfile.mkdtemp()) if args.fast else None
    if fast is not None:
        os.environ["PATHOTUNE_HOME"] = str(fast)  # compiled networks of random weights are no use
    default = load_backbone(card(DEFAULT_ID), args.device, fast=args.fast)
    print(f"Default runs in {default.engine.name}.")
    wanted = args.ids or [c.id for c in cards().values() if c.id != DEFAULT_ID]
    print(f"{'card':22} {'GFLOP':>6} {'img/s':>7} {'ratio':>6} {'slower a mm2':>12}  timed")
    known: dict[tuple[object, ...], tuple[float, float, str]] = {}
    for card_id in wanted:
        model = card(card_id)
        if build(model) not in known:
            known[build(model)] = measure(model, default, args.rounds, fast)
        took, base, how = known[build(model)]
        slower = (took / area(model)) / (base / area(default.card))
        row = f"{card_id:22} {gflop(model):6.1f} {1 / took:7.2f} {base / took:6.3f}"
        print(f"{row} {slower:12.2f}  {how}", flush=True)
        if args.write and not args.fast:
            write(card_id, slower)
        gc.collect()
    if fast is not None:
        shutil.rmtree(fast)


if __name__ == "__main__":
    main()
