"""Finds weight files, checks that they are the right ones, and never surprises.

Nothing is fetched without a yes: a model on a hub that is not on this computer
yet is an error that tells its size, its licence and its gate. The offline
switch (or the variable ``HF_HUB_OFFLINE``) overrules a yes. Files are known by
their sha256; formats that can run code when opened are refused. No torch here.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathotune import places
from pathotune.events import Job, Note, PathotuneError, Progress
from pathotune.models.local_weights import note_digest, noted_digest, remembered, shelves

if TYPE_CHECKING:
    from pathotune.models.cards import ModelCard, Weights

FILE_NAMES = ("model.safetensors", "pytorch_model.bin")
SAFE = (".safetensors",)
TORCH = (".pt", ".pth", ".bin", ".torch", ".ckpt")  # read as tensors alone

_LARGE = 200 << 20  # bytes; smaller files are read within a moment
_offline = False
_digests: dict[tuple[str, int, int], str] = {}


def set_offline(offline: bool) -> None:
    """Forbid (or allow again) every download, whatever anybody said yes to."""
    global _offline
    _offline = offline


def is_offline() -> bool:
    """Tell whether downloads are forbidden, by `set_offline` or ``HF_HUB_OFFLINE``."""
    return _offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}


def digest(path: Path) -> str:
    """Return a file's sha256; read once as long as size and time stay.

    Reading gigabytes takes a quarter of a minute, so the digest of a large file is also
    kept for the next start of the program.
    """
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _digests:
        large = stat.st_size > _LARGE
        known = noted_digest(key) if large else None
        if known is None:
            with path.open("rb") as file:
                known = hashlib.file_digest(file, "sha256").hexdigest()
            if large:
                note_digest(key, known)
        _digests[key] = known
    return _digests[key]


def inside(folder: Path, revision: str | None = None) -> Path | None:
    """Return the weight file of a local model folder or of a hub's cache folder."""
    if not folder.is_dir():
        return None
    snapshots = folder / "snapshots"
    ref = folder / "refs" / (revision or "main")
    wanted = [folder, snapshots / (revision or "main")]
    if ref.is_file():
        wanted.append(snapshots / ref.read_text(encoding="utf-8").strip())
    elif revision is None and snapshots.is_dir():
        wanted += sorted(snapshots.iterdir())
    candidates = (place / name for place in wanted for name in FILE_NAMES)
    return next((c for c in candidates if c.is_file()), None)


def _hub_name(weights: Weights) -> tuple[str, str | None]:
    repo, _, revision = weights.where.removeprefix("hf-hub:").partition("@")
    return repo, revision or None


def _hub_cache() -> Path:
    """Return the hub's cache, without the half second that importing its library takes."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(base).expanduser() / "huggingface" / "hub"


def _cached(weights: Weights) -> Path | None:
    """Return a hub model's file if it is on this computer; asks no network."""
    repo, revision = _hub_name(weights)
    return inside(_hub_cache() / f"models--{repo.replace('/', '--')}", revision)


def _local(weights: Weights) -> Path | None:
    if weights.kind != "embedded" and (path := remembered(weights.where)) is not None:
        return path
    if weights.kind == "hub":
        places_here = (inside(folder) for folder in shelves(_hub_name(weights)[0]))
        return next((p for p in places_here if p is not None), None) or _cached(weights)
    if weights.kind == "embedded":
        path = places.resources() / "weights" / weights.where
    else:
        path = Path(weights.where).expanduser()
        if not path.is_absolute() and weights.home is not None:
            path = weights.home / path
    if path.is_dir():
        return inside(path)
    return path if path.is_file() else None


def present(weights: Weights) -> bool:
    """Tell whether the weights are on this computer."""
    return _local(weights) is not None


def identity(weights: Weights) -> str:
    """Return the sha256 that stands for these weights in a card's hash."""
    if weights.sha256 is not None:
        return weights.sha256
    path = _local(weights)
    if path is None:
        raise _absent(weights, None)
    return digest(path)


def _absent(weights: Weights, card: ModelCard | None) -> PathotuneError:
    if weights.kind == "embedded":
        return PathotuneError(
            f"The weights {weights.where} that ship with the program are missing.",
            "Install napari-pathotune again.",
        )
    if weights.kind == "file" and card is not None and card.shipped:
        return PathotuneError(
            f"{card.name} is not on this computer, and it lies on no hub. Its owners hand the "
            f"file out themselves ({card.url}).",
            "Fetch the file, then choose Use a weight file... in the Slide dock, or run "
            f"`pathotune models --import FILE --like {card.id}`.",
        )
    if weights.kind == "file":
        name = weights.where if card is None else f"{card.name} ({weights.where})"
        home = "" if weights.home is None else f" (relative paths start in {weights.home})"
        return PathotuneError(
            f"The weights of {name} are not where the model card says.",
            f"Put the file there or change `where` in the card{home}.",
        )
    if card is None:
        return PathotuneError(
            f"The weights {weights.where} are not on this computer yet.",
            "Choose this model once and agree to the download.",
        )
    gate = (
        f" It is gated: ask for access at {card.url or weights.where} and sign in first."
        if card.gated
        else ""
    )
    text = (
        f"{card.name} is not on this computer yet. It is a download of {card.size_mb:.0f} MB "
        f"under the licence {card.licence}.{gate}"
    )
    if is_offline():
        return PathotuneError(
            text + " Downloads are switched off.",
            "Switch offline mode off, or choose a model that is already here.",
        )
    return PathotuneError(text, "Agree to the download, or choose a model that is already here.")


