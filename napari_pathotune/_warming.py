"""What napari only imports with its first layer, imported while the user looks for a file.

The first shapes layer of a session costs a second of imports (pandas, units,
filters) at the very moment of the first stroke. They come off the GUI thread
when the docks open instead; nothing here is ours and torch is not among it.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from typing import Any

LATER = (
    "pandas",
    "scipy.ndimage",
    "scipy.spatial",
    "pathotune.slides.slide",
    "pathotune.marks.geojson",
    "pathotune.marks.journal",
    "pathotune.learn.live",
    "pathotune.maps.paint",
    "napari.layers",
)


def warm() -> None:
    """Import what the first layers need (files lane), a breath between each."""
    for name in LATER:
        with contextlib.suppress(ImportError):  # an optional part of napari's own
            importlib.import_module(name)
        time.sleep(0.01)
    with contextlib.suppress(ImportError, AttributeError):
        units: Any = importlib.import_module("pint")
        _ = units.get_application_registry().micrometer  # the registry loads on first use
