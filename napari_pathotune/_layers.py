"""The one place where the engine's pixels become napari's world, and back.

The engine speaks (x, y) in level-0 pixels, where pixel i covers [i, i + 1).
napari speaks (row, col) in um and puts pixel *centres* on whole numbers. A map
of step S must therefore lie at ``(S - 1) / 2`` pixels, or it sits half a token
off. Only this module (and the annotation layers) builds layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pathotune.slides.slide import Region

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer
    from numpy.typing import NDArray
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


def slide_layer_data(slide: Slide) -> tuple[Any, dict[str, Any], str]:
    """Return a slide as napari's layer tuple: one array-like a level, in um."""
    data = [slide.level_array(i) for i in range(len(slide.levels))]
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


def add_slide(viewer: Viewer, slide: Slide) -> Image:
    """Show a slide below everything else, fill the canvas with it, show a scale bar."""
    data, kwargs, _ = slide_layer_data(slide)
    layer: Image = viewer.add_image(data, **kwargs)
    viewer.layers.move(viewer.layers.index(layer), 0)
    viewer.scale_bar.visible = True
    viewer.reset_view()
    return layer


def rescale(viewer: Viewer, slide: Slide) -> None:
    """Give the slide's layer its um once they are known."""
    for layer in viewer.layers:
        found = slide_of(layer)
        if found is not None and found is slide:
            layer.scale = pixel_scale(slide)
            layer.units = units(slide)
            layer.metadata[KEY]["mpp"] = slide.mpp
    viewer.reset_view()


def view_region(layer: Image, slide: Slide) -> Region | None:
    """Return the part of the slide on the screen, in level-0 pixels."""
    corners: NDArray[Any] = np.asarray(layer.corner_pixels, dtype=float)[:, :2]
    if layer.multiscale:
        corners = corners * np.asarray(layer.downsample_factors)[layer.data_level][:2]
    (y0, x0), (y1, x1) = np.floor(corners[0]), np.ceil(corners[1])
    region = Region(int(x0), int(y0), max(1, int(x1 - x0)), max(1, int(y1 - y0)))
    return region.intersect(Region(0, 0, slide.width, slide.height))
