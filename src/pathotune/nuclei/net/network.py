"""A small U-shaped network from pixels at 0.5 um/px to where nuclei are.

Made for processors: four neighbouring pixels are folded into channels before the
first convolution and unfolded after the last (Shi et al., CVPR 2016), so that no
layer works at full size and outlines still come out at full size. Plain 3 x 3
convolutions are kept because on processors they run nearer to the peak than
depthwise ones do. Shape after Ronneberger et al., MICCAI 2015, with sums instead
of joined channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTHS = (24, 48, 96, 128)
OUTPUTS = ("foreground", "edge", "middle")
"""Channels of the answer: logits of nucleus and of its edge, and how deep inside, 0 to 1."""


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class NucleusNet(nn.Module):
    """From absorbed light (B, 3, h, w), 0 white to 1 black, to `OUTPUTS` (B, 3, h, w).

    Parameters
    ----------
    widths : sequence of int
        Channels at 1/2, 1/4, 1/8, ... of the size; h and w are multiples of 2 to the
        power of their number.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        n = len(self.widths)
        self.stem = _conv(12, self.widths[0])
        self.encode = nn.ModuleList(
            nn.Sequential(*(_conv(c, c) for _ in range(1 if i == 0 else 2)))
            for i, c in enumerate(self.widths)
        )
        self.down = nn.ModuleList(
            _conv(a, b, 2) for a, b in zip(self.widths[:-1], self.widths[1:], strict=True)
        )
        self.narrow = nn.ModuleList(
            nn.Conv2d(self.widths[i + 1], self.widths[i], 1) for i in range(n - 1)
        )
        self.decode = nn.ModuleList(_conv(self.widths[i], self.widths[i]) for i in range(n - 1))
        self.head = nn.Conv2d(self.widths[0], 4 * len(OUTPUTS), 3, padding=1)

    @property
    def multiple(self) -> int:
        """Height and width must be a multiple of this."""
        return int(2 ** len(self.widths))

    def forward(self, light: torch.Tensor) -> torch.Tensor:
        """Return the answer for a batch."""
        x = self.stem(functional.pixel_unshuffle(light, 2))
        skips: list[torch.Tensor] = []
        for i, layers in enumerate(self.encode):
            x = layers(x) + x
            skips.append(x)
            if i < len(self.down):
                x = self.down[i](x)
        for i in reversed(range(len(self.decode))):
            x = functional.interpolate(self.narrow[i](x), scale_factor=2.0, mode="nearest")
            x = self.decode[i](x + skips[i])
        answer: torch.Tensor = functional.pixel_shuffle(self.head(x), 2)
        return answer


class FromPixels(nn.Module):
    """A network with everything around it: uint8 (B, h, w, 3) to 0..1 (B, 3, h, w)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return probabilities of nucleus and edge, and how deep inside."""
        light = 1.0 - pixels.permute(0, 3, 1, 2).float() / 255.0
        answer = self.network(light)
        return torch.cat([answer[:, :2].sigmoid(), answer[:, 2:].clamp(0, 1)], dim=1)


def parameters(network: Any) -> int:
    """Return how many numbers a network has learnt."""
    return sum(p.numel() for p in network.parameters())
