"""Check everything that runs on a CUDA card, on the card of this computer, in under 8 minutes.

Every path is run and held against the processor: the same class for at least
99.5 % of the tokens of real tissue. Memory is made to run out and the work must
go on. Speed is printed against what the card's own matrix product reaches, and
with and without torch.compile. Training runs on the card with every method.

    make gpu-check                (or: python benchmarks/gpu_check.py [--quick])

Exit code 0: all passed; 1: something failed; 3: there is no CUDA card to check.
`--rehearse` runs the same steps on the processor, to see that the script works.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import whole_slide
from backbone import arithmetic, classes, real_tiles
from made_slide import make_slide

from pathotune import places, plugins
from pathotune.events import Note, PathotuneError, drain
from pathotune.marks.geojson import read_geojson
from pathotune.models import cards, runtime
from pathotune.models.backbones import Backbone, load_backbone, load_networks
from pathotune.models.bundle import ModelBundle
from pathotune.models.engines import compiling, trust
from pathotune.models.engines.eager import EagerEngine
from pathotune.models.extract import backbone_for
from pathotune.models.tuning.linear import LinearHead
from pathotune.slides.sample import sample_annotations, sample_slide
from pathotune.slides.slide import open_slide

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

NO_CARD = 3
SAME = 0.995
LIMIT_S = 480.0


class Check:
    """Runs steps one after the other; one that fails does not hide the next."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.failed: list[str] = []
        self.begun = time.monotonic()

    def step(self, title: str, call: Callable[[], None]) -> None:
        """Run a step; whatever it raises is told and counts as failed."""
        if time.monotonic() - self.begun > LIMIT_S * 0.85:
            self.failed.append(f"{title} (no time left)")
            return
        print(f"\n== {title}", flush=True)
        start = time.monotonic()
        try:
            call()
        except Exception:  # noqa: BLE001 - whatever a card does, the other steps are told too
            traceback.print_exc()
            self.failed.append(title)
        print(f"   {time.monotonic() - start:.1f} s", flush=True)

    def expect(self, true: bool, text: str) -> None:
        """Tell whether something held."""
        print(f"   {'passed' if true else 'FAILED'}: {text}", flush=True)
        if not true:
            self.failed.append(text)


