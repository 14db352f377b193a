"""How many tiles are worked on at a time: as many as a cancel may wait for and memory holds.

A small step is timed and made smaller or larger, so that whoever presses Cancel waits
for half a second at most wherever a single tile takes no longer. When memory runs
out the number is halved, and the user is told.
"""

from __future__ import annotations

from pathotune.events import Note, PathotuneError
from pathotune.models import runtime

STEP_SECONDS = 0.4


class Pace:
    """Tiles at a time.

    Parameters
    ----------
    size : int
        To begin with.
    most : int
        It never grows beyond; `size` where it shall not grow.
    """

    def __init__(self, size: int, most: int) -> None:
        self.size = min(size, most)
        self._most = most
        self._timed = 0

    def took(self, seconds: float, tiles: int) -> None:
        """Fit the number to how long it took."""
        self._timed += 1
        if self._timed < 2:
            return  # the first one warms up
        if seconds > STEP_SECONDS and self.size > 1:
            self.size = max(1, self.size // 2)
        elif seconds < STEP_SECONDS / 4 and tiles == self.size:
            self.size = min(self.size * 2, self._most)

    def halve(self, error: BaseException, device: str) -> Note:
        """Go on with half as many after an error that says that memory ran out.

        Raises
        ------
        PathotuneError
            It was one already.
        error
            It was another error.
        """
        if not runtime.is_out_of_memory(error):
            raise error
        runtime.release_memory(device)
        if self.size == 1:
            raise PathotuneError(
                "There is too little memory to train this model, even one tile at a time.",
                "Choose a smaller backbone, or let the method start at a later block.",
            ) from error
        self._most = self.size = self.size // 2
        tiles = "one tile" if self.size == 1 else f"{self.size} tiles"
        return Note(f"Memory ran short: training goes on with {tiles} at a time.")
