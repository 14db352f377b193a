"""Takes the fastest engine that gives the same answers, and says which and why.

On a processor that is OpenVINO, in 16-bit numbers where the processor has them
and the network bears them; torch where OpenVINO is absent, fails or is slower.
What was found out once about a card is remembered with its converted graphs. Beside
a window a process of its own converts (`apart`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathotune.events import Note
from pathotune.models import runtime
from pathotune.models.engines import apart, compiled, openvino
from pathotune.models.engines.eager import EagerEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pathotune.models.cards import ModelCard
    from pathotune.models.engines import Engine

Networks = tuple[list[Any], "dict[str, Any] | None"]


def choose(card: ModelCard, device: str, load: Callable[[], Networks]) -> tuple[Engine, list[Note]]:
    """Return the engine for a card on a device, and what the user should know.

    Parameters
    ----------
    card : ModelCard
    device : str
        As `runtime.pick_device` returns it.
    load : callable
        Returns the networks and the projection in torch; only called when needed.
    """
    where, exact = runtime.split(device)
    if where != "cpu":
        return EagerEngine(card, where, *load(), half=where.startswith("cuda") and not exact), []
    if not openvino.available():
        return EagerEngine(card, where, *load()), []
    half = runtime.has_bf16() and not exact
    folder = compiled.folder(card.hash(), half)
    try:
        threads = runtime.threads_here()
        engine = _kept(folder)
        if engine is None and runtime.beside_a_window():
            if apart.convert_apart(card, folder, half, threads):
                engine = _kept(folder)
        if engine is not None:
            return engine, []
        networks, projection = load()
        try:
            return openvino.convert(card, networks, projection, folder, half, threads), []
        except (openvino.NotFaster, ImportError, OSError) as why:  # installed, but it does not load
            return EagerEngine(card, where, networks, projection), [_told(card, why)]
    except (openvino.NotFaster, ImportError) as why:
        return EagerEngine(card, where, *load()), [_told(card, why)]


def _kept(folder: Path) -> Engine | None:
    """Return what was converted before, if it is there and whole."""
    if not (folder / compiled.ABOUT).is_file():
        return None
    try:
        engine = openvino.load(folder)
    except (OSError, ValueError, KeyError, RuntimeError):
        return None  # cut short or of another make: made anew
    compiled.touch(folder)
    return engine


def _told(card: ModelCard, why: Exception) -> Note:
    return Note(f"{card.name} runs in torch on this processor, not in OpenVINO: {why}.")
