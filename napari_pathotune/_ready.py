"""Models that give a map without a single mark, and what to know while one is in use.

The list and the loading are the engine's, so that the command line offers the
same models under the same names.
"""

from __future__ import annotations

from typing import Any

from pathotune.maps.ready import ReadyModel, load, ready_models

__all__ = ["ReadyModel", "load", "ready_models", "warning"]


def warning(bundle: Any) -> str:
    """Return what to know while a finished model draws the map; nothing for the fast model."""
    if bundle is None:
        return ""
    meta = getattr(bundle, "meta", {})
    made_for = meta.get("made_for") or getattr(bundle, "MADE_FOR", "")
    about = f" It was made for: {made_for}." if made_for else ""
    return f"A finished model draws the map and does not follow your marks.{about}"
