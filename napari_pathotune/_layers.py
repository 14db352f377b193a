"""The one place where the engine's pixels become napari's world, and back.

The engine speaks (x, y) in level-0 pixels, where pixel i covers [i, i + 1).
napari speaks (row, col) in um and puts pixel *centres* on whole numbers. A map
of step S must therefore lie at ``(S - 1) / 2`` pixels, or it sits half a token
off. Only this module (and the annotation layers) builds layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_pathotune._drive import is_slow
from napari_pathotune._patience import Patience, patience_of
from pathotune.slides.slide import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from napari.layers import Image, Labels
    from napari.utils.colormaps import Colormap, DirectLabelColormap
    from napari.viewer import Viewer
    from numpy.typing import NDArray

    from napari_pathotune._opening import Seen
    from pathotune.slides.slide import Slide

KEY = "napari-pathotune"
AXES = ("y", "x")


def pixel_scale(slide: Slide) -> tuple[float, float]:
    """Return the world's size of a level-0 pixel, (row, col): um, or 1 while um/px is missing."""
    return (slide.mpp_y or 1.0, slide.mpp_x or 1.0)


def units(slide: Slide) -> tuple[str, str]:
    """Return the world's units: um, or pixels while um/px is missing."""
    return ("um", "um") if slide.mpp is not None else ("pixel", "pixel")


def grid_place(
    slide: Slide, step: float, origin: tuple[float, float] = (0.0, 0.0)
) -> dict[str, tuple[float, float]]:
    """Return the `scale` and `translate` of a raster whose cells are `step` level-0 pixels.

    Parameters
    ----------
    step : float
        Side of a cell in level-0 pixels.
    origin : tuple of float
        (x, y) of the raster's corner in level-0 pixels.
    """
    sy, sx = pixel_scale(slide)
    x0, y0 = origin
    return {
        "scale": (step * sy, step * sx),
        "translate": ((y0 + (step - 1) / 2) * sy, (x0 + (step - 1) / 2) * sx),
    }


def world_to_pixel(slide: Slide, world: Any) -> tuple[float, float]:
    """Return the level-0 (x, y) of a point of the world, (..., row, col)."""
    sy, sx = pixel_scale(slide)
    return float(world[-1]) / sx + 0.5, float(world[-2]) / sy + 0.5


def slide_layer_data(slide: Slide, seen: Seen | None = None) -> tuple[Any, dict[str, Any], str]:
    """Return a slide as napari's layer tuple: one array-like a level, in um.

    `seen` is what has been read of it already, so that the window need not.
    """
    patience = Patience(slide.pyramid(), lambda: is_slow(slide))
    if seen is not None:
        patience.know(seen.coarsest, seen.slow)
    data = patience.levels
    kwargs = {
        "name": slide.name,
        "rgb": True,
        "multiscale": len(data) > 1,
        "scale": pixel_scale(slide),
        "units": units(slide),
        "axis_labels": AXES,
        "metadata": {KEY: {"slide": slide, "path": str(slide.path), "mpp": slide.mpp}},
    }
    return (data if len(data) > 1 else data[0]), kwargs, "image"


def slide_of(layer: Any) -> Slide | None:
    """Return the slide behind a layer of ours, or None."""
    ours = getattr(layer, "metadata", {}).get(KEY)
    found: Slide | None = ours.get("slide") if isinstance(ours, dict) else None
    return found


def add_slide(viewer: Viewer, slide: Slide, seen: Seen | None = None) -> Image:
    """Show a slide below everything else, fill the canvas with it, show a scale bar."""
    data, kwargs, _ = slide_layer_data(slide, seen)
    layer: Image = viewer.add_image(data, **kwargs)
    viewer.layers.move(viewer.layers.index(layer), 0)
    viewer.canvas.overlays.scale_bar.visible = True
    viewer.reset_view()
    return layer


def read_patiently(layer: Image, seen: Seen, failed: Callable[[Any], None]) -> None:
    """Follow how a slide's layer is read: in the background where its drive is slow."""
    patience = patience_of(layer)
    if patience is not None:
        patience.know(seen.coarsest, seen.slow)
        patience.serve(layer)
        patience.failed.connect(failed)


def stop_reading(layer: Image | None) -> None:
    """Read no more for a layer that goes."""
    patience = patience_of(layer)
    if patience is not None:
        patience.stop()


