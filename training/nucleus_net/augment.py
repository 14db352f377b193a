"""Crops turned, zoomed and stained anew, a batch at a time.

A laboratory's dyes, a scanner's lamp and its sharpness differ far more than any
few tiles show, so colour is drawn anew for every crop: amounts of the dyes and
the dyes' own colours in optical density (after Tellez et al., Medical Image
Analysis 2019, section 3.2, much stronger), a tint over everything as in pictures
taken without white balance, tissue without eosin, blur and noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from material import Item

# Ruifrok and Johnston 2001: haematoxylin, eosin, residual
DYES = np.array([[0.65, 0.704, 0.286], [0.072, 0.99, 0.105], [0.27, 0.57, 0.78]])
Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def crop(item: Item, rng: np.random.Generator, size: int, mpp: float, work: float) -> Tensors:
    """Cut one crop, turned and zoomed.

    Returns
    -------
    pixels (3, size, size) 0..255, labels (size, size), middle and weight (2, size, size)
    """
    h, w = item.labels.shape
    zoom = mpp / work * np.exp(rng.uniform(-0.3, 0.3))  # item pixels a crop pixel
    sx, sy = zoom * np.exp(rng.uniform(-0.1, 0.1, 2))
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag([sx * rng.choice([-1, 1]), sy])
    reach = size / 2
    room_x, room_y = max(0.0, w / 2 - reach * zoom * 0.7), max(0.0, h / 2 - reach * zoom * 0.7)
    at = rng.uniform(-room_x, room_x) if room_x else 0.0, rng.uniform(-room_y, room_y)
    theta = np.zeros((1, 2, 3), np.float32)
    theta[0, :, :2] = turn * size / np.array([[w], [h]])
    theta[0, :, 2] = 2 * np.array(at) / (w, h)
    grid = functional.affine_grid(torch.from_numpy(theta), [1, 1, size, size], align_corners=False)
    soft = np.concatenate([np.moveaxis(item.pixels, -1, 0), item.middle[None]]).astype(np.float32)
    hard = np.stack([item.labels, item.weight]).astype(np.float32)
    how = {"padding_mode": "reflection", "align_corners": False}
    a = functional.grid_sample(torch.from_numpy(soft)[None], grid, mode="bilinear", **how)[0]
    b = functional.grid_sample(torch.from_numpy(hard)[None], grid, mode="nearest", **how)[0]
    return a[:3], b[0], torch.stack([a[3], b[1]])


def targets_of(labels: torch.Tensor, rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return foreground, edge, middle (B, 3, h, w) and the weight (B, h, w)."""
    x = labels[:, None]
    apart = (functional.max_pool2d(x, 3, 1, 1) != x) | (-functional.max_pool2d(-x, 3, 1, 1) != x)
    inside = (x > 0).float()
    return torch.cat([inside, apart.float(), rest[:, :1] * inside], dim=1), rest[:, 1]


def stained_anew(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return other colours, sharpness and noise of a batch (B, 3, h, w) of 0..255."""
    n = len(pixels)
    light = -torch.log10(pixels.clamp(1, 255) / 255)
    change, shift = np.zeros((n, 3, 3)), np.zeros((n, 3))
    for k in range(n):
        dyes = DYES * np.exp(rng.normal(0, 0.12, (3, 3)))
        dyes /= np.linalg.norm(dyes, axis=1, keepdims=True)
        amount = np.exp(rng.normal(0, 0.3, 3))
        if rng.random() < 0.15:
            amount[1] *= rng.uniform(0, 0.4)  # no eosin
        change[k] = np.linalg.inv(DYES) @ np.diag(amount) @ dyes
        if rng.random() < 0.3:
            change[k] = change[k] @ (np.eye(3) + rng.normal(0, 0.12, (3, 3)))
        shift[k] = rng.normal(0, 0.015, 3)
        if rng.random() < 0.45:
            shift[k] += rng.uniform(0, 0.28) * rng.dirichlet([1.5, 2, 1.5]) * 2
    mixed = torch.einsum("bchw,bcd->bdhw", light, torch.from_numpy(change).float())
    mixed = (mixed + torch.from_numpy(shift).float()[:, :, None, None]).clamp(0, 3)
    out = 255 * torch.pow(10.0, -mixed)
    for k in range(n):
        if rng.random() < 0.35:
            out[k] = _blurred(out[k], rng.uniform(0.4, 1.3))
        if rng.random() < 0.5:
            out[k] += rng.uniform(0, 8) * torch.randn_like(out[k])
        if rng.random() < 0.05:
            out[k] = out[k].mean(dim=0, keepdim=True).expand(3, -1, -1)
    return out.clamp(0, 255)


def _blurred(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    reach = int(3 * sigma + 0.5)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    line = line / line.sum()
    x = functional.pad(picture[:, None], (reach,) * 4, mode="reflect")
    x = functional.conv2d(x, line.view(1, 1, -1, 1))
    return functional.conv2d(x, line.view(1, 1, 1, -1))[:, 0]
