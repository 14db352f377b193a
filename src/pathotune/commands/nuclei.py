"""Find, outline, measure and count the nuclei of a slide, or of a folder of tiles.

The same job as any other face of the program runs: stopped with Ctrl-C it keeps
the tiles that are done, and the same command takes them up again. What a person
corrected on an earlier result of the same name is laid over the new one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathotune.commands._common import mpp, opened, outputs, picture, region
from pathotune.events import Note, PathotuneError, drain

if TYPE_CHECKING:
    from pathotune._console import Teller
    from pathotune.nuclei.query import Nuclei
    from pathotune.slides.slide import Slide

TEXT = "Find the nuclei of a slide: outlines, measurements, counts."
ALIASES = ("segment",)
SLIDE_ONLY = ("region", "geojson", "csv", "labels", "anndata", "dab", "map", "regions")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    from pathotune.nuclei.segmenter import DEFAULT, known

    parser.add_argument("slide", metavar="SLIDE", nargs="?")
    parser.add_argument("--tiles", metavar="DIR", help="a folder of pictures instead of a slide")
    mpp(parser, "the slide or of all tiles")
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
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE|DIR",
        help="Parquet file to write; with --tiles the folder of label images",
    )
    parser.add_argument("--geojson", metavar="FILE", help="detections for QuPath (.gz compresses)")
    parser.add_argument("--csv", metavar="FILE", help="one line a nucleus (.gz compresses)")
    parser.add_argument("--labels", metavar="FILE", help="label OME-TIFF with levels")
    parser.add_argument(
        "--dab",
        nargs="?",
        const="0.2,0.4,0.6",
        metavar="A,B,C",
        help="grade by brown: optical densities from which 1+, 2+, 3+ (0.2,0.4,0.6)",
    )
    parser.add_argument("--map", metavar="FILE", help="class map: count by the tissue below")
    parser.add_argument("--regions", metavar="GEOJSON", help="count by these regions")
    parser.add_argument("--anndata", metavar="FILE", help="AnnData file (.h5ad)")


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Write the nuclei; return count, area and density."""
    if (args.slide is None) == (args.tiles is None):
        raise PathotuneError("Nothing was named to look at.", "Give a slide, or --tiles DIR.")
    if args.tiles is not None:
        return _tiles(args, tell)
    from pathotune.nuclei import exports, raster
    from pathotune.nuclei.edits import Edits, journal_of
    from pathotune.nuclei.query import Nuclei
    from pathotune.nuclei.run import segment_slide
    from pathotune.nuclei.segmenter import prepare
    from pathotune.slides.tissue import tissue_mask

    asked = {k: getattr(args, k) for k in ("out", "geojson", "csv", "labels", "anndata")}
    outs = outputs(asked, args.slide)
    box = None if args.region is None else region(args.region)
    with opened(args.slide, args) as slide:
        tissue = None if args.tissue == "off" else tissue_mask(slide)
        segmenter = prepare(args.segmenter, slide, tissue)
        job = segment_slide(slide, segmenter, outs["out"], tissue=tissue, region=box)
        told = drain(job, tell)
        width, height = slide.width, slide.height
    with Nuclei.open(outs["out"]) as nuclei:
        if journal_of(outs["out"]).exists():
            edits = Edits(nuclei)
            for note in edits.notes:
                tell(Note(note, "warning"))
            edits.close()
            area = told["area_mm2"]
            told |= {"nuclei": len(nuclei), "edits": len(edits)}
            told["per_mm2"] = len(nuclei) / area if area else None
        told |= _counted(args, nuclei)
        for name in ("geojson", "csv", "anndata"):
            if name in outs:
                getattr(exports, f"write_{name}")(outs[name], nuclei)
        if "labels" in outs:
            raster.write_labels(outs["labels"], nuclei, width, height)
    return {**told, **{k: v for k, v in asked.items() if v is not None}}


def _counted(args: argparse.Namespace, nuclei: Nuclei) -> dict[str, Any]:
    """Grade and count as the options say."""
    from pathotune.maps.classmap import ClassMap
    from pathotune.marks.geojson import read_geojson
    from pathotune.nuclei import rules
    from pathotune.nuclei.summaries import summarise

    told: dict[str, Any] = {}
    if args.dab is not None:
        try:
            cuts = [float(v) for v in args.dab.split(",")]
        except ValueError:
            cuts = []  # refused in words below
        found = rules.by_dab(nuclei, cuts)
        told |= {"positive_index": found.positive, "h_score": found.h_score}
        told |= {"grades": dict(zip(rules.GRADES, found.counts, strict=True))}
    if args.map is None and args.regions is None:
        return told
    regions: dict[str, Any] = {}
    for item in read_geojson(args.regions).items if args.regions else ():
        name = item.name or item.class_name or "Region"
        shape = item.geometry.buffer(item.width / 2) if item.width else item.geometry
        regions[name] = regions[name].union(shape) if name in regions else shape
    ground = None if args.map is None else ClassMap.load(args.map)
    return {**told, "summary": summarise(nuclei, regions, ground)}


def _tiles(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    from pathotune.nuclei.tiles import label_tiles

    given = [f"--{n}" for n in SLIDE_ONLY if getattr(args, n) is not None]
    if given:
        raise PathotuneError(
            f"{', '.join(given)} belongs to a slide, not to --tiles.", "Leave it out."
        )

    def tile(path: Path, assumed: float | None) -> Slide:
        return opened(str(path), argparse.Namespace(**{**vars(args), "mpp": args.mpp or assumed}))

    return drain(label_tiles(Path(args.tiles), Path(args.out), args.segmenter, tile), tell)
