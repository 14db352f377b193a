"""How a finished model does on marks that it has not learnt from.

A figure is only worth something on tissue that the model has not seen, so regions and
tiles that it learnt from are known again and left out, and what cannot be judged is said.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathotune.commands._common import (
    STORY,
    model_of,
    mpp,
    overlap,
    picture,
    sources,
    which_model,
)
from pathotune.events import PathotuneError, drain

if TYPE_CHECKING:
    import argparse

    from pathotune._console import Teller

TEXT = "Judge a model on marks it has not learnt from."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("slides", nargs="*", metavar="SLIDE")
    parser.add_argument(
        "--annotations", nargs="+", metavar="FILE", help="GeoJSON, one for each slide in order"
    )
    parser.add_argument("--tiles", metavar="DIR", help="folder with one folder of tiles a class")
    mpp(parser, "the slides or tiles")
    picture(parser)
    which_model(parser)
    overlap(parser)


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Return the figures with their intervals."""
    from pathotune.learn.check import check, check_tiles

    if (args.tiles is None) == (not args.slides):
        raise PathotuneError(
            "There is nothing to judge by, or too much.",
            "Give slides with --annotations, or --tiles FOLDER.",
        )
    options = {"seed": args.seed, "device": args.device}
    if args.tiles is not None:
        bundle = _bundle(args, tell)
        found = drain(check_tiles(Path(args.tiles), bundle, mpp=args.mpp, **options), tell)
    else:
        with contextlib.ExitStack() as stack:
            given = sources(stack, args)
            bundle = _bundle(args, tell)
            found = drain(check(given, bundle, overlap=args.overlap, **options), tell)
    told = found.as_dict()
    about = {"method": bundle.method, "model": bundle.card_id, "classes": list(bundle.classes)}
    return {STORY: _story(told), **told, **about, "warnings": tell.warnings}


def _bundle(args: argparse.Namespace, tell: Teller) -> Any:
    model, dense = model_of(args, tell)
    if dense:
        raise PathotuneError(
            f"{model.NAME} comes without classes that can be judged here.", "Name another model."
        )
    return model


def _story(told: dict[str, Any]) -> str:
    """Return the figures for a reader."""
    drawn = told["drawn"]
    caution = "" if told["known_to_be_new"] else "Perhaps too good, see the warning.\n"
    lines = [
        caution + f"Macro-F1 {told['macro_f1']:.3f}{_span(told['low'], told['high'])}, "
        f"{told['n_regions']} {told['scope']}.",
        "",
    ]
    for c in told["per_class"]:
        lines.append(
            f"  {c['class']:<16} F1 {c['f1']:.3f}{_span(c['low'], c['high'])}, "
            f"{c['regions']} marked"
        )
    table = told["confusion"]
    lines.append("\nMarked (rows) and found, in % of the row:")
    lines.append("  " + " " * 16 + "".join(f"{n[:9]:>10}" for n in table["found"]))
    for name, row in zip(table["marked"], table["share"], strict=True):
        lines.append(f"  {name:<16}" + "".join(f"{100 * v:>10.1f}" for v in row))
    span = _span(told["calibration_low"], told["calibration_high"])
    lines.append(f"\nCalibration error {told['calibration_error']:.3f}{span}")
    if drawn is None:
        lines.append("No intervals: some class has a single one to judge by.")
    else:
        lines.append(f"Intervals (95 %) from drawing {drawn} anew.")
    return "\n".join(lines)


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None else f" ({low:.3f} to {high:.3f})"
