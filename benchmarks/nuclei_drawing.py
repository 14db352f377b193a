"""Moving a slide with a million nuclei on it against the same slide without, in a real window.

Usage: ``python benchmarks/nuclei_drawing.py [COUNT]``. A slide of 46,080 x 46,080 pixels at
0.25 um/px is made, and nuclei (ellipses of 32 points) are written to a store as the program writes
them. The same steps of the same path are drawn with the layer hidden and shown, taking turns, at
each zoom: pans of 65 screen pixels, and zooms of 4 per cent, after which all is drawn anew. A frame
ends when the graphics have finished. Then: how long the picture of the nuclei takes to follow, and
the longest turn of the GUI thread meanwhile, in its own processor time. Under Xvfb everything is
drawn in software.
"""

from __future__ import annotations

import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ["NAPARI_CONFIG"] = ""
SIDE, MPP, STEPS = 46_080, 0.25, 12
ZOOMS = (2.0, 1.0, 0.5, 0.25, 0.1, 0.03)  # screen pixels a slide pixel


class Window:
    """A napari window with a slide and its nuclei, drawn when it is told to."""

    def __init__(self, folder: Path, count: int) -> None:
        import napari
        from made_slide import make_slide
        from nuclei_store import write
        from qtpy.QtWidgets import QApplication

        from napari_pathotune._nuclei_desk import NucleiDesk
        from napari_pathotune._nuclei_view import NucleiView
        from napari_pathotune._session import Session

        self.events = QApplication.processEvents
        slide = make_slide(folder / "made.svs", SIDE, SIDE, MPP)
        write(folder / "made.parquet", count)
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1366, 768)
        self.native = self.viewer.window._qt_viewer.canvas.native
        self.session = Session.of(self.viewer)
        self.session.loop.pause()
        self.session.open(slide)
        self.until(lambda: self.session.slide is not None)
        self.session.jobs.cancel("tissue")
        self.until(lambda: self.session.jobs.idle)
        self.desk = NucleiDesk.of(self.session)
        self.view = NucleiView.of(self.desk)
        began = time.perf_counter()
        self.desk.open(folder / "made.parquet")
        self.until(lambda: self.desk.nuclei is not None)
        print(f"{count:,} nuclei open after {time.perf_counter() - began:.2f} s")
        self.until(lambda: self.view.shown is not None)

    def until(self, check: Any) -> None:
        """Run the event loop until something is true."""
        end = time.monotonic() + 240
        while not check():
            if time.monotonic() > end:
                raise SystemExit("the window did not get there")
            self.events()
            time.sleep(0.002)

    def rest(self) -> None:
        """Let everything finish that the last movement began."""
        self.draw()
        end = time.monotonic() + 0.06
        self.until(lambda: time.monotonic() > end and self.session.jobs.idle)

    def draw(self) -> float:
        """Draw a frame and wait for the graphics; return ms."""
        from vispy.gloo import gl

        began = time.perf_counter()
        self.native.makeCurrent()
        self.native.paintGL()
        gl.glFinish()
        return (time.perf_counter() - began) * 1000

    def look(self, x: float, y: float, zoom: float) -> float:
        """Move the camera to level-0 (x, y) and draw; return ms."""
        camera = self.viewer.scene.camera
        began = time.perf_counter()
        camera.zoom = zoom / MPP
        camera.center = (y * MPP, x * MPP)
        moved = (time.perf_counter() - began) * 1000
        return moved + self.draw()

    def follow(self) -> tuple[float, float]:
        """Wait for the nuclei of this place; return its ms, and the longest turn."""
        last, began, longest = self.view.shown, time.perf_counter(), 0.0
        while self.view.shown is last:
            turn = time.thread_time()
            self.events()
            longest = max(longest, time.thread_time() - turn)
            if time.perf_counter() - began > 20:
                raise SystemExit("the nuclei did not follow")
        return (time.perf_counter() - began) * 1000, longest * 1000


def main() -> None:
    """Print a line a zoom."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["PATHOTUNE_HOME"] = str(folder / "home")
        window = Window(folder, count)
        dice, layer = random.Random(1), window.view.layer
        print("zoom    drawn     step  without   with   ratio | follows, ms | longest turn, ms")
        for zoom, kind in itertools.product(ZOOMS, ("pan", "zoom")):
            times: dict[bool, list[float]] = {False: [], True: []}
            followed, turns = [], []
            x, y = (dice.uniform(0.3, 0.6) * SIDE for _ in range(2))
            for step in range(STEPS):
                before, at = x, zoom
                if kind == "pan":
                    x = x + 65 / zoom if x < 0.7 * SIDE else 0.3 * SIDE
                else:
                    at = zoom * 1.04 ** (step % 3 + 1)
                for shown in (False, True) if step % 2 else (True, False):
                    layer.visible = shown
                    window.look(before, y, zoom)  # both start from the same place
                    window.rest()
                    times[shown].append(window.look(x, y, at))
                layer.visible = True
                window.view.refresh()
                took, longest = window.follow()
                followed.append(took)
                turns.append(longest)
            bare, full = (statistics.median(times[k]) for k in (False, True))
            drawn = window.view.shown.drawn if window.view.shown else ""
            print(
                f"{zoom:5.2f}  {drawn:9s} {kind:5s} {bare:7.1f} {full:7.1f} ms  {full / bare:5.2f} "
                f"| {statistics.median(followed):7.0f} | {max(turns):7.0f}",
                flush=True,
            )
        nuclei = window.desk.nuclei
        assert nuclei is not None
        spots = [nuclei.xy[dice.randrange(count)] for _ in range(50)]
        taken = []
        for x, y in spots:
            began = time.perf_counter()
            nuclei.at(float(x), float(y))
            taken.append((time.perf_counter() - began) * 1000)
        middle = statistics.median(taken)
        print(f"under the cursor, anywhere on the slide: {middle:.1f} ms, {max(taken):.1f} at most")
        window.session.close()
        os._exit(0)  # the window has threads of its own


if __name__ == "__main__":
    main()
