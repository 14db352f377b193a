"""What all methods with prompts share: where prompts stand and how they leave.

Prompts stand between the prefix tokens and the patches, so that class and register
tokens keep their places and the patches can be cut off the end. They get no
position; where a network turns tokens by their place (rotary embedding) the
prompts count as prefix, which it leaves alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathotune.models.tuning._delta import Delta
from pathotune.models.tuning._trunk import has_tokens

if TYPE_CHECKING:
    from pathotune.models.tuning._trunk import State, Trunk


def needs_tokens(architecture: str) -> str | None:
    """Return why a network cannot be tuned this way; None: it can."""
    if has_tokens(architecture):
        return None
    return "Prompts need a transformer; this backbone is a convolutional or windowed network."


class Prompted(Delta):
    """A delta that adds tokens to the sequence from block `first` on."""

    def __init__(self, trunk: Trunk, first: int) -> None:
        super().__init__(trunk, min(first, trunk.depth - 1))
        self.still = False
        self.patch = int(trunk.network.patch_embed.patch_size[0])

    def take(self, slots: int) -> None:
        """Make room for prompts in the sequence."""
        self.slots = slots
        if self.trunk.kind != "eva":
            return
        for level in range(self.first, self.trunk.depth):
            attention = self.trunk.block(level).attn
            before = attention.num_prefix_tokens
            attention.num_prefix_tokens = before + slots
            self.undo(lambda a=attention, n=before: setattr(a, "num_prefix_tokens", n))

    def fresh(self, level: int, x: Any, context: Any) -> Any:
        """Return prompts (B, n, C) for the slots of a block; None leaves those that are there."""
        return None

    def before(self, level: int, x: Any, context: Any, state: State) -> Any:
        """Put the prompts of a block into the sequence."""
        import torch

        fresh = self.fresh(level, x, context)
        if fresh is None:
            return x
        prefix = self.trunk.prefix
        fresh = fresh.to(x.dtype)
        behind = prefix + (fresh.shape[1] if state.slots else 0)
        state.slots = self.slots
        return torch.cat([x[:, :prefix], fresh, x[:, behind:]], 1)
