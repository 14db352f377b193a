"""The module of CDTM: likeness to centres mixes a bank of matrices into one an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Clusters(nn.Module):
    """Token or channel transfer by clusters, over maps (B, T, T, C).

    ``q = mean_N LN(x); beta = softmax(t cos(q, A)); M* = sum_k beta_k M_k``. Channel mode:
    ``u = W_u (W_d h) M*``; token mode: ``u = W_p (M* h)``. As published the answer is
    ``LN(u + MLP(LN u))`` and replaces the tokens; with `residual` it is ``x + u`` with ``W_u``
    (``W_p``) zero at the start.

    Parameters
    ----------
    channels, tokens : int
        C and T * T.
    clusters : int
        K.
    width : int
        Channels that are mixed; 0 is token mode.
    residual : bool
    temperature : float
        Start of the learnable t.
    """

    def __init__(
        self,
        channels: int,
        tokens: int,
        clusters: int,
        width: int,
        residual: bool,
        temperature: float,
    ) -> None:
        super().__init__()
        self.width = width
        self.residual = residual
        self.norm_in = nn.LayerNorm(channels)
        self.norm = nn.LayerNorm(channels)
        self.centres = nn.Parameter(torch.randn(channels, clusters))
        self.heat = nn.Parameter(torch.full((1,), float(temperature)))
        side = width or tokens
        # unit gain: as published, N(0, 1) blows tokens up by the root of the side
        bank = torch.randn(clusters, side, side)
        self.bank = nn.Parameter(bank * side**-0.5 if residual else bank)
        if width:
            self.down = nn.Linear(channels, width)
            self.up = nn.Linear(width, channels)
        else:
            self.mix = nn.Linear(channels, channels)
        if residual:
            last = self.up if width else self.mix
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            return
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )
        self.norm_out = nn.LayerNorm(channels)

    def mixture(self, h: Tensor) -> Tensor:
        """Return the weights (B, K) of the centres for tokens (B, N, C)."""
        likeness = functional.normalize(h.mean(1), dim=-1) @ functional.normalize(
            self.centres, dim=0
        )
        return (self.heat * likeness).softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the transformed tokens (B, T, T, C)."""
        flat = x.flatten(1, 2)
        h = self.norm(self.norm_in(flat))
        matrix = torch.einsum("bk,kij->bij", self.mixture(h), self.bank)
        if self.width:
            u = self.up(self.down(h) @ matrix)
        else:
            u = self.mix(matrix @ h)
        if self.residual:
            return x + u.view_as(x)
        y = u + self.mlp(self.norm_mlp(u))
        return self.norm_out(y).view_as(x)
