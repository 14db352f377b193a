"""Which backbones and ready models there are.

With licence, gate, size and whether the weights are here, so that nothing is
fetched to find out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from pathotune._console import Teller

TEXT = "List the backbones, and the models that need no marks."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add no options of its own."""


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Return the cards and the ready models."""
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
