"""Learn a nucleus segmenter from a slide on which nobody outlined a nucleus.

Stopped with Ctrl-C it keeps what it has reached, and the same command goes on. What it
writes is given to ``pathotune segment --segmenter FILE``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathotune.commands._common import mpp, opened, outputs, picture, region
from pathotune.events import Note, NucleiJudged, drain

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from pathotune._console import Teller
    from pathotune.events import Event

NAME = "learn-nuclei"
TEXT = "Learn to find the nuclei of a slide without outlining any."
MINUTES, ADVERSARIAL_MINUTES = 10.0, 120.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("slide", metavar="SLIDE")
    mpp(parser, "the slide")
    picture(parser)
    parser.add_argument("--region", metavar="x,y,w,h", help="learn from this box, level-0 pixels")
    parser.add_argument(
        "--minutes",
        type=_above_zero,
        metavar="N",
        help=f"stop with the best so far after this long ({MINUTES:.0f}; with --adversarial "
        f"{ADVERSARIAL_MINUTES:.0f})",
    )
    parser.add_argument(
        "--diameter", type=_above_zero, metavar="UM", help="size of a nucleus (measured)"
    )
    parser.add_argument(
        "--density", type=_above_zero, metavar="N", help="nuclei per mm2 (measured)"
    )
    parser.add_argument(
        "--adversarial",
        action="store_true",
        help="also learn to translate between masks and tissue; hours without a graphics card",
    )
    parser.add_argument("--out", required=True, metavar="SEGMENTER", help="file to write")


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Write the segmenter; return how it was made and judged."""
    from pathotune.models import runtime
    from pathotune.nuclei.unpaired.estimate import estimate_nuclei
    from pathotune.nuclei.unpaired.learn import learn_nuclei
    from pathotune.nuclei.unpaired.settings import Settings
    from pathotune.slides.tissue import tissue_mask

    out: Path = outputs({"out": args.out}, args.slide)["out"]
    box = None if args.region is None else region(args.region)
    device = runtime.split(runtime.pick_device(args.device))[0]
    minutes = args.minutes or (ADVERSARIAL_MINUTES if args.adversarial else MINUTES)
    settings = Settings.for_device(device, args.adversarial, minutes, args.seed)

    def say(event: Event) -> None:
        if isinstance(event, NucleiJudged):
            words = f"After {event.step} steps: {event.agreement:.2f} on painted nuclei kept apart."
            tell(Note(words))
        else:
            tell(event)

    with opened(args.slide, args) as slide:
        seen = estimate_nuclei(slide, tissue_mask(slide), box)
        seen = seen.corrected(args.diameter, args.density)
        return drain(learn_nuclei(slide, out, settings, estimate=seen), say)


def _above_zero(text: str) -> float:
    import argparse

    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("must be above 0")
    return value
