"""The tuning methods and everything about them that can be set, as the Tune dock shows it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pathotune.commands._common import STORY

if TYPE_CHECKING:
    import argparse

    from pathotune._console import Teller

TEXT = "List the tuning methods and their settings."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--model", metavar="ID", help="backbone; see pathotune models")


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Return every method with its settings, and the settings of the training they share."""
    from pathotune import plugins
    from pathotune.learn.settings import Training
    from pathotune.models.cards import DEFAULT_ID, card
    from pathotune.models.tuned import METHODS
    from pathotune.models.tuning._trunk import tuned_part

    chosen = card(args.model or DEFAULT_ID)
    architecture = chosen.parts[tuned_part(chosen)].timm
    found: list[dict[str, Any]] = []
    for key in plugins.names(METHODS):
        module = plugins.load(METHODS, key)
        fast = key == "linear"
        found.append(
            {
                "id": key,
                "name": "Fast model" if fast else module.LABEL,
                "about": "Follows every mark at once." if fast else module.ABOUT,
                "why_not": None if fast else module.serves(architecture),
                "settings": _settings(module.Config),
            }
        )
    lines = [f"Methods for {chosen.name}; settings are given as --set NAME=VALUE to train."]
    for method in found:
        lines.append(f"\n{method['id']}: {method['why_not'] or method['about']}")
        lines += [f"  {s['name']}={s['default']}  {s['help']}" for s in method["settings"]]
    training = _settings(Training)
    lines.append("\nFor all but the fast model:")
    lines += [f"  {s['name']}={s['default']}  {s['help']}" for s in training]
    return {STORY: "\n".join(lines), "model": chosen.id, "methods": found, "training": training}


def _settings(config: Any) -> list[dict[str, Any]]:
    """Return name, default, label, help and range of every field."""
    return [
        {"name": f.name, "default": f.default, **dict(f.metadata)}
        for f in dataclasses.fields(config)
    ]
