"""Fine-tune the nucleus network on nuclei that a person corrected.

The corrections lie beside the nuclei, where the window wrote them. What is
written is given to ``pathotune segment --segmenter FILE``; the shipped network
stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathotune.commands._common import mpp, opened, outputs, picture
from pathotune.events import Note, NucleiJudged, PathotuneError, drain

if TYPE_CHECKING:
    import argparse

    from pathotune._console import Teller
    from pathotune.events import Event

NAME = "refine-nuclei"
TEXT = "Teach the nucleus network by corrected nuclei, judged on places kept apart."
ENDING = ".safetensors"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("slide", metavar="SLIDE")
    parser.add_argument("nuclei", metavar="NUCLEI", help="Parquet file with corrections beside it")
    mpp(parser, "the slide")
    picture(parser)
    parser.add_argument("--base", metavar="FILE", help="go on from this refined network")
    parser.add_argument("--steps", type=int, default=120, metavar="N", help="steps to train (120)")
    parser.add_argument("--out", required=True, metavar="SEGMENTER", help="file to write")


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Write the refined network; return its scores before and after."""
    from pathotune.nuclei.edits import Edits, journal_of
    from pathotune.nuclei.query import Nuclei
    from pathotune.nuclei.refine import refine

    if not args.out.endswith(ENDING):
        raise PathotuneError(
            f"{args.out} would not be known as a segmenter.", f"Give it a name ending in {ENDING}."
        )
    if args.steps < 1:
        raise PathotuneError("There is nothing to train in 0 steps.", "Give --steps above 0.")
    out = outputs({"out": args.out}, args.slide, args.nuclei, args.base)["out"]
    if not journal_of(Path(args.nuclei)).exists() and Path(args.nuclei).exists():
        raise PathotuneError(
            f"No nucleus of {Path(args.nuclei).name} was corrected.",
            "Correct some in the window first; corrections are kept beside the file.",
        )

    def say(event: Event) -> None:
        if isinstance(event, NucleiJudged):
            tell(Note(f"After {event.step} steps: AJI {event.agreement:.2f} on places kept apart."))
        else:
            tell(event)

    with Nuclei.open(args.nuclei) as nuclei, opened(args.slide, args) as slide:
        edits = Edits(nuclei)
        base = None if args.base is None else Path(args.base)
        return drain(
            refine(slide, nuclei, edits, out, base=base, steps=args.steps, seed=args.seed), say
        )
