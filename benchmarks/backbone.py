"""Compare the ways to run a backbone here: images per second, and the classes they give.

All ways take turns on the same batch, so that other load hits them alike, and so
do two large matrix products: what the processor can do at most in 32 and in 16
bits. A way's share is its arithmetic over what that product reached in the same
rounds, in the numbers most of it is computed in. The classes are those of the
ready-made bundle, token for token, against torch in 32 bits.

    python benchmarks/backbone.py [--rounds N] [--batch N] [--tiles N] [--slide FILE ...]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune import places
from pathotune.models import runtime
from pathotune.models.backbones import load_networks
from pathotune.models.bundle import ModelBundle
from pathotune.models.cards import DEFAULT_ID, card
from pathotune.models.engines import openvino, trust
from pathotune.models.engines.eager import EagerEngine
from pathotune.models.engines.graph import part_graphs
from pathotune.models.features import box_mean
from pathotune.models.tuning.linear import LinearHead
from pathotune.slides.sample import sample_slide
from pathotune.slides.slide import open_slide
from pathotune.slides.tiles import TileGrid, read_batches
from pathotune.slides.tissue import tissue_mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pathotune.models.cards import ModelCard


class Forced(EagerEngine):
    """torch in 16 bits everywhere, harmless or not."""

    def _harmless(self, graph: Any) -> Any:
        import torch

        return torch.bfloat16


def ways(model: ModelCard, threads: int) -> dict[str, Any]:
    """Return every engine that runs here."""
    networks, projection = load_networks(model, "cpu")
    found: dict[str, Any] = {"torch f32": EagerEngine(model, "cpu", networks, projection)}
    found["torch bf16 (all of it)"] = Forced(model, "cpu", networks, projection, half=True)
    if not openvino.available():
        return found
    fast = openvino.convert(model, networks, projection, None, runtime.has_bf16(), threads)
    exact = openvino.convert(model, networks, projection, None, False, threads)
    graphs = part_graphs(model, networks, projection)
    tiles = trust.tissue_tiles(model.tile_px, model.mpp)
    parts = [openvino.traced_model(g, tiles) for g in graphs]
    all_half = openvino.OpenVinoEngine(parts, ["bf16"] * len(parts), projection is None, graphs)
    found["OpenVINO f32"] = exact
    found["OpenVINO bf16 (all of it)"] = all_half
    found[f"OpenVINO, as chosen ({fast.name.split(', ')[1]})"] = fast
    return found


def arithmetic(model: ModelCard, engine: Any, tile: NDArray[np.uint8]) -> float:
    """Return the floating-point operations of one tile, two a multiplication and addition."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    engine.run(tile, 1)  # what is done once is not counted
    # The counter passes over the fused attention of processors.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        engine.run(tile, 1)
    return float(counter.get_total_flops())


_SIDE = 1536


class Products:
    """One large matrix product, by torch and by OpenVINO: what the processor can do at most."""

    def __init__(self, threads: int) -> None:
        self.fed = np.ones((_SIDE, _SIDE), np.float32)
        self.requests: dict[str, Any] = {}
        if not openvino.available():
            return
        from pathotune.models.quiet import import_openvino

        ov = import_openvino()
        left = ov.opset13.parameter([_SIDE, _SIDE], ov.Type.f32)
        right = ov.opset13.constant(np.full((_SIDE, _SIDE), 0.5, np.float32))
        model = ov.Model([ov.opset13.matmul(left, right, False, True)], [left], "product")
        for kind, short in (("float32", "f32"), ("bfloat16", "bf16")):
            self.requests[kind] = openvino.request(model, short, self.fed.shape, threads)

    def best(self, kind: str) -> float:
        """Return operations per second, by whichever is faster in this round."""
        import torch

        a = torch.ones(_SIDE, _SIDE, dtype=getattr(torch, kind))
        times = [_seconds(lambda: a @ a)]
        if kind in self.requests:
            times.append(_seconds(lambda: self.requests[kind].infer([self.fed])))
        return 2.0 * _SIDE**3 / min(times)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def classes(model: ModelCard, head: LinearHead, tokens: NDArray[np.float32]) -> NDArray[np.int_]:
    """Return the class of every token of whole tiles, averaged over its neighbours."""
    inside = np.ones(tokens.shape[1:3], bool)
    means = [box_mean(head.logits(t), inside, model.neighbourhood) for t in tokens]
    halo = model.halo
    return np.stack(means)[:, halo:-halo, halo:-halo].argmax(-1)


