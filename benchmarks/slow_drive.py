"""How long napari's window stands still on a slow drive: read at once, and in the background.

One real window shows the same made slide again and again, in turn: on a slow
drive read directly, on a slow drive read in the background, and on a fast drive
read directly, which is what drawing itself costs here. Each turn makes the same
jumps to places not seen before. A jump ends when the drawn pixels are the
slide's own and the window has had a rest; between its start and that end the
longest stretch in which the event loop did not come round is what the user
feels. Two kinds of drives are made: one that takes 0.3 s for whatever is asked
at once, and one that takes 25 ms for each tile of 256 x 256. Needs a screen.

    xvfb-run -s "-screen 0 1366x768x24" python benchmarks/slow_drive.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
MODES = ("directly, slow drive", "in the background, slow drive", "directly, fast drive")
SIDE, TILE = 8192, 256
A_READ_S, A_TILE_S = 0.3, 0.025
JUMPS = 6
REST_S = 0.25
LONGEST_S = 30.0


def make(path: Path) -> None:
    """Write a slide of four levels."""
    import tifffile

    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 220, (SIDE // 16, SIDE // 16, 3), np.uint8)
    pixels = coarse.repeat(16, 0).repeat(16, 1) + rng.integers(0, 20, (SIDE, SIDE, 1), np.uint8)
    with tifffile.TiffWriter(path) as out:
        for step in (1, 2, 4, 8):
            small = pixels[::step, ::step]
            out.write(small, photometric="rgb", tile=(TILE, TILE), subfiletype=int(step > 1))


class Drive:
    """Makes every reading of a slide take its time."""

    def __init__(self) -> None:
        from pathotune.slides.slide import Slide

        self.a_read, self.a_tile = 0.0, 0.0
        direct = Slide.read_reduced

        def read(
            slide: Slide, level: int, by: int, x: int, y: int, w: int, h: int, **how: Any
        ) -> Any:
            tiles = (-(-(x + w) // TILE) - x // TILE) * (-(-(y + h) // TILE) - y // TILE)
            time.sleep(self.a_read + self.a_tile * tiles)
            return direct(slide, level, by, x, y, w, h, **how)

        Slide.read_reduced = read  # type: ignore[method-assign]
        self.direct = direct


class Window:
    """A napari window whose event loop is watched."""

    def __init__(self) -> None:
        import napari
        from qtpy.QtWidgets import QApplication

        self.events = QApplication.processEvents
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1366, 768)
        self.longest = 0.0
        self.rest(1.0)

    def rest(self, seconds: float) -> None:
        """Let the event loop go round, and note its longest round."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            self.events()
            self.longest = max(self.longest, time.perf_counter() - began)
            time.sleep(0.001)

    def turn(self, path: Path, drive: Drive, mode: str, cost: tuple[float, float]) -> Any:
        """Return the longest rounds and the times until sharp, s, one a jump."""
        from napari_pathotune import _layers
        from napari_pathotune._opening import Seen
        from napari_pathotune._patience import patience_of
        from pathotune.slides.slide import open_slide

        waits = "background" in mode
        found: tuple[list[float], list[float]] = ([], [])
        with open_slide(path) as slide:
            seen = Seen(slide, np.asarray(slide.pyramid()[-1]), waits)
            layer = _layers.add_slide(self.viewer, slide, seen)
            patience = patience_of(layer)
            assert patience is not None
            patience.serve(layer)
            if not waits:
                patience.begin = lambda: None  # type: ignore[method-assign]
            self.viewer.scene.camera.zoom = 1.0
            self.rest(0.5)
            if "slow" in mode:
                drive.a_read, drive.a_tile = cost
            for jump in range(JUMPS):
                self.longest = 0.0
                began = time.perf_counter()
                place = (900 + 1150 * jump, 7000 - 1100 * jump)
                self.viewer.scene.camera.center = (0, *place)
                self.longest = time.perf_counter() - began
                while True:
                    self.rest(0.02)
                    sharp_at = time.perf_counter()
                    if self.sharp(drive, slide, layer, place):
                        break
                    if sharp_at - began > LONGEST_S:
                        raise SystemExit(f"no sharp pixels, {mode}")
                self.rest(REST_S)
                found[0].append(self.longest)
                found[1].append(sharp_at - began)
            patience.stop()
            self.viewer.layers.clear()
            drive.a_read = drive.a_tile = 0.0
            self.rest(0.5)
        return found

    def sharp(self, drive: Drive, slide: Any, layer: Any, place: tuple[int, int]) -> bool:
        """Whether what is drawn around a place are the slide's own pixels."""
        top, left = layer.corner_pixels[0].astype(int)
        shown = np.asarray(layer._slice.image.view)
        inside = top <= place[0] < top + shown.shape[0] and left <= place[1] < left + shown.shape[1]
        if layer.data_level or not inside:
            return False
        right = drive.direct(slide, 0, 1, left, top, shown.shape[1], shown.shape[0])
        return np.array_equal(shown, right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
    with tempfile.TemporaryDirectory() as name:
        os.environ["PATHOTUNE_HOME"] = str(Path(name) / "home")
        os.environ["NAPARI_CONFIG"] = ""
        path = Path(name) / "made.tif"
        make(path)
        drive, window = Drive(), Window()
        window.turn(path, drive, MODES[2], (0.0, 0.0))  # what loads for the first picture
        for what, cost in (("0.3 s a reading", (A_READ_S, 0.0)), ("25 ms a tile", (0.0, A_TILE_S))):
            gaps: dict[str, list[float]] = {mode: [] for mode in MODES}
            waits: dict[str, list[float]] = {mode: [] for mode in MODES}
            for _ in range(args.rounds):
                for mode in MODES:
                    gap, wait = window.turn(path, drive, mode, cost)
                    gaps[mode] += gap
                    waits[mode] += wait
            print(f"a drive that takes {what}: window held, median (longest); until sharp, median")
            for mode in MODES:
                ms = [1000 * v for v in gaps[mode]]
                until = 1000 * statistics.median(waits[mode])
                held = f"{statistics.median(ms):5.0f} ({max(ms):5.0f}) ms"
                print(f"  {mode:30s} {held}  {until:6.0f} ms")
            mid = {mode: statistics.median(v) for mode, v in gaps.items()}
            print(f"  background / direct: {mid[MODES[1]] / mid[MODES[0]]:.2f}", end="; ")
            print(f"background / drawing alone: {mid[MODES[1]] / mid[MODES[2]]:.2f}")
        window.viewer.close()
    print(f"load on {os.cpu_count()} cores at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
