"""What the layer of regions remembers about its shapes, of which napari knows only an index.

A shape is one outline of one annotation. Beside that stands the annotation as it was
drawn, so that what already looks right is not drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_pathotune._annotation_geometry import Outline, outlines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pathotune.marks.annotations import Annotation


@dataclass(slots=True)
class Row:
    """Which outline of which annotation one shape of the layer is.

    `mark` is the annotation as it is shown, None where the screen may differ from the set.
    """

    id: str
    outline: Outline
    mark: Annotation | None = None

    def shows(self, mark: Annotation) -> bool:
        """Tell whether this is how `mark` is drawn, whatever class it has by now."""
        was = self.mark
        return was is not None and was.geometry is mark.geometry and was.width == mark.width


def by_hand(kind: str, vertices: NDArray[np.float64]) -> Outline:
    """Return what the hand has just drawn as an outline."""
    return Outline(0, 0, kind, vertices, True)


def same_outline(new: Annotation, kind: str, vertices: NDArray[np.float64]) -> bool:
    """Tell whether what napari shows is already how this annotation is drawn."""
    shown = outlines(new)
    if kind == "ellipse":
        return True  # napari's own ellipse is as good as ours
    return (
        len(shown) == 1 and shown[0].shape_type == kind and len(shown[0].vertices) == len(vertices)
    )


def is_detection(annotation: Annotation) -> bool:
    """Tell whether QuPath counts an object among its detections."""
    extra = annotation.extra
    inner = extra.get("properties", {}) if isinstance(extra.get("properties"), dict) else {}
    return str(extra.get("objectType", inner.get("objectType", ""))) in {"detection", "cell"}


def mend_colours(layer: Any) -> None:
    """Take the colours of shapes that are gone out of a layer of shapes.

    A shape that napari itself drops at the end of drawing (too few corners) leaves its colour
    behind, and all that come after would be painted in the colour of the one before.
    """
    view = layer._data_view
    for name in ("_edge_color", "_face_color"):
        colours = getattr(view, name, ())
        if len(colours) > layer.nshapes:
            setattr(view, name, colours[: layer.nshapes])
