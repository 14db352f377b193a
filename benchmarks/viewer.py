"""One slide in napari's window, read by us and by napari-wsi: first pixels, jumps, pans, memory.

Each side is a process of its own (napari-wsi in an environment of its own) with
a window of the same size on the same made slide. They take turns look by look,
so that other load on the machine hits both alike; medians are printed. A jump
goes to a place not seen before, a small pan moves by 65 screen pixels; times end
when the canvas has been drawn and the graphics have finished. First pixels count
from the path to the drawn slide, in a window that has shown a small picture
before; what napari itself loads for its very first picture, the same on either
side, is in the row of the fresh window. The slide is added as napari adds what
a reader gives, without the scale bar that our dock shows besides. Under Xvfb all
is drawn in software, which weighs on both.

    xvfb-run -s "-screen 0 1366x768x24" python benchmarks/viewer.py --napari-wsi /path/to/python
"""

from __future__ import annotations

import argparse
import compileall
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
MPP = 0.25
ZOOMS = (1.0, 0.5, 0.26)
GOALS = {
    "first pixels, s": 0.45,
    "jump at zoom 1, ms": 0.5,
    "jump at zoom 0.5, ms": 0.3,
    "jump at zoom 0.26, ms": 0.2,
    "small pan at zoom 1, ms": 1.2,
    "small pan at zoom 0.5, ms": 1.2,
    "small pan at zoom 0.26, ms": 1.2,
    "memory, MB": 0.4,
}
PLACES, PANS = 8, 30


class Window:
    """A napari window that is drawn when it is told to; lives in the child process."""

    def __init__(self, kind: str, path: Path) -> None:
        import napari
        from qtpy.QtWidgets import QApplication

        self.kind, self.path = kind, path
        self.unit = MPP if kind == "ours" else 1.0
        self.events = QApplication.processEvents
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1366, 768)
        self.native = self.viewer.window._qt_viewer.canvas.native
        self.native.setFixedSize(976, 700)
        for _ in range(20):
            self.events()
            time.sleep(0.02)
        self.draw()

    def draw(self) -> None:
        """Let napari load what its camera sees, draw it, and wait for the graphics."""
        from vispy.gloo import gl

        self.native.makeCurrent()
        for _ in range(2):  # the first asks for pixels, the second shows them
            self.native.paintGL()
        gl.glFinish()

    def warm(self) -> None:
        """Show a small picture once."""
        small = np.random.default_rng(0).integers(0, 255, (600, 600, 3), np.uint8)
        self.viewer.add_image([small, small[::2, ::2].copy()], rgb=True)
        self.draw()
        self.events()
        self.viewer.layers.clear()
        self.draw()
        self.events()

    def first(self) -> float:
        """Open the slide and show it; return seconds."""
        began = time.perf_counter()
        if self.kind == "ours":
            from napari_pathotune._layers import slide_layer_data
            from pathotune.slides.slide import open_slide

            layers = [slide_layer_data(open_slide(self.path))]
        else:
            from napari_wsi.reader import wsi_reader_openslide

            layers = wsi_reader_openslide(str(self.path))(str(self.path))
        for data, kwargs, _ in layers:
            self.viewer.add_image(data, **kwargs)
        self.viewer.reset_view()
        self.draw()
        spent = time.perf_counter() - began
        self.events()
        return spent

    def first_of_all(self) -> tuple[float, float]:
        """Do the same; return seconds, and the processor's."""
        worked = time.process_time()
        return self.first(), time.process_time() - worked

    def look(self, x: float, y: float, zoom: float) -> tuple[float, float]:
        """Look at level-0 (x, y) with `zoom` screen pixels a slide pixel; return ms, CPU's ms."""
        began, worked = time.perf_counter(), time.process_time()
        camera = self.viewer.scene.camera
        camera.zoom = zoom / self.unit
        camera.center = (y * self.unit, x * self.unit)
        self.draw()
        spent = (time.perf_counter() - began) * 1000, (time.process_time() - worked) * 1000
        self.events()
        return spent

    def memory(self) -> float:
        """Return MB of this process that lie in memory."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def picture(self, file: str) -> int:
        """Save what the canvas shows."""
        shot = self.viewer.screenshot(canvas_only=True, flash=False)
        np.save(file, shot[..., :3])
        return 0


def child(kind: str, path: Path) -> None:
    """Do what is asked on standard input, and answer on standard output."""
    window = Window(kind, path)
    for line in sys.stdin:
        name, *args = json.loads(line)
        answer = getattr(window, name)(*args)
        sys.stdout.write(f"ANSWER {json.dumps(answer)}\n")
        sys.stdout.flush()
    os._exit(0)


class Side:
    """The other end: a child process that is asked."""

    def __init__(self, kind: str, python: Path, path: Path, folder: Path) -> None:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        if kind == "ours":
            env["PYTHONPATH"] = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
        env["PATHOTUNE_HOME"] = str(folder / "home")
        self._log = folder / f"{kind}.log"
        self._process = subprocess.Popen(
            [python, __file__, "--child", kind, "--slide", path],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
        )

    def ask(self, name: str, *args: Any) -> Any:
        """Return the answer of a method of the window."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([name, *args]) + "\n")
        process.stdin.flush()
        while line := process.stdout.readline():
            if line.startswith("ANSWER "):
                return json.loads(line[7:])
        raise SystemExit(f"a window failed:\n{self._log.read_text()[-3000:]}")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


