"""Brings a weight file that lies on this computer into the list of backbones.

A file holds numbers, not what they are for: um/px, normalisation and licence are
the user's to say. So a file is looked at first, which tells what it is and which
known cards it fills; then either it becomes the weights of one of those cards, or a
card of its own is written into the user's folder. The file stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathotune.events import Job, PathotuneError, Progress
from pathotune.models import checkpoints
from pathotune.models.cards import ModelCard, cards
from pathotune.models.checkpoints import Network, network_for
from pathotune.models.descriptions import architecture, beside, normalisation
from pathotune.models.local_weights import remember
from pathotune.models.own_cards import Answers, others, write_card
from pathotune.models.weights import SAFE, TORCH, digest, inside, read_state

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Answers", "Looked", "Network", "import_weights", "look"]

_WHAT = "Looking at the weight file"


@dataclass(frozen=True, slots=True)
class Looked:
    """What `look` found out.

    Parameters
    ----------
    path : Path
        The file itself, also when a folder was given.
    size_mb : float
    words : str
        What it is, for the user.
    cards : tuple of str
        Ids of the cards whose network it fills.
    network : Network or None
        Built from its shapes, for a file that is none of the cards' models.
    mean, std : tuple of float or None
        From a description beside the file, when there is one.
    """

    path: Path
    size_mb: float
    words: str
    cards: tuple[str, ...]
    network: Network | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def look(path: Path, timm_name: str | None = None) -> Job[Looked]:
    """Tell what a weight file, or the one in a folder, is and which cards it fills.

    Parameters
    ----------
    path : Path
        A .safetensors file, a PyTorch file with nothing but tensors, or a folder as the
        hub keeps it.
    timm_name : str, optional
        Architecture in timm to try instead of what the shapes say.

    Yields
    ------
    Progress

    Raises
    ------
    PathotuneError
        Nothing there, not a weight file, a file that could run code, or a network that
        is not known.
    """
    path = path.expanduser()
    file = inside(path) if path.is_dir() else path
    if file is None or not file.is_file():
        raise PathotuneError(
            f"There is no weight file at {path.name}.",
            "Choose a .safetensors file, or a folder that holds model.safetensors.",
        )
    if file.suffix.lower() not in SAFE + TORCH:
        raise PathotuneError(
            f"{file.name} is not a weight file that can be opened safely.",
            "Use a .safetensors file; opening other formats could run foreign code.",
        )
    yield Progress(0, 1, _WHAT)
    from pathotune.models._torchvision import import_timm

    import_timm()
    state = read_state(file, shapes_only=True)
    kind = checkpoints.kind(state)
    known = [c for c in cards().values() if len(c.parts) == 1 and c.parts[0].depth is None]
    found = []
    for done, card in enumerate(known):
        yield Progress(done, len(known), _WHAT)
        if checkpoints.fits(state, kind, card):
            found.append(card.id)
    told = beside(file)
    tried = [(timm_name, {})] if timm_name else [*architecture(told), *kind.candidates]
    network = next((n for name, kw in tried if (n := network_for(state, name, kw))), None)
    if network is None and (timm_name or not found):
        wanted = f" It does not fill {timm_name}." if timm_name else ""
        raise PathotuneError(
            f"{file.name} holds {kind.words}.{wanted}",
            "Only networks that timm can build can be used; check that the file is complete.",
        )
    mean, std = normalisation(told)
    size = file.stat().st_size / 1e6
    return Looked(file, size, kind.words, tuple(found), network, mean, std)


def import_weights(looked: Looked, answers: Answers) -> Job[ModelCard]:
    """Take a file into use and return its card.

    With nothing but `like` the file becomes that card's weights; with um/px or
    normalisation of its own it gets a card of its own.

    Yields
    ------
    Progress

    Raises
    ------
    PathotuneError
        The file does not fill the card; an answer is missing or cannot be.
    """
    like = None
    if answers.like is not None:
        like = cards().get(answers.like)
        if like is None:
            raise PathotuneError(
                f"There is no model called {answers.like!r}.", "`pathotune models` lists them."
            )
        if like.id not in looked.cards:
            raise PathotuneError(
                f"{looked.path.name} is not {like.name}: it holds {looked.words}.",
                others(looked.cards) or "Choose the model that this file belongs to.",
            )
    yield Progress(0, 1, f"Taking {looked.path.name} into use")
    own = (answers.name, answers.mpp, answers.mean, answers.std, answers.licence, answers.made_for)
    if like is not None and all(a is None for a in own):
        digest(looked.path)  # so that the first use does not wait for it
        remember(like.weights[0].where, looked.path)
        yield Progress(1, 1, "Done")
        return cards()[like.id]
    card = write_card(looked, answers, like)
    yield Progress(1, 1, "Done")
    return card
