"""What is wrong with an installation, and how to mend it.

One finding a line, each with what to do, for the user and for whoever helps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from pathotune._console import Teller

TEXT = "Look for what is wrong with the installation, and how to mend it."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add no options of its own."""


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Return the findings; `ok` when all are well."""
    from pathotune.models.doctor import checkup

    found = checkup()
    return {
        "ok": all(f.ok for f in found),
        "findings": [{"name": f.name, "ok": f.ok, "text": f.text, "hint": f.hint} for f in found],
    }