def one_round(
    sides: dict[str, Path], path: Path, size: int, folder: Path, seed: int, only_first: bool
) -> dict[str, dict[str, list[float]]]:
    """Return the times of both sides, by what was done."""
    found: dict[str, dict[str, list[float]]] = {kind: {} for kind in sides}

    def note(kind: str, what: str, value: float) -> None:
        found[kind].setdefault(what, []).append(value)

    for kind, python in sides.items():
        side = Side(kind, python, path, folder)
        note(kind, "first pixels in a fresh window, s", side.ask("first"))
        side.close()
    windows = {kind: Side(kind, python, path, folder) for kind, python in sides.items()}
    for window in windows.values():
        window.ask("warm")
    for kind, window in windows.items():
        note(kind, "memory of the empty window, MB", window.ask("memory"))
        seconds, worked = window.ask("first_of_all")
        note(kind, "first pixels, s", seconds)
        note(kind, "first pixels, CPU s", worked)
    if only_first:
        for window in windows.values():
            window.close()
        return found
    dice = random.Random(seed)
    for zoom, _ in itertools.product(ZOOMS, range(PLACES)):
        spot = [dice.randint(3500, size - 3500) for _ in range(2)]
        for kind, window in windows.items():
            ms, cpu = window.ask("look", *spot, zoom)
            note(kind, f"jump at zoom {zoom:g}, ms", ms)
            note(kind, f"jump at zoom {zoom:g}, CPU ms", cpu)
    for zoom in ZOOMS:
        for i in range(PANS + 1):
            spot = [size // 3 + i * 60 / zoom, size // 2 + i * 25 / zoom]
            for kind, window in windows.items():
                ms, cpu = window.ask("look", *spot, zoom)
                if i:
                    note(kind, f"small pan at zoom {zoom:g}, ms", ms)
                    note(kind, f"small pan at zoom {zoom:g}, CPU ms", cpu)
    for kind, window in windows.items():
        note(kind, "memory, MB", window.ask("memory"))
    for zoom in ZOOMS:
        for kind, window in windows.items():
            window.ask("look", size // 2 + 1150, size // 2 + 500, zoom)
            window.ask("picture", str(folder / f"{kind}-{zoom:g}.npy"))
    for window in windows.values():
        window.close()
    return found


def same_pictures(folder: Path) -> str:
    """Compare what the two windows showed at the same places, in grey levels."""
    words = []
    for zoom in ZOOMS:
        a, b = (np.load(folder / f"{k}-{zoom:g}.npy").astype(int) for k in ("ours", "napari-wsi"))
        if a.std() < 5:
            raise SystemExit("an empty picture")
        best = np.abs(a - b).mean()
        words.append(f"{best:.2f} at zoom {zoom:g}")
    return ", ".join(words)


def table(found: dict[str, dict[str, list[float]]]) -> None:
    """Print medians, longest times and ratios."""
    print(f"{'median (longest)':36s}" + "".join(f"{k:>18s}" for k in found))
    for key, mine in found["ours"].items():
        cells = (f"{statistics.median(v[key]):9.2f} ({max(v[key]):6.1f})" for v in found.values())
        row = f"  {key:34s}" + "".join(f"{cell:>18s}" for cell in cells)
        if "napari-wsi" in found:
            theirs = found["napari-wsi"][key]
            ratio = statistics.median(mine) / statistics.median(theirs)
            row += f"  {ratio:5.2f} (mean {statistics.mean(mine) / statistics.mean(theirs):4.2f})"
            if key in GOALS:
                row += f"  goal {GOALS[key]}: {'met' if ratio <= GOALS[key] else 'MISSED'}"
        print(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--napari-wsi", type=Path, help="a Python that has napari-wsi")
    parser.add_argument("--size", type=int, default=40960)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only-first", action="store_true", help="first pixels, nothing else")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--slide", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.slide)
    from made_slide import make_slide

    for package in (ROOT / "src" / "pathotune", ROOT / "napari_pathotune"):
        compileall.compile_dir(package, quiet=2)  # as an installation does; napari-wsi's are there
    sides = {"ours": Path(sys.executable)}
    if args.napari_wsi is not None:
        sides["napari-wsi"] = args.napari_wsi
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = make_slide(folder / "made.svs", args.size, args.size, MPP)
        all_found: dict[str, dict[str, list[float]]] = {kind: {} for kind in sides}
        for seed in range(args.rounds):
            for kind, rows in one_round(
                sides, path, args.size, folder, seed, args.only_first
            ).items():
                for key, values in rows.items():
                    all_found[kind].setdefault(key, []).extend(values)
            load.append(os.getloadavg()[0])
        table(all_found)
        if "napari-wsi" in sides and not args.only_first:
            print(f"the two pictures differ by {same_pictures(folder)} grey levels on average")
    print(f"load on {os.cpu_count()} cores, by round: {', '.join(f'{v:.1f}' for v in load)}")


if __name__ == "__main__":
    main()
