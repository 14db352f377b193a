"""Where the time of a slide's nuclei goes, and the network beside two others.

Usage: ``python benchmarks/nuclei_speed.py [--peers] [--threads N] [--rounds N]``. On fields of
the shipped skin slide at 0.5 um/px: reading, the network, outlines, and the run as a whole with
measuring and writing, in seconds per mm2 of tissue, the medians of several rounds. With
``--peers`` the forward passes of Cellpose's and InstanSeg's networks run on the same field in the
same rounds, in turn, in torch with 32 bits like ours in one row, and ours as it runs in the
program in another; their weights are random, which does not change the time. They must be
installed beside this package.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune import places
from pathotune.events import drain
from pathotune.nuclei.net.outlines import outlines
from pathotune.nuclei.net.weights import load
from pathotune.nuclei.run import segment_slide
from pathotune.nuclei.segmenter import prepare
from pathotune.nuclei.segmenters import nucleus_net
from pathotune.slides.geometry import Region
from pathotune.slides.slide import open_slide

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 512  # pixels of a field for the forward passes
BOX = Region(1026, 1026, 1026, 1026)  # one tile of the run


def timed(call: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def parts(rounds: int) -> None:
    """Print seconds per mm2 for each part."""
    with open_slide(places.resources() / "sample" / "CMU-1-Small-Region.svs") as slide:
        finder = prepare("nucleus_net", slide)
        pixels = slide.read(BOX, 0.5)
        maps = finder.runner.maps(pixels)
        area = BOX.width * BOX.height * slide.need_mpp() ** 2 / 1e6
        told: dict[str, list[float]] = {
            "reading": [],
            "network": [],
            "outlines": [],
            "whole run": [],
        }
        with tempfile.TemporaryDirectory() as folder:
            for k in range(rounds):
                told["reading"].append(timed(lambda: slide.read(BOX, 0.5)))
                told["network"].append(timed(lambda: finder.runner.maps(pixels)))
                told["outlines"].append(timed(lambda: outlines(maps, 0.5)))
                out = Path(folder) / f"{k}.parquet"
                run = segment_slide(slide, finder, out, region=BOX)
                told["whole run"].append(timed(lambda run=run: drain(run)))
        count = outlines(maps, 0.5).labels.max()
        print(f"{finder.runner.name}; {area:.2f} mm2, {count} nuclei; seconds per mm2:")
        middle = {k: statistics.median(v) / area for k, v in told.items()}
        for name, value in middle.items():
            print(f"  {name:10} {value:6.2f}  ({value / middle['network']:.2f} of the network's)")


def peers(rounds: int) -> None:
    """Print seconds per field for each network, in turn."""
    import torch

    field = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    light = torch.from_numpy(field).permute(2, 0, 1)[None].float() / 255
    ours = load(nucleus_net.shipped())[0]
    calls: dict[str, Callable[[], Any]] = {}
    from pathotune.nuclei.net.runner import runner

    run = runner(nucleus_net.shipped(), "cpu")
    calls[f"ours, {run.name}"] = lambda: run.maps(field)
    calls["ours, torch f32"] = lambda: ours(light)
    try:
        from cellpose.resnet_torch import CPnet

        cellpose = CPnet([2, 32, 64, 128, 256], 3, 3).eval()
        calls["Cellpose 3, torch f32"] = lambda: cellpose(light[:, :2])
    except ImportError as error:
        print(f"Cellpose is not installed ({error})")
    try:
        from instanseg.utils.models.InstanSeg_UNet import InstanSeg_UNet

        unet = InstanSeg_UNet(in_channels=3, out_channels=[[2, 2, 1]], layers=[256, 128, 64, 32])
        unet = unet.eval()
        calls["InstanSeg, torch f32"] = lambda: unet(light)
    except ImportError as error:
        print(f"InstanSeg is not installed ({error})")
    told: dict[str, list[float]] = {k: [] for k in calls}
    with torch.inference_mode():
        for call in calls.values():
            call()
        for _ in range(rounds):
            for name, call in calls.items():
                told[name].append(timed(call))
    base = statistics.median(told["ours, torch f32"])
    print(f"one field of {SIDE} x {SIDE} px, {torch.get_num_threads()} threads, {rounds} rounds:")
    for name, of in told.items():
        value = statistics.median(of)
        print(f"  {name:24} {value:7.3f} s  ({value / base:.2f} of ours in torch)")


def main() -> None:
    """Measure."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--peers", action="store_true")
    ask.add_argument("--threads", type=int, default=2)
    ask.add_argument("--rounds", type=int, default=5)
    told = ask.parse_args()
    import torch

    torch.set_num_threads(told.threads)
    parts(told.rounds)
    if told.peers:
        peers(told.rounds)


if __name__ == "__main__":
    main()
