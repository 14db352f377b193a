"""A tuned network: a card's networks, what a method adds to one of them, and a head.

The card's own way from pixels to features stays: the other parts, the token grid and
the projection are the frozen network's, so that a tuned model starts where the
fast model stands. What lies below the first changed block, and all other parts, can
be computed once and kept (`lower`); training runs only what is above (`upper`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError
from pathotune.models.backbones import load_networks, part_maps
from pathotune.models.tuning._trunk import State, Trunk, tuned_part

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from numpy.typing import NDArray

    from pathotune.models.cards import ModelCard
    from pathotune.models.tuning._delta import Delta, Setting


@dataclass
class Lower:
    """What a batch of tiles is below the first changed block.

    Attributes
    ----------
    x : tensor
        Tokens (B, prefix + N, C) that enter the first changed block; pixels if that is 0.
    maps : list of tensors
        What was tapped below it.
    rest : (B, T, T, R) tensor or None
        What the other parts say.
    stem : tensor or None
        Tokens before block 0, for methods that read them.
    """

    x: Any
    maps: list[Any] = field(default_factory=list)
    rest: Any = None
    stem: Any = None

    def parts(self) -> list[Any]:
        """Return the tensors in a fixed order."""
        return [self.x, *self.maps, *(t for t in (self.rest, self.stem) if t is not None)]

    def of(self, change: Any) -> Lower:
        """Return the same with a function applied to every tensor."""
        x, maps = change(self.x), [change(m) for m in self.maps]  # in the order of `parts`
        rest = None if self.rest is None else change(self.rest)
        return Lower(x, maps, rest, None if self.stem is None else change(self.stem))


class Net:
    """A card's networks with room for one delta; for one user alone."""

    def __init__(self, card: ModelCard, device: str) -> None:
        import torch

        networks, projection = load_networks(card, device)
        self.card = card
        self.device = device
        self._at = tuned_part(card)
        self._others = [
            (part, network)
            for i, (part, network) in enumerate(zip(card.parts, networks, strict=True))
            if i != self._at
        ]
        part = card.parts[self._at]
        self.trunk = Trunk(part, networks[self._at], card.tile_px, card.tokens)
        self._basis: Any = None
        self._other_basis: Any = None
        self._shift: Any = None
        if projection is not None:
            widths = [self._width(i, n) for i, n in enumerate(networks)]
            start = sum(widths[: self._at])
            basis = projection["basis"]
            scale = projection.get("scale", torch.ones(basis.shape[1], device=basis.device))
            basis = basis / scale
            own = slice(start, start + widths[self._at])
            self._basis = basis[own]
            self._other_basis = torch.cat([basis[: own.start], basis[own.stop :]])
            if "mean" in projection:
                self._shift = -(projection["mean"] @ basis)
        self.delta: Delta | None = None
        self.weight: Any = None
        self.bias: Any = None
        self.centre: Any = None
        self.spread: Any = None

    def _width(self, i: int, network: Any) -> int:
        part = self.card.parts[i]
        if i == self._at:
            return self.trunk.channels
        if hasattr(network, "embed_dim") and not hasattr(network, "feature_info"):
            return int(network.embed_dim) * len(part.taps)
        return int(sum(network.feature_info[t]["num_chs"] for t in part.taps))

    @property
    def dims(self) -> int:
        """Features of a token."""
        if self._basis is not None and not (self.delta and self.delta.direct):
            return int(self._basis.shape[1])
        if self.delta and self.delta.direct:
            return self.delta.width
        others = sum(self._width(i, n) for i, (_, n) in self._numbered())
        return self.trunk.channels + others

    def _numbered(self) -> list[tuple[int, tuple[Any, Any]]]:
        places = [i for i in range(len(self.card.parts)) if i != self._at]
        return list(zip(places, self._others, strict=True))

    def attach(self, method: ModuleType, config: Any, setting: Setting, seed: int = 0) -> Delta:
        """Put a method's delta in place of the one that is there.

        Raises
        ------
        PathotuneError
            The method cannot serve this network.
        """
        import torch

        reason = method.serves(self.trunk.part.timm)
        if reason is not None:
            raise PathotuneError(
                f"{method.LABEL} cannot tune {self.card.name}. {reason}",
                "Choose another method or another backbone.",
            )
        self.release()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            delta: Delta = method.build(self.trunk, config, setting)
        delta.modules.to(self.device)
        self.delta = delta
        return delta

    def release(self) -> None:
        """Take the delta off; the networks are as they were loaded."""
        if self.delta is not None:
            self.delta.detach()
            self.delta = None

    def set_head(
        self,
        weight: NDArray[Any],
        bias: NDArray[Any],
        centre: NDArray[Any] | None = None,
        spread: NDArray[Any] | None = None,
    ) -> None:
        """Set the head (D, C), (C,); `centre` and `spread` (D,) standardise what it sees."""
        import torch

        def tensor(a: NDArray[Any]) -> Any:
            return torch.from_numpy(np.array(a, np.float32)).to(self.device)

        self.centre = None if centre is None else tensor(centre)
        self.spread = None if spread is None else tensor(spread)
        w, b = tensor(weight), tensor(bias)
        if self.centre is not None and self.spread is not None:
            b = b + self.centre @ w
            w = w * self.spread[:, None]
        self.weight, self.bias = w.requires_grad_(True), b.requires_grad_(True)

    def head(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the head for plain features: (D, C), (C,)."""
        w, b = self.weight.detach(), self.bias.detach()
        if self.centre is not None and self.spread is not None:
            w = w / self.spread[:, None]
            b = b - self.centre @ w
        return w.cpu().numpy().astype(np.float32), b.cpu().numpy().astype(np.float32)

    def pixels(self, tiles: NDArray[np.uint8]) -> Any:
        """Return tiles (B, P, P, 3) as a tensor (B, 3, P, P), 0 to 1, on the device."""
        import torch

        found = torch.from_numpy(np.ascontiguousarray(tiles)).to(self.device)
        return found.permute(0, 3, 1, 2).float().div_(255.0)

    def lower(self, pixels: Any, first: int | None = None) -> Lower:
        """Return what nothing changes: the blocks below, and the other parts; no gradients."""
        import torch

        delta = self.delta
        first = (delta.first if delta else self.trunk.depth) if first is None else first
        with torch.no_grad():
            rest = self._rest(pixels)
            if first == 0:
                return Lower(pixels, [], rest)
            state = self.trunk.stem(pixels)
            stem = state.x if delta is not None and delta.needs_stem else None
            state = self.trunk.run(state, first)
            x = state.x if first < self.trunk.depth else state.x[:, :0]
            return Lower(x, state.maps, rest, stem)

    def _rest(self, pixels: Any) -> Any:
        import torch

        maps = [
            m for part, net in self._others for m in part_maps(part, net, pixels, self.card.tokens)
        ]
        shape = (len(pixels), self.card.tokens, self.card.tokens)
        rest = torch.cat(maps, 1).permute(0, 2, 3, 1) if maps else None
        if self._basis is None:
            return rest
        out = pixels.new_zeros(*shape, self._basis.shape[1])
        if rest is not None:
            out = out + rest @ self._other_basis
        return out if self._shift is None else out + self._shift

    def upper(self, lower: Lower, changed: bool = True, kept: Any = None) -> Any:
        """Return token features (B, T, T, D) from what lies below.

        `changed`: with the delta, else the frozen network's. `kept` (n,): only these patch
        tokens are computed, the others are zero.
        """
        import torch

        delta = self.delta if changed else None
        first = self.delta.first if self.delta else self.trunk.depth
        trunk = self.trunk
        if first == 0:
            state = trunk.stem(lower.x)
            if delta is not None and delta.needs_stem:
                state.stem = state.x
        else:
            state = State(lower.x, first, list(lower.maps), lower.stem)
        if kept is not None and first < trunk.depth and trunk.kind == "vit":
            front = torch.arange(trunk.prefix, device=kept.device)
            state.x = state.x[:, torch.cat([front, kept + trunk.prefix])]
            state.kept = kept
        x = trunk.place(trunk.run(state, None, delta).maps)
        if delta is not None:
            x = delta.finish(x)
            if delta.direct:
                return x
        if self._basis is not None:
            return x @ self._basis + lower.rest
        return x if lower.rest is None else torch.cat([x, lower.rest], -1)

    def logits(self, features: Any) -> Any:
        """Return logits (..., C) of token features (..., D)."""
        if self.centre is not None:
            features = (features - self.centre) / self.spread
        return features @ self.weight + self.bias

    def trained(self) -> dict[str, Any]:
        """Return the delta's trained tensors by name."""
        return self.delta.trained() if self.delta is not None else {}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything learnt, for a bundle: half precision, the head in full."""
        weight, bias = self.head()
        out: dict[str, NDArray[Any]] = {"head.weight": weight, "head.bias": bias}
        for name, tensor in self.trained().items():
            out[name] = tensor.detach().float().cpu().numpy().astype(np.float16)
        if self.delta is not None:
            out |= {f"stored.{k}": np.asarray(v) for k, v in self.delta.stored.items()}
        return out

    def fill(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take trained tensors from a bundle's arrays.

        Raises
        ------
        PathotuneError
            One is missing or of another shape.
        """
        import torch

        if self.delta is not None and any(k.startswith("trunk.") for k in arrays):
            self.delta.open()
        with torch.no_grad():
            for name, tensor in self.trained().items():
                found = arrays.get(name)
                if found is None or found.shape != tuple(tensor.shape):
                    raise damaged()
                tensor.copy_(torch.from_numpy(np.asarray(found, np.float32)))
        weight, bias = arrays.get("head.weight"), arrays.get("head.bias")
        if weight is None or bias is None or weight.shape != (self.dims, len(bias)):
            raise damaged()
        self.set_head(weight, bias)


def damaged() -> PathotuneError:
    """Return the error for a bundle whose parts do not fit its method."""
    return PathotuneError(
        "This model file is damaged: what it holds does not fit its method.",
        "Train and save it again, or take a copy.",
    )
