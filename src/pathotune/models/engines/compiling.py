"""torch.compile for a network on a graphics card: a switch, a verdict, and a way back.

Compiling takes from seconds to minutes at every start and makes some networks a
good deal faster, others not; it needs a C compiler and triton, which many
computers lack. So it is off until `make gpu-check` has measured on this very card
that it pays, stays off beside a window, where the first map would wait for it,
and whatever fails leaves the network as it was, with a note.
PATHOTUNE_COMPILE=1 or =0 in the environment decides instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from pathotune.models import runtime
from pathotune.models.engines import compiled

if TYPE_CHECKING:
    from pathlib import Path

    from pathotune.models.cards import ModelCard

WORTH = 1.1
"""How much faster a compiled network must be to be used from then on."""

STUMBLES = (
    RuntimeError,  # among them all of torch's compilers' own errors
    ImportError,
    OSError,
    AssertionError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    NotImplementedError,
    MemoryError,
    subprocess.SubprocessError,
)
"""What compiling a network has been seen to end in."""


def wanted(card: ModelCard, device: str) -> bool:
    """Tell whether a card's networks are to be compiled on a device."""
    asked = os.environ.get("PATHOTUNE_COMPILE", "")
    if asked in {"0", "1"}:
        return asked == "1"
    if not runtime.split(device)[0].startswith("cuda") or runtime.beside_a_window():
        return False
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(_file(card, device).read_text(encoding="utf-8"))
        return float(found["faster"]) >= WORTH
    return False


def remember(card: ModelCard, device: str, faster: float) -> None:
    """Keep what was measured on this card: how many times as fast the compiled network is."""
    place = _file(card, device)
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"faster": faster}), encoding="utf-8")


def _file(card: ModelCard, device: str) -> Path:
    import torch

    where = runtime.split(device)[0]
    name = torch.cuda.get_device_name(where) if where.startswith("cuda") else where
    key = json.dumps([name, card.hash(), device, torch.__version__])
    return compiled.root() / f"faster-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
