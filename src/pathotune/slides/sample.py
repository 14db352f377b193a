"""Where the slides lie that ship with the program, for the first minute and the demo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pathotune import places

if TYPE_CHECKING:
    from pathlib import Path


def sample_slide() -> Path:
    """Return the slide composed from open colorectal tissue."""
    return places.resources() / "sample" / "bowel_wall.ome.tif"


def sample_annotations() -> Path:
    """Return its marked regions, as QuPath would write them."""
    return places.resources() / "sample" / "bowel_wall.geojson"


def skin_slide() -> Path:
    """Return a region of a real skin slide."""
    return places.resources() / "sample" / "CMU-1-Small-Region.svs"
