"""The first minute: the sample slide, learnt from its marks, mapped, written out and shown.

It is what a user would do by hand, through the same jobs as the command line
and the window, so it doubles as the check that an installation works. The
sample's truth is known, which allows one figure that a user's own slide never
has: how the map does on patches made of tiles that nobody marked. The window
itself belongs to the front end, which is started as a program of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune import plugins
from pathotune.cases.report import write_report
from pathotune.cases.screen import has_display, virtual_screen
from pathotune.events import Note
from pathotune.places import resources

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.events import Job
    from pathotune.maps.classmap import ClassMap
    from pathotune.models.bundle import ModelBundle
    from pathotune.slides.slide import Slide

WINDOW = "napari_pathotune._demo"  # run as a program: the engine does not know the window
WINDOW_LIMIT_S = 180
TRUTH_STEP = 8  # slide pixels for one pixel of the truth
TRUTH_CLASSES = ("Tumour", "Stroma", "Muscle", "Normal mucosa", "Lymphocytes", "Fat")
HELD_BACK = 10  # added in the truth where the patch's tile is not under any mark
CREDIT = (
    "The sample is composed from tiles of CRC-VAL-HE-7K (Kather, Halama, Marx 2018, "
    "doi 10.5281/zenodo.1214456, CC BY 4.0), re-arranged and compressed: real tissue in a layout "
    "that never was."
)


@dataclass(frozen=True)
class DemoResult:
    """What the demo wrote, by kind ("map", "areas", "page", ...), and what it measured."""

    files: dict[str, Path]
    metrics: dict[str, Any]
    shown: bool = False

    def story(self) -> str:
        """Return what was found and where it lies, for a reader."""
        held = self.metrics["held_out"]
        seconds, unseen = self.metrics["seconds"], self.metrics["unseen_tiles"]["macro_f1"]
        lines = [
            f"Learnt in {seconds['learn']} s and mapped in {seconds['map']} s.",
            "",
            f"Held-out F1 {held['macro_f1']:.2f} ({held['low']:.2f}-{held['high']:.2f}), "
            f"{held['n_regions']} regions, {held['scope']} only."
            if held["macro_f1"] is not None
            else f"No F1: {held['why_not']}",
            f"On tissue tiles that nobody marked: F1 {unseen:.2f}.",
            "",
            *(f"  {name:<14} {mm2:.2f} mm2" for name, mm2 in self.metrics["areas_mm2"].items()),
            "",
            *(f"  {kind:<8} {path.resolve()}" for kind, path in self.files.items()),
            "",
            "Open the page first. For research use only.",
        ]
        return "\n".join(lines)


def run(
    out: Path, *, headless: bool = False, device: str = "auto", seed: int = 0
) -> Job[DemoResult]:
    """Train on the sample slide, map it, write everything to a folder, show the window.

    Parameters
    ----------
    out : Path
        Folder for the results; made when missing, files of an earlier run are replaced.
    headless : bool
        Open no window; take a picture of it on a virtual screen instead. Without a display
        this happens by itself.
    device : str
        "auto", "cpu" or "cuda".
    seed : int
        Seed of everything that draws numbers.

    Returns
    -------
    DemoResult
        The files by kind and the figures of ``metrics.json``.
    """
    from pathotune.learn.train import train
    from pathotune.maps.predict import predict
    from pathotune.marks.geojson import read_geojson
    from pathotune.models.cards import DEFAULT_ID, card
    from pathotune.slides.sample import sample_annotations, sample_slide
    from pathotune.slides.slide import open_slide

    out.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    shown = ["--slide", str(sample_slide()), "--marks", str(sample_annotations())]
    shown += ["--device", device]
    with open_slide(sample_slide()) as slide:
        marks = read_geojson(sample_annotations())
        backbone = card(DEFAULT_ID)
        yield Note(
            f"Learning {len(marks.counts())} classes from {len(marks.items)} marked regions "
            f"of {slide.name}."
        )
        start = time.perf_counter()
        bundle = yield from train([(slide, marks)], card=backbone, seed=seed, device=device)
        learnt = time.perf_counter()
        yield Note("Mapping the whole slide.")
        classmap = yield from predict(slide, bundle, device=device, seed=seed)
        mapped = time.perf_counter()
        files["model"] = out / "model.safetensors"
        bundle.save(files["model"])
        files |= export(classmap, slide, out)
        metrics = measure(bundle, classmap, slide)
        metrics["seconds"] = {"learn": round(learnt - start, 1), "map": round(mapped - learnt, 1)}
        yield Note("Writing the results.")
        files["metrics"] = out / "metrics.json"
        files["metrics"].write_text(json.dumps(metrics, indent=1), encoding="utf-8")
        alone = headless or not has_display()
        if alone:
            picture = out / "window.png"
            problem = picture_of_window(picture, shown)
            if problem is None:
                files["window"] = picture
            else:
                yield Note(problem, "warning")
        files["page"] = page(out / "report.html", slide, bundle, classmap, metrics, files)
    if not alone:
        yield Note("Opening napari; close its window to end the demo.")
        alone = subprocess.run([sys.executable, "-m", WINDOW, *shown], check=False).returncode != 0
    return DemoResult(files, metrics, shown=not alone)


def export(classmap: ClassMap, slide: Slide, out: Path) -> dict[str, Path]:
    """Write the map in every format that leaves the program and return the files by kind."""
    names = {
        "map": ("ome_tiff", "map.ome.tif"),
        "regions": ("geojson", "map.geojson"),
        "areas": ("csv", "areas.csv"),
        "picture": ("png", "map.png"),
    }
    files = {}
    for kind, (key, name) in names.items():
        files[kind] = out / name
        plugins.load("pathotune.cases.exports", key).write(out / name, classmap, slide)
    return files


def held_back_truth() -> NDArray[np.uint8]:
    """Return the class (1..6) of every 8 x 8 pixels whose tile nobody marked, else 0."""
    from PIL import Image

    with Image.open(resources() / "sample" / "bowel_wall_truth.png") as picture:
        truth = np.asarray(picture)
    return np.where(truth > HELD_BACK, truth - HELD_BACK, 0).astype(np.uint8)


def unseen_f1(classmap: ClassMap) -> dict[str, float]:
    """Return F1 a class on the tokens of tiles that nobody marked, where the map says anything."""
    truth = held_back_truth()
    rows, cols = (np.arange(n) + 0.5 for n in classmap.labels.shape)
    y = ((classmap.origin[1] + rows * classmap.step) / TRUTH_STEP).astype(int)
    x = ((classmap.origin[0] + cols * classmap.step) / TRUTH_STEP).astype(int)
    inside = np.ix_(y.clip(0, truth.shape[0] - 1), x.clip(0, truth.shape[1] - 1))
    known = truth[inside]
    told = np.zeros_like(known)
    for value, name in enumerate(classmap.classes, 1):
        told[classmap.labels == value] = TRUTH_CLASSES.index(name) + 1
    use = (known > 0) & (told > 0)
    known, told = known[use], told[use]
    scores = {}
    for value, name in enumerate(TRUTH_CLASSES, 1):
        right = int(((known == value) & (told == value)).sum())
        either = int((known == value).sum() + (told == value).sum())
        scores[name] = round(2 * right / either, 4) if either else 0.0
    return scores


def measure(bundle: ModelBundle, classmap: ClassMap, slide: Slide) -> dict[str, Any]:
    """Return the demo's figures: held-out verdict, truth on unmarked tiles, areas."""
    unseen = unseen_f1(classmap)
    return {
        "slide": slide.name,
        "classes": list(classmap.classes),
        "held_out": bundle.meta["metrics"],
        "unseen_tiles": {"macro_f1": round(float(np.mean(list(unseen.values()))), 4), "f1": unseen},
        "areas_mm2": {k: round(float(v), 4) for k, v in classmap.areas_mm2().items()},
        "note": "research use only; figures of this slide, not of others",
    }


