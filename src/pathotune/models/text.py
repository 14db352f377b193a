"""Words about a task as numbers, for prompts that are made from a sentence.

The encoder is the best that is at hand: one in a folder that the user names, a table of
word vectors from an installed package, else word pieces hashed to fixed random
directions, which tells sentences apart and needs nothing. A bundle keeps the
numbers and the encoder's name, so that predicting needs no encoder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DIMS = 256
_TABLE = "wordllama"
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, eq=False)
class Embedded:
    """A sentence as tokens (T, D) float32, and the name of what made them."""

    tokens: NDArray[np.float32]
    encoder: str


def sentence(classes: Sequence[str], *, stain: str = "H&E", organ: str = "", task: str = "") -> str:
    """Return the words about a task that are shown and can be edited."""
    about = f"{organ} tissue" if organ else "tissue"
    task = task or "telling tissue classes apart"
    return (
        f"A {stain} stained microscopy image of {about} for {task}; classes: {', '.join(classes)}."
    )


def embed(text: str, folder: str = "") -> Embedded:
    """Return the embedding of a sentence by the best encoder at hand.

    Parameters
    ----------
    text : str
    folder : str
        Folder of a text encoder, as `_text_folder.encode` reads it; empty: none.

    Raises
    ------
    PathotuneError
        A folder was named and cannot be read.
    """
    if folder:
        from pathotune.models._text_folder import encode

        return Embedded(encode(text, Path(folder).expanduser()), Path(folder).name)
    return table(text) or hashed(text)


def table(text: str) -> Embedded | None:
    """Return the embedding by the table in the package wordllama, None without it.

    The package is not imported: its table and its tokenizer are read as files.
    """
    spec = importlib.util.find_spec(_TABLE)
    if spec is None or importlib.util.find_spec("tokenizers") is None:
        return None
    home = Path(next(iter(spec.submodule_search_locations or ()), ""))
    weights = next(iter(sorted((home / "weights").glob("*_256.safetensors"))), None)
    words = next(iter(sorted((home / "tokenizers").glob("*.json"))), None)
    if weights is None or words is None:
        return None
    from safetensors.numpy import load_file

    from pathotune.models._text_folder import tokenised

    rows = next(iter(load_file(weights).values()))
    tokens = np.asarray(rows[tokenised(text, words)], np.float32)
    version = importlib.metadata.version(_TABLE)
    return Embedded(tokens, f"{_TABLE} {version}, {weights.stem}") if len(tokens) else None


def hashed(text: str, dims: int = DIMS) -> Embedded:
    """Return one token a word: the mean of fixed random directions of its character trigrams."""
    rows = [_pieces(word, dims) for word in _WORD.findall(text.lower())]
    tokens = np.stack(rows) if rows else np.zeros((1, dims), np.float32)
    return Embedded(tokens, "hashed character trigrams")


def _pieces(word: str, dims: int) -> NDArray[np.float32]:
    padded = f"<{word}>"
    pieces = [padded, *(padded[i : i + 3] for i in range(len(padded) - 2))]
    total = np.zeros(dims, np.float32)
    for piece in pieces:
        seed = int.from_bytes(hashlib.sha256(piece.encode()).digest()[:8], "little")
        total += np.random.default_rng(seed).standard_normal(dims).astype(np.float32)
    out: NDArray[np.float32] = total / np.float32(np.linalg.norm(total))
    return out
