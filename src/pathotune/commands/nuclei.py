"""Find, outline, measure and count the nuclei of a slide.

The same job as any other face of the program runs: stopped with Ctrl-C it keeps
the tiles that are done, and the same command takes them up again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathotune.commands._common import mpp, opened, outputs, picture, region
from pathotune.events import drain

if TYPE_CHECKING:
    import argparse

    from pathotune._console import Teller

TEXT = "Find the nuclei of a slide: outlines, measurements, counts."
ALIASES = ("segment",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    from pathotune.nuclei.segmenter import DEFAULT, known

    parser.add_argument("slide", metavar="SLIDE")
    mpp(parser, "the slide")
    picture(parser)
    parser.add_argument("--region", metavar="x,y,w,h", help="only this box, level-0 pixels")
    parser.add_argument(
        "--segmenter",
        metavar="NAME|FILE",
        default=DEFAULT,
        help=f"what finds nuclei: {', '.join(known())}, or a file of learn-nuclei",
    )
    parser.add_argument(
        "--tissue", choices=("auto", "off"), default="auto", help="off: look everywhere"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="Parquet file to write")
    parser.add_argument("--geojson", metavar="FILE", help="detections for QuPath (.gz compresses)")
    parser.add_argument("--csv", metavar="FILE", help="one line a nucleus (.gz compresses)")


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Write the nuclei; return count, area and density."""
    from pathotune.nuclei.exports import write_csv, write_geojson
    from pathotune.nuclei.run import segment_slide
    from pathotune.nuclei.segmenter import prepare
    from pathotune.nuclei.store import NucleusStore
    from pathotune.slides.tissue import tissue_mask

    asked = {"out": args.out, "geojson": args.geojson, "csv": args.csv}
    outs = outputs(asked, args.slide)
    box = None if args.region is None else region(args.region)
    with opened(args.slide, args) as slide:
        tissue = None if args.tissue == "off" else tissue_mask(slide)
        segmenter = prepare(args.segmenter, slide, tissue)
        job = segment_slide(slide, segmenter, outs["out"], tissue=tissue, region=box)
        told = drain(job, tell)
    with NucleusStore(outs["out"]) as store:
        if "geojson" in outs:
            write_geojson(outs["geojson"], store)
        if "csv" in outs:
            write_csv(outs["csv"], store)
    return {**told, **{k: v for k, v in asked.items() if v is not None}}
