"""The plugin's place in napari's preferences: cache, device, offline.

napari (0.9) draws the settings from the manifest and keeps them; this module
only reads them, with the same defaults where the plugin is not installed as
one (a checkout, a test), so that nothing depends on a settings file.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

PLUGIN = "napari-pathotune"


def _get(group: str, key: str, default: Any) -> Any:
    if not _declared():
        return default
    from napari.settings import get_plugin_settings

    try:
        return getattr(getattr(get_plugin_settings(PLUGIN), group), key)
    except (KeyError, AttributeError):
        return default


@lru_cache
def _declared() -> bool:
    """Tell whether napari knows the plugin; looking for it every time reads every manifest."""
    from npe2 import PluginManager

    return PLUGIN in PluginManager.instance()


def backbone() -> str:
    """Return the id of the backbone to start with."""
    from pathotune.models.cards import DEFAULT_ID

    return DEFAULT_ID


def device() -> str:
    """Return "auto", "cpu", "cpu-f32" or "cuda"."""
    return str(_get("computing", "device", "auto"))


def offline() -> bool:
    """Return whether downloads are switched off altogether."""
    return bool(_get("computing", "offline", False)) or os.environ.get("HF_HUB_OFFLINE") == "1"


def cache_root() -> Path:
    """Return the folder for computed features."""
    from pathotune.places import cache_dir

    chosen = str(_get("cache", "folder", "")).strip()
    return Path(chosen).expanduser() if chosen else cache_dir() / "features"


def cache_bytes() -> int:
    """Return how large the feature cache may grow."""
    return int(float(_get("cache", "size_gb", 20.0)) * 1e9)