def page(
    path: Path,
    slide: Slide,
    bundle: ModelBundle,
    classmap: ClassMap,
    metrics: dict[str, Any],
    files: dict[str, Path],
) -> Path:
    """Write the demo's HTML page and return its path."""
    from PIL import Image

    from pathotune.models.cards import card

    thumbnail = path.with_name("slide.jpg")
    Image.fromarray(slide.thumbnail(1280)).save(thumbnail, quality=88)
    pictures = [
        (thumbnail, "The slide: real colorectal tissue, composed."),
        (files["picture"], "The class map."),
    ]
    if "window" in files:
        pictures.append((files["window"], "The same in the napari window."))
    backbone = card(bundle.card_id)
    mean = metrics["unseen_tiles"]["macro_f1"]
    unseen = {
        "sentence": f"This sample's truth is known everywhere: on its patches made of tissue tiles "
        f"that nobody marked, the mean F1 is {mean:.2f}. Your own slides have no such test; the "
        f"held-out figure above is what you will see. The embedded network's projection was made "
        f"with these tiles among others, without their classes: expect less elsewhere.",
        "f1": metrics["unseen_tiles"]["f1"],
    }
    facts = {
        "Backbone": f"{backbone.name} ({backbone.about}; licence {backbone.licence})",
        "Method": bundle.method,
        "Learnt in": f"{metrics['seconds']['learn']} s, features included",
        "Mapped in": f"{metrics['seconds']['map']} s",
        "Spot size": f"{classmap.mpp:.3g} um",
    }
    return write_report(
        path,
        slide,
        classmap,
        metrics["held_out"],
        pictures=pictures,
        facts=facts,
        unseen=unseen,
        credit=CREDIT,
    )


def picture_of_window(path: Path, shown: list[str]) -> str | None:
    """Take a picture of the real window on a virtual screen; return what went wrong, or None.

    `shown` are the window program's arguments: what to open.
    """
    with virtual_screen() as screen:
        if screen is None:
            return (
                "There is no picture of the window: Xvfb, the virtual screen, is not installed. "
                "Install the package xvfb to have one."
            )
        command = [sys.executable, "-m", WINDOW, *shown, "--picture", str(path)]
        path.unlink(missing_ok=True)
        try:
            done = subprocess.run(
                command,
                env=os.environ | screen,
                capture_output=True,
                text=True,
                timeout=WINDOW_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "The window took too long to show its map, so there is no picture of it."
        if done.returncode or not path.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return f"The window could not be shown, so there is no picture of it: {last}"
    return None
