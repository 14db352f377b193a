"""Keeping the fast model in a file and taking a model from one.

A file holds more than numbers: which backbone it needs, how the slide must be seen, what
it learned from and how well it did there, so that another slide, another computer or the
command line can use it, or be told plainly why they cannot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_pathotune._overlaps import Overlaps
from pathotune.events import PathotuneError

GREY = (128, 128, 128)  # of a class that was deleted a moment ago

if TYPE_CHECKING:
    from pathlib import Path

    from napari_pathotune._session import Session


def model_in_use(session: Session) -> Any:
    """Return the model that draws the map, as a bundle: a loaded one, or the fast model as it is.

    Called in the GUI thread, so that the marks do not change meanwhile; the bundle is then
    written elsewhere.

    Raises
    ------
    PathotuneError
        There is no model yet.
    """
    if session.bundle is not None:
        return session.bundle
    plan, fitted = session.loop.plan, session.loop.fitted
    if plan is None or fitted is None:
        raise PathotuneError("There is no model to save yet.", "Mark two classes first.")
    from pathotune.learn.seen import written
    from pathotune.models.bundle import ModelBundle

    slide = session.slide
    key = "" if slide is None else slide.fingerprint
    now = {c.name: c.colour for c in session.annotations.classes}
    colours = tuple(now.get(name, GREY) for name in fitted.classes)
    tissue = "off" if getattr(session.tissue, "source", "auto") == "off" else "auto"
    return ModelBundle.create(
        plan.card,
        "linear",
        fitted.classes,
        colours,
        fitted.head.to_arrays(),
        tissue=tissue,
        regions=[
            {"id": i, "class": name, "places": written(fitted.places[i], key)}
            for i, name in fitted.regions.items()
        ],
        pictures=[] if slide is None else [slide.view.words()],
        metrics=fitted.evaluation.as_dict(),
        overlap=Overlaps.of(session).answer or "leave-out",
    )


def load(path: Path) -> Any:
    """Return the model in a file, checked against the backbones on this computer.

    Raises
    ------
    PathotuneError
        The file is not a model of ours, is damaged, or needs a backbone that is not here.
    """
    from pathotune.models.bundle import ModelBundle

    return ModelBundle.load(path)
