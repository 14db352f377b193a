"""Where things lie: what ships with the program and what it keeps on this computer.

Resources are found the same way in an installed wheel and in a checkout. The
folders for caches and for the user's work come from the system's conventions;
``PATHOTUNE_HOME`` moves both, which tests and shared computers need.
"""

from __future__ import annotations

import os
from pathlib import Path


def resources() -> Path:
    """Return the folder of model cards, embedded weights, palettes and the sample slide."""
    inside = Path(__file__).parent / "resources"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "resources"


def _place(kind: str) -> Path:
    home = os.environ.get("PATHOTUNE_HOME")
    if home:
        path = Path(home) / kind
    else:
        import platformdirs

        find = platformdirs.user_cache_path if kind == "cache" else platformdirs.user_data_path
        path = find("napari-pathotune", appauthor=False)
    path.mkdir(parents=True, exist_ok=True)
    return path


def cache_dir() -> Path:
    """Return the folder for what can be computed again (token features)."""
    return _place("cache")


def data_dir() -> Path:
    """Return the folder for what cannot: journals, remembered um/px, the user's cards."""
    return _place("data")
