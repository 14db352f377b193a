"""S, tissue to mask: the network that is kept when the learning is over.

An encoder with a feature pyramid (Lin et al., CVPR 2017), normalised by group (Wu & He, ECCV
2018) since batches are small. The pyramid's levels are brought to one size and summed, then
brought to full size. Six maps leave it: the three channels of the drawn mask, and three dense
ones (nucleus, distance to the edge, lined up) that a watershed turns into single nuclei.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

MASK_CHANNELS = 3
DENSE_CHANNELS = 3
WIDTHS = (16, 24, 48, 96, 128)  # at strides 1, 2, 4, 8, 16
STRIDE = 16  # sides must be multiples of it


def norm(channels: int) -> nn.GroupNorm:
    """Return the normalisation of this many channels, about eight a group."""
    return nn.GroupNorm(max(1, channels // 8), channels)


class Block(nn.Module):
    """Two convolutions beside a shortcut; the first may halve the size."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = norm(outside)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = norm(outside)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            self.short = nn.Conv2d(inside, outside, 1, stride, bias=False)
        nn.init.zeros_(self.norm2.weight)  # a block begins as its shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, outside, h / stride, w / stride)."""
        y = functional.silu(self.norm1(self.first(x)))
        return functional.silu(self.short(x) + self.norm2(self.second(y)))


class Reader(nn.Module):
    """Reads masks off tissue.

    Parameters
    ----------
    widths : sequence of int
        Channels at strides 1, 2, 4, 8, 16.
    pyramid : int
        Channels of the feature pyramid.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, pyramid: int = 32) -> None:
        super().__init__()
        self.widths, self.pyramid = tuple(widths), pyramid
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), norm(widths[0]), nn.SiLU()
        )
        self.stages = nn.ModuleList(
            nn.Sequential(Block(a, b, 2), Block(b, b)) for a, b in itertools.pairwise(widths)
        )
        self.sides = nn.ModuleList(nn.Conv2d(w, pyramid, 1) for w in widths[1:])
        self.smooth = nn.ModuleList(nn.Conv2d(pyramid, pyramid, 3, 1, 1) for _ in widths[1:])
        self.joined = nn.Sequential(
            nn.Conv2d(pyramid, pyramid, 3, 1, 1, bias=False), norm(pyramid), nn.SiLU()
        )
        self.full = nn.Sequential(
            nn.Conv2d(pyramid + widths[0], pyramid, 3, 1, 1, bias=False), norm(pyramid), nn.SiLU()
        )
        self.out = nn.Conv2d(pyramid, MASK_CHANNELS + DENSE_CHANNELS, 1)

    def encode(self, tissue: Tensor) -> list[Tensor]:
        """Return the encoder's maps at strides 1, 2, 4, 8, 16 of tissue (n, 3, h, w) in -1..1."""
        found = [self.stem(tissue)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found

    def forward(self, tissue: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mask, about -1..1, and the dense logits, each (n, 3, h, w)."""
        maps = self.encode(tissue)
        sides = [side(m) for side, m in zip(self.sides, maps[1:], strict=True)]
        for i in range(len(sides) - 2, -1, -1):
            sides[i] = sides[i] + functional.interpolate(sides[i + 1], scale_factor=2.0)
        total = sides[0].new_zeros(())
        for smooth, level in zip(self.smooth, sides, strict=True):
            value = smooth(level)
            if value.shape[-1] != sides[0].shape[-1] or value.shape[-2] != sides[0].shape[-2]:
                value = functional.interpolate(
                    value, sides[0].shape[-2:], mode="bilinear", align_corners=False
                )
            total = total + value
        half = self.joined(total)
        whole = functional.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)
        out = self.out(self.full(torch.cat([whole, maps[0]], 1)))
        return out[:, :MASK_CHANNELS], out[:, MASK_CHANNELS:]