def real_tiles(model: ModelCard, path: str, count: int) -> NDArray[np.uint8]:
    """Return tiles spread over the tissue of a slide."""
    with open_slide(path) as slide:
        grid = TileGrid.plan(
            slide.width,
            slide.height,
            slide.mpp or model.mpp,
            mpp=model.mpp,
            tile_px=model.tile_px,
            token_px=model.token_px,
            halo=model.halo,
        )
        cells = grid.cells(tissue_mask(slide))
        cells = cells[:: max(1, len(cells) // count)][:count]
        return np.concatenate([t for _, t in read_batches(slide, grid, cells, 4)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=0, help="by default what the program uses")
    parser.add_argument("--tiles", type=int, default=48, help="compared a slide")
    parser.add_argument("--slide", action="append", default=[], help="more slides to compare on")
    args = parser.parse_args()
    model = card(DEFAULT_ID)
    threads = runtime.threads_here()
    engines = ways(model, threads)
    batch = args.batch or runtime.batch_size("cpu", model.tile_px)
    sample = real_tiles(model, str(sample_slide()), args.tiles)
    tiles = sample[:batch]
    flops = arithmetic(model, engines["torch f32"], tiles[:1])
    rates: dict[str, list[float]] = {name: [] for name in engines}
    peaks: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for engine in engines.values():
        engine.run(tiles, threads)
    products = Products(threads)
    for kind in peaks:
        products.best(kind)
    for _ in range(args.rounds):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.run(tiles, threads)
            rates[name].append(len(tiles) / (time.perf_counter() - start))
        for kind, seen in peaks.items():
            seen.append(products.best(kind))
    print(
        f"{model.name}, batches of {batch}, {threads} threads, bf16 in hardware: "
        f"{'yes' if runtime.has_bf16() else 'no'}, {flops / 1e9:.1f} GFLOP a tile"
    )
    for kind, seen in peaks.items():
        print(f"matrix product in {kind}: {statistics.median(seen) / 1e9:.0f} GFLOP/s")
    base = rates["torch f32"]
    for name, seen in rates.items():
        kind = "bfloat16" if "bf16" in name else "float32"
        share = statistics.median(r * flops / p for r, p in zip(seen, peaks[kind], strict=True))
        times = statistics.median(a / b for a, b in zip(seen, base, strict=True))
        print(
            f"{name:36s} {statistics.median(seen):5.1f} images/s "
            f"({min(seen):.1f}-{max(seen):.1f}), "
            f"{times:.2f} x torch f32, {share:.0%} of the product in {kind}"
        )
    compare(model, engines, {"the sample": sample}, args, threads)


def compare(
    model: ModelCard,
    engines: dict[str, Any],
    sets: dict[str, NDArray[np.uint8]],
    args: argparse.Namespace,
    threads: int,
) -> None:
    """Print how many tokens keep the class that torch gives in 32 bits."""
    bundle = ModelBundle.load(places.resources() / "bundles" / "crc_nine.safetensors")
    head = LinearHead.from_arrays(bundle.arrays)
    sets |= {path: real_tiles(model, path, args.tiles) for path in args.slide}
    batch = runtime.batch_size("cpu", model.tile_px)
    for title, tiles in sets.items():
        tiles = tiles[: len(tiles) // batch * batch]
        print(f"{title}: {len(tiles)} tiles, {len(tiles) * model.core**2} tokens")
        reference: Any = None
        for name, engine in engines.items():
            tokens = np.concatenate(
                [engine.run(tiles[i : i + batch], threads) for i in range(0, len(tiles), batch)]
            )
            if reference is None:
                reference = tokens
                rest = np.abs(tokens).max(-1, keepdims=True) / 127
                rms = float(np.sqrt(np.mean(rest**2) / 12))
                print(f"  keeping tokens in eight bits moves them by {rms:.4f}")
                continue
            same = (classes(model, head, tokens) == classes(model, head, reference)).mean()
            moved = float(np.sqrt(np.mean((tokens - reference) ** 2)))
            print(f"  {name:36s} same class {same:.3%}, tokens moved by {moved:.4f}")


if __name__ == "__main__":
    main()
