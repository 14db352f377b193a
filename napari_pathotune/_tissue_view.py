"""The tissue mask on the slide, shown when asked for.

Only its border is drawn, so that the tissue under it can be judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_pathotune import _layers

if TYPE_CHECKING:
    from napari_pathotune._session import Session

COLOUR = (0, 114, 178)  # Okabe-Ito's blue, away from eosin and haematoxylin


class TissueView:
    """Shows the session's tissue mask as a layer."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._layer: Any = None
        self._wanted = False
        session.tissue_changed.connect(self._update)
        session.mpp_changed.connect(self._update)
        session.slide_changed.connect(self._update)

    def set_visible(self, wanted: bool) -> None:
        """Show or hide the border of the tissue."""
        self._wanted = wanted
        self._update()

    def _update(self, *_: Any) -> None:
        session = self._session
        viewer, slide, tissue = session.viewer, session.slide, session.tissue
        if viewer is None:
            return
        if self._layer is not None and self._layer in viewer.layers:
            viewer.layers.remove(self._layer)
        self._layer = None
        if not self._wanted or slide is None or tissue is None:
            return
        sy, sx = _layers.pixel_scale(slide)
        place = {
            "scale": (tissue.step_y * sy, tissue.step_x * sx),
            "translate": ((tissue.step_y - 1) / 2 * sy, (tissue.step_x - 1) / 2 * sx),
        }
        self._layer = _layers.add_labels(
            viewer,
            slide,
            tissue.mask.astype(np.uint8),
            name="Tissue border",
            place=place,
            opacity=1.0,
            colormap=_layers.class_colours((COLOUR,)),
        )
        self._layer.contour = 2
