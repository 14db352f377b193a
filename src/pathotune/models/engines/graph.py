"""One part of a card as a closed function from bytes to token features.

Compilers want a single graph without Python in it: pixels in, tokens out, with
the scaling, the part's network, its share of the projection and nothing else.
The projection is linear, so every part projects its own channels and the sum
of the parts is what the whole would give; each part can then have a precision
of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from pathotune.models.cards import ModelCard


def part_graphs(
    card: ModelCard, networks: list[Any], projection: dict[str, Any] | None
) -> list[Any]:
    """Return a module for each part: (B, P, P, 3) uint8 -> (B, T, T, C or D) float32.

    Without a projection the parts' channels are to be joined, with one summed.
    """
    import torch

    from pathotune.models.backbones import part_maps

    class PartGraph(torch.nn.Module):
        def __init__(self, index: int) -> None:
            super().__init__()
            self.part = card.parts[index]
            self.network = networks[index]
            self.basis: Any = None
            self.mean: Any = None

        def project(self, start: int, stop: int) -> None:
            if projection is None:
                return
            scale = projection.get("scale")
            basis = projection["basis"]
            self.basis = (basis if scale is None else basis / scale)[start:stop].contiguous()
            if "mean" in projection:
                self.mean = projection["mean"][start:stop].contiguous()

        def forward(self, tiles: Any) -> Any:
            pixels = tiles.permute(0, 3, 1, 2).float() / 255.0
            maps = part_maps(self.part, self.network, pixels, card.tokens)
            x = torch.cat(maps, dim=1).permute(0, 2, 3, 1)
            if self.mean is not None:
                x = x - self.mean
            return x if self.basis is None else x @ self.basis

    graphs, start = [], 0
    example = torch.full((1, card.tile_px, card.tile_px, 3), 255, dtype=torch.uint8)
    for index, network in enumerate(networks):
        graph = PartGraph(index).eval()
        device = next(network.parameters()).device
        with torch.inference_mode():
            channels = int(graph(example.to(device)).shape[-1])
        graph.project(start, start + channels)
        start += channels
        graphs.append(graph)
    if projection is not None and start != projection["basis"].shape[0]:
        raise PathotuneError(
            f"The projection of {card.name} expects {projection['basis'].shape[0]} "
            f"channels, its parts give {start}.",
            "The card's taps and its projection do not belong together.",
        )
    return graphs
