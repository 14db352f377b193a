"""Would eight-bit arithmetic do? Quantises the transformer with NNCF and compares the classes.

It is the measurement behind not offering int8: NNCF is no dependency of the
program and has to be installed for this (pip install nncf). Smooth quantisation and
bias correction are calibrated on tiles of the first slide that is named.

    python benchmarks/int8.py SLIDE [SLIDE ...]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from backbone import classes, real_tiles

from pathotune import places
from pathotune.models import runtime
from pathotune.models.backbones import load_networks
from pathotune.models.bundle import ModelBundle
from pathotune.models.cards import DEFAULT_ID, card
from pathotune.models.engines import openvino
from pathotune.models.engines.eager import EagerEngine
from pathotune.models.engines.graph import part_graphs
from pathotune.models.tuning.linear import LinearHead
from pathotune.slides.sample import sample_slide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("slide", nargs="+")
    args = parser.parse_args()
    import nncf

    model, threads = card(DEFAULT_ID), runtime.threads_here()
    networks, projection = load_networks(model, "cpu")
    reference = EagerEngine(model, "cpu", networks, projection)
    chosen = openvino.convert(model, networks, projection, None, runtime.has_bf16(), threads)
    graphs = part_graphs(model, networks, projection)
    known = real_tiles(model, args.slide[0], 40)
    models = [openvino.traced_model(g, known[:2]) for g in graphs]
    for one in models:
        one.reshape([2, *known.shape[1:]])
    models[0] = nncf.quantize(
        models[0],
        nncf.Dataset([known[i : i + 2] for i in range(0, len(known) - 1, 2)]),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=20,
    )
    eight = openvino.OpenVinoEngine(models, ["bf16", "f32"], projection is None, graphs)
    bundle = ModelBundle.load(places.resources() / "bundles" / "crc_nine.safetensors")
    head = LinearHead.from_arrays(bundle.arrays)
    tiles = known[:3]
    for path in (str(sample_slide()), *args.slide):
        tiles = real_tiles(model, path, 24)
        at = range(0, len(tiles) - 2, 3)
        expected = np.concatenate([reference.run(tiles[i : i + 3], threads) for i in at])
        for name, engine in (("int8 transformer", eight), ("as chosen", chosen)):
            got = np.concatenate([engine.run(tiles[i : i + 3], threads) for i in at])
            same = (classes(model, head, got) == classes(model, head, expected)).mean()
            print(f"{path}: {name}: same class {same:.3%}")
    seconds: dict[str, list[float]] = {"int8": [], "chosen": []}
    for _ in range(9):
        for name, engine in (("int8", eight), ("chosen", chosen)):
            start = time.perf_counter()
            engine.run(tiles[:3], threads)
            seconds[name].append(time.perf_counter() - start)
    times = statistics.median(
        c / e for c, e in zip(seconds["chosen"], seconds["int8"], strict=True)
    )
    print(f"int8 is {times:.2f} times as fast as what is chosen")


if __name__ == "__main__":
    main()
