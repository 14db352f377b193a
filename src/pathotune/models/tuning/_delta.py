"""The contract of every tuning method: what it adds to a frozen network.

A method is a file with `LABEL`, `ABOUT`, a frozen dataclass `Config`, `serves`
and `build`; `build` returns a `Delta`. A delta says from which block on it
changes anything (what lies below is computed once), gets the tokens before and
behind every block and on the final grid, and holds its trained tensors in one
module dictionary. Nothing here imports torch before a method is used, so that a
window can list methods and their settings at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pathotune.models.tuning._trunk import State, Trunk


def setting(
    default: Any,
    label: str,
    about: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Return a dataclass field that a form and the command line can show."""
    facts: dict[str, Any] = {"label": label, "help": about}
    if low is not None:
        facts["min"] = low
    if high is not None:
        facts["max"] = high
    if choices:
        facts["choices"] = choices
    return field(default=default, metadata=facts)


def from_block(default: int = -1) -> Any:
    """Return the field that says from which block on a method works."""
    return setting(
        default,
        "From block",
        "The first block that is changed. Blocks below it are computed once, which makes "
        "training many times faster; -1 takes 0 on a graphics card and the last blocks on a CPU.",
        -1,
        100,
    )


def serves_all(architecture: str) -> str | None:
    """Return why a network cannot be tuned this way; None: it can, whatever it is."""
    return None


@dataclass(frozen=True)
class Stage:
    """One stage of a training: what learns, and how fast against the method's own rate."""

    name: str
    rate: float = 1.0
    everything: bool = False


@dataclass(frozen=True)
class Setting:
    """What a method is told about the task when its delta is built.

    Attributes
    ----------
    late : bool
        No graphics card: by default only the last blocks are changed.
    stored : mapping of str to array
        What an earlier build kept (a text embedding, say); empty before training.
    sentence : str
        The task in a sentence.
    text_folder : str
        Folder of a text encoder; empty for the built-in tiers.
    """

    late: bool = True
    stored: Mapping[str, Any] = field(default_factory=dict)
    sentence: str = ""
    text_folder: str = ""

    def first(self, wanted: int, depth: int, last: int = 2) -> int:
        """Return the first changed block for a wanted one (-1: automatic)."""
        if wanted < 0:
            return max(0, depth - last) if self.late else 0
        return min(wanted, depth)


class Delta:
    """What a method adds to a trunk; this one adds nothing and is the head-only control.

    Attributes
    ----------
    modules : torch.nn.ModuleDict
        All trained tensors but the head's and the opened trunk's.
    first : int
        First block that differs; `trunk.depth`: none, only the final tokens.
    opens : int or None
        First block whose own weights learn in a stage with `everything`.
    slots : int
        Prompts added to the sequence.
    needs_stem : bool
        Whether `start` looks at the tokens before block 0.
    still : bool
        At the start nothing is changed: features equal the frozen network's.
    direct : bool
        The head sees `finish` alone: no projection, no other parts.
    width : int
        Channels that `finish` returns.
    rate : float
        Learning rate.
    drops : bool
        Whether patch tokens may be left out in training to save time.
    """

    def __init__(self, trunk: Trunk, first: int | None = None) -> None:
        from torch import nn

        self.trunk = trunk
        self.modules = nn.ModuleDict()
        self.first = trunk.depth if first is None else first
        self.opens: int | None = None
        self.slots = 0
        self.needs_stem = False
        self.still = True
        self.direct = False
        self.width = trunk.channels
        self.rate = 1e-3
        self.drops = trunk.kind == "vit"
        self.stages: tuple[Stage, ...] = (Stage("training"),)
        self.stored: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}
        self._undo: list[Any] = []
        self.opened: dict[str, Any] = {}

    def start(self, state: State) -> Any:
        """Return what the blocks share for one batch; called once before the first block."""
        return None

    def before(self, level: int, x: Any, context: Any, state: State) -> Any:
        """Return the tokens that enter a block."""
        return x

    def behind(self, level: int, x: Any) -> Any:
        """Return the tokens that leave a block."""
        return x

    def finish(self, x: Any) -> Any:
        """Return the part's final tokens (B, T, T, channels)."""
        return x

    def open(self) -> None:
        """Let the trunk's own weights learn, from `opens` on."""
        if self.opens is not None and not self.opened:
            self.opened = self.trunk.open(self.opens)

    def trained(self) -> dict[str, Any]:
        """Return every trained tensor by the name it has in a bundle."""
        own = {f"delta.{k}": v for k, v in self.modules.named_parameters()}
        return own | {f"trunk.{k}": v for k, v in self.opened.items()}

    def undo(self, back: Any) -> None:
        """Remember how to take back a change of the trunk."""
        self._undo.append(back)

    def detach(self) -> None:
        """Leave the trunk as it was found."""
        for back in reversed(self._undo):
            back()
        self._undo.clear()
        self.opened = {}
        self.trunk.close()
