"""What a long computation says while it runs, and how it is driven.

Every job in the engine is a generator that yields the frozen events below and
returns its result. Cancelling is closing the generator between two events, so
a job puts its cleaning up in ``finally`` and yields at least every micro-batch.
Nothing here knows about threads: the window pumps a job in its worker, the
command line with a ``for`` loop, and both see the same events.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence for the user, in the user's words."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` steps of `what`; `seconds_left` when it can be known."""

    done: int
    total: int
    what: str
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class TilesDone:
    """New values stand in this box of the token lattice (half-open, in tokens)."""

    row0: int
    col0: int
    row1: int
    col1: int

    def merge(self, other: TilesDone) -> TilesDone:
        """Return the smallest box that holds both."""
        return TilesDone(
            min(self.row0, other.row0),
            min(self.col0, other.col0),
            max(self.row1, other.row1),
            max(self.col1, other.col1),
        )


@dataclass(frozen=True, slots=True)
class NucleiDone:
    """The nuclei of a tile lie in `file`; `box` is x0, y0, x1, y1 in level-0 pixels."""

    file: Path
    box: tuple[float, float, float, float]
    count: int


@dataclass(frozen=True, slots=True)
class EpochDone:
    """One pass of a training is over; `bundle` is the best model so far, if there is one."""

    epoch: int
    total: int
    train_loss: float
    held_out_loss: float | None
    held_out_f1: float | None
    bundle: Any = None


@dataclass(frozen=True, slots=True)
class NucleiJudged:
    """Nuclei are being learnt; how well after `step` of `total` steps of a stage.

    `agreement` is the AJI on fields kept apart. `pairs` are shown to the user: painted
    or real tissue, uint8 (h, w, 3), beside its nuclei, int32 (h, w).
    """

    stage: str
    step: int
    total: int
    agreement: float
    pairs: tuple[tuple[str, Any, Any], ...] = ()


Event: TypeAlias = Note | Progress | TilesDone | NucleiDone | EpochDone | NucleiJudged
Job: TypeAlias = Generator[Event, None, R]


class PathotuneError(Exception):
    """Something the user can mend, told in the user's words.

    Parameters
    ----------
    message : str
        What happened and what it means for the work.
    hint : str
        What to do about it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


def drain(job: Job[R], on_event: Callable[[Event], None] | None = None) -> R:
    """Run a job to its end and return its result.

    Parameters
    ----------
    job : Job
        The generator to pump. It is closed when `on_event` raises.
    on_event : callable, optional
        Called with every event, in the caller's thread.
    """
    try:
        while True:
            try:
                event = next(job)
            except StopIteration as stop:
                result: R = stop.value
                return result
            if on_event is not None:
                on_event(event)
    finally:
        job.close()
