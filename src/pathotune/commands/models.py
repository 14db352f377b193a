"""Which backbones and ready models there are, and how a weight file becomes one.

With licence, gate, size and whether the weights are here, so that nothing is
fetched to find out. ``--import`` takes a file or a folder on this computer: with
``--like`` it becomes the weights of a known model, otherwise um/px, normalisation and
licence must be said.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathotune.commands._common import STORY
from pathotune.events import PathotuneError, drain

if TYPE_CHECKING:
    import argparse

    from pathotune._console import Teller
    from pathotune.models.cards import ModelCard
    from pathotune.models.importing import Answers, Looked

TEXT = "List the backbones, and the models that need no marks; or import a weight file."
OF_IMPORT = ("like", "timm", "mpp", "normalise", "licence", "name", "heads")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of an import."""
    own = parser.add_argument_group("importing a weight file that lies on this computer")
    own.add_argument(
        "--import", dest="file", metavar="FILE", help="a .safetensors or .pth file, or a folder"
    )
    own.add_argument("--like", metavar="ID", help="it holds the weights of this model")
    own.add_argument("--timm", metavar="NAME", help="its architecture in timm")
    own.add_argument("--mpp", type=float, metavar="X", help="um/px it was trained at")
    own.add_argument(
        "--normalise",
        metavar="WHAT",
        help="imagenet, half, clip, none, or six numbers: three means, three deviations",
    )
    own.add_argument("--licence", metavar="TEXT", help="under which licence it may be used")
    own.add_argument("--name", metavar="TEXT", help="what to call it")
    own.add_argument("--heads", type=int, metavar="N", help="attention heads, if unusual")


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Return the cards and the ready models, or the card that was imported."""
    if args.file is not None:
        return _import(args, tell)
    if given := [o for o in OF_IMPORT if getattr(args, o) is not None]:
        raise PathotuneError(f"--{given[0]} belongs to an import.", "Name a file with --import.")
    from pathotune.maps.ready import ready_models
    from pathotune.models.cards import cards

    ready = [{"id": m.key, "name": m.name, "made_for": m.made_for} for m in ready_models()]
    told = [_told(card) for card in cards().values()]
    return {STORY: _story(told, ready), "models": told, "ready": ready}


def _story(models: list[dict[str, Any]], ready: list[dict[str, str]]) -> str:
    """Return a line a model, for people."""
    width = max(len(row["id"]) for row in models)
    lines = []
    for row in models:
        where = "here" if row["here"] else ("gated" if row["gated"] else "")
        size = f"{row['size_mb']:,.0f} MB"
        lines.append(f"{row['id']:<{width}}  {where:<5}  {size:>8}  {row['licence']}")
    lines += ["", "Ready models, which need no marks:"]
    lines += [f"{row['id']:<{width}}  {row['made_for']}" for row in ready]
    return "\n".join([*lines, "", "`pathotune models --json` says everything about each."])


def _told(card: ModelCard) -> dict[str, Any]:
    from pathotune.models.cards import DEFAULT_ID

    words = ("id", "name", "about", "made_for", "licence", "gated", "size_mb", "url")
    numbers = ("mpp", "tile_px", "token_px", "dims")
    row = {name: getattr(card, name) for name in words + numbers}
    row |= {"default": card.id == DEFAULT_ID, "here": card.here}
    return row | {"needs_download": card.needs_download, "unverified": card.unverified}


def _import(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    from pathotune.models.importing import import_weights, look

    looked = drain(look(Path(args.file), args.timm), tell)
    card = drain(import_weights(looked, _answers(args, looked)), tell)
    return {"imported": _told(card), "holds": looked.words, "file": str(looked.path)}


def _answers(args: argparse.Namespace, looked: Looked) -> Answers:
    from pathotune.models.importing import Answers
    from pathotune.models.own_cards import normalisation

    mean, std = looked.mean, looked.std
    if args.like is not None:
        mean = std = None  # the card's
    if args.normalise is not None:
        mean, std = normalisation(args.normalise)
    if args.like is None and args.mpp is None and looked.cards:
        raise PathotuneError(
            f"{looked.path.name} holds {looked.words}; it may be {', '.join(looked.cards)}.",
            "Say which with --like, or give --mpp, --normalise and --licence for a model of "
            "your own.",
        )
    return Answers(
        like=args.like,
        name=args.name,
        mpp=args.mpp,
        mean=mean,
        std=std,
        licence=args.licence,
        heads=args.heads,
    )
