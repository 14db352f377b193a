"""A trained model as one file: numbers and their story, and nothing that can run.

A bundle holds only what was learnt, a few hundred kilobytes, and names the
backbone it belongs to by the hash of that backbone's features. On another
backbone its numbers would be nonsense that looks like an answer, so it refuses.
The file is safetensors with a JSON header; torch is not needed to read it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune import __version__
from pathotune.events import PathotuneError
from pathotune.models import cards

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pathotune.models.cards import ModelCard

FORMAT = "napari-pathotune bundle"
VERSION = 1
SUFFIX = ".safetensors"

Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class ModelBundle:
    """What was learnt, for which classes, on which backbone.

    Parameters
    ----------
    card_id, card_hash : str
        The backbone and the identity of its features.
    method : str
        Key of the tuning method that made and reads `arrays`.
    classes : tuple of str
        In the order of the head's outputs.
    colours : tuple of (r, g, b)
        0-255, one a class.
    arrays : dict of str to array
        The learnt numbers.
    meta : dict
        Plain JSON: see `create`.
    """

    card_id: str
    card_hash: str
    method: str
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError("a bundle needs classes, each once")
        if len(self.colours) != len(self.classes):
            raise ValueError("a bundle needs one colour a class")

    @classmethod
    def create(
        cls,
        card: ModelCard,
        method: str,
        classes: Sequence[str],
        colours: Sequence[Colour],
        arrays: Mapping[str, NDArray[Any]],
        *,
        trained_on: str = "regions",
        tissue: str = "auto",
        made_for: str = "",
        regions: Sequence[Mapping[str, Any]] = (),
        metrics: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> ModelBundle:
        """Make a bundle for a backbone, with everything its reader has to know.

        Parameters
        ----------
        card : ModelCard
        method, classes, colours, arrays
            As for the class.
        trained_on : {"regions", "tiles"}
        tissue : {"auto", "off"}
            "off" when a class was drawn on what the tissue mask calls glass.
        made_for : str
            What the model was made for; the card's own words by default.
        regions : sequence of mappings
            The marked regions used (id, class); no file names.
        metrics : mapping, optional
            What validation found.
        more
            Anything else that is plain JSON.
        """
        meta = {
            "card_name": card.name,
            "mpp": card.mpp,
            "token_um": card.token_um,
            "neighbourhood": card.neighbourhood,
            "normalisation": [{"mean": list(p.mean), "std": list(p.std)} for p in card.parts],
            "trained_on": trained_on,
            "tissue": tissue,
            "made_for": made_for or card.made_for,
            "regions": [dict(r) for r in regions],
            "metrics": None if metrics is None else dict(metrics),
            "versions": _versions(),
        }
        return cls(
            card.id,
            card.hash(),
            method,
            tuple(classes),
            tuple((int(r), int(g), int(b)) for r, g, b in colours),
            dict(arrays),
            meta | more,
        )

    @property
    def tissue(self) -> str:
        """Whether prediction keeps to the tissue mask: "auto" or "off"."""
        return str(self.meta.get("tissue", "auto"))

    @property
    def card_name(self) -> str:
        """The backbone's name in the user's words."""
        return str(self.meta.get("card_name", self.card_id))

    def check(self, card: ModelCard) -> None:
        """Raise unless the bundle belongs to this card's features.

        Raises
        ------
        PathotuneError
            Another backbone, or other weights or geometry under the same name.
        """
        if card.id != self.card_id:
            raise PathotuneError(
                f"This model was trained on the backbone {self.card_name}, not on {card.name}.",
                f"Choose {self.card_name}, or train again on {card.name}.",
            )
        if card.hash() != self.card_hash:
            raise PathotuneError(
                f"This model was trained on another version of the backbone {self.card_name} than "
                f"the {card.name} on this computer: the weights or the tile size differ.",
                "Use the weights it was trained with, or train again.",
            )

    def card(self) -> ModelCard:
        """Return the card of this bundle's backbone, checked.

        Raises
        ------
        PathotuneError
            It is not on this computer, or differs.
        """
        known = cards.cards()
        if self.card_id not in known:
            raise PathotuneError(
                f"This model was trained on the backbone {self.card_name} ({self.card_id}), which "
                "is not known on this computer.",
                f"Put its card into {cards.user_folder()}.",
            )
        found = known[self.card_id]
        self.check(found)
        return found

    def save(self, path: Path | str) -> Path:
        """Write the bundle; an old file of that name is replaced whole or not at all.

        Raises
        ------
        PathotuneError
            The file cannot be written.
        """
        from safetensors.numpy import save

        path = Path(path)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "card_id": self.card_id,
            "card_hash": self.card_hash,
            "method": self.method,
            "classes": list(self.classes),
            "colours": [list(c) for c in self.colours],
            "meta": self.meta,
        }
        arrays = {k: np.ascontiguousarray(v) for k, v in self.arrays.items()}
        data = save(arrays, {"pathotune": json.dumps(header, ensure_ascii=False, allow_nan=False)})
        try:
            _write_atomically(path, data)
        except OSError as error:
            raise PathotuneError(
                f"The model could not be saved as {path.name}: {error.strerror or error}.",
                "Choose another folder or make room on the disk.",
            ) from error
        return path

    @classmethod
    def load(cls, path: Path | str, check: bool = True) -> ModelBundle:
        """Read a bundle.

        Parameters
        ----------
        path : Path or str
        check : bool
            Also make sure that its backbone is on this computer and the same.

        Raises
        ------
        PathotuneError
            Not a bundle, damaged, of a newer program, or of another backbone.
        """
        path = Path(path)
        header, arrays = _read(path)
        try:
            bundle = cls(
                _text(header["card_id"]),
                _text(header["card_hash"]),
                _text(header["method"]),
                tuple(_text(c) for c in header["classes"]),
                tuple(_colour(c) for c in header["colours"]),
                arrays,
                dict(header["meta"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path) from error
        if not all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f"):
            raise _damaged(path)
        if check:
            bundle.card()
        return bundle


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            raw = (file.metadata() or {}).get("pathotune")
            header = json.loads(raw) if raw else None
            if not isinstance(header, dict) or header.get("format") != FORMAT:
                raise PathotuneError(
                    f"{path.name} is not a model saved by this program.",
                    "Choose a file that was saved in the Tune dock or by `pathotune train`.",
                )
            if not isinstance(header.get("version"), int) or header["version"] > VERSION:
                raise PathotuneError(
                    f"{path.name} was saved by a newer version of this program.",
                    "Update napari-pathotune to open it.",
                )
            return header, {key: file.get_tensor(key) for key in file.keys()}
    except FileNotFoundError as error:
        raise PathotuneError(f"There is no file {path}.", "Check the name.") from error
    except (OSError, SafetensorError, json.JSONDecodeError, TypeError, AttributeError) as error:
        raise PathotuneError(
            f"{path.name} is damaged or not a model saved by this program ({error}).",
            "Choose a file that was saved in the Tune dock or by `pathotune train`.",
        ) from error


def _damaged(path: Path) -> PathotuneError:
    return PathotuneError(
        f"{path.name} is damaged: it does not hold what a saved model must hold.",
        "Train and save it again, or take a copy.",
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a text is needed")
    return value


def _colour(value: Any) -> Colour:
    r, g, b = (int(v) for v in value)
    if not all(0 <= v <= 255 for v in (r, g, b)):
        raise ValueError("a colour has parts of 0 to 255")
    return r, g, b


def _versions() -> dict[str, str]:
    found = {"napari-pathotune": __version__}
    for name in ("torch", "timm", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
