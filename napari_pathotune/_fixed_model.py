"""A finished linear model in the place of the one that follows the marks.

Going back to an earlier model should change the map at once. A linear model of the
same backbone needs nothing but the features that are there, so the loop paints it
as it paints the fast model, instead of starting the slide over in the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_pathotune._painting import Plan


class FixedModel:
    """Answers what the loop asks of a `LiveProbe`, with a head that stays as it is."""

    def __init__(self, bundle: Any, head: Any) -> None:
        self.classes: tuple[str, ...] = bundle.classes
        self.colours = dict(zip(bundle.classes, bundle.colours, strict=True))
        self.cells = np.empty((0, 2), np.int32)
        nothing = np.empty(0, np.intp)
        self.off_tissue = (nothing, nothing)
        self.glass: list[str] = []
        self._head = head

    def update(self, *_: Any) -> tuple[Any, str | None]:
        """Return the head; the marks do not change it."""
        return self._head, None


def fixed_model(bundle: Any, plan: Plan, tissue: Any) -> FixedModel | None:
    """Return the model for the loop, or None where it needs the engine.

    That is a model of another backbone or method, or one that looks where the mask does not.
    """
    if getattr(bundle, "method", "") != "linear" or bundle.card_hash != plan.card.hash():
        return None
    if bundle.tissue == "off" and getattr(tissue, "source", "auto") != "off":
        return None
    from pathotune.models.tuning.linear import LinearHead

    head = LinearHead.from_arrays(bundle.arrays)
    return FixedModel(bundle, head) if len(head.bias) == len(bundle.classes) else None
