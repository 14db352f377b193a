"""Tuning methods against the fast model on one slide: marks in a few cells, judged in others.

The slide is laid out of 224 px cells of real colorectal tissue in nine classes. For each
draw, k cells a class are marked, by one brush stroke each or whole, and the model is
judged on the tokens of all other cells, their rims left out; a cell counts as much as any
other. Both models learn from the same tokens, and every method trains for half of the
default's passes, so that nothing is chosen on the judged cells. Prints the fast model's
macro-F1, the method's paired difference with its 95 % interval over draws, and seconds. Cells
come from few tiles and patients: true intervals are wider.

    python benchmarks/mosaic.py DEVELOPMENT_FOLDER [--draws 5] [--cells 1 2] [--only adapter]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from pathotune import drain, plugins
from pathotune.learn.adapt import passes, trainer
from pathotune.learn.adapt.material import Material
from pathotune.learn.pieces import from_slides
from pathotune.learn.settings import Training
from pathotune.learn.train import plan as tiles_of
from pathotune.learn.tune import settings
from pathotune.marks.annotations import Annotation, new_id
from pathotune.marks.geojson import read_geojson
from pathotune.marks.labels import label_tokens
from pathotune.models.cards import DEFAULT_ID, card
from pathotune.models.text import sentence
from pathotune.models.tuned import METHODS
from pathotune.models.tuning._delta import Setting
from pathotune.models.tuning._net import Net
from pathotune.slides.slide import open_slide

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.learn.pieces import Pieces

CELL, RIM = 224, 32  # px; of the rim nothing is judged: what it sees lies half in the next cell
PEN = 40.0  # px: 20 um at 0.5 um/px
EPOCHS = 15


class Mosaic:
    """The cells of the slide; of each the tokens under a stroke, and the others."""

    def __init__(self, folder: Path) -> None:
        self.card = card(DEFAULT_ID)
        rng = np.random.default_rng(0)
        areas = read_geojson(folder / "crc_mosaic_dev.geojson").items
        self.names = tuple(sorted({str(a.class_name) for a in areas}))
        marks, self.cells = [], []
        for area in sorted(areas, key=lambda a: str(a.class_name)):
            x0, y0, x1, y1 = (round(v) for v in area.geometry.bounds)
            for y in range(y0, y1 - CELL + 1, CELL):
                for x in range(x0, x1 - CELL + 1, CELL):
                    inner = shapely.box(x + RIM, y + RIM, x + CELL - RIM, y + CELL - RIM)
                    places = rng.uniform(RIM + PEN, CELL - RIM - PEN, (3, 2)) + np.array((x, y))
                    stroke = shapely.LineString(places)
                    name = area.class_name
                    marks.append(Annotation(new_id(), name, "rectangle", inner))
                    marks.append(Annotation(new_id(), name, "stroke", stroke, width=PEN))
                    self.cells.append(self.names.index(str(name)))
        with open_slide(folder / "crc_mosaic_dev.ome.tif") as slide:
            grid = tiles_of(slide, self.card)
            at = grid.lattice
            under = label_tokens(marks, at.x0, at.y0, at.step, at.rows, at.cols, self.names)
            job = from_slides([slide], [grid], [under], [None], self.card, 10**6)
            self.pieces: Pieces = drain(job)
        number = {a.id: i for i, a in enumerate(marks)}
        of = np.array([number[key.partition("/")[2]] for key in self.pieces.names])
        self.cell, self.is_stroke = of // 2, of % 2 == 1
        self.setting = Setting(True, {}, sentence(self.names, organ="colon"))
        self._known: dict[tuple[int, bool], Material] = {}

    def draw(self, k: int, strokes: bool, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return which regions are learnt and which are judged."""
        rng, kinds = np.random.default_rng(seed), np.array(self.cells)
        chosen = np.concatenate(
            [rng.permutation(np.flatnonzero(kinds == c))[:k] for c in range(len(self.names))]
        )
        mine = np.isin(self.cell, chosen)
        return (mine & self.is_stroke if strokes else mine), ~mine

    def ready(self, method: str, config: Any, seed: int) -> Material:
        """Return the material for a method, with its delta attached."""
        module = plugins.load(METHODS, method)
        for (first, direct), material in self._known.items():
            delta = material.net.attach(module, config, self.setting, seed)
            if (delta.first, delta.direct) == (first, direct):
                return material
            material.net.release()
        net = Net(self.card, "cpu")
        delta = net.attach(module, config, self.setting, seed)
        material = Material(net, self.pieces, Training(views=1))
        drain(material.prepare())
        self._known[delta.first, delta.direct] = material
        return material

    def learn(
        self, method: str, config: Any, learnt: NDArray[Any], judged: NDArray[Any], seed: int
    ) -> tuple[float, float, float]:
        """Return macro-F1 of the method and of the fast model, and the seconds of training."""
        material = self.ready(method, config, seed)
        job = trainer.Trainer(material)
        stages = len(material.net.delta.stages) if material.net.delta else 1
        begun = time.perf_counter()
        until = [round(EPOCHS / stages / 2)] * stages
        drain(job.run(learnt, None, EPOCHS, seed, "", until))
        seconds = time.perf_counter() - begun
        found = drain(job.judge(judged))
        fast = passes.judged(material, judged, passes.frozen_logits(material, learnt, judged))
        return self.score(found), self.score(fast), seconds

    def score(self, found: passes.Pass) -> float:
        """Return the macro-F1 over tokens of the judged cells, every cell weighing the same."""
        sums: dict[int, NDArray[np.float64]] = {}
        for region, row in found.rows.items():
            cell = int(self.cell[region])
            sums[cell] = sums.get(cell, 0) + row
        shares = {c: row / row.sum() for c, row in sums.items()}
        return passes.macro_f1(shares, np.array(self.cells))


def main() -> None:
    from scipy.stats import t

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("development", type=Path, help="folder with data/")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--first", type=int, default=1000, help="seed of the first draw")
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 2], help="marked a class")
    parser.add_argument("--marks", nargs="+", default=["strokes", "boxes"])
    parser.add_argument("--only", nargs="+", default=["head", "adapter", "pathotune"])
    args = parser.parse_args()
    mosaic = Mosaic(args.development / "data" / "regions_crc_mosaic")
    counts = np.bincount(mosaic.cells)
    print(f"{counts.sum()} cells, {counts.min()} to {counts.max()} a class\n")
    print("| method | marks | cells a class | fast model | difference | 95 % interval | seconds |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in args.only:
        config, _ = settings(name, {})
        for kind in args.marks:
            for k in args.cells:
                rows = np.array(
                    [
                        mosaic.learn(name, config, *mosaic.draw(k, kind == "strokes", seed), seed)
                        for seed in range(args.first, args.first + args.draws)
                    ]
                )
                gain = rows[:, 0] - rows[:, 1]
                half = t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5
                print(
                    f"| {name} | {kind} | {k} | {rows[:, 1].mean():.3f} | {gain.mean():+.3f} | "
                    f"{gain.mean() - half:+.3f} to {gain.mean() + half:+.3f} | "
                    f"{np.median(rows[:, 2]):.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
