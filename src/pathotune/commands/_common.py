"""What several commands do with their arguments.

Opening a slide, taking the backbone that was named and reading lists are the
same words and the same refusals in every command.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathotune.events import PathotuneError, drain

if TYPE_CHECKING:
    import argparse
    import contextlib

    from pathotune._console import Teller
    from pathotune.marks.annotations import AnnotationSet
    from pathotune.models.cards import ModelCard
    from pathotune.slides.slide import Region, Slide

STORY = "story"  # a result that brings its own words for people


def mpp(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option that tells the scale."""
    parser.add_argument("--mpp", type=float, metavar="X", help=f"um/px of {what}")


def picture(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the picture of a file; all count from 1."""
    parser.add_argument("--scene", type=int, metavar="N", help="picture of the file (the largest)")
    parser.add_argument("--z", type=int, metavar="N", help="depth (the first)")
    parser.add_argument("--channel", type=int, metavar="N", help="one channel, in grey (all)")
    parser.add_argument(
        "--icc", choices=("on", "off"), help="correct colours by the file's profile (off)"
    )


def overlap(parser: argparse.ArgumentParser) -> None:
    """Add the option that says what counts where regions of different classes overlap."""
    from pathotune.marks.overlaps import ANSWERS

    parser.add_argument(
        "--overlap",
        choices=ANSWERS,
        help="what counts where regions of different classes overlap: neither, the smaller, the "
        "later or the earlier one; without it they are listed and refused",
    )


def which_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a model."""
    parser.add_argument(
        "--bundle",
        required=True,
        metavar="FILE",
        help="what train wrote, or a ready one: crc_nine, shell",
    )
    parser.add_argument(
        "--download", action="store_true", help="fetch the backbone of the bundle if it is missing"
    )


def model_of(args: argparse.Namespace, tell: Teller) -> tuple[Any, bool]:
    """Return the model that was named and whether it maps a slide without a backbone."""
    from pathotune.maps.ready import named
    from pathotune.models.bundle import ModelBundle

    model = named(args.bundle)
    dense = not isinstance(model, ModelBundle)
    if not dense:
        card = model.card()
        if card.needs_download and not args.download and not args.offline:
            gate = ", after asking its owners for access" if card.gated else ""
            raise PathotuneError(
                f"This model needs {card.name}, which is not on this computer: "
                f"{card.size_mb:.0f} MB, {card.licence}{gate}.",
                "Add --download to fetch it.",
            )
        args.model = model.card_id
        backbone(args, tell)
    return model, dense


def opened(path: str, args: argparse.Namespace) -> Slide:
    """Open a slide as the options say."""
    from pathotune.slides.slide import open_slide
    from pathotune.slides.view import View

    icc = None if args.icc is None else args.icc == "on"
    view = View(args.scene, args.z, args.channel, icc)
    slide = open_slide(path, mpp=args.mpp, view=view)
    if icc and not slide.view.icc:
        slide.close()
        raise PathotuneError(
            f"{slide.name} has no colour profile that can be used.", "Leave --icc out."
        )
    return slide


def backbone(args: argparse.Namespace, tell: Teller) -> ModelCard:
    """Return the card that was named; naming one that lies on a hub is the yes to its download."""
    from pathotune.models.cards import DEFAULT_ID, card
    from pathotune.models.weights import download

    chosen = card(args.model or DEFAULT_ID)
    if chosen.needs_download and not args.offline:
        drain(download(chosen), tell)
    return chosen


def listed(text: str) -> list[str]:
    """Return the names between the commas."""
    return [name for part in text.split(",") if (name := part.strip())]


def region(text: str) -> Region:
    """Return the region written as x,y,width,height in level-0 pixels.

    Raises
    ------
    PathotuneError
        It is not four whole numbers, or it is empty.
    """
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


def sources(
    stack: contextlib.ExitStack, args: argparse.Namespace
) -> list[tuple[Slide, AnnotationSet]]:
    """Return each slide that was named, open until the stack ends, with its annotations.

    Raises
    ------
    PathotuneError
        Slides and annotation files do not pair.
    """
    from pathotune.marks.geojson import read_geojson

    marks = args.annotations or []
    if not args.slides or len(args.slides) != len(marks):
        raise PathotuneError(
            f"There are {len(args.slides)} slides and {len(marks)} annotation files.",
            "Give one annotation file for each slide, in the same order.",
        )
    return [
        (stack.enter_context(opened(s, args)), read_geojson(Path(m)))
        for s, m in zip(args.slides, marks, strict=True)
    ]


def outputs(asked: dict[str, str | None], *inputs: str | None) -> dict[str, Path]:
    """Return where each result goes, after making sure that all of them can be written.

    Raises
    ------
    PathotuneError
        Two are the same file, one cannot be written, or one would replace an input.
    """
    from pathotune.cases.replacing import can_write

    given = [Path(p) for p in inputs if p is not None]
    outs = {key: can_write(Path(out), *given) for key, out in asked.items() if out is not None}
    if len({out.resolve() for out in outs.values()}) < len(outs):
        raise PathotuneError(
            "Two results would be written to the same file.", "Give each a name of its own."
        )
    return outs


def not_a_tile(out: Path, folder: Path) -> Path:
    """Make sure that a result does not replace one of the tiles it is made from.

    Raises
    ------
    PathotuneError
        `out` is a picture that lies among the tiles.
    """
    from pathotune.slides.tile_folder import SUFFIXES

    among = folder.resolve() in out.resolve().parents
    if among and out.suffix.lower() in SUFFIXES:
        raise PathotuneError(
            f"{out.name} lies among the tiles and would count as one.", "Choose another folder."
        )
    return out
