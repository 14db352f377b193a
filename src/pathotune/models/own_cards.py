"""Writes a card of the user's own from what a file is and what the user says of it.

The file tells the network; um/px, normalisation and licence are the user's to say, and
an answer that cannot be is refused in words before anything is written. The card
points to the file where it lies and holds its digest, so that another file under the
same name is noticed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pathotune.events import PathotuneError
from pathotune.models.cards import ModelCard, cards, read_card, user_folder
from pathotune.models.checkpoints import Network
from pathotune.models.weights import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pathotune.models.importing import Looked


NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Means and deviations in use: ImageNet's, -1 to 1, OpenAI's CLIP, 0 to 1 as it is."""


def normalisation(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std) of one of `NORMALISATIONS`, or of six numbers in a line.

    Raises
    ------
    PathotuneError
        Neither.
    """
    if text in NORMALISATIONS:
        return NORMALISATIONS[text]
    try:
        numbers = tuple(float(v) for v in re.split(r"[\s,;/]+", text.strip()))
    except ValueError:
        numbers = ()
    if len(numbers) != 6:
        raise PathotuneError(
            f"{text!r} is neither the name of a normalisation nor six numbers.",
            f"Give {', '.join(NORMALISATIONS)}, or three means and three deviations.",
        )
    return numbers[:3], numbers[3:]


@dataclass(frozen=True, slots=True)
class Answers:
    """What the user says of a file; what is None is taken from the card `like`.

    Parameters
    ----------
    like : str or None
        Id of the card that this file fills.
    name, licence, made_for : str or None
    mpp : float or None
        um/px at which the network was trained.
    mean, std : tuple of float or None
        Of pixels scaled to 0..1.
    heads : int or None
        Attention heads of a transformer: the one number that shapes do not tell.
    """

    like: str | None = None
    name: str | None = None
    mpp: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    licence: str | None = None
    made_for: str | None = None
    heads: int | None = None


def others(card_ids: Sequence[str]) -> str:
    """Return "It could be: UNI, Phikon-v2.", or nothing."""
    known = cards()
    names = ", ".join(known[c].name for c in card_ids)
    return f"It could be: {names}." if names else ""


def write_card(looked: Looked, answers: Answers, like: ModelCard | None) -> ModelCard:
    """Write a card into the user's folder and return it.

    Raises
    ------
    PathotuneError
        An answer is missing or cannot be.
    """
    name = answers.name or (f"{like.name} (own file)" if like else looked.path.stem)
    facts = _facts(looked, answers, like, name)
    folder = user_folder()
    taken = cards()
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "own-model"
    names = (stem if n == 1 else f"{stem}-{n}" for n in range(1, 1000))
    card_id = next(n for n in names if n not in taken and not (folder / f"{n}.toml").exists())
    path = folder / f"{card_id}.toml"
    beside = path.with_suffix(".part")
    beside.write_text(_toml({"id": card_id, **facts}), encoding="utf-8")
    try:
        read_card(beside, folder)  # never leave a card behind that cannot be read
    except PathotuneError:
        beside.unlink()
        raise
    beside.replace(path)
    return read_card(path, folder)


def _facts(looked: Looked, answers: Answers, like: ModelCard | None, name: str) -> dict[str, Any]:
    part = like.parts[0] if like else None
    mean = answers.mean or (part.mean if part else None)
    std = answers.std or (part.std if part else None)
    mpp = answers.mpp or (like.mpp if like else None)
    licence = answers.licence or (like.licence if like else None)
    _check(mpp, mean, std, licence)
    if like is not None and part is not None:
        shape = Network(
            part.timm,
            part.kwargs,
            like.tile_px,
            like.token_px,
            part.taps,
            like.dims,
            part.norm,
            like.halo,
        )
    elif looked.network is not None:
        shape = looked.network
    else:
        raise PathotuneError(
            f"{looked.path.name} holds {looked.words}.",
            others(looked.cards) or "It cannot be used without a card.",
        )
    kwargs = dict(shape.kwargs) | ({} if answers.heads is None else {"num_heads": answers.heads})
    weights = {"kind": "file", "where": str(looked.path.resolve()), "sha256": digest(looked.path)}
    table: dict[str, Any] = {"timm": shape.timm, "mean": list(mean or ()), "std": list(std or ())}
    table |= {"taps": list(shape.taps), "norm": shape.norm, "weights": weights}
    if kwargs:
        table["kwargs"] = kwargs
    return {
        "name": name,
        "about": f"imported from {looked.path.name}: {looked.words}",
        "mpp": float(mpp or 0),
        "tile_px": shape.tile_px,
        "token_px": shape.token_px,
        "halo": shape.halo,
        "neighbourhood": like.neighbourhood if like else _odd(40.0 / (shape.token_px * (mpp or 1))),
        "dims": shape.dims,
        "licence": licence,
        "gated": False,
        "size_mb": round(looked.size_mb, 1),
        "url": like.url if like else "",
        "made_for": answers.made_for
        or (like.made_for if like else "slides like those it was trained on"),
        "parts": [table],
    }


def _check(mpp: Any, mean: Any, std: Any, licence: Any) -> None:
    if mpp is None or not 0.05 <= mpp <= 20:
        raise PathotuneError(
            "At how many um/px this network was trained is not known."
            if mpp is None
            else f"{mpp:g} um/px cannot be what this network was trained at.",
            "Look it up where the file comes from: 0.25 is a 40x scan, 0.5 is 20x.",
        )
    good = all(v is not None and len(v) == 3 for v in (mean, std))
    if not good or min(std) <= 0 or max(abs(v) for v in (*mean, *std)) > 3:
        raise PathotuneError(
            "The normalisation must be three means and three deviations of pixels from 0 to 1.",
            "Look it up where the file comes from; ImageNet's is the usual one.",
        )
    if not licence or not licence.strip():
        raise PathotuneError(
            "Under which licence the file may be used is not known.",
            "Say where it comes from and what its owner allows, `own work` for example.",
        )


def _odd(tokens: float) -> int:
    return max(1, 2 * round((tokens - 1) / 2) + 1)


def _toml(facts: Mapping[str, Any]) -> str:
    plain = [f"{k} = {_value(v)}" for k, v in facts.items() if k != "parts"]
    parts = [
        ["", "[[parts]]", *(f"{k} = {_value(v)}" for k, v in p.items())] for p in facts["parts"]
    ]
    return "\n".join([*plain, *(line for p in parts for line in p)]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # text, numbers and truth are TOML as well
