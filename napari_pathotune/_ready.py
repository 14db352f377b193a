"""Models that give a map without a single mark.

They are bundles that ship with the program, and networks that map a slide by
themselves (one file each in the engine). The list reads names only; nothing is
loaded before one is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pathotune import plugins
from pathotune.places import resources

if TYPE_CHECKING:
    from pathlib import Path

DENSE = "pathotune.maps.dense"


@dataclass(frozen=True, slots=True)
class ReadyModel:
    """A model to choose: `path` of a bundle, or the `key` of a network of its own."""

    name: str
    made_for: str
    path: Path | None = None
    key: str | None = None


def ready_models() -> list[ReadyModel]:
    """Return what ships with the program."""
    from pathotune.events import PathotuneError
    from pathotune.models.bundle import ModelBundle

    found: list[ReadyModel] = []
    for path in sorted((resources() / "bundles").glob("*.safetensors")):
        try:
            bundle = ModelBundle.load(path, check=False)
        except PathotuneError:  # a damaged file must not keep the dock from opening
            continue
        name = str(bundle.meta.get("name", path.stem.replace("_", " ")))
        found.append(ReadyModel(name, str(bundle.meta.get("made_for", "")), path=path))
    for key in _dense():
        module = plugins.load(DENSE, key)
        found.append(ReadyModel(module.NAME, module.MADE_FOR, key=key))
    return found


def _dense() -> tuple[str, ...]:
    try:
        return plugins.names(DENSE)
    except ModuleNotFoundError:
        return ()


def load(model: ReadyModel) -> Any:
    """Return the bundle, or the module of a network of its own (files lane)."""
    if model.path is not None:
        from pathotune.models.bundle import ModelBundle

        return ModelBundle.load(model.path)
    return plugins.load(DENSE, str(model.key))


def warning(bundle: Any) -> str:
    """Return what to know while a finished model draws the map; nothing for the fast model."""
    if bundle is None:
        return ""
    meta = getattr(bundle, "meta", {})
    made_for = meta.get("made_for") or getattr(bundle, "MADE_FOR", "")
    about = f" It was made for: {made_for}." if made_for else ""
    return f"A finished model draws the map and does not follow your marks.{about}"
