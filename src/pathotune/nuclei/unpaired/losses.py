"""What the networks are asked for, as numbers to make small.

The whole is `L_GAN(G) + L_GAN(S) + 10 (|S(G(x, z)) - x| + |G(S(y), z) - y|) + 6 L_seg(S(G(x, z)))`
(UNITPathSSL; the weights are from its configuration). L_seg asks S to find the single nuclei
of the mask in what G painted of it; its gradient passes through S into G, so G learns to
paint nuclei that can be found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """How much each part counts."""

    cycle: float = 10.0
    nuclei: float = 6.0
    steepness: float = 1.0  # R1's gamma


def nuclei_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return L_seg of dense logits (n, 3, h, w) against `dense.targets` of the same shape.

    Cross-entropy and overlap (Milletari et al., 3DV 2016) for nucleus or not, absolute
    error of the depth, cross-entropy of lined or scattered inside nuclei.
    """
    nucleus, depth, side = wanted[:, 0], wanted[:, 1], wanted[:, 2]
    entropy = functional.binary_cross_entropy_with_logits(logits[:, 0], nucleus)
    sure = logits[:, 0].sigmoid()
    shared = (sure * nucleus).sum((1, 2))
    overlap = (2 * shared + 1) / (sure.sum((1, 2)) + nucleus.sum((1, 2)) + 1)
    far = (logits[:, 1].sigmoid() - depth).abs().mean()
    told = (side >= 0).to(logits.dtype)
    each = functional.binary_cross_entropy_with_logits(
        logits[:, 2], side.clamp(min=0), reduction="none"
    )
    kind = (each * told).sum() / told.sum().clamp(min=1)
    return entropy + (1 - overlap).mean() + 2 * far + 0.2 * kind


def fooled(answer: Tensor) -> Tensor:
    """Return the loss of who wants a critic's answer to be high (Goodfellow et al., 2014)."""
    return functional.softplus(-answer).mean()


def told_apart(real: Tensor, made: Tensor) -> Tensor:
    """Return a critic's loss from its answers to real and made things."""
    return functional.softplus(-real).mean() + functional.softplus(made).mean()


def cycle(back: Tensor, start: Tensor) -> Tensor:
    """Return the mean absolute difference of what came back and what was sent."""
    return (back - start).abs().mean()
