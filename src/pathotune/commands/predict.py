"""A class map of a slide, or a class for every tile of a folder.

The same map as the window's, with its exports; what cannot be done is refused
before anything is computed or fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathotune.commands._common import (
    model_of,
    mpp,
    not_a_tile,
    opened,
    outputs,
    picture,
    region,
    which_model,
)
from pathotune.events import Note, PathotuneError, drain

if TYPE_CHECKING:
    import argparse

    from pathotune._console import Teller

TEXT = "Map a slide, or classify a folder of tiles."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("slide", nargs="?", metavar="SLIDE")
    parser.add_argument("--tiles", metavar="DIR", help="classify the tiles of a folder instead")
    mpp(parser, "the slide or tiles")
    picture(parser)
    which_model(parser)
    parser.add_argument("--region", metavar="x,y,w,h", help="map only this, in level-0 pixels")
    parser.add_argument(
        "--tissue", metavar="auto|off|FILE", help="where to look (auto); FILE is GeoJSON"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="OME-TIFF, or CSV for tiles")
    parser.add_argument("--geojson", metavar="FILE", help="regions for QuPath as well")
    parser.add_argument("--csv", metavar="FILE", help="areas as well")


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Write the results asked for; return areas and where the map lies."""
    if (args.slide is None) == (args.tiles is None):
        raise PathotuneError(
            "There is nothing to map, or too much.", "Give a slide, or --tiles FOLDER."
        )
    return _tiles(args, tell) if args.tiles is not None else _slide(args, tell)


def _tiles(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    from pathotune.maps.predict import predict_tiles

    alien = [f"--{k}" for k in ("region", "tissue", "geojson", "csv") if getattr(args, k)]
    if alien:
        raise PathotuneError(
            f"{' and '.join(alien)} cannot be used with --tiles.",
            "Leave it out; --out is the table of the tiles.",
        )
    folder = Path(args.tiles)
    out = not_a_tile(outputs({"out": args.out}, args.bundle)["out"], folder)
    model, dense = model_of(args, tell)
    if dense:
        raise PathotuneError(f"{model.NAME} maps slides only.", "Give a slide.")
    predictions = drain(predict_tiles(folder, model, mpp=args.mpp, device=args.device), tell)
    predictions.write_csv(out)
    return {"out": args.out, **predictions.summary()}


def _slide(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    from pathotune import plugins
    from pathotune.maps.predict import predict

    wanted = {"ome_tiff": args.out, "geojson": args.geojson, "csv": args.csv}
    asked = args.tissue or "auto"
    tissue = asked if asked in {"auto", "off"} else Path(asked)
    file = str(tissue) if isinstance(tissue, Path) else None
    outs = outputs(wanted, args.slide, args.bundle, file)
    window = None if args.region is None else region(args.region)
    with opened(args.slide, args) as slide:
        model, dense = model_of(args, tell)
        made_for = model.MADE_FOR if dense else str(model.meta.get("made_for", ""))
        options = {"region": window, "device": args.device, "tissue": tissue}
        if dense:
            job = model.predict(slide, **options)
        else:
            job = predict(slide, model, seed=args.seed, **options)
        classmap = drain(job, tell)
        tell(Note(f"The model was made for: {made_for}."))
        for key, out in outs.items():
            plugins.load("pathotune.cases.exports", key).write(out, classmap, slide)
        return {
            "out": args.out,
            "classes": list(classmap.classes),
            "areas_mm2": {k: float(v) for k, v in classmap.areas_mm2().items()},
            "step": float(classmap.step),
            "step_um": float(classmap.mpp),
            "origin": [float(v) for v in classmap.origin],
            "mpp": slide.mpp,
            "picture": slide.view.words(),
            "made_for": made_for,
            "warnings": tell.warnings,
        }
