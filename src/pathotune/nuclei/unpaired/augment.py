"""Changes that a critic sees but the painter does not learn to paint.

With one slide a critic soon knows its fields by heart. So real and painted fields are changed
alike before it looks, each kind of change with a probability that rises while the critic is too
sure of the real ones and falls when it is not (Karras et al., NeurIPS 2020, section 3). Turns,
shifts and colours only: their gradients, and gradients of those, are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

TARGET = 0.6  # wanted mean sign of the critic's answer to real fields
FIELDS_TO_ONE = 20_000  # fields after which the probability could have gone from 0 to 1
MOST = 0.85


class Adaptive:
    """The probability of every change.

    Parameters
    ----------
    p : float
        To begin with.
    """

    def __init__(self, p: float = 0.0) -> None:
        self.p = p

    def follow(self, answers: Tensor) -> float:
        """Move the probability by a critic's answers (n,) to real fields; return it."""
        sure = float(torch.sign(answers.detach()).mean())
        step = len(answers) / FIELDS_TO_ONE
        self.p = min(MOST, max(0.0, self.p + (step if sure > TARGET else -step)))
        return self.p

    def change(self, fields: Tensor, generator: torch.Generator) -> Tensor:
        """Return fields (n, 3, s, s) in -1..1, each changed in its own way.

        Parameters
        ----------
        fields : (n, 3, s, s)
            Square, since they are turned by quarters.
        generator : torch.Generator
            On the processor; the same one gives the same changes.
        """
        if self.p <= 0:
            return fields
        n = len(fields)
        draw = torch.rand((n, 12), generator=generator)
        noise = torch.randn((n, 6), generator=generator)
        take = draw[:, :6] < self.p
        moved = []
        for i in range(n):
            field = fields[i]
            if take[i, 0] and draw[i, 6] < 0.5:
                field = field.flip(-1)
            if take[i, 1]:
                field = torch.rot90(field, int(draw[i, 7] * 4), (-2, -1))
            if take[i, 2]:
                most = 0.125 * field.shape[-1]
                by = [round(float((2 * draw[i, k] - 1) * most)) for k in (8, 9)]
                field = torch.roll(field, by, (-2, -1))
            moved.append(field)
        x = torch.stack(moved)

        def strength(k: int, scale: float) -> Tensor:
            value = torch.where(take[:, k], noise[:, k] * scale, torch.zeros(n))
            return value.to(x.device, x.dtype)[:, None, None, None]

        x = x + strength(3, 0.2)  # brightness
        x = (x + 1) * torch.exp(strength(4, 0.35)) - 1  # contrast, about black
        grey = x.mean(1, keepdim=True)
        return grey + (x - grey) * torch.exp(strength(5, 0.7))  # colour
