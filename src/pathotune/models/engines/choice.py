"""Takes the fastest engine that gives the same answers, and says which and why.

On a processor that is OpenVINO, in 16-bit numbers where the processor has them
and the network bears them; torch where OpenVINO is absent, fails or is slower.
What was found out once about a card is remembered with its converted graphs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathotune.events import Note
from pathotune.models import runtime
from pathotune.models.engines import compiled, openvino
from pathotune.models.engines.eager import EagerEngine

if TYPE_CHECKING:
    from collections.abc import Callable

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
        if (folder / compiled.ABOUT).is_file():
            try:
                engine = openvino.load(folder)
                compiled.touch(folder)
                return engine, []
            except (OSError, ValueError, KeyError, RuntimeError):
                pass  # cut short or of another make: made anew
        networks, projection = load()
        threads = runtime.threads_here()
        try:
            return openvino.convert(card, networks, projection, folder, half, threads), []
        except (openvino.NotFaster, ImportError, OSError) as why:  # installed, but it does not load
            return EagerEngine(card, where, networks, projection), [_told(card, why)]
    except (openvino.NotFaster, ImportError) as why:
        return EagerEngine(card, where, *load()), [_told(card, why)]


def _told(card: ModelCard, why: Exception) -> Note:
    return Note(f"{card.name} runs in torch on this processor, not in OpenVINO: {why}.")
