"""Where a compiled network's time goes: part by part, kind of work by kind, batch by batch.

Everything is processor time of one thread, which other programs on the machine
lengthen far less than the clock's. Parts, batches and a large matrix product in
the part's own numbers take turns; a part's share is its arithmetic over what
that product reached. The kinds of work are OpenVINO's own profile of the
default batch, the least time of each node over the rounds.

    OMP_NUM_THREADS=1 python benchmarks/backbone_parts.py [--rounds 7] [--batches 1 3 6]
"""

from __future__ import annotations

import argparse
import collections
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.models import runtime
from pathotune.models.backbones import load_networks
from pathotune.models.cards import DEFAULT_ID, card
from pathotune.models.engines import openvino
from pathotune.models.engines.graph import part_graphs
from pathotune.models.quiet import import_openvino

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE = 1536
_LEAST = 0.01  # of a part's time: kinds of work below are left out


def request(model: Any, precision: str, shape: tuple[int, ...], profiled: bool = False) -> Any:
    """Compile a copy of a model as the program does, for one thread."""
    model = model.clone()
    model.reshape(list(shape))
    hints = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": profiled,
    }
    return import_openvino().Core().compile_model(model, "CPU", hints).create_infer_request()


def product() -> Any:
    """Return a model of one large matrix product."""
    ov = import_openvino()
    left = ov.opset13.parameter([_SIDE, _SIDE], ov.Type.f32)
    right = ov.opset13.constant(np.full((_SIDE, _SIDE), 0.5, np.float32))
    return ov.Model([ov.opset13.matmul(left, right, False, True)], [left], "product")


def worked(one: Any, fed: NDArray[Any]) -> float:
    """Return the processor's seconds of one run."""
    start = time.process_time()
    one.infer([fed])
    return time.process_time() - start


def arithmetic(graph: Any, tile: NDArray[np.uint8]) -> float:
    """Return a part's operations for one tile, two a multiplication and addition."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    pixels = torch.from_numpy(tile)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        graph(pixels)
    return float(counter.get_total_flops())


def kinds(one: Any, fed: NDArray[Any], rounds: int) -> list[tuple[str, float]]:
    """Return the share of each kind of work in a profiled run, the largest first."""
    least: dict[tuple[str, str], float] = {}
    for _ in range(rounds):
        one.infer([fed])
        for node in one.get_profiling_info():
            key = node.node_name, f"{node.node_type} ({node.exec_type})"
            least[key] = min(least.get(key, np.inf), node.real_time.total_seconds())
    found: collections.Counter[str] = collections.Counter()
    for (_, kind), seconds in least.items():
        found[kind] += seconds  # type: ignore[assignment]
    whole = sum(found.values())
    return [(kind, s / whole) for kind, s in found.most_common() if s / whole >= _LEAST]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 3, 6])
    args = parser.parse_args()
    model = card(DEFAULT_ID)
    side = model.tile_px
    networks, projection = load_networks(model, "cpu")
    engine = openvino.convert(model, networks, projection, None, runtime.has_bf16(), 1)
    graphs = part_graphs(model, networks, projection)
    tile = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    flops = [arithmetic(graph, tile) for graph in graphs]
    ways = list(zip(engine._models, engine._precisions, strict=True))

    fed = {n: np.repeat(tile, n, 0) for n in args.batches}
    requests = {
        (i, n): request(m, p, fed[n].shape) for i, (m, p) in enumerate(ways) for n in args.batches
    }
    ones = np.ones((_SIDE, _SIDE), np.float32)
    products = {p: request(product(), p, ones.shape) for p in {p for _, p in ways}}
    times: dict[Any, float] = {}
    for _ in range(args.rounds + 1):
        for key, one in requests.items():
            seconds = worked(one, fed[key[1]]) / key[1]
            times[key] = min(times.get(key, np.inf), seconds)
        for precision, one in products.items():
            times[precision] = min(times.get(precision, np.inf), worked(one, ones))

    print("processor time of one thread, the least of the rounds")
    for precision in products:
        rate = 2.0 * _SIDE**3 / times[precision]
        print(f"matrix product in {precision}: {rate / 1e9:.0f} GFLOP/s")
    for n in args.batches:
        whole = sum(times[i, n] for i in range(len(ways)))
        print(f"batch {n}: {whole * 1e3:.1f} ms a tile")
        for i, (_, precision) in enumerate(ways):
            seconds = times[i, n]
            share = flops[i] / seconds * times[precision] / (2.0 * _SIDE**3)
            print(
                f"  {model.parts[i].timm:26s} {precision:4s} {flops[i] / 1e9:5.2f} GFLOP "
                f"({flops[i] / sum(flops):.0%}), {seconds * 1e3:5.1f} ms ({seconds / whole:.0%}), "
                f"{share:.0%} of the product in {precision}"
            )
    n = runtime.batch_size("cpu", side)
    tiles = np.repeat(tile, n, 0)
    for i, (graph, precision) in enumerate(ways):
        print(f"{model.parts[i].timm}, kinds of work")
        for kind, share in kinds(request(graph, precision, tiles.shape, True), tiles, args.rounds):
            print(f"  {share:6.1%} {kind}")


if __name__ == "__main__":
    main()
