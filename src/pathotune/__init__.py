"""Class maps of whole-slide images from a few marked regions: the engine.

The engine knows neither Qt nor napari. Every long computation is a generator
that yields frozen events and returns its result (see `pathotune.events`), so
that the window, the command line and a notebook pump the same job. Public
names load on first use: ``import pathotune`` costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathotune.events import Job as Job
    from pathotune.events import PathotuneError as PathotuneError
    from pathotune.events import drain as drain

__version__ = "0.1.0"

_WHERE = {
    "Job": "pathotune.events",
    "PathotuneError": "pathotune.events",
    "drain": "pathotune.events",
    "open_slide": "pathotune.slides.slide",
    "Region": "pathotune.slides.slide",
    "tissue_mask": "pathotune.slides.tissue",
    "AnnotationSet": "pathotune.marks.annotations",
    "read_geojson": "pathotune.marks.geojson",
    "ModelBundle": "pathotune.models.bundle",
    "train": "pathotune.learn.train",
    "predict": "pathotune.maps.predict",
    "ClassMap": "pathotune.maps.classmap",
}

__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'pathotune' has no attribute {name!r}")
