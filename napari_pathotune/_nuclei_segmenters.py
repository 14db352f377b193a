"""What can find nuclei here, in words for people.

Segmenters are files of the engine; those learnt on a slide lie in the user's own
folder. Labels are read without importing any network.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = "segmenters"  # in the user's data folder


def learnt_folder() -> Path:
    """Return where segmenters learnt in the window lie."""
    from pathotune import places

    return places.data_dir() / FOLDER


def choices() -> Sequence[tuple[str, str, str]]:
    """Return (key, label, about) of every segmenter, the default one first."""
    from pathotune.nuclei.segmenter import DEFAULT, LEARNT, known

    keys = sorted(known(), key=lambda k: (k != DEFAULT, k))
    found = [(k, *_told(k)) for k in keys]
    folder = learnt_folder()
    if folder.is_dir():
        for file in sorted(folder.glob(f"*{LEARNT}")):
            found.append((str(file), f"Learnt: {file.stem}", "Learnt from a slide of yours."))
    return found


def about(key: str) -> str:
    """Return the sentence about a segmenter."""
    return next((told for k, _, told in choices() if k == key), "")


@cache
def _told(key: str) -> tuple[str, str]:
    """Return LABEL and ABOUT of a segmenter's file, read as text: it may import torch."""
    import importlib.util

    from pathotune.nuclei.segmenter import SEGMENTERS

    package = importlib.util.find_spec(SEGMENTERS)
    places = [] if package is None else list(package.submodule_search_locations or [])
    told = {"LABEL": key, "ABOUT": ""}
    for place in places:
        file = Path(place) / f"{key}.py"
        if not file.is_file():
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                if name in told:
                    told[name] = str(ast.literal_eval(node.value))
    return told["LABEL"], told["ABOUT"]
