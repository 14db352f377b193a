"""The command line: the window's jobs, for scripts.

Scripts rely on three things: with ``--json`` standard output holds one JSON
object and nothing else, everything that is said on the way goes to standard
error, and the exit code tells whose turn it is (0 done, 2 the input is at
fault, 1 the program is). Heavy libraries are imported only by the command that
needs them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pathotune import __version__
from pathotune._console import Teller, plain
from pathotune.events import Note, PathotuneError, drain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pathotune.models.cards import ModelCard
    from pathotune.slides.slide import Region, Slide

STORY = "story"  # a result that brings its own words for people
DONE, OUR_FAULT, USERS_TURN, INTERRUPTED = 0, 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        """Leave with code 2."""
        self.exit(USERS_TURN, f"{self.prog}: {message}. See {self.prog} --help.\n")


def _open(path: str, mpp: float | None) -> Slide:
    from pathotune.slides.slide import open_slide

    return open_slide(path, mpp=mpp)


def _card(args: argparse.Namespace, tell: Teller) -> ModelCard:
    """Return the card that was named; naming one that lies on a hub is the yes to its download."""
    from pathotune.models.cards import DEFAULT_ID, card
    from pathotune.models.weights import download

    chosen = card(args.model or DEFAULT_ID)
    if chosen.needs_download and not args.offline:
        drain(download(chosen), tell)
    return chosen


def _info(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    with _open(args.slide, args.mpp) as slide:
        return {
            "name": slide.name,
            "width": slide.width,
            "height": slide.height,
            "mpp": slide.mpp,
            "mpp_x": slide.mpp_x,
            "mpp_y": slide.mpp_y,
            "mpp_source": slide.mpp_source,
            "mpp_problem": slide.mpp_problem,
            "levels": [
                {
                    "width": level.width,
                    "height": level.height,
                    "downsample_x": level.downsample_x,
                    "downsample_y": level.downsample_y,
                }
                for level in slide.levels
            ],
            "vendor": slide.vendor,
            "kind": slide.kind,
            "objective": slide.objective,
            "reader": slide.reader,
        }


def _tissue(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    from shapely.geometry import mapping

    from pathotune.cases.replacing import can_write, replacing
    from pathotune.slides.tissue import tissue_mask

    out = can_write(Path(args.out), Path(args.slide))
    with _open(args.slide, args.mpp) as slide:
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


def _train(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    from pathotune.cases.replacing import can_write
    from pathotune.learn.train import train, train_tiles
    from pathotune.marks.geojson import read_geojson

    inputs = [*args.slides, *(args.annotations or ())]
    out = can_write(Path(args.out), *map(Path, inputs))
    classes = None if args.classes is None else _listed(args.classes)
    options = {"method": args.method, "classes": classes, "seed": args.seed, "device": args.device}
    start = time.monotonic()
    if args.tiles is not None:
        if args.slides or args.annotations:
            raise PathotuneError(
                "Tiles and slides cannot be learnt together.", "Give --tiles or slides, not both."
            )
        card = _card(args, tell)
        bundle = drain(train_tiles(Path(args.tiles), mpp=args.mpp, card=card, **options), tell)
    else:
        marks = args.annotations or []
        if not args.slides or len(args.slides) != len(marks):
            raise PathotuneError(
                f"There are {len(args.slides)} slides and {len(marks)} annotation files.",
                "Give one annotation file for each slide, in the same order.",
            )
        card = _card(args, tell)
        with contextlib.ExitStack() as stack:
            sources = [
                (stack.enter_context(_open(s, args.mpp)), read_geojson(Path(m)))
                for s, m in zip(args.slides, marks, strict=True)
            ]
            bundle = drain(train(sources, card=card, **options), tell)
    bundle.save(out)
    verdict = dict(bundle.meta.get("metrics") or {})
    return {
        "out": args.out,
        "classes": list(bundle.classes),
        "model": bundle.card_id,
        "method": bundle.method,
        "n_regions": verdict.get("n_regions", len(bundle.meta.get("regions", ()))),
        "macro_f1": verdict.get("macro_f1"),
        **verdict,
        "seconds": round(time.monotonic() - start, 2),
        **({"mpp_assumed": True} if bundle.meta.get("mpp_assumed") else {}),
    }


def _listed(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _region(text: str) -> Region:
    from pathotune.slides.slide import Region

    try:
        x, y, width, height = (int(v) for v in text.split(","))
    except ValueError:
        raise PathotuneError(
            f"--region {text} is not a region.", "Give x,y,width,height in level-0 pixels."
        ) from None
    if width <= 0 or height <= 0:
        raise PathotuneError("The region is empty.", "Give a width and a height above 0.")
    return Region(x, y, width, height)


def _predict(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    from pathotune import plugins
    from pathotune.cases.replacing import can_write
    from pathotune.maps.predict import predict, predict_tiles
    from pathotune.maps.ready import named
    from pathotune.models.bundle import ModelBundle

    if (args.slide is None) == (args.tiles is None):
        raise PathotuneError(
            "There is nothing to map, or too much.", "Give a slide, or --tiles FOLDER."
        )
    wanted = (("ome_tiff", args.out), ("geojson", args.geojson), ("csv", args.csv))
    inputs = [Path(p) for p in (args.slide, args.bundle, args.tissue) if p is not None]
    outs = {key: can_write(Path(out), *inputs) for key, out in wanted if out is not None}
    model = named(args.bundle)
    dense = None if isinstance(model, ModelBundle) else model
    if dense is None:
        args.model = model.card_id
        _card(args, tell)
    if args.tiles is not None:
        if dense is not None:
            raise PathotuneError(f"{dense.NAME} maps slides only.", "Give a slide.")
        asked = predict_tiles(Path(args.tiles), model, mpp=args.mpp, device=args.device)
        predictions = drain(asked, tell)
        predictions.write_csv(outs["ome_tiff"])
        return {"out": args.out, **predictions.summary()}
    made_for = dense.MADE_FOR if dense is not None else str(model.meta.get("made_for", ""))
    region = None if args.region is None else _region(args.region)
    tissue = args.tissue if args.tissue in {"auto", "off"} else Path(args.tissue)
    with _open(args.slide, args.mpp) as slide:
        options = {"region": region, "device": args.device, "seed": args.seed}
        if dense is None:
            job = predict(slide, model, tissue=tissue, **options)
        else:
            job = dense.predict(slide, tissue=tissue, region=region, device=args.device)
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
            "made_for": made_for,
            "warnings": tell.warnings,
        }


def _models(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    from pathotune.maps.ready import ready_models
    from pathotune.models.cards import DEFAULT_ID, cards

    ready = [{"id": m.key, "name": m.name, "made_for": m.made_for} for m in ready_models()]
    told = []
    for card in cards().values():
        words = ("id", "name", "about", "made_for", "licence", "gated", "size_mb", "url")
        numbers = ("mpp", "tile_px", "token_px", "dims")
        row = {name: getattr(card, name) for name in words + numbers}
        row |= {"default": card.id == DEFAULT_ID, "here": card.here}
        told.append(row | {"needs_download": card.needs_download})
    return {"models": told, "ready": ready}


def _doctor(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    from pathotune.models.doctor import checkup

    found = checkup()
    return {
        "ok": all(f.ok for f in found),
        "findings": [{"name": f.name, "ok": f.ok, "text": f.text, "hint": f.hint} for f in found],
    }


def _demo(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    from pathotune.cases import demo

    out = Path(args.out)
    job = demo.run(out, headless=args.headless, device=args.device, seed=args.seed)
    result = drain(job, tell)
    files = {kind: str(path.resolve()) for kind, path in result.files.items()}
    return {STORY: result.story(), "files": files, **result.metrics}


def _shared() -> _Parser:
    shared = _Parser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print one JSON object")
    shared.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    shared.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    shared.add_argument("--offline", action="store_true", help="never use the network")
    return shared


def parser() -> _Parser:
    """Return the parser of all commands."""
    top = _Parser(prog="pathotune", description="Class maps of whole-slide images.")
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = _shared()

    def add(name: str, run: Callable[..., dict[str, Any]], text: str) -> _Parser:
        command = commands.add_parser(name, help=text, description=text, parents=[shared])
        command.set_defaults(run=run)
        return command

    def mpp(command: argparse.ArgumentParser, what: str) -> None:
        command.add_argument("--mpp", type=float, metavar="X", help=f"um/px of {what}")

    info = add("info", _info, "Say what is known about a slide.")
    info.add_argument("slide", metavar="SLIDE")
    mpp(info, "the slide, when the file does not say")

    tissue = add("tissue", _tissue, "Find the tissue and write its outline as GeoJSON.")
    tissue.add_argument("slide", metavar="SLIDE")
    mpp(tissue, "the slide")
    tissue.add_argument("--out", required=True, metavar="FILE", help="GeoJSON to write")

    train = add("train", _train, "Learn classes from marked regions or from tile folders.")
    train.add_argument("slides", nargs="*", metavar="SLIDE")
    train.add_argument(
        "--annotations", nargs="+", metavar="FILE", help="GeoJSON, one for each slide in order"
    )
    train.add_argument("--tiles", metavar="DIR", help="folder with one folder of tiles a class")
    mpp(train, "the slides or tiles")
    train.add_argument("--model", metavar="ID", help="backbone; see pathotune models")
    train.add_argument("--method", default="linear", help="how the classes are learnt")
    train.add_argument("--classes", metavar="A,B,C", help="which classes, in this order")
    train.add_argument("--out", required=True, metavar="FILE", help="bundle to write")

    predict = add("predict", _predict, "Map a slide, or classify a folder of tiles.")
    predict.add_argument("slide", nargs="?", metavar="SLIDE")
    predict.add_argument("--tiles", metavar="DIR", help="classify the tiles of a folder instead")
    mpp(predict, "the slide or tiles")
    predict.add_argument(
        "--bundle",
        required=True,
        metavar="FILE",
        help="what train wrote, or a ready one: crc_nine, shell",
    )
    predict.add_argument("--region", metavar="x,y,w,h", help="map only this, in level-0 pixels")
    predict.add_argument(
        "--tissue", default="auto", metavar="auto|off|FILE", help="where to look; FILE is GeoJSON"
    )
    predict.add_argument("--out", required=True, metavar="FILE", help="OME-TIFF, or CSV for tiles")
    predict.add_argument("--geojson", metavar="FILE", help="regions for QuPath as well")
    predict.add_argument("--csv", metavar="FILE", help="areas as well")

    add("models", _models, "List the backbones, and the models that need no marks.")
    add("doctor", _doctor, "Look for what is wrong with the installation, and how to mend it.")
    demo = add("demo", _demo, "Learn and map the sample slide, and show it.")
    demo.add_argument("--headless", action="store_true", help="open no window; take its picture")
    demo.add_argument("--out", default="demo-output", metavar="DIR", help="where the results go")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    args = parser().parse_args(argv)
    if args.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    tell = Teller(sys.stderr)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what matters is told in our words
    try:
        with contextlib.redirect_stdout(sys.stderr):  # libraries that chat on standard output
            result = args.run(args, tell)
        tell.close()
        story = result.pop(STORY, None)
        if args.json:
            print(json.dumps(result, allow_nan=False), flush=True)
        else:
            print(story or plain(result), flush=True)
    except PathotuneError as error:
        tell.close()
        print(" ".join(str(error).split()), file=sys.stderr)
        return USERS_TURN
    except KeyboardInterrupt:
        tell.close()
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
    except Exception:  # noqa: BLE001  (the last resort: say whose fault it is)
        tell.close()
        traceback.print_exc()
        print("This is a fault of the program, not of your input.", file=sys.stderr)
        return OUR_FAULT
    return DONE


if __name__ == "__main__":
    sys.exit(main())