def rescale(viewer: Viewer, slide: Slide) -> None:
    """Give the slide's layer its um once they are known."""
    for layer in viewer.layers:
        found = slide_of(layer)
        if found is not None and found is slide:
            layer.scale = pixel_scale(slide)
            layer.units = units(slide)
            layer.metadata[KEY]["mpp"] = slide.mpp
    viewer.reset_view()


def view_region(viewer: Viewer, slide: Slide) -> Region | None:
    """Return the part of the slide on the screen, in level-0 pixels; None when it is off it."""
    camera = viewer.scene.camera
    height, width = (float(v) / camera.zoom for v in viewer.canvas.size)
    row, col = camera.center[-2:]
    x0, y0 = world_to_pixel(slide, (row - height / 2, col - width / 2))
    x1, y1 = world_to_pixel(slide, (row + height / 2, col + width / 2))
    left, top = int(np.floor(x0)), int(np.floor(y0))
    region = Region(left, top, max(1, int(np.ceil(x1)) - left), max(1, int(np.ceil(y1)) - top))
    return region.intersect(Region(0, 0, slide.width, slide.height))


def _insert(viewer: Viewer, layer: Any, above: Any) -> Any:
    """Put a layer just above another without taking the pen from the active one."""
    active = viewer.layers.selection.active
    index = viewer.layers.index(above) + 1 if above in viewer.layers else len(viewer.layers)
    viewer.layers.insert(index, layer)
    if active is not None:
        viewer.layers.selection.active = active
    return layer


def class_colours(
    colours: tuple[tuple[int, int, int], ...], hidden: Collection[int] = ()
) -> DirectLabelColormap:
    """Return the colours of labels 1..n; 0 and the `hidden` labels are clear."""
    from napari.utils.colormaps import DirectLabelColormap

    table: dict[int | None, NDArray[np.float32]] = {
        None: np.zeros(4, np.float32),
        0: np.zeros(4, np.float32),
    }
    for label, rgb in enumerate(colours, start=1):
        alpha = 0.0 if label in hidden else 1.0
        table[label] = np.array([*(v / 255 for v in rgb), alpha], np.float32)
    return DirectLabelColormap(color_dict=table)


def add_labels(
    viewer: Viewer, slide: Slide, data: Any, *, name: str, place: dict[str, Any], **kwargs: Any
) -> Labels:
    """Add a raster of labels over the slide that the pen cannot change by mistake."""
    from napari.layers import Labels

    layer = Labels(data, name=name, units=units(slide), axis_labels=AXES, **place, **kwargs)
    layer.editable = False
    base = next((x for x in viewer.layers if slide_of(x) is slide), None)
    shown: Labels = _insert(viewer, layer, base)
    return shown


def add_values(
    viewer: Viewer, slide: Slide, data: Any, *, name: str, place: dict[str, Any], **kwargs: Any
) -> Image:
    """Add a raster of values 1..255 over the slide; 0 is clear."""
    from napari.layers import Image

    layer = Image(
        data,
        name=name,
        units=units(slide),
        axis_labels=AXES,
        contrast_limits=(0, 255),
        colormap=value_colours(),
        blending="translucent",
        interpolation2d="nearest",
        **place,
        **kwargs,
    )
    base = next((x for x in viewer.layers if slide_of(x) is slide), None)
    shown: Image = _insert(viewer, layer, base)
    return shown


def add_handle(viewer: Viewer, slide: Slide, *, name: str) -> Image:
    """Add a clear layer in the slide's corner, for something that is drawn below its node."""
    from napari.layers import Image

    layer = Image(  # two pixels small: a clear layer over all would be drawn over all
        np.zeros((2, 2, 4), np.uint8),
        name=name,
        rgb=True,
        scale=pixel_scale(slide),
        units=units(slide),
        axis_labels=AXES,
        blending="translucent",
    )
    top = viewer.layers[-1] if len(viewer.layers) else None
    shown: Image = _insert(viewer, layer, top)
    return shown


def value_colours() -> Colormap:
    """Return viridis, which stays apart from pink and violet stains, with a clear zero."""
    from napari.utils.colormaps import AVAILABLE_COLORMAPS, Colormap

    colours = AVAILABLE_COLORMAPS["viridis"].map(np.linspace(0, 1, 255))
    clear = np.vstack([[0, 0, 0, 0], colours]).astype(np.float32)
    return Colormap(clear, name="pathotune values", controls=np.linspace(0, 1, len(clear)))
