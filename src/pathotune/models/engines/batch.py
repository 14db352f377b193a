"""How many tiles a graphics card should be given at a time: found by trying, and remembered.

Small batches leave a card idle, large ones run out of memory or make a cancel
wait; where the best lies depends on card and network. Batches are doubled while
that makes a tile cheaper. The size is remembered for card, network and torch,
because kernels are chosen by shape and a slide should give the same tokens
tomorrow.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from pathotune.models import runtime
from pathotune.models.engines import compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_FIRST, _MOST = 4, 512
_WORTH = 0.95  # a doubling must save a twentieth of a tile's time
_LONGEST_S = 0.4  # a cancel waits for one batch


def find(
    run: Callable[[NDArray[np.uint8]], object],
    tile_px: int,
    release: Callable[[], None],
    most: int = _MOST,
) -> int:
    """Return the batch that makes a tile cheapest.

    Parameters
    ----------
    run : callable
        Computes tiles (B, P, P, 3) and returns when that is done.
    tile_px : int
    release : callable
        Gives memory back after it ran out.
    most : int
        Never more than this.
    """
    best, cheapest, size = 1, float("inf"), 1
    while size <= most:
        tiles = np.full((size, tile_px, tile_px, 3), 200, np.uint8)
        try:
            run(tiles)  # kernels are chosen for a new shape
            start = time.perf_counter()
            run(tiles)
        except (RuntimeError, MemoryError) as error:
            if not runtime.is_out_of_memory(error):
                raise
            release()
            return max(1, best // 2)  # not at the edge: other programs want memory as well
        seconds = time.perf_counter() - start
        if seconds / size > cheapest * _WORTH:
            return best
        best, cheapest = size, seconds / size
        if 2 * seconds > _LONGEST_S:
            return best
        size = _FIRST if size == 1 else 2 * size
    return best


def remembered(key: list[str], search: Callable[[], int]) -> int:
    """Return what was found for a key before, else search and remember it."""
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    place = compiled.root() / f"batch-{name}.json"
    with suppress(OSError, ValueError, TypeError):
        found = int(json.loads(place.read_text(encoding="utf-8")))
        if found > 0:
            return found
    found = search()
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(found), encoding="utf-8")
    return found
