"""Models that give a map without a single mark, and how any model is named.

They are bundles that ship with the program, and networks that map a slide by
themselves (one file each in `dense`). The list reads names only; nothing is
loaded before one is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathotune import plugins
from pathotune.events import PathotuneError
from pathotune.places import resources

DENSE = "pathotune.maps.dense"


@dataclass(frozen=True, slots=True)
class ReadyModel:
    """A model to choose: `path` of a bundle, or a network of its own without one.

    `key` is its name on the command line, `made_for` what it must not be used beyond.
    """

    key: str
    name: str
    made_for: str
    path: Path | None = None


def ready_models() -> list[ReadyModel]:
    """Return what ships with the program."""
    from pathotune.models.bundle import ModelBundle

    found: list[ReadyModel] = []
    for path in sorted((resources() / "bundles").glob("*.safetensors")):
        try:
            bundle = ModelBundle.load(path, check=False)
        except PathotuneError:  # a damaged file must not keep the others from being used
            continue
        name = str(bundle.meta.get("name", path.stem.replace("_", " ")))
        found.append(ReadyModel(path.stem, name, str(bundle.meta.get("made_for", "")), path))
    for key in plugins.names(DENSE):
        module = plugins.load(DENSE, key)
        found.append(ReadyModel(key, module.NAME, module.MADE_FOR))
    return found


def load(model: ReadyModel) -> Any:
    """Return the bundle, or the module of a network of its own."""
    from pathotune.models.bundle import ModelBundle

    return plugins.load(DENSE, model.key) if model.path is None else ModelBundle.load(model.path)


def named(name: str) -> Any:
    """Return the model in a file of that name, else the one that ships under it.

    Raises
    ------
    PathotuneError
        There is neither, or the file is no model.
    """
    from pathotune.models.bundle import ModelBundle

    if not Path(name).exists():
        for model in ready_models():
            if model.key == name:
                return load(model)
    return ModelBundle.load(Path(name))
