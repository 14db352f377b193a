"""The marked tissue as a network in training needs it: batches, kept or computed anew.

What lies below the first changed block never changes, so it is computed once for
some views of every tile and kept in memory; then a pass over the material takes
seconds on a processor. Where everything changes, tiles are turned and recoloured
anew each time. The frozen network's features under the marks are kept beside it:
the fast model is fitted to them, and it is what a tuned model must beat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pathotune.events import Job, Progress
from pathotune.learn.adapt.pace import Pace
from pathotune.learn.augment import recoloured, view
from pathotune.models.runtime import limited_threads
from pathotune.models.tuning.linear import LinearHead, RegionStats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.learn.pieces import Pieces
    from pathotune.learn.settings import Training
    from pathotune.models.tuning._net import Lower, Net

_MEMORY = 3 << 30  # bytes of kept tensors
_WHAT = "Looking at the marked tissue"


def back(maps: Tensor, which: int) -> Tensor:
    """Turn maps (n, T, T, ...) of a view back to how the tile lies."""
    if which >= 4:
        maps = maps.flip(2)
    return torch.rot90(maps, -(which % 4), (1, 2))


def smooth(maps: Tensor, allowed: Tensor, side: int) -> Tensor:
    """Return maps (n, T, T, C) averaged over the allowed (n, T, T) tokens of a square."""
    if side == 1:
        return maps
    mask = allowed[:, None].to(maps.dtype)
    total = functional.avg_pool2d(
        maps.permute(0, 3, 1, 2) * mask, side, 1, side // 2, count_include_pad=True
    )
    share = functional.avg_pool2d(mask, side, 1, side // 2, count_include_pad=True)
    return (total / share.clamp_min(1e-6)).permute(0, 2, 3, 1)


class Material:
    """Pieces as a net reads them.

    Attributes
    ----------
    clean : list of int
        Views that are judged: the first `judged` quarter turns.
    token : (3, m) int
        Piece, row and column of every labelled token.
    frozen : (judged, m, D) float16
        The frozen network's features there, averaged over their neighbours.
    """

    def __init__(self, net: Net, pieces: Pieces, plan: Training, seed: int = 0) -> None:
        self.net, self.pieces, self.plan = net, pieces, plan
        self.clean = [0, 1, 2, 3] if pieces.whole else [0]
        self.token = np.stack(np.nonzero(pieces.regions >= 0))
        self.region = pieces.regions[tuple(self.token)]
        self.frozen = np.empty((len(self.clean), self.token.shape[1], 0), np.float16)
        self._rng = np.random.default_rng(seed)
        # the same number always: other shapes give other bits
        self._pace = Pace(32, 32) if net.device.startswith("cuda") else Pace(1, 1)
        self._kept: list[Lower] = []
        self._views = list(self.clean)
        delta = net.delta
        self.keeps = delta is not None and delta.first > 0
        if self.keeps:
            self._views += self._rng.integers(0, 8, plan.views).tolist()

    def prepare(self) -> Job[None]:
        """Compute what is kept. Yields Progress."""
        net, pieces = self.net, self.pieces
        n, device = len(pieces), net.device
        frozen: list[list[Tensor]] = [[] for _ in self.clean]
        total = len(self._views) * n
        for number, which in enumerate(self._views):
            clean = number < len(self.clean)
            tiles = view(pieces.pixels, which)
            kept: list[Lower] = []
            at = 0
            while at < n:
                yield Progress(number * n + at, total, _WHAT)
                part = tiles[at : at + self._pace.size]
                if not clean and self.plan.recolour:
                    part = recoloured(part, self._rng, self.plan.recolour)
                try:
                    lower, near = self._frozen(part, which, at if clean else None)
                except (RuntimeError, MemoryError) as error:
                    yield self._pace.halve(error, device)
                    continue
                if near is not None:
                    frozen[number].append(near)
                if self.keeps:
                    kept.append(lower.of(lambda t: _small(t)))
                at += len(part)
            if kept:
                self._kept.append(_joined(kept))
                if self._bytes() * (1 + 1 / len(self._kept)) > _MEMORY and number + 1 >= len(
                    self.clean
                ):
                    self._views = self._views[: number + 1]
                    break
        self.frozen = np.stack([torch.cat(f).numpy() for f in frozen])
        yield Progress(total, total, _WHAT)

    def _frozen(
        self, part: NDArray[np.uint8], which: int, at: int | None
    ) -> tuple[Lower, Tensor | None]:
        """Return what lies below, and from piece `at` on the features of labelled tokens."""
        net, pieces = self.net, self.pieces
        with limited_threads(), torch.no_grad():
            lower = net.lower(net.pixels(part))
            if at is None:
                return lower, None
            features = back(net.upper(lower, changed=False).float(), which)
            now = slice(at, at + len(part))
            inside = torch.from_numpy(pieces.allowed[now]).to(net.device)
            near = smooth(features, inside, net.card.neighbourhood).cpu()
            return lower, near[torch.from_numpy(pieces.regions[now] >= 0)].half()

    def _bytes(self) -> int:
        return sum(t.nbytes for lower in self._kept for t in lower.parts())

    def probe(self, regions: NDArray[np.bool_], features: NDArray[Any] | None = None) -> LinearHead:
        """Return the fast model fitted to these regions, from `features` or the frozen ones."""
        x = self.frozen if features is None else features
        stats = RegionStats(int(self.pieces.classes.max()) + 1, x.shape[-1])
        for r in np.flatnonzero(regions):
            rows = x[:, self.region == r].reshape(-1, x.shape[-1]).astype(np.float32)
            stats.add(str(r), int(self.pieces.classes[r]), rows)
        return stats.fit()

    def features(self, what: str = _WHAT) -> Job[NDArray[np.float32]]:
        """Return the features of the labelled tokens with the delta as it is, as `frozen`."""
        out = []
        pieces, net = self.pieces, self.net
        for number, which in enumerate(self.clean):
            found = []
            at = 0
            while at < len(pieces):
                yield Progress(number * len(pieces) + at, len(self.clean) * len(pieces), what)
                index = np.arange(at, min(at + self._pace.size, len(pieces)))
                try:
                    with limited_threads(), torch.no_grad():
                        maps = back(net.upper(self.lower(index, number)).float(), which)
                        inside = torch.from_numpy(pieces.allowed[index]).to(net.device)
                        near = smooth(maps, inside, net.card.neighbourhood).cpu()
                except (RuntimeError, MemoryError) as error:
                    yield self._pace.halve(error, net.device)
                    continue
                found.append(near[torch.from_numpy(pieces.regions[index] >= 0)])
                at += len(index)
            out.append(torch.cat(found))
        return torch.stack(out).numpy()

    def lower(self, index: NDArray[np.intp], number: int) -> Lower:
        """Return what lies below for some pieces in one of the kept (or clean) views."""
        if self.keeps:
            where = torch.from_numpy(index)
            return self._kept[number].of(lambda t: t[where].to(self.net.device).float())
        tiles = view(self.pieces.pixels[index], self._views[number])
        return self.net.lower(self.net.pixels(tiles))

    def draw(self, index: NDArray[np.intp], rng: np.random.Generator) -> tuple[Lower, list[int]]:
        """Return some pieces for a training step, each in a view of its own, and the views."""
        if self.keeps:
            numbers = rng.integers(0, len(self._views), len(index))
            parts = [self.lower(index[i : i + 1], int(v)) for i, v in enumerate(numbers)]
            return _joined(parts), [self._views[v] for v in numbers]
        turns = rng.integers(0, 8, len(index)).tolist()
        tiles = np.concatenate(
            [view(self.pieces.pixels[i : i + 1], w) for i, w in zip(index, turns, strict=True)]
        )
        if self.plan.recolour:
            tiles = recoloured(tiles, rng, self.plan.recolour)
        return self.net.lower(self.net.pixels(tiles)), turns


def _small(t: Tensor) -> Tensor:
    """Return a tensor as it is kept: on the CPU, half precision where that holds it."""
    t = t.detach().cpu()
    return t.half() if t.numel() == 0 or float(t.abs().max()) < 6e4 else t


def _joined(parts: list[Lower]) -> Lower:
    tables = zip(*(p.parts() for p in parts), strict=True)
    whole = iter([torch.cat(list(t)) for t in tables])
    return parts[0].of(lambda _t: next(whole))
