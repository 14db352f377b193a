"""Converts a network in a process of its own, so that no window stands still meanwhile.

OpenVINO's converter keeps Python's lock for a tenth of a second and more at a
stretch, and converting needs torch, whose loading is felt as well. A second
Python does both and leaves its result in the folder of converted networks, which
the first reads back in a moment. Where no second Python can be started, or it
fails, the caller converts by itself as ever.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathotune.models.engines import compiled

if TYPE_CHECKING:
    from pathotune.models.cards import ModelCard

_logger = logging.getLogger(__name__)
_NO_WINDOW = 0x08000000  # of Windows: no black console beside ours


def convert_apart(card: ModelCard, folder: Path, half: bool, threads: int) -> bool:
    """Convert a card's networks in another process, and return whether a verdict is there.

    Parameters
    ----------
    card : ModelCard
        Its weights are on this computer.
    folder : Path
        Where the graphs and the verdict go (`compiled.folder`).
    half : bool
        Try 16-bit numbers.
    threads : int
        Cores to use.
    """
    if card.source is None or not sys.executable:
        return False
    home = card.weights[0].home
    wanted = {
        "card": str(card.source),
        "home": None if home is None else str(home),
        "hash": card.hash(),
        "folder": str(folder),
        "half": half,
        "threads": threads,
    }
    # the same modules as here, however they came onto the path
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    hidden: dict[str, Any] = {"creationflags": _NO_WINDOW} if sys.platform == "win32" else {}
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(wanted),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=env,
            check=False,
            **hidden,
        )
    except OSError as error:
        _logger.info("no second Python for converting %s: %s", card.name, error)
        return False
    if done.returncode:
        _logger.info("converting %s apart failed: %s", card.name, done.stderr[-2000:])
    return done.returncode == 0 and (folder / compiled.ABOUT).is_file()


def main() -> None:
    """Convert what standard input asks for."""
    from pathotune.models.backbones import Backbone, load_networks
    from pathotune.models.cards import read_card
    from pathotune.models.engines import openvino

    wanted = json.load(sys.stdin)
    home = wanted["home"]
    card = read_card(Path(wanted["card"]), None if home is None else Path(home))
    if card.hash() != wanted["hash"]:
        raise SystemExit("the card's file is no longer what the window has read")
    networks, projection = load_networks(card, "cpu")
    Backbone(card, "cpu", networks, projection).check()
    try:
        openvino.convert(
            card, networks, projection, Path(wanted["folder"]), wanted["half"], wanted["threads"]
        )
    except openvino.NotFaster as why:  # the verdict is kept, unless memory ran out
        sys.stderr.write(f"{why}\n")


if __name__ == "__main__":
    main()
