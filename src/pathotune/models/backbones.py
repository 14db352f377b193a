"""From a model card to tokens: one path for every family of timm.

Each part of a card becomes a frozen timm network whose ``forward_intermediates``
gives feature maps with their grid: prefix tokens are counted by timm, never
assumed, and maps laid out channels-last come back channels-first. The maps are
brought to the card's token grid, joined, cut to the tile's core and projected.
Batches have one fixed shape, so that a tile's tokens do not depend on what
happens to share its batch. What runs the networks is an engine (`engines`).
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import Note, PathotuneError
from pathotune.models import runtime
from pathotune.models._torchvision import import_timm
from pathotune.models.checkpoints import kind
from pathotune.models.engines import batch, compiling
from pathotune.models.engines.eager import EagerEngine
from pathotune.models.families import empty_network, fill, misfit, to_timm
from pathotune.models.weights import is_offline, read_state, resolve, set_offline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from pathotune.models.cards import ModelCard, Part
    from pathotune.models.engines import Engine

__all__ = ["Backbone", "is_offline", "load_backbone", "set_offline"]


def load_backbone(
    card: ModelCard, device: str = "cpu", allow_download: bool = False, fast: bool = False
) -> Backbone:
    """Build the frozen networks of a card with their checked weights.

    Parameters
    ----------
    card : ModelCard
    device : str
        As `runtime.pick_device` returns it, or "auto".
    allow_download : bool
        The user agreed to fetch this model; the offline switch overrules it.
    fast : bool
        Let the fastest engine run it that gives the same answers (`engines.choice`);
        otherwise torch in 32 bits, which `check` has seen working.

    Raises
    ------
    PathotuneError
        Weights missing, not agreed to, damaged, of another sha256, or not fitting
        the architecture; the architecture is unknown to timm.
    """
    device = runtime.pick_device(device)

    def load() -> tuple[list[Any], dict[str, Any] | None]:
        networks, projection = load_networks(card, device, allow_download)
        Backbone(card, device, networks, projection).check()
        return networks, projection

    if not fast:
        return Backbone(card, device, *load())
    from pathotune.models.engines.choice import choose

    engine, notes = choose(card, device, load)
    backbone = Backbone(card, device, [], None, engine, notes)
    backbone.find_batch()
    if isinstance(engine, EagerEngine) and compiling.wanted(card, device):
        engine.compile(backbone.batch)
    return backbone


def load_networks(
    card: ModelCard, device: str, allow_download: bool = False
) -> tuple[list[Any], dict[str, Any] | None]:
    """Return a card's frozen networks, one a part, and its projection, for one user alone.

    What tunes a network changes it in place, so nobody else may hold it. Raises as
    `load_backbone`.
    """
    device = runtime.split(device)[0]
    files = [resolve(part.weights, card, allow_download) for part in card.parts]
    projection_file = card.projection and resolve(card.projection, card, allow_download)
    import_timm()
    import torch

    side = card.tile_px
    networks = [
        _build(card, part, read_state(file), part.input_px or side).to(
            device,
            memory_format=torch.channels_last,  # convolutions a tenth faster, same numbers
        )
        for part, file in zip(card.parts, files, strict=True)
    ]
    projection = None
    if projection_file:
        projection = {k: v.to(device) for k, v in read_state(projection_file).items()}
    return networks, projection


def _build(card: ModelCard, part: Part, state: dict[str, Any], side: int) -> Any:
    """Return one part's network, cut after its last tap, with weights, in eval mode."""
    try:
        network = empty_network(part.timm, part.kwargs, side)
        whole = set(network.state_dict())
        if not hasattr(network, "forward_intermediates"):
            raise ValueError("it gives no feature maps")
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise _not_described(card, part, error) from error
    try:
        fitted = to_timm(state, network)
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        raise _do_not_fit(card, part, state, str(error)) from error
    try:
        network.prune_intermediate_layers(list(part.taps), prune_norm=part.norm != "final")
    except (ValueError, TypeError, AssertionError, IndexError) as error:
        raise _not_described(card, part, error) from error
    missing, foreign, shapes = misfit(network, fitted, whole)
    if missing or foreign or shapes:
        what = (missing + shapes + foreign)[0]
        counts = f"{len(missing)} missing, {len(foreign)} unknown, {len(shapes)} of another shape"
        raise _do_not_fit(card, part, state, f"{counts}, {what} for one")
    fill(network, fitted)
    return network.eval().requires_grad_(False)


