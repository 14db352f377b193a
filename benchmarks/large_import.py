"""How long importing hundreds of regions holds the window up: at once, and in slices.

The same marks are added and taken away again in one window, by turns all in one
call (as napari does it) and in slices that the window turns between. Times are of
the GUI thread's own processor time, so that other work on the computer does not
count; the pictures drawn between are napari's. Run under a real screen, or
``xvfb-run -s "-screen 0 1366x768x24" python benchmarks/large_import.py``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from typing import Any

import numpy as np

GOAL_MS = 50.0


def regions(n: int, width: int, height: int) -> list[Any]:
    """Return n polygons of 40 corners in three classes."""
    from shapely.geometry import Polygon

    from pathotune.marks.annotations import Annotation, new_id

    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    found = []
    for i in range(n):
        radius = rng.uniform(15, 30, 40)
        centre = rng.uniform(50, (width - 50, height - 50))
        ring = centre + np.c_[np.cos(angle) * radius, np.sin(angle) * radius]
        name = ("Tumour", "Stroma", "Fat")[i % 3]
        found.append(Annotation(new_id(), name, "polygon", Polygon(ring.round(2))))
    return found


def measure(n: int, rounds: int) -> dict[str, list[float]]:
    """Return the longest call of every round, ms, for both ways."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_pathotune import _region_feed
    from napari_pathotune._annotation_layers import AnnotationLayers
    from napari_pathotune._docks import Docks
    from napari_pathotune._session import Session

    def until(check: Any) -> None:
        while not check():
            QApplication.processEvents()
            time.sleep(0.002)

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1366, 768)
    Docks.of(viewer).open_all("annotate")
    session = Session.of(viewer)
    session.loop.pause()
    session.open_sample()
    board = AnnotationLayers.of(viewer, session)
    until(lambda: session.tissue is not None and board.regions.layer is not None)
    until(lambda: session.jobs.idle)
    feed, layer = board.regions._feed, board.regions.layer
    real, spent = feed._put, []

    def timed(some: list[Any]) -> None:
        began = time.thread_time()
        real(some)
        spent.append((time.thread_time() - began) * 1000)

    feed._put = timed
    marks = regions(n, session.slide.width, session.slide.height)
    found: dict[str, list[float]] = {"at once": [], "in slices": []}
    for _ in range(rounds):
        for way, largest in (("at once", n), ("in slices", _region_feed.FIRST)):
            spent.clear()
            feed._slice = largest
            began = time.thread_time()
            session.annotations.add(*marks)
            call = (time.thread_time() - began) * 1000
            until(lambda: layer.nshapes == n)
            found[way].append(max(call, *spent))
            session.annotations.clear()
            until(lambda: layer.nshapes == 0)
    viewer.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regions", type=int, nargs="+", default=[400, 1500])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ["NAPARI_CONFIG"] = ""
    for n in args.regions:
        with tempfile.TemporaryDirectory() as home:
            os.environ["PATHOTUNE_HOME"] = home
            found = measure(n, args.rounds)
        whole, sliced = (statistics.median(found[way]) for way in ("at once", "in slices"))
        said = "met" if sliced <= GOAL_MS else "MISSED"
        print(f"{n} regions, longest call on the GUI thread (processor time, median)")
        print(
            f"  at once {whole:7.1f} ms   in slices {sliced:6.1f} ms   ratio {whole / sliced:.1f}"
        )
        print(f"  goal {GOAL_MS:.0f} ms: {said}")


if __name__ == "__main__":
    main()
