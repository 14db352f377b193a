"""Learning classes, from marked regions of slides or from folders of tiles.

What the Tune dock does, for scripts: the same job, the same bundle, the same
verdict from regions that were left out.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathotune.commands._common import (
    backbone,
    listed,
    mpp,
    not_a_tile,
    outputs,
    overlap,
    picture,
    sources,
)
from pathotune.events import Note, PathotuneError, drain

if TYPE_CHECKING:
    import argparse

    from pathotune._console import Teller

TEXT = "Learn classes from marked regions or from tile folders."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("slides", nargs="*", metavar="SLIDE")
    parser.add_argument(
        "--annotations", nargs="+", metavar="FILE", help="GeoJSON, one for each slide in order"
    )
    parser.add_argument("--tiles", metavar="DIR", help="folder with one folder of tiles a class")
    mpp(parser, "the slides or tiles")
    picture(parser)
    parser.add_argument("--model", metavar="ID", help="backbone; see pathotune models")
    parser.add_argument("--method", default="linear", help="how the classes are learnt")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the method"
    )
    parser.add_argument("--sentence", metavar="TEXT", help="the task in words, for pathotune")
    parser.add_argument("--text-encoder", metavar="DIR", help="folder of a text encoder")
    overlap(parser)
    parser.add_argument("--classes", metavar="A,B,C", help="which classes, in this order")
    parser.add_argument("--out", required=True, metavar="FILE", help="bundle to write")


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Learn, save the bundle, and return its verdict."""
    from pathotune.learn.train import train, train_tiles

    inputs = [*args.slides, *(args.annotations or ())]
    out = outputs({"out": args.out}, *inputs)["out"]
    classes = None if args.classes is None else listed(args.classes)
    options = {"method": args.method, "classes": classes, "seed": args.seed, "device": args.device}
    options |= _settings(args, out, tell)
    start = time.monotonic()
    if args.tiles is not None:
        if args.slides or args.annotations:
            raise PathotuneError(
                "Tiles and slides cannot be learnt together.", "Give --tiles or slides, not both."
            )
        folder = Path(args.tiles)
        not_a_tile(out, folder)
        card = backbone(args, tell)
        bundle = drain(train_tiles(folder, mpp=args.mpp, card=card, **options), tell)
    else:
        with contextlib.ExitStack() as stack:
            given = sources(stack, args)
            card = backbone(args, tell)
            bundle = drain(train(given, card=card, overlap=args.overlap, **options), tell)
    bundle.save(out)
    _so_far(out).unlink(missing_ok=True)
    verdict = dict(bundle.meta.get("metrics") or {})
    return {
        "out": args.out,
        "classes": list(bundle.classes),
        "model": bundle.card_id,
        "method": bundle.method,
        "size_mb": round(out.stat().st_size / 1e6, 3),
        "n_regions": verdict.get("n_regions", len(bundle.meta.get("regions", ()))),
        "macro_f1": verdict.get("macro_f1"),
        **verdict,
        **({"tuning": _told(bundle)} if "tuning" in bundle.meta else {}),
        "seconds": round(time.monotonic() - start, 2),
        **({"mpp_assumed": True} if bundle.meta.get("mpp_assumed") else {}),
    }


def _settings(args: argparse.Namespace, out: Path, tell: Teller) -> dict[str, Any]:
    """Return the settings that were given, checked before anything is computed."""
    from pathotune import plugins
    from pathotune.learn.tune import settings

    plugins.load("pathotune.models.tuning", args.method)
    pairs = [text.partition("=") for text in args.set]
    wrong = [key for key, sign, _ in pairs if not sign or not key]
    if wrong:
        raise PathotuneError(f"{wrong[0]!r} is no setting.", "Write it as NAME=VALUE.")
    config, plan = settings(args.method, {key: value for key, _, value in pairs})
    if args.method == "linear":
        if args.sentence or args.text_encoder:
            raise PathotuneError(
                "The fast model reads no words.", "Leave --sentence and --text-encoder out."
            )
        return {"config": config}
    _put_aside(out, tell)
    words = {"sentence": args.sentence or "", "text_folder": args.text_encoder or ""}
    # what a training that does not come to its end leaves behind
    return {"config": config, "plan": plan, "keep": _so_far(out), **words}


def _so_far(out: Path) -> Path:
    """Return where the best model is kept while a training is under way."""
    return out.with_name(f"{out.stem}.so-far{out.suffix}")


def _put_aside(out: Path, tell: Teller) -> None:
    """Keep what an earlier training that did not come to its end left behind."""
    left = _so_far(out)
    if left.is_file():
        aside = out.with_name(f"{out.stem}.before{out.suffix}")
        left.replace(aside)
        tell(
            Note(
                "An earlier training to this file did not come to its end; the best it had learnt "
                f"is now {aside.name}, a model like any other."
            )
        )


def _told(bundle: Any) -> dict[str, Any]:
    """Return what a script wants to know of a tuned model."""
    facts = bundle.meta["tuning"]
    keys = ("share_percent", "config", "training", "sentence", "encoder", "verdict")
    return {key: facts[key] for key in keys}