def _not_described(card: ModelCard, part: Part, error: Exception) -> PathotuneError:
    return PathotuneError(
        f"The model card of {card.name} does not describe a network that can be built "
        f"({part.timm}: {error}).",
        f"Check timm, taps and kwargs in {card.source or card.id}.",
    )


def _do_not_fit(card: ModelCard, part: Part, state: dict[str, Any], why: str) -> PathotuneError:
    return PathotuneError(
        f"The weights of {card.name} do not fit {part.timm}: the file holds "
        f"{kind(state).words} ({why}).",
        f"Check that the file is {card.name}'s, or `timm` and `kwargs` in "
        f"{card.source or card.id}.",
    )


class Backbone:
    """The frozen networks of a card on a device.

    Parameters
    ----------
    card : ModelCard
    device : str
    networks : list of torch.nn.Module
        One for each part.
    projection : dict or None
        Tensors "basis" (C, D), and optionally "mean" (C,) and "scale" (D,): tokens
        become ``((x - mean) @ basis) / scale``.
    engine : Engine, optional
        What runs them; by default torch in 32 bits.
    notes : iterable of Note
        What the user should know already.
    """

    def __init__(
        self,
        card: ModelCard,
        device: str,
        networks: list[Any],
        projection: dict[str, Any] | None,
        engine: Engine | None = None,
        notes: Iterable[Note] = (),
    ) -> None:
        self.card = card
        self.device = device
        self.batch = runtime.batch_size(device, card.tile_px)
        self._networks = networks
        self._projection = projection
        self._notes: list[Note] = list(notes)
        self._check_projection()
        where = runtime.split(device)[0]
        self.engine = engine or EagerEngine(card, where, networks, projection)
        self._own = threading.local()
        self._halving = threading.Lock()

    def _check_projection(self) -> None:
        if self._projection is None:
            return
        basis = self._projection.get("basis")
        if basis is None or basis.ndim != 2 or basis.shape[1] != self.card.dims:
            raise PathotuneError(
                f"The projection of {self.card.name} does not give {self.card.dims} features.",
                "It must hold `basis` (channels, dims), and may hold `mean` and `scale`.",
            )

    def check(self) -> None:
        """Run one white tile, so that a card that does not hang together fails here."""
        side = self.card.tile_px
        try:
            self._forward(np.full((1, side, side, 3), 255, dtype=np.uint8), 0)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            if runtime.is_out_of_memory(error):
                raise runtime.too_little_memory(self.card, self.device) from error
            raise PathotuneError(
                f"{self.card.name} was built but cannot look at a tile ({error}).",
                f"Check tile_px, taps, norm and kwargs in {self.card.source or self.card.id}.",
            ) from error

    def notes(self) -> list[Note]:
        """Return, once, what the user should know about the run so far."""
        notes, self._notes = self._notes, []
        if isinstance(self.engine, EagerEngine):
            notes += self.engine.notes
            self.engine.notes.clear()
        return notes

    def tokens(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the tokens of the tiles' cores.

        Parameters
        ----------
        tiles : (B, P, P, 3) uint8
            Whole tiles with their halo, RGB, at the card's um/px; any B.

        Returns
        -------
        (B, core, core, D) float32
        """
        return self._run(tiles, self.card.halo)

    def tokens_full(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the tokens of whole tiles, halo included: (B, T, T, D) float32."""
        return self._run(tiles, 0)

    def find_batch(self) -> None:
        """On a graphics card: find the batch that suits it, once for card and network."""
        where = runtime.split(self.device)[0]
        if not where.startswith("cuda"):
            return
        import torch

        key = [torch.cuda.get_device_name(where), self.card.hash(), self.device, torch.__version__]
        self.batch = batch.remembered(
            key,
            lambda: batch.find(
                lambda tiles: self._forward(tiles, 0),
                self.card.tile_px,
                lambda: runtime.release_memory(where),
            ),
        )

    @contextmanager
    def ahead(self) -> Iterator[Callable[[NDArray[np.uint8]], Future[NDArray[np.float32]]]]:
        """Compute in threads of its own: gives a function that begins with a batch.

        Batches are begun in order, as many at a time as the engine has lanes; what
        the function returns will hold their `tokens`. Leaving waits for the batches
        that run and gives up those that do not yet.
        """
        threads = runtime.threads_here()  # the caller's share of the cores, not a lane's
        lanes = ThreadPoolExecutor(self.engine.lanes, "pathotune-model", self._share, (threads,))
        try:
            yield lambda tiles: lanes.submit(self.tokens, tiles)
        finally:
            lanes.shutdown(wait=True, cancel_futures=True)

    def _share(self, threads: int) -> None:
        self._own.threads = threads

    def _threads(self) -> int:
        return int(getattr(self._own, "threads", 0)) or runtime.threads_here()

    def _run(self, tiles: NDArray[np.uint8], crop: int) -> NDArray[np.float32]:
        side = self.card.tile_px
        if tiles.ndim != 4 or tiles.shape[1:] != (side, side, 3) or tiles.dtype != np.uint8:
            raise ValueError(f"tiles must be (B, {side}, {side}, 3) uint8, not {tiles.shape}")
        grid = self.card.tokens - 2 * crop
        out = np.empty((len(tiles), grid, grid, self.card.dims), dtype=np.float32)
        start = 0
        while start < len(tiles):
            size = self.batch
            chunk = tiles[start : start + size]
            try:
                out[start : start + len(chunk)] = self._forward(_padded(chunk, size), crop)[
                    : len(chunk)
                ]
            except (RuntimeError, MemoryError) as error:
                if not runtime.is_out_of_memory(error):
                    raise
                self._halve(error, size)
                continue
            start += len(chunk)
        return out

    def _halve(self, error: BaseException, size: int) -> None:
        runtime.release_memory(self.device)
        with self._halving:
            if self.batch < size:  # another lane met the same end and has done it
                return
            if size == 1:
                raise runtime.too_little_memory(self.card, self.device) from error
            self.batch = size // 2
            self._notes.append(
                Note(
                    "Memory ran short: the computation goes on with "
                    f"{self.batch} tile{'s' if self.batch > 1 else ''} at a time.",
                    "warning",
                )
            )

    def _forward(self, tiles: NDArray[np.uint8], crop: int) -> NDArray[np.float32]:
        x = self.engine.run(tiles, self._threads())
        if x.shape[-1] != self.card.dims:
            raise PathotuneError(
                f"{self.card.name} gives {x.shape[-1]} features, its card says {self.card.dims}.",
                f"Set dims = {x.shape[-1]} in {self.card.source or self.card.id}.",
            )
        return x[:, crop:-crop, crop:-crop] if crop else x


def normalised(part: Part, pixels: Any) -> Any:
    """Return pixels (B, 3, P, P) from 0 to 1 at the size and scale that a part's network reads."""
    import torch
    from torch.nn import functional

    side = part.input_px
    if side is not None and side != pixels.shape[-1]:
        smaller = side < pixels.shape[-1]  # where it enlarges, the filter costs time for nothing
        pixels = functional.interpolate(
            pixels, size=(side, side), mode="bilinear", antialias=smaller
        )
    mean = torch.tensor(part.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(part.std, device=pixels.device).view(1, 3, 1, 1)
    return (pixels - mean) / std


def part_maps(part: Part, network: Any, pixels: Any, tokens: int) -> list[Any]:
    """Return one part's maps (B, C, tokens, tokens) of pixels (B, 3, P, P) from 0 to 1."""
    maps = network.forward_intermediates(
        normalised(part, pixels),
        indices=list(part.taps),
        norm=part.norm == "final",
        output_fmt="NCHW",
        intermediates_only=True,
    )
    return on_grid(part, maps, tokens)


def on_grid(part: Part, maps: list[Any], tokens: int) -> list[Any]:
    """Finish a part's tapped maps (B, C, h, w): its norm, then the card's token grid."""
    from torch.nn import functional

    if part.norm == "token":
        maps = [
            functional.layer_norm(m.permute(0, 2, 3, 1), m.shape[1:2]).permute(0, 3, 1, 2)
            for m in maps
        ]
    return [to_grid(m, tokens) for m in maps]


def _padded(tiles: NDArray[np.uint8], batch: int) -> NDArray[np.uint8]:
    """Fill a short batch up with white tiles."""
    if len(tiles) == batch:
        return tiles
    white = np.full((batch - len(tiles), *tiles.shape[1:]), 255, dtype=np.uint8)
    return np.concatenate([tiles, white])


def to_grid(m: Any, tokens: int) -> Any:
    """Bring a map (B, C, h, w) to (B, C, tokens, tokens): area mean down, bilinear up."""
    from torch.nn import functional

    h, w = m.shape[-2:]
    if (h, w) == (tokens, tokens):
        return m
    if h % tokens == 0 and w % tokens == 0:
        return functional.adaptive_avg_pool2d(m, tokens)
    return functional.interpolate(
        m, size=(tokens, tokens), mode="bilinear", antialias=h > tokens, align_corners=False
    )