def sync(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def peaks(device: str) -> dict[str, float]:
    """Return operations per second of a large matrix product in each kind of number."""
    import torch

    side = 8192 if device.startswith("cuda") else 1024
    found = {}
    for kind in ("float32", "bfloat16", "float16"):
        if kind == "float16" and device == "cpu":
            continue
        a = torch.randn(side, side, device=device).to(getattr(torch, kind))
        for _ in range(3):
            a @ a
        times = []
        for _ in range(5):
            sync(device)
            start = time.perf_counter()
            for _ in range(4):
                a @ a
            sync(device)
            times.append((time.perf_counter() - start) / 4)
        found[kind] = 2.0 * side**3 / statistics.median(times)
        print(f"   matrix product in {kind}: {found[kind] / 1e12:.1f} TFLOP/s")
    return found


def flops_of(model: cards.ModelCard) -> float:
    """Return the operations of one tile, two a multiplication and addition."""
    tile = np.full((1, model.tile_px, model.tile_px, 3), 200, np.uint8)
    return arithmetic(model, load_backbone(model, "cpu").engine, tile)


def rate(backbone: Backbone, tile: NDArray[np.uint8], seconds: float = 3.0) -> float:
    """Return images per second through the pipeline, copies included."""
    tiles = np.repeat(tile[None], backbone.batch, 0)
    with backbone.ahead() as begin:
        begin(tiles).result()
        start, done, waiting = time.perf_counter(), 0, []
        while time.perf_counter() - start < seconds or waiting:
            while len(waiting) < 3 and time.perf_counter() - start < seconds:
                waiting.append(begin(tiles))
            if waiting:
                waiting.pop(0).result()
                done += len(tiles)
        return done / (time.perf_counter() - start)


def agreement(check: Check, model: cards.ModelCard, tiles: NDArray[np.uint8]) -> None:
    """Hold 16 and 32 bits on the card against torch in 32 bits on the processor."""
    bundle = ModelBundle.load(places.resources() / "bundles" / "crc_nine.safetensors")
    head = LinearHead.from_arrays(bundle.arrays) if model.id == bundle.card_id else None
    expected = load_backbone(model, "cpu").tokens_full(tiles)
    for device in (check.device, check.device + runtime.EXACT):
        backbone = backbone_for(model, device)
        got = backbone.tokens_full(tiles)
        moved = trust.change(expected, got)
        what = f"{model.name} on {device} ({backbone.engine.name}, batch {backbone.batch})"
        if head is None:
            check.expect(moved <= trust.LIMIT, f"{what}: tokens moved by {moved:.4f}")
            continue
        same = float((classes(model, head, got) == classes(model, head, expected)).mean())
        check.expect(same >= SAME, f"{what}: same class {same:.3%}, moved by {moved:.4f}")


def out_of_memory(check: Check, model: cards.ModelCard, tiles: NDArray[np.uint8]) -> None:
    """Leave the card too little memory for a large batch; the work must go on."""
    backbone = load_backbone(model, check.device)
    expected = backbone.tokens_full(tiles)
    if check.device.startswith("cuda"):
        import torch

        # an allowance that fewer than 4096 tiles' pixels in 32 bits take, on any card
        torch.cuda.empty_cache()
        total = torch.cuda.mem_get_info()[1]
        allowed = torch.cuda.memory_reserved() + (3 << 29)
        backbone.batch = 4096
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total))
        try:
            got = backbone.tokens_full(tiles)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    else:
        run, backbone.batch = backbone.engine.run, 64

        def hungry(batch: NDArray[np.uint8], threads: int) -> NDArray[np.float32]:
            if len(batch) > 16:
                raise RuntimeError("out of memory, as on a card")
            return run(batch, threads)

        backbone.engine.run = hungry  # type: ignore[method-assign]
        got = backbone.tokens_full(tiles)
    notes = [n.text for n in backbone.notes() if isinstance(n, Note)]
    check.expect(bool(notes), f"memory ran out {len(notes)} times: {notes[-1:]}")
    moved = trust.change(expected, got)
    check.expect(moved <= trust.SAME, f"the work went on, tokens moved by {moved:.4f}")


def compiled(check: Check, model: cards.ModelCard, tile: NDArray[np.uint8]) -> float | None:
    """Compile the network as the program would; return how many times as fast it is then.

    A network that cannot be compiled here must run as it is and say so; then None.
    """
    backbone = backbone_for(model, check.device)
    engine = backbone.engine
    if not isinstance(engine, EagerEngine):  # in a rehearsal OpenVINO computes
        backbone = load_backbone(model, check.device)
        engine = EagerEngine(model, check.device, *load_networks(model, check.device))
        backbone.engine = engine
    plain = rate(backbone, tile)
    start = time.perf_counter()
    made = engine.compile(backbone.batch)
    taken = time.perf_counter() - start
    if not made:
        notes = [n.text for n in backbone.notes()]
        check.expect(bool(notes) and rate(backbone, tile) > 0, f"it goes on as it is: {notes[-1:]}")
        return None
    fast = rate(backbone, tile)
    gain = 1 / plain - 1 / fast
    after = f"{taken / gain:,.0f} tiles" if gain > 0 else "never"
    print(
        f"   {plain:.0f} images/s as it is, {fast:.0f} compiled ({fast / plain:.2f} times); "
        f"compiling takes {taken:.0f} s and pays after {after}"
    )
    used = fast / plain >= compiling.WORTH
    print(f"   from now on jobs without a window {'compile it' if used else 'leave it as it is'}")
    check.expect(True, f"compiled, the features are the same ({engine.name})")
    return fast / plain


