"""A frozen network taken apart, so that a tuning method can reach in between its blocks.

timm runs a transformer in one call; prompts and adapters need the tokens before
and after each block, and what lies below the first changed block is computed once
and kept. The loop here is timm's own, step by step, and gives the same bits when
nothing is added. Networks without a token sequence run whole; methods reach them
through their stages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pathotune.models.backbones import normalised, on_grid

if TYPE_CHECKING:
    from pathotune.models.cards import ModelCard, Part
    from pathotune.models.tuning._delta import Delta

_TOKENS = ("vit_", "deit", "eva", "flexivit", "beit3")


def has_tokens(architecture: str) -> bool:
    """Tell from an architecture's name in timm whether it is a plain sequence of tokens."""
    return architecture.startswith(_TOKENS)


def tuned_part(card: ModelCard) -> int:
    """Return which of a card's parts is tuned: the first transformer, else the first."""
    found = (i for i, part in enumerate(card.parts) if has_tokens(part.timm))
    return next(found, 0)


@dataclass
class State:
    """Tokens on their way through a trunk.

    Attributes
    ----------
    x : (B, prefix + N, C) tensor
        Tokens that enter block `level`; for networks without tokens the pixels.
    level : int
        The next block.
    maps : list of (B, C, h, w) tensors
        What was tapped below.
    stem : tensor or None
        The tokens that entered block 0, for methods that look at them.
    kept : (n,) tensor or None
        Which of the N patch tokens are there, when some were left out to save time.
    slots : int
        Prompts that stand between prefix and patches.
    """

    x: Any
    level: int = 0
    maps: list[Any] = field(default_factory=list)
    stem: Any = None
    kept: Any = None
    slots: int = 0


class Trunk:
    """One part of a card, open between its blocks.

    Attributes
    ----------
    kind : {"vit", "eva", "stages"}
    width : int
        Channels of a token; of the last tapped stage for networks without tokens.
    depth : int
        Blocks up to the last tap; 1 for networks without tokens.
    prefix : int
        Tokens that stand for no place: class and register tokens.
    grid : (int, int)
        Patch tokens along the sides.
    channels : int
        Channels of all tapped maps together.
    """

    def __init__(self, part: Part, network: Any, tile_px: int, tokens: int) -> None:
        from timm.models.eva import Eva
        from timm.models.vision_transformer import VisionTransformer

        self.part = part
        self.network = network
        self.tokens = tokens
        self.tile_px = tile_px
        self.kind = "stages"
        if isinstance(network, VisionTransformer):
            self.kind = "vit"
        elif isinstance(network, Eva):
            self.kind = "eva"
        self._rope: Any = None
        self._kept: dict[str, Any] = {}
        if self.kind == "stages":
            info = [network.feature_info[t]["num_chs"] for t in part.taps]
            self.width, self.depth, self.prefix = int(info[-1]), 1, 0
            self.channels = int(sum(info))
            self.grid = (tokens, tokens)
        else:
            self.width = int(network.embed_dim)
            self.depth = max(part.taps) + 1
            self.prefix = int(network.num_prefix_tokens)
            self.channels = self.width * len(part.taps)
            side = part.input_px or tile_px
            self.grid = tuple(network.patch_embed.dynamic_feat_size((side, side)))

    @property
    def patches(self) -> int:
        """Patch tokens of a tile."""
        return self.grid[0] * self.grid[1]

    @property
    def size(self) -> int:
        """Numbers in the network up to its last tap."""
        return sum(p.numel() for p in self.network.parameters())

    def block(self, level: int) -> Any:
        """Return a block of a transformer."""
        return self.network.blocks[level]

    def stem(self, pixels: Any) -> State:
        """Return what enters block 0 from pixels (B, 3, P, P), 0 to 1."""
        pixels = normalised(self.part, pixels)
        if self.kind == "stages":
            return State(pixels)
        net = self.network
        x = net.patch_embed(pixels)
        if self.kind == "eva":
            x, self._rope = net._pos_embed(x)
        else:
            x = net.patch_drop(net._pos_embed(x))
        return State(net.norm_pre(x))

    def through(self, level: int, x: Any) -> Any:
        """Return tokens after a block; rotary places are added as the network does."""
        if self.kind == "vit":
            return self.block(level)(x)
        mixed = getattr(self.network, "rope_mixed", False) and self._rope is not None
        return self.block(level)(x, rope=self._rope[level] if mixed else self._rope)

    def run(self, state: State, stop: int | None = None, delta: Delta | None = None) -> State:
        """Take tokens through the blocks up to `stop` (all by default), with what a method adds."""
        import torch

        stop = self.depth if stop is None else stop
        if self.kind == "stages":
            return self._whole(state) if state.level < stop else state
        context = None if delta is None else delta.start(state)
        x = state.x
        maps = list(state.maps)
        for level in range(state.level, stop):
            changed = delta is not None and level >= delta.first
            if delta is not None and changed:
                x = delta.before(level, x, context, state)
            x = self.through(level, x)
            if delta is not None and changed:
                x = delta.behind(level, x)
            if level in self.part.taps:
                y = self.network.norm(x) if self.part.norm == "final" else x
                y = y[:, self.prefix + state.slots :]
                if state.kept is not None:
                    whole = y.new_zeros(len(y), self.patches, y.shape[-1])
                    y = torch.index_copy(whole, 1, state.kept, y)
                maps.append(y.reshape(len(y), *self.grid, -1).permute(0, 3, 1, 2))
        slots = state.slots
        return State(x, stop, maps, state.stem, state.kept, slots)

    def _whole(self, state: State) -> State:
        maps = self.network.forward_intermediates(
            state.x,
            indices=list(self.part.taps),
            norm=self.part.norm == "final",
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return State(state.x[:, :0], 1, list(maps), state.stem)  # one row a tile, for batches

    def features(self, pixels: Any) -> Any:
        """Return what timm's ``forward_features`` gives for pixels (B, 3, P, P), 0 to 1."""
        state = self.stem(pixels)
        if self.kind == "stages":
            return self.network.forward_features(state.x)
        x = state.x
        for level in range(len(self.network.blocks)):
            x = self.through(level, x)
        return self.network.norm(x)

    def place(self, maps: list[Any]) -> Any:
        """Return tapped maps as one map (B, T, T, channels) on the card's token grid."""
        import torch

        return torch.cat(on_grid(self.part, maps, self.tokens), 1).permute(0, 2, 3, 1)

    def stages(self) -> list[tuple[Any, int]]:
        """Return (module, channels) of the stages that methods may add to, up to the last tap."""
        info = [self.network.feature_info[i] for i in range(max(self.part.taps) + 1)]
        return [(self.network.get_submodule(i["module"]), int(i["num_chs"])) for i in info]

    def open(self, first: int) -> dict[str, Any]:
        """Let the weights from block `first` on learn; return them by name."""
        opened = {}
        for name, weight in self.network.named_parameters():
            head, _, rest = name.partition(".")
            if self.kind != "stages" and first > 0:
                level = int(rest.partition(".")[0]) if head == "blocks" else -1
                if level < first and not (head == "norm" and self.part.norm == "final"):
                    continue
            self._kept.setdefault(name, weight.detach().clone())
            opened[name] = weight.requires_grad_(True)
        return opened

    def close(self) -> None:
        """Freeze everything and put the weights back as they were."""
        import torch

        table = dict(self.network.named_parameters())
        with torch.no_grad():
            for name, before in self._kept.items():
                table[name].copy_(before)
        self._kept.clear()
        self.network.requires_grad_(False)
