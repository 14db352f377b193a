"""What runs a frozen network: one contract, one file each.

An engine takes whole tiles (B, P, P, 3) uint8 and gives the tokens of whole
tiles (B, T, T, D) float32, halo included. `eager` runs torch anywhere, in half
precision on a graphics card; `openvino` runs compiled graphs on a processor.
`choice` takes the fastest that gives the same answers: `trust` holds each part
of a network against 32-bit torch on real tissue before 16 bits are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Engine(Protocol):
    """Runs the frozen networks of a card.

    Attributes
    ----------
    lanes : int
        Batches that may be under way at once, each in a thread of its own.
    """

    lanes: int

    @property
    def name(self) -> str:
        """What runs, for people, such as "OpenVINO, bf16"."""
        ...

    def run(self, tiles: NDArray[np.uint8], threads: int) -> NDArray[np.float32]:
        """Return the tokens of whole tiles (B, T, T, D) with at most `threads` cores."""
        ...