def train_all(check: Check, quick: bool) -> None:
    """Train every method on the card with the sample's marks."""
    from pathotune.learn.train import train

    model = cards.card(cards.DEFAULT_ID)
    # The linear model computes the features the others start from.
    names = sorted(plugins.names("pathotune.models.tuning"), key=lambda n: n != "linear")
    for name in names[: 1 if quick else None]:
        start = time.monotonic()
        if start - check.begun > LIMIT_S * 0.8:
            check.expect(False, f"{name} was not trained: no time left")
            continue
        with open_slide(sample_slide()) as slide:
            marks = read_geojson(sample_annotations())
            try:
                bundle = drain(
                    train([(slide, marks)], card=model, method=name, device=check.device)
                )
            except PathotuneError as error:
                check.expect(False, f"{name}: {error.message}")
                continue
        arrays = [np.asarray(a) for a in bundle.arrays.values()]
        fine = all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f")
        check.expect(fine, f"{name} trained in {time.monotonic() - start:.0f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one method, fewer tiles")
    parser.add_argument("--rehearse", action="store_true", help="run the steps on the processor")
    args = parser.parse_args()
    from pathotune.models.quiet import import_torch

    import_torch()
    import torch

    if not args.rehearse and not torch.cuda.is_available():
        why = (
            "torch was installed without CUDA"
            if torch.version.cuda is None
            else "torch has CUDA but sees no card (see: pathotune doctor)"
        )
        print(f"There is no CUDA card to check here: {why}. Nothing was checked.")
        return NO_CARD
    device = "cpu" if args.rehearse else "cuda"
    check = Check(device)
    name = "the processor (a rehearsal)" if args.rehearse else torch.cuda.get_device_name(0)
    print(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    model = cards.card(cards.DEFAULT_ID)
    tiles = real_tiles(model, str(sample_slide()), 8 if args.quick else 48)
    others = [c for c in cards.cards().values() if c.id != model.id and c.here]
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, _home(Path(folder)):
        check.step("What the card can do", lambda: found.update(peaks(device)))
        check.step("The same classes as the processor", lambda: agreement(check, model, tiles))
        for other in others:
            check.step(
                f"The same features: {other.name}",
                lambda other=other: agreement(
                    check, other, trust.tissue_tiles(other.tile_px, other.mpp)
                ),
            )
        check.step("Memory runs out", lambda: out_of_memory(check, model, tiles))

        def speed() -> None:
            backbone = backbone_for(model, device)
            reached = rate(backbone, tiles[0])
            flops = flops_of(model)
            kind = "float16" if "float16" in found else "bfloat16"
            print(
                f"   {reached:.0f} images/s in batches of {backbone.batch}, "
                f"{reached * flops / 1e12:.2f} TFLOP/s, {reached * flops / found[kind]:.1%} of "
                f"the card's own product in {kind}"
            )

        check.step("Speed", speed)
        check.step("Whole slide", lambda: slide_speed(check, model, args.quick))
        check.step("Training", lambda: train_all(check, args.quick))
        gains: list[float | None] = []
        if not args.quick:
            check.step("torch.compile", lambda: gains.append(compiled(check, model, tiles[0])))
    if gains and gains[0] is not None and not args.rehearse:
        compiling.remember(model, device, gains[0])  # for this computer, not for the check's home
    taken = time.monotonic() - check.begun
    print(f"\n{taken:.0f} s of {LIMIT_S:.0f} allowed")
    if check.failed:
        print("FAILED: " + "; ".join(check.failed))
        return 1
    print("All passed.")
    return 0


def slide_speed(check: Check, model: cards.ModelCard, quick: bool) -> None:
    """Read and compute a made slide of 41,000 x 41,000 pixels, or a part of it."""
    batch = backbone_for(model, check.device).batch
    count, rounds = (8 * batch, 1) if quick or check.device == "cpu" else (24 * batch, 3)
    with tempfile.TemporaryDirectory() as folder:
        slide = make_slide(Path(folder) / "made.svs", 40960, 40960)
        speeds = whole_slide.measure(slide, model, check.device, min(count, 4096), rounds)
    whole_slide.tell(speeds, check.device)


class _home:
    """Keep caches of this run to itself, so that nothing from before is met."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        import os

        os.environ["PATHOTUNE_HOME"] = str(self.folder)

    def __exit__(self, *_: object) -> None:
        import os

        os.environ.pop("PATHOTUNE_HOME", None)


if __name__ == "__main__":
    sys.exit(main())
