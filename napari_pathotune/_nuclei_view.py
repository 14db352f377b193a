"""How a million nuclei are shown: one picture of the screen, drawn again when it moves.

A lane draws outlines, dots or a density at exactly the screen's pixels, a little
beyond its borders; the window only lays that picture down, and moving the slide
moves the picture until the next one is there. So frames cost the same with a
million nuclei as with ten. The layer in napari's list is the handle for hiding, for
opacity and for the mouse; the picture is a child of its node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QObject, QTimer

from napari_pathotune import _layers
from napari_pathotune._nuclei_colours import Colouring, codes_of, range_of, table_of
from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_pathotune._nuclei_desk import NucleiDesk
    from pathotune.nuclei.picture import Frame
    from pathotune.nuclei.query import Nuclei

NAME = "Nuclei"
WAIT_MS = 25  # from a movement to the next drawing
BEYOND = 0.25  # of the screen, on each side
NUCLEUS_UM = 8.0
HEAT_UM = 40.0  # the density is a mean over about this much around
OUTLINED, DOTTED = 4.5, 1.5  # a nucleus' pixels on the screen from which it is drawn so
Style = Literal["outline", "filled", "density"]
Drawn = Literal["outlines", "dots", "density"]


@dataclass(frozen=True)
class Shown:
    """A drawing as it comes from the lane."""

    frame: Frame
    pixels: NDArray[Any]
    drawn: Drawn
    low: float
    high: float


class NucleiView(QObject):
    """Draws the nuclei of a desk in its viewer.

    Signals
    -------
    changed()
        Style or colouring changed, or another drawing is on the screen.
    """

    changed = Signal()

    def __init__(self, desk: NucleiDesk) -> None:
        super().__init__(desk)
        self.desk = desk
        self.style: Style = "outline"
        self.colouring = Colouring()
        self.chosen: tuple[int, ...] = ()
        self.shown: Shown | None = None
        self.layer: Any = None
        self._visual: Any = None
        self._stale = True
        self._drawing = self._again = False
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(WAIT_MS)
        self._soon.timeout.connect(self._draw)
        desk.replaced.connect(self._on_replaced)
        desk.grown.connect(self.refresh)
        viewer = desk.session.viewer
        if viewer is not None:
            viewer.scene.camera.events.center.connect(self._on_camera)
            viewer.scene.camera.events.zoom.connect(self._on_camera)
            viewer.canvas.events.size.connect(self._on_camera)
        desk.session.closed.connect(self._let_go)
        desk.classes_changed.connect(self.refresh)
        self._on_replaced()

    @classmethod
    def of(cls, desk: NucleiDesk) -> NucleiView:
        """Return the one of a desk, made on first use."""
        found = desk.findChild(cls)
        return cls(desk) if found is None else found

    # -- setters ------------------------------------------------------------------------

    def set_style(self, style: Style) -> None:
        """Show outlines, filled nuclei, or the density at every zoom."""
        self.style = style
        self.refresh()
        self.changed.emit()

    def set_colouring(self, colouring: Colouring) -> None:
        """Colour by class, by confidence or by a measurement."""
        self.colouring = colouring
        self.refresh()
        self.changed.emit()

    def set_chosen(self, rows: tuple[int, ...]) -> None:
        """Mark these nuclei with a light rim."""
        self.chosen = rows
        self.refresh()

    def trace(self, path: Sequence[tuple[float, float]]) -> None:
        """Show the line under the hand, level-0 (x, y); an empty one takes it away."""
        slide = self.desk.session.slide
        if self._visual is not None and slide is not None:
            sy, sx = _layers.pixel_scale(slide)
            self._visual.trace([((x - 0.5) * sx, (y - 0.5) * sy) for x, y in path])

    def refresh(self, *_: Any) -> None:
        """Draw anew, soon."""
        self._stale = True
        self._on_camera()

    def _on_camera(self, _event: Any = None) -> None:
        if self.layer is not None and not self._soon.isActive():
            self._soon.start()

    # -- the layer ----------------------------------------------------------------------

    def _on_replaced(self) -> None:
        nuclei, session = self.desk.nuclei, self.desk.session
        viewer, slide = session.viewer, session.slide
        self.chosen = ()
        if nuclei is None or viewer is None or slide is None:
            self._drop()
            return
        if self.layer is None or self.layer not in viewer.layers:
            self._drop()
            self.layer = _layers.add_handle(viewer, slide, name=NAME)
            self.layer.events.visible.connect(self._on_camera)
            self.layer.events.opacity.connect(self._on_opacity)
            self._visual = _picture_node(viewer, self.layer)
        self.refresh()

    def _drop(self) -> None:
        viewer, layer = self.desk.session.viewer, self.layer
        self.layer = self.shown = None
        if self._visual is not None:
            self._visual.line.parent = self._visual.parent = None
            self._visual = None
        if layer is not None and viewer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)

    def _let_go(self) -> None:
        self._soon.stop()
        viewer = self.desk.session.viewer
        if viewer is not None:
            viewer.scene.camera.events.center.disconnect(self._on_camera)
            viewer.scene.camera.events.zoom.disconnect(self._on_camera)
            viewer.canvas.events.size.disconnect(self._on_camera)
        self.layer = self._visual = None

    def _on_opacity(self, _event: Any = None) -> None:
        if self._visual is not None and self.layer is not None:
            self._visual.opacity = self.layer.opacity
            self._visual.update()

    # -- drawing ------------------------------------------------------------------------

    def frame(self) -> Frame | None:
        """Return what the next drawing covers; None when the slide is off the screen."""
        from pathotune.nuclei.picture import Frame

        viewer, slide = self.desk.session.viewer, self.desk.session.slide
        if viewer is None or slide is None:
            return None
        seen = _layers.view_region(viewer, slide)
        if seen is None:
            return None
        sy, sx = _layers.pixel_scale(slide)
        ratio = _pixel_ratio(viewer)
        step_x = 1 / (viewer.scene.camera.zoom * sx * ratio)
        step_y = 1 / (viewer.scene.camera.zoom * sy * ratio)
        x0, y0 = (
            max(0.0, seen.x - BEYOND * seen.width),
            max(0.0, seen.y - BEYOND * seen.height),
        )
        x1 = min(float(slide.width), seen.x1 + BEYOND * seen.width)
        y1 = min(float(slide.height), seen.y1 + BEYOND * seen.height)
        # on whole pixels of the screen, or lines would swim while the slide moves
        x0, y0 = np.floor(x0 / step_x) * step_x, np.floor(y0 / step_y) * step_y
        width, height = int(np.ceil((x1 - x0) / step_x)), int(np.ceil((y1 - y0) / step_y))
        return Frame(float(x0), float(y0), step_x, step_y, max(1, width), max(1, height))

    def _covers(self) -> bool:
        """Whether the picture that is there will do: nothing new, same zoom, all in it."""
        viewer, slide, shown = self.desk.session.viewer, self.desk.session.slide, self.shown
        if self._stale or shown is None or viewer is None or slide is None:
            return False
        seen, old = _layers.view_region(viewer, slide), shown.frame
        step = 1 / (viewer.scene.camera.zoom * _layers.pixel_scale(slide)[1] * _pixel_ratio(viewer))
        if seen is None or abs(step / old.step_x - 1) > 1e-4:
            return False
        x0, y0, x1, y1 = old.box
        return x0 <= seen.x and y0 <= seen.y and x1 >= seen.x1 - 1 and y1 >= seen.y1 - 1

    def _draw(self) -> None:
        nuclei, session = self.desk.nuclei, self.desk.session
        layer, frame = self.layer, self.frame()
        if nuclei is None or frame is None or layer is None or not layer.visible:
            return
        if session.slide is None or self._visual is None or self._covers():
            return
        if self._drawing:  # it is shown first: moving on and on would never show one
            self._again = True
            return
        self._stale, self._again, self._drawing = False, False, True
        diameter = NUCLEUS_UM / (frame.step_x * (session.slide.mpp or 1.0))
        drawn: Drawn = "outlines" if diameter >= OUTLINED else "dots"
        if self.style == "density" or diameter < DOTTED:
            drawn = "density"
        how = replace(self.colouring, own=self.desk.own_colours)
        filled, chosen = self.style == "filled", self.chosen
        session.run(
            "fast",
            lambda: draw(nuclei, frame, drawn, filled, how, chosen, diameter),
            what="Drawing the nuclei",
            where="nuclei",
            quiet=True,
            on_done=self._drawn,
            on_error=lambda _: self._drawn(None),
            on_cancelled=lambda: self._drawn(None),
        )

    def _drawn(self, shown: Shown | None) -> None:
        self._drawing = False
        self._lay_down(shown)
        if self._again:
            self._on_camera()

    def _lay_down(self, shown: Shown | None) -> None:
        slide, visual = self.desk.session.slide, self._visual
        if shown is None:  # the nuclei were closed meanwhile
            self._stale = True
        if shown is None or visual is None or slide is None or self.layer is None:
            return
        self.shown = shown
        sy, sx = _layers.pixel_scale(slide)
        x0, y0, x1, y1 = shown.frame.box
        visual.lay(
            shown.pixels, ((x0 - 0.5) * sx, (y0 - 0.5) * sy, (x1 - 0.5) * sx, (y1 - 0.5) * sy)
        )
        self.changed.emit()


def draw(
    nuclei: Nuclei,
    frame: Frame,
    drawn: Drawn,
    filled: bool,
    how: Colouring,
    chosen: tuple[int, ...],
    diameter: float,
) -> Shown | None:
    """Draw what lies in a frame (any thread); None when the nuclei were closed meanwhile."""
    from pathotune.nuclei.picture import Picture

    picture = Picture(frame)
    try:
        low, high = range_of(nuclei, how)
        if drawn == "density":
            low, high = _heat(nuclei, picture)
            return Shown(frame, picture.rgba(table_of(nuclei, None)), drawn, low, high)
        rows = nuclei.within(*frame.box)
        codes = codes_of(nuclei, rows, how, low, high)
        if drawn == "dots":
            picture.dots(nuclei.xy[rows], codes, diameter)
            return Shown(frame, picture.rgba(table_of(nuclei, how)), drawn, low, high)
        rings = nuclei.outlines(rows)
        picture.outlines(rings.points, rings.starts, codes, filled)
        pixels = picture.rgba(table_of(nuclei, how))
        _mark_chosen(nuclei, frame, chosen, pixels)
    except (PathotuneError, OSError):  # its tiles were joined into one file just now
        return None
    return Shown(frame, pixels, drawn, low, high)


def _mark_chosen(
    nuclei: Nuclei, frame: Frame, chosen: tuple[int, ...], pixels: NDArray[Any]
) -> None:
    from pathotune.nuclei.picture import Picture

    if not chosen:
        return
    rows = np.array(chosen, np.int64)
    rings = nuclei.outlines(rows)
    over = Picture(frame)
    over.outlines(rings.points, rings.starts, np.ones(len(rows), np.uint8), filled=True)
    pixels[over.codes > 0, :3] = (255, 255, 255)
    strong = np.maximum(pixels[..., 3], over.cover)
    pixels[..., 3] = np.where(over.codes > 0, strong, pixels[..., 3])


def _heat(nuclei: Nuclei, picture: Any) -> tuple[float, float]:
    from scipy import ndimage

    step_x = picture.frame.step_x
    level = int(np.clip(np.round(np.log2(max(step_x * 6 / 32, 1))), 0, 8))
    counts, step = nuclei.density(level)
    smooth = ndimage.gaussian_filter(
        counts.astype(np.float32), max(0.7, HEAT_UM / (step * nuclei.mpp)), mode="constant"
    )
    per_mm2 = smooth / ((step * nuclei.mpp) ** 2 / 1e6)
    some = per_mm2[counts > 0]
    top = float(np.percentile(some, 98)) if len(some) else 1.0
    picture.heat(per_mm2, step, top)
    return 0.0, top


def _pixel_ratio(viewer: Any) -> float:
    window = getattr(viewer, "window", None)
    native = getattr(getattr(getattr(window, "_qt_viewer", None), "canvas", None), "native", None)
    return float(native.devicePixelRatioF()) if native is not None else 1.0


def _picture_node(viewer: Any, layer: Any) -> Any:
    """Return a picture below the layer's node; without a window nothing is drawn."""
    window = getattr(viewer, "window", None)
    canvas = getattr(getattr(window, "_qt_viewer", None), "canvas", None)
    if canvas is None or layer not in canvas.layer_to_visual:
        return None
    from napari_pathotune._nuclei_picture import PictureNode

    return PictureNode(canvas.layer_to_visual[layer].node)
