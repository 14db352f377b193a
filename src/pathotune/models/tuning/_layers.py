"""The trained layers that tuning methods are made of.

They import torch at once, so a method imports them only when it is built.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Bottleneck(nn.Module):
    """A residual detour of few channels over tokens (B, N, C) or maps (B, C, h, w), (B, h, w, C).

    The way up starts at zero.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, width)
        self.up = nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the detour added."""
        channels_first = x.ndim == 4 and x.shape[-1] != self.norm.normalized_shape[0]
        y = x.permute(0, 2, 3, 1) if channels_first else x
        y = self.up(functional.gelu(self.down(self.norm(y))))
        return x + (y.permute(0, 3, 1, 2) if channels_first else y)


class Prompts(nn.Module):
    """Learnable prompts (levels, n, C), uniform in the range of VPT's convention.

    Jia et al., Visual Prompt Tuning, ECCV 2022: ``a = sqrt(6 / (3 p^2 + C))`` for patch side p.
    """

    def __init__(self, levels: int, n: int, channels: int, patch: int, dropout: float) -> None:
        super().__init__()
        a = math.sqrt(6.0 / (3 * patch * patch + channels))
        self.p = nn.Parameter(torch.empty(levels, n, channels).uniform_(-a, a))
        self.dropout = nn.Dropout(dropout)

    def forward(self, level: int, batch: int) -> Tensor:
        """Return (batch, n, C) for one block."""
        out: Tensor = self.dropout(self.p[level]).expand(batch, -1, -1)
        return out


class TaskPrompts(nn.Module):
    """Prompts from a sentence: projected text tokens pooled by learned queries.

    Parameters
    ----------
    text : (T, D) tensor
        The sentence's embedding; a constant, not trained.
    channels, n : int
        Width of the trunk and number of prompts.
    """

    text: Tensor

    def __init__(self, text: Tensor, channels: int, n: int) -> None:
        super().__init__()
        self.register_buffer("text", text, persistent=False)
        self.project = nn.Sequential(
            nn.Linear(text.shape[1], channels), nn.GELU(), nn.Linear(channels, channels)
        )
        self.query = nn.Parameter(torch.randn(n, channels) * channels**-0.5)

    def forward(self, batch: int) -> Tensor:
        """Return (batch, n, C), the same for every image."""
        tokens = self.project(self.text)
        share = (self.query @ tokens.T / math.sqrt(tokens.shape[1])).softmax(-1)
        out: Tensor = (share @ tokens)[None].expand(batch, -1, -1)
        return out


class InstancePrompts(nn.Module):
    """A visual refine module: queries read an image's own tokens and become prompts.

    ``H = W_d LN(X0); S = Q + MHA(LN Q, H, H); S = S + MLP(LN S); IVP = gamma W_u S``.
    """

    def __init__(self, channels: int, n: int, width: int, heads: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, width)
        self.query = nn.Parameter(torch.randn(1, n, width) * width**-0.5)
        self.norm_query = nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.up = nn.Linear(width, channels)
        self.gamma = nn.Parameter(torch.full((1,), 1e-2))

    def forward(self, x: Tensor) -> Tensor:
        """Return prompts (B, n, C) of patch tokens (B, N, C)."""
        h = self.down(self.norm(x))
        query = self.query.expand(len(x), -1, -1)
        read, _ = self.attend(self.norm_query(query), h, h, need_weights=False)
        s = query + read
        s = s + self.mlp(s)
        out: Tensor = self.gamma * self.up(s)
        return out


class LowRank(nn.Module):
    """A frozen linear layer or convolution with a trained product of two thin ones beside it.

    Hu et al., LoRA, ICLR 2022: ``W x + (alpha / r) B A x``, B zero at the start. For a
    convolution A has its size, stride and padding, and B is 1 x 1.
    """

    def __init__(self, base: Any, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base
        outside, *inside = base.weight.shape
        device = base.weight.device
        self.a = nn.Parameter(torch.empty(rank, *inside, device=device))
        self.b = nn.Parameter(torch.zeros(outside, rank, device=device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.scale = alpha / rank

    @property
    def weight(self) -> Tensor:
        """The weight with the update in it, for networks that read it instead of calling."""
        out: Tensor = self.base.weight + self.scale * (self.b @ self.a.flatten(1)).view_as(
            self.base.weight
        )
        return out

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        out: Tensor | None = self.base.bias
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's answer with the low-rank part added."""
        y: Tensor = self.base(x)
        if isinstance(self.base, nn.Conv2d):
            base = self.base
            low = functional.conv2d(
                x,
                self.a,
                None,
                base.stride,
                base.padding,
                base.dilation,
            )
            return y + self.scale * functional.conv2d(low, self.b[..., None, None])
        return y + self.scale * functional.linear(functional.linear(x, self.a), self.b)
