"""A picture in napari's scene that is replaced many times a second.

Replacing a layer's data makes napari measure all layers anew, which costs tens of
milliseconds each time; a node below a layer's own costs the upload of its pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from vispy.scene.visuals import Image, Line
from vispy.visuals.transforms import STTransform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class PictureNode(Image):
    """A picture with its own transparency; shown and hidden with its parent."""

    def __init__(self, parent: Any) -> None:
        clear = np.zeros((1, 1, 4), np.uint8)
        super().__init__(clear, interpolation="nearest", parent=parent)
        self.set_gl_state("translucent", depth_test=False)
        self.unfreeze()
        self._place = self.transform = STTransform()
        self.placed: tuple[float, float, float, float] | None = None
        self.line = Line(color="white", width=2, method="gl", parent=parent)
        self.line.set_gl_state("translucent", depth_test=False)
        self.line.order, self.line.visible = 1, False
        self.freeze()

    def lay(self, pixels: NDArray[Any], box: tuple[float, float, float, float]) -> None:
        """Show other pixels.

        Parameters
        ----------
        pixels : uint8 (height, width, 4)
        box : x0, y0, x1, y1
            Where they lie in the world: columns and rows, um.
        """
        self.set_data(pixels)
        height, width = pixels.shape[:2]
        over = self.parent.transform  # from the layer's own pixels to the world
        a, b = over.imap((box[0], box[1]))[:2], over.imap((box[2], box[3]))[:2]
        scale = (b[0] - a[0]) / width, (b[1] - a[1]) / height
        self._place.scale, self._place.translate = scale, a  # a new one would build shaders anew
        self.placed = box
        self.update()

    def trace(self, points: Sequence[tuple[float, float]]) -> None:
        """Show a line of world points, columns and rows; fewer than two take it away."""
        self.line.visible = len(points) > 1
        if self.line.visible:
            over = self.parent.transform
            self.line.set_data(np.array([over.imap(p)[:2] for p in points], np.float32))
        self.update()
