"""Take a picture of every state of the window, dark and light, into docs/images.

It drives the real window on the sample slide with the real backbone, in a home
of its own, so it works on any computer with a screen (``make screenshots``
starts a virtual one where there is none). The pictures are 1366 x 768, the
smallest screen the docks are made for.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from picture_states import choices

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = (1366, 768)
DOCK_COLOURS, CANVAS_COLOURS = 64, 26  # small files that still show stains and swatches
IMAGES = Path(__file__).parent / "images"
LIMIT_S = 900.0


class Studio:
    """The window, and a camera that takes each state in both themes."""

    def __init__(self, folder: Path) -> None:
        import napari

        from napari_pathotune._docks import Docks
        from napari_pathotune._session import Session

        self.folder = folder
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(*SIZE)
        self.docks = Docks.of(self.viewer)
        self.docks.open_all()
        self.session = Session.of(self.viewer)
        self.settle()

    def settle(self, seconds: float = 0.6) -> None:
        """Let the window draw itself."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def until(self, check: Callable[[], Any], limit: float = LIMIT_S) -> None:
        """Run the event loop until something is true."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + limit
        while not check():
            if time.monotonic() > end:
                raise TimeoutError("the window did not get there")
            QApplication.processEvents()
            time.sleep(0.01)

    def dock(self, name: str) -> Any:
        """Raise a dock and return its widget."""
        self.docks.raise_dock(name)
        return self.docks.find(name).widget()

    def take(self, name: str) -> None:
        """Take the window as it is, dark and light."""
        from PIL import Image

        for theme in ("dark", "light"):
            self.viewer.theme = theme
            self.settle()
            pixels = self.viewer.screenshot(canvas_only=False, flash=False)
            if float(np.std(pixels[..., :3])) < 1.0:
                raise RuntimeError("the picture is empty: OpenGL does not work on this screen")
            small = compact(Image.fromarray(np.ascontiguousarray(pixels[..., :3])))
            small.save(self.folder / f"{name}-{theme}.png", optimize=True)
        self.viewer.theme = "dark"
        print(name)

    def look_at(self, x: float, y: float, width: float) -> None:
        """Show a part of the slide, level-0 pixels."""
        slide = self.session.slide
        assert slide is not None
        mpp_y, mpp_x = slide.mpp_y or 1.0, slide.mpp_x or 1.0
        self.viewer.scene.camera.center = (y * mpp_y, x * mpp_x)
        self.viewer.scene.camera.zoom = self.viewer.canvas.size[1] / (width * mpp_x)


def compact(picture: Any) -> Any:
    """Return a picture with a small palette that keeps the docks' colours apart.

    Classes are told by small swatches in the docks, which a palette made from the
    whole picture would lose among the stains; so docks and canvas get their own.
    """
    from PIL import Image

    from pathotune.marks.classes import palette

    width, height = picture.size
    sides = Image.new("RGB", (700, height))
    sides.paste(picture.crop((0, 0, 350, height)), (0, 0))
    sides.paste(picture.crop((width - 350, 0, width, height)), (350, 0))
    docks = sides.quantize(DOCK_COLOURS, method=Image.Quantize.MAXCOVERAGE).getpalette()
    middle = picture.crop((350, 0, width - 350, height))
    canvas = middle.quantize(CANVAS_COLOURS, method=Image.Quantize.MEDIANCUT).getpalette()
    both = Image.new("P", (1, 1))
    classes = [value for colour in palette() for value in colour]  # outlines are thin
    both.putpalette([*docks[: 3 * DOCK_COLOURS], *canvas[: 3 * CANVAS_COLOURS], *classes])
    return picture.quantize(palette=both, dither=Image.Dither.NONE)


def without_um(folder: Path) -> Path:
    """Write a part of the sample as a picture that does not say how large a pixel is."""
    from PIL import Image

    from pathotune.slides.sample import sample_slide
    from pathotune.slides.slide import open_slide

    with open_slide(sample_slide()) as slide:
        pixels = slide.read_level(0, 300, 500, 2400, 1800)
    path = folder / "section 12-4711.png"
    Image.fromarray(pixels).save(path)
    return path


def first_steps(studio: Studio, folder: Path) -> None:
    """No slide, a file that is none, a slide without um/px."""
    session = studio.session
    studio.take("slide-empty")
    studio.dock("annotate")
    studio.take("annotate-no-slide")
    studio.dock("tune")
    studio.take("tune-empty")
    studio.dock("classify")
    studio.take("classify-empty")
    slide_dock = studio.dock("slide")
    letter = folder / "report.svs"
    letter.write_text("Dear colleague")
    slide_dock.open(letter)
    studio.until(lambda: slide_dock.notice.isVisible())
    studio.take("slide-error")
    slide_dock.open(without_um(folder))
    studio.until(lambda: session.tissue is not None)
    studio.take("slide-um")


def the_sample(studio: Studio) -> None:
    """The sample slide: its facts, its tissue, the networks."""
    session = studio.session
    slide_dock = studio.dock("slide")
    session.loop.pause()
    slide_dock.sample.click()
    studio.until(lambda: session.slide is not None and session.slide.mpp is not None)
    studio.until(lambda: session.tissue is not None and session.loop.plan is not None)
    slide_dock.show_tissue.click()
    slide_dock.network.expand(animate=False)
    studio.take("slide-open")
    slide_dock.show_tissue.click()
    from napari_pathotune import _settings

    if not _settings.offline():
        slide_dock._on_card("dinov2-small")
        studio.take("slide-download")
        slide_dock.notice.clear()
    slide_dock.network.collapse(animate=False)


def marking(studio: Studio) -> None:
    """From no class to a map that follows."""
    from pathotune.marks.geojson import read_geojson
    from pathotune.slides.sample import sample_annotations

    session = studio.session
    annotate = studio.dock("annotate")
    studio.take("annotate-no-class")
    sample = read_geojson(sample_annotations())
    two = [c for c in sample.classes if c.name in ("Tumour", "Muscle")]
    for one in two:
        session.annotations.add_class(one.name, one.colour)
    first = [next(a for a in sample.items if a.class_name == c.name) for c in two]
    session.annotations.add(first[0])
    studio.take("annotate-one-class-marked")
    session.annotations.add(first[1])
    session.loop.resume()
    studio.until(lambda: session.loop.classmap is not None and session.loop.classmap.labels.any())
    studio.dock("classify")
    studio.take("classify-reading")
    studio.dock("tune")
    studio.take("tune-too-few")
    session.load_annotations(sample_annotations())
    studio.until(lambda: len(session.annotations.items) == len(sample.items))
    studio.until(lambda: not session.loop.status.computing and session.jobs.idle)
    studio.settle(3.0)
    studio.dock("annotate")
    annotate.pen.take("brush")
    studio.take("annotate-map")
    annotate.pen.take("pan")


def reading_the_map(studio: Studio) -> None:
    """The map, its verdict, probabilities, and a ready-made model."""
    session = studio.session
    tune = studio.dock("tune")
    studio.take("tune-verdict")
    history = tune.models.history
    stroma = [a.id for a in session.annotations.items if a.class_name == "Stroma"]
    session.annotations.remove(stroma)
    studio.until(lambda: session.loop.classmap and "Stroma" not in session.loop.classmap.classes)
    studio.until(lambda: session.jobs.idle and session.loop.evaluation is not None)
    history.go_back(history.entries[0])
    studio.until(lambda: session.bundle is not None and session.jobs.idle)
    studio.settle(2.0)
    studio.take("tune-earlier")
    history.go_back(None)
    session.annotations.undo()
    studio.until(lambda: session.loop.classmap and "Stroma" in session.loop.classmap.classes)
    studio.until(lambda: session.jobs.idle and session.loop.evaluation is not None)
    studio.settle(2.0)
    tune.mixed.expand(animate=False)
    studio.take("tune-confusion")
    classify = studio.dock("classify")
    studio.take("classify-map")
    studio.look_at(2900, 1500, 1500)
    studio.viewer.cursor.position = (1500 * 0.5, 2900 * 0.5)
    studio.take("classify-close")
    studio.viewer.reset_view()
    for index, name in ((len(classify.legend.boxes), "probability"),):
        classify.shown.setCurrentIndex(index)
        classify.shown.activated.emit(index)
        studio.take(f"classify-{name}")
    session.view.show("uncertainty")
    studio.take("classify-uncertainty")
    session.view.show("classes")
    classify.models.expand(animate=False)
    if classify.ready.use.isEnabled():
        classify.ready.use.click()
        studio.until(lambda: session.bundle is not None)
        studio.until(lambda: session.jobs.idle and not session.loop.status.computing)
        studio.settle(2.0)
        studio.take("classify-ready-made")


def a_better_model(studio: Studio) -> None:
    """The second speed: its settings, learning, the verdict, both maps; and an overlap."""
    session = studio.session
    session.use_bundle(None)
    studio.until(lambda: session.bundle is None and session.loop.evaluation is not None)
    studio.until(lambda: session.jobs.idle)
    better = studio.dock("tune").better
    studio.until(lambda: better._methods)

    def show(widget: Any) -> None:
        area = better
        while area is not None and not isinstance(area, QScrollArea):
            area = area.parentWidget()
        studio.settle(0.3)
        if area is not None:
            area.ensureWidgetVisible(widget, 0, 0)

    from qtpy.QtWidgets import QScrollArea

    better.settings.expand(animate=False)
    show(better.form)
    studio.take("tune-settings")
    for name, value in (("epochs", 4), ("limit", 24)):
        better.form._fields[name][0].setValue(value)
    better.settings.collapse(animate=False)
    better.preview.setChecked(True)
    better.improve.click()
    studio.until(lambda: len(better.tuning.curve) > 6)
    show(better.cancel)
    studio.take("tune-learning")
    studio.until(lambda: better.tuning.state == "done")
    show(better.use)
    studio.take("tune-learnt")
    better.compare.click()
    compared = better.comparison
    studio.until(lambda: compared.differing is not None and session.jobs.idle)
    studio.settle(2.0)
    show(better.differing)
    studio.take("tune-swipe")
    better.mode.setCurrentIndex(2)
    studio.until(lambda: session.jobs.idle)
    studio.settle(1.0)
    show(better.differing)
    studio.take("tune-differences")
    better.compare.click()
    better.forget.click()
    an_overlap(studio)


def an_overlap(studio: Studio) -> None:
    """Regions of two classes on the same tissue."""
    import shapely

    from pathotune.marks.annotations import Annotation, new_id

    session = studio.session
    annotate = studio.dock("annotate")
    stroma = next(a for a in session.annotations.items if a.class_name == "Stroma")
    left, top, right, bottom = stroma.geometry.bounds
    across = shapely.box((left + right) / 2, top, right + (right - left) / 2, bottom)
    session.annotations.add(Annotation(new_id(), "Muscle", "rectangle", across))
    studio.until(lambda: annotate.overlap.overlaps.found and session.jobs.idle)
    annotate.overlap.look.click()
    studio.take("annotate-overlap")
    session.annotations.undo()
    studio.viewer.reset_view()


def nuclei(studio: Studio) -> None:
    """Nuclei of the skin slide: found, and all of them named after a few."""
    from pathotune.slides.sample import skin_slide

    session = studio.session
    session.loop.pause()
    dock = studio.dock("nuclei")
    session.open(skin_slide())
    studio.until(lambda: session.tissue is not None and dock.primary.isEnabled())
    dock.primary.click()
    studio.until(lambda: dock.desk.edits is not None)
    slide, found = session.slide, dock.desk.nuclei
    x, y = slide.width * 0.5, slide.height * 0.5
    studio.look_at(x, y, 900)
    studio.settle(4.0)
    studio.take("nuclei-found")
    dock.folds["Classes of nuclei"].expand(animate=False)
    for name in ("Round", "Long"):
        dock.naming.add_class(name)
    studio.viewer.window._qt_window.setFocus()
    order = np.argsort(found.column("eccentricity"))
    for digit, rows in ((1, order[:400:60]), (2, order[-400::60])):
        dock.hand.choose(tuple(int(r) for r in rows))
        dock.hand.class_asked.emit(digit)
        studio.until(lambda: not dock.hand.busy)
    dock.hand.choose(())
    studio.until(lambda: dock.naming.classing.told is not None)
    studio.settle(4.0)
    studio.take("nuclei-classes")


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--home", type=Path, default=None, help="keep computed features here")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ["NAPARI_CONFIG"] = ""  # neither read nor change the user's settings
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PATHOTUNE_HOME"] = str(args.home or Path(folder) / "home")
        studio = Studio(args.out)
        first_steps(studio, Path(folder))
        choices(studio, Path(folder))
        the_sample(studio)
        marking(studio)
        reading_the_map(studio)
        nuclei(studio)
        a_better_model(studio)
        studio.viewer.close()
    made = [*args.out.glob("*-dark.png"), *args.out.glob("*-light.png")]
    total = sum(p.stat().st_size for p in made)
    print(f"{len(made)} pictures, {total / 1e6:.1f} MB in {args.out}")


if __name__ == "__main__":
    main()
