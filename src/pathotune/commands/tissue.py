"""Where the tissue lies, as outlines that QuPath reads.

The same mask as the window's, so that it can be looked at, corrected elsewhere
and handed back to `predict --tissue FILE`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pathotune.commands._common import mpp, opened, outputs, picture

if TYPE_CHECKING:
    import argparse

    from pathotune._console import Teller

TEXT = "Find the tissue and write its outline as GeoJSON."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("slide", metavar="SLIDE")
    mpp(parser, "the slide")
    picture(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="GeoJSON to write")


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Write the outline; return its area and how many pieces there are."""
    from shapely.geometry import mapping

    from pathotune.cases.replacing import replacing
    from pathotune.slides.tissue import tissue_mask

    out = outputs({"out": args.out}, args.slide)["out"]
    with opened(args.slide, args) as slide:
        mask = tissue_mask(slide)
        area = mask.area_px()
        told: dict[str, Any] = {"area_px": area, "mpp": slide.mpp, "out": args.out}
        told["area_mm2"] = None if slide.mpp is None else area * slide.mpp**2 / 1e6
        shapes = mask.polygons()
    told["regions"] = len(shapes)
    features = [
        {
            "type": "Feature",
            "geometry": mapping(shape),
            "properties": {"objectType": "annotation", "classification": {"name": "Tissue"}},
        }
        for shape in shapes
    ]
    with replacing(out) as draft:
        draft.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return told