def _download(weights: Weights, card: ModelCard) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    repo, revision = _hub_name(weights)
    try:
        for name in FILE_NAMES:
            try:
                return Path(hf_hub_download(repo, name, revision=revision))
            except LocalEntryNotFoundError:  # a kind of the next, but it means: no network
                raise
            except EntryNotFoundError:
                continue
    except GatedRepoError as error:
        raise PathotuneError(
            f"{card.name} is gated: its owners have not let this account in yet.",
            f"Ask for access at {card.url or repo}, then sign in with `hf auth login`.",
        ) from error
    except RepositoryNotFoundError as error:
        raise PathotuneError(
            f"The model hub has no {repo}, or does not show it to this account.",
            "Check the id in the model card, or sign in with `hf auth login`.",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise PathotuneError(
            f"{card.name} could not be downloaded: the model hub cannot be reached "
            f"({type(error).__name__}).",
            "Check the network, or choose a model that is already on this computer.",
        ) from error
    raise PathotuneError(
        f"{repo} has none of {', '.join(FILE_NAMES)}.", "Name a local file in the card instead."
    )


def resolve(weights: Weights, card: ModelCard, allow_download: bool = False) -> Path:
    """Return the checked weight file.

    Parameters
    ----------
    weights : Weights
        One of the card's.
    card : ModelCard
        Used for the words of an error.
    allow_download : bool
        The user said yes to this model's download.

    Raises
    ------
    PathotuneError
        Not here and not allowed to fetch; the fetch failed; not the file of the
        card's sha256; a format that is not safe to open.
    """
    path = _local(weights)
    if path is None:
        if weights.kind != "hub" or not allow_download or is_offline():
            raise _absent(weights, card)
        path = _download(weights, card)
    if path.suffix.lower() not in SAFE + TORCH:
        raise PathotuneError(
            f"{path.name} is not a weight file that can be opened safely.",
            "Use a .safetensors file; opening other formats could run foreign code.",
        )
    try:
        found = digest(path) if weights.sha256 is not None else None
    except OSError as error:
        raise PathotuneError(
            f"The weights of {card.name} cannot be read: {error}.", "Check the file and its rights."
        ) from error
    if found is not None and found != weights.sha256:
        raise PathotuneError(
            f"{path.name} is not the weight file that {card.name} was described with "
            f"(its sha256 begins with {found[:12]}, expected {str(weights.sha256)[:12]}).",
            "Fetch the file again: it may be damaged or another version.",
        )
    return path


def download(card: ModelCard) -> Job[None]:
    """Fetch what a card needs and this computer lacks; run it after the user said yes.

    Yields
    ------
    Note, Progress

    Raises
    ------
    PathotuneError
        As `resolve`.
    """
    wanted = card.weights
    for done, weights in enumerate(wanted):
        if not present(weights):
            yield Note(f"Downloading {card.name} ({card.size_mb:.0f} MB, {card.licence}).")
        yield Progress(done, len(wanted), "Downloading the model")
        resolve(weights, card, allow_download=True)
    yield Progress(len(wanted), len(wanted), "Downloading the model")


def read_state(path: Path, *, shapes_only: bool = False) -> dict[str, Any]:
    """Read a weight file into torch tensors, float32, without running foreign code.

    Parameters
    ----------
    path : Path
    shapes_only : bool
        Return tensors without numbers (on torch's meta device): a file of gigabytes is
        looked at within a moment.

    Raises
    ------
    PathotuneError
        Damaged, or a pickle that holds more than tensors.
    """
    import pickle

    import torch
    from safetensors import SafetensorError

    try:
        if path.suffix.lower() in SAFE:
            state: Any = _safetensors(path, shapes_only)
        else:
            state = _tensors(path, "meta" if shapes_only else "cpu")
    except pickle.UnpicklingError as error:
        raise PathotuneError(
            f"{path.name} holds more than weights and is not opened: it could run foreign code.",
            "Ask its author for a .safetensors file.",
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise PathotuneError(
            f"The weight file {path.name} is damaged or not a weight file.", "Fetch it again."
        ) from error
    for key in ("state_dict", "model_state_dict", "model", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if isinstance(state, dict):  # training code counts steps beside the weights
        state = {k: v for k, v in state.items() if not isinstance(v, int | float | str)}
    if not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise PathotuneError(
            f"{path.name} does not hold a plain list of weights.",
            "Ask its author for a .safetensors file.",
        )
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _tensors(path: Path, device: str) -> Any:
    """Read a PyTorch file; only tensors and plain containers, never code."""
    import torch

    try:  # the file as a window: gigabytes are not held twice
        return torch.load(path, map_location=device, weights_only=True, mmap=True)
    except RuntimeError:  # written by an old version, which cannot be a window
        return torch.load(path, map_location=device, weights_only=True)


def _safetensors(path: Path, shapes_only: bool) -> dict[str, Any]:
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    if not shapes_only:
        return dict(load_file(path))
    with safe_open(path, framework="pt") as file:
        return {k: torch.empty(file.get_slice(k).get_shape(), device="meta") for k in file.keys()}
