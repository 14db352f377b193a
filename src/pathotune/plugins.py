"""One load path for everything that is added by dropping a file into a folder.

Tuning methods, dense predictors and exports are modules whose file name is
their key. Listing a folder reads names only, so no module is imported (and no
torch) before it is used.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from types import ModuleType


def names(package: str) -> tuple[str, ...]:
    """Return the keys in a folder, sorted; `package` is a dotted name."""
    folder = importlib.import_module(package)
    found = (m.name for m in pkgutil.iter_modules(folder.__path__))
    return tuple(sorted(n for n in found if not n.startswith("_")))


def load(package: str, name: str) -> ModuleType:
    """Import the module behind a key.

    Raises
    ------
    PathotuneError
        There is no such file in the folder.
    """
    known = names(package)
    if name not in known:
        kind = package.rpartition(".")[2]
        raise PathotuneError(
            f"There is no {name!r} among the {kind}.", f"Choose one of: {', '.join(known)}."
        )
    return importlib.import_module(f"{package}.{name}")
