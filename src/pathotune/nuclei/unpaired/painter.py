"""G, mask to tissue: where the nuclei lie comes from the mask, how it looks from a code z.

Co-modulation (Zhao et al., ICLR 2021, section 3.2): the style of every convolution comes from
what the mask shows as a whole together with a mapped random code, `A([E(x), M(z)])`, so one
mask has many paintings. Convolutions are modulated and demodulated as in StyleGAN2 (Karras et
al., CVPR 2020, section 2.2). The mask's own maps join at sides of at most 64 px.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

CODE = 64  # of z
STYLE = 128
WIDTHS = (16, 32, 64, 96, 128)  # at strides 1, 2, 4, 8, 16
LARGE_WIDTHS = (32, 64, 128, 192, 256)
SKIP_PX = 64


class Modulated(nn.Module):
    """A convolution whose input channels are scaled by a style and whose output is evened out."""

    def __init__(self, inside: int, outside: int, kernel: int = 3, even: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outside, inside, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outside))
        self.style = nn.Linear(STYLE, inside)
        nn.init.ones_(self.style.bias)
        nn.init.normal_(self.style.weight, std=STYLE**-0.5)
        self.gain = (inside * kernel * kernel) ** -0.5
        self.even, self.pad = even, kernel // 2

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return (n, outside, h, w) of maps (n, inside, h, w) and styles (n, 128)."""
        s = self.style(w)
        weight = self.weight * self.gain
        y = functional.conv2d(x * s[:, :, None, None], weight, padding=self.pad)
        if self.even:
            power = (s**2) @ (weight**2).sum((2, 3)).T
            y = y * torch.rsqrt(power + 1e-8)[:, :, None, None]
        return y + self.bias[:, None, None]


class Painter(nn.Module):
    """Paints tissue over masks.

    Parameters
    ----------
    widths : sequence of int
        Channels at strides 1, 2, 4, 8, 16.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.enter = nn.Conv2d(3, widths[0], 3, 1, 1)
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairs)
        self.seen = nn.Linear(widths[-1], STYLE)  # E(x), as a whole
        self.mapping = nn.Sequential(
            nn.Linear(CODE, STYLE),
            nn.LeakyReLU(0.2),
            nn.Linear(STYLE, STYLE),
            nn.LeakyReLU(0.2),
            nn.Linear(STYLE, STYLE),
            nn.LeakyReLU(0.2),
        )
        self.affine = nn.Linear(2 * STYLE, STYLE)
        self.deepest = Modulated(widths[-1], widths[-1])
        self.up = nn.ModuleList(Modulated(b, a) for a, b in reversed(pairs))
        self.after = nn.ModuleList(Modulated(a, a) for a, _ in reversed(pairs))
        self.skip = nn.ModuleList(nn.Conv2d(a, a, 1) for a, _ in reversed(pairs))
        self.paint = Modulated(widths[0], 3, 1, even=False)

    def forward(self, mask: Tensor, z: Tensor) -> Tensor:
        """Return tissue (n, 3, h, w) in -1..1 of masks (n, 3, h, w) in -1..1 and codes (n, 64)."""
        x = functional.leaky_relu(self.enter(mask), 0.2)
        maps = [x]
        for down in self.down:
            x = functional.leaky_relu(down(x), 0.2)
            maps.append(x)
        z = z * torch.rsqrt((z**2).mean(1, keepdim=True) + 1e-8)
        w = self.affine(torch.cat([self.seen(x.mean((2, 3))), self.mapping(z)], 1))
        y = functional.leaky_relu(self.deepest(x, w), 0.2)
        for i, (up, after, skip) in enumerate(zip(self.up, self.after, self.skip, strict=True)):
            beside = maps[-2 - i]
            y = functional.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
            y = up(y, w)
            if beside.shape[-1] <= SKIP_PX:
                y = y + skip(beside)
            y = functional.leaky_relu(y, 0.2)
            y = functional.leaky_relu(after(y, w), 0.2)
        return torch.tanh(self.paint(y, w))
