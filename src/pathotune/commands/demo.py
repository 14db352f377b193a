"""The whole job on the sample slide, in one word.

A newcomer sees that the installation works and what comes out of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathotune.commands._common import STORY
from pathotune.events import drain

if TYPE_CHECKING:
    import argparse

    from pathotune._console import Teller

TEXT = "Learn and map the sample slide, and show it."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--headless", action="store_true", help="open no window; take its picture")
    parser.add_argument("--out", default="demo-output", metavar="DIR", help="where the results go")


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Run it; return the files and the numbers."""
    from pathotune.cases import demo

    out = Path(args.out)
    job = demo.run(out, headless=args.headless, device=args.device, seed=args.seed)
    result = drain(job, tell)
    files = {kind: str(path.resolve()) for kind, path in result.files.items()}
    return {STORY: result.story(), "files": files, **result.metrics}
