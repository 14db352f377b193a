"""The two that tell real from made: one looks at tissue, one at masks.

D_G sees whole fields of tissue and how alike those of a batch are (Karras et al., ICLR 2018,
section 3); its steepness is held down on real tissue (R1: Mescheder et al., ICML 2018,
section 4.1). D_S judges masks patch by patch (Isola et al., CVPR 2017, section 3.2.2). They
are thrown away after the learning.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTHS = (16, 32, 64, 96, 128)
LARGE_WIDTHS = (32, 64, 128, 192, 256)
PATCH_WIDTHS = (32, 64, 128)


class TissueCritic(nn.Module):
    """D_G: one number a field, high for real.

    Parameters
    ----------
    widths : sequence of int
        Channels at strides 1, 2, 4, 8, 16.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.enter = nn.Conv2d(3, widths[0], 3, 1, 1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))
        self.last = nn.Conv2d(widths[-1] + 1, widths[-1], 3, 1, 1)
        self.out = nn.Linear(widths[-1], 1)

    def forward(self, tissue: Tensor) -> Tensor:
        """Return (n,) of tissue (n, 3, h, w) in -1..1."""
        x = functional.leaky_relu(self.enter(tissue), 0.2)
        for down in self.down:
            x = functional.leaky_relu(down(x), 0.2)
        spread = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
        x = torch.cat([x, spread.expand(len(x), 1, *x.shape[2:])], 1)
        x = functional.leaky_relu(self.last(x), 0.2)
        score: Tensor = self.out(x.mean((2, 3)))[:, 0]
        return score


class MaskCritic(nn.Module):
    """D_S: one number a patch, high for drawn masks.

    Parameters
    ----------
    widths : sequence of int
        Channels at strides 2, 4, 8.
    """

    def __init__(self, widths: Sequence[int] = PATCH_WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, b, 4, 2, 1), nn.InstanceNorm2d(b), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(widths[-1], 1, 3, 1, 1))
        self.body = nn.Sequential(*layers)

    def forward(self, mask: Tensor) -> Tensor:
        """Return (n, 1, h / 8, w / 8) of masks (n, 3, h, w) in -1..1."""
        score: Tensor = self.body(mask)
        return score


def steepness(critic: nn.Module, real: Tensor) -> Tensor:
    """Return R1: the mean squared gradient of a critic's answer to real fields (n, 3, h, w)."""
    real = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
    return (gradient**2).sum((1, 2, 3)).mean()
