"""Model cards: everything there is to know about a backbone, in one TOML file.

A card says which network to build, where its weights lie, at which um/px and
tile size it looks, which of its blocks become token features, and under which
licence it may be used. Cards ship in ``resources/models``; the user adds more
by dropping files into their own ``models`` folder. Reading a card costs no
torch, so the window can list them at once.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pathotune import places
from pathotune.events import PathotuneError
from pathotune.models import _card_fields as fields

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEFAULT_ID = "pathotune-small"
"""The card that works without a network from the first minute."""

_FEATURES_VERSION = 1  # raise when the way from pixels to tokens changes


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a file of weights lies and what it must contain.

    Parameters
    ----------
    kind : {"embedded", "file", "hub"}
        Shipped with the program; a file or folder on this computer; a model hub.
    where : str
        Path below ``resources/weights``; path (absolute, or relative to the card);
        hub id such as ``timm/vit_small_patch14_dinov2.lvd142m``, with ``@revision``.
    sha256 : str or None
        Digest the file must have. Without it the file's own digest is its identity.
    home : Path or None
        The folder that a relative ``file`` path starts from.
    """

    kind: Literal["embedded", "file", "hub"]
    where: str
    sha256: str | None = None
    home: Path | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Part:
    """One network of a card.

    Parameters
    ----------
    timm : str
        Architecture name in timm.
    weights : Weights
        Its weights.
    mean, std : tuple of float
        Per channel, for pixels scaled to 0..1.
    taps : tuple of int
        Blocks (transformers) or feature stages (convolutional nets), from 0, whose
        maps become features; rising.
    kwargs : mapping
        Passed to ``timm.create_model``.
    depth : int or None
        How many of the first blocks the weights hold, when they are not whole.
    norm : {"none", "final", "token"}
        Applied to each tapped map: nothing, the network's own last norm, or a plain
        layer norm over the channels of each token.
    input_px : int or None
        Resize the tile to this side before the network, so that its grid fits.
    """

    timm: str
    weights: Weights
    mean: tuple[float, ...]
    std: tuple[float, ...]
    taps: tuple[int, ...]
    kwargs: Mapping[str, Any]
    depth: int | None = None
    norm: Literal["none", "final", "token"] = "none"
    input_px: int | None = None

    def identity(self) -> dict[str, Any]:
        """Return all that changes this part's numbers."""
        from pathotune.models.weights import identity

        return {
            "timm": self.timm,
            "weights": identity(self.weights),
            "mean": self.mean,
            "std": self.std,
            "taps": self.taps,
            "kwargs": dict(self.kwargs),
            "depth": self.depth,
            "norm": self.norm,
            "input_px": self.input_px,
        }


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A backbone as the user chooses it; geometry in pixels at `mpp` um/px.

    A tile is `tile_px` wide; it is cut into tokens of `token_px`; `halo` tokens on
    each side only give context and are thrown away. `neighbourhood` is the side,
    in tokens, of the square whose mean a probe looks at. `dims` is the number of
    features a stored token has. `size_mb` is what there is to download or to load.
    `unverified` names the facts that could not be checked against the publisher's words.
    `slower` is the time for an area of tissue against the embedded default's; 0: not measured.
    """

    id: str
    name: str
    about: str
    mpp: float
    tile_px: int
    token_px: int
    halo: int
    neighbourhood: int
    parts: tuple[Part, ...]
    projection: Weights | None
    dims: int
    licence: str
    gated: bool
    size_mb: float
    url: str
    made_for: str
    unverified: str = ""
    slower: float = 0.0
    source: Path | None = field(default=None, compare=False)

    @property
    def tokens(self) -> int:
        """Tokens along a side of the whole tile."""
        return self.tile_px // self.token_px

    @property
    def core(self) -> int:
        """Tokens along a side of what is kept of a tile."""
        return self.tokens - 2 * self.halo

    @property
    def token_um(self) -> float:
        """Side of a token in um."""
        return self.token_px * self.mpp

    @property
    def bytes_per_mm2(self) -> float:
        """Disk space that a mm2 of stored features takes."""
        return (self.dims + 4) * 1e6 / self.token_um**2

    @property
    def needs_download(self) -> bool:
        """Whether weights would have to come over the network now."""
        from pathotune.models.weights import present

        return any(w.kind == "hub" and not present(w) for w in self.weights)

    @property
    def shipped(self) -> bool:
        """Whether the card came with the program, so that nobody has to have its weights."""
        return self.source is not None and self.source.parent == places.resources() / "models"

    @property
    def here(self) -> bool:
        """Whether all weights are on this computer."""
        from pathotune.models.weights import present

        return all(present(w) for w in self.weights)

    @property
    def weights(self) -> tuple[Weights, ...]:
        """Every file the card needs."""
        own = tuple(part.weights for part in self.parts)
        return own if self.projection is None else (*own, self.projection)

    def hash(self) -> str:
        """Return the identity of the features: 16 hex digits.

        Two cards with the same hash give the same tokens for the same slide. Names,
        texts, licence and neighbourhood do not count.

        Raises
        ------
        PathotuneError
            The card gives no sha256 and the weights are not on this computer.
        """
        from pathotune.models.weights import identity

        facts = {
            "version": _FEATURES_VERSION,
            "parts": [part.identity() for part in self.parts],
            "projection": None if self.projection is None else identity(self.projection),
            "geometry": [self.mpp, self.tile_px, self.token_px, self.halo, self.dims],
        }
        text = json.dumps(facts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _weights(table: fields.Table, home: Path) -> Weights:
    kind = table.one_of("kind", ("embedded", "file", "hub"))
    digest = table.text("sha256", "").lower() or None
    if digest is not None and (len(digest) != 64 or set(digest) - set("0123456789abcdef")):
        raise table.wrong("sha256", "must be 64 hex digits")
    weights = Weights(kind, table.text("where"), digest, home)  # type: ignore[arg-type]
    if kind == "embedded" and digest is None:
        raise table.wrong("sha256", "is needed for embedded weights")
    table.done()
    return weights


def _part(table: fields.Table, home: Path) -> Part:
    part = Part(
        timm=table.text("timm"),
        weights=_weights(table.table("weights"), home),
        mean=table.numbers("mean", 3),
        std=table.numbers("std", 3, above=0),
        taps=table.integers("taps"),
        kwargs=table.mapping("kwargs"),
        depth=table.integer("depth", None, low=1),
        norm=table.one_of("norm", ("none", "final", "token"), "none"),  # type: ignore[arg-type]
        input_px=table.integer("input_px", None, low=8),
    )
    if not part.taps or min(part.taps) < 0 or list(part.taps) != sorted(set(part.taps)):
        raise table.wrong("taps", "must be one or more blocks, counted from 0, in rising order")
    if part.depth is not None and max(part.taps) >= part.depth:
        raise table.wrong("taps", f"reach beyond the {part.depth} blocks that are kept")
    table.done()
    return part


def read_card(path: Path, home: Path | None = None) -> ModelCard:
    """Read one card.

    Parameters
    ----------
    path : Path
        A TOML file.
    home : Path, optional
        Where relative weight paths start; the card's folder by default.

    Raises
    ------
    PathotuneError
        Not TOML, or a key is missing or wrong; the message names the file and the key.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PathotuneError(
            f"The model card {path.name} cannot be read: {error}.",
            f"Mend or remove {path}.",
        ) from error
    home = path.parent if home is None else home
    top = fields.Table(raw, path)
    projection = top.maybe_table("projection")
    card = ModelCard(
        id=top.text("id", path.stem),
        name=top.text("name"),
        about=top.text("about"),
        mpp=top.number("mpp", above=0),
        tile_px=top.needed_integer("tile_px", low=8),
        token_px=top.needed_integer("token_px", low=1),
        halo=top.needed_integer("halo", low=0),
        neighbourhood=top.needed_integer("neighbourhood", low=1),
        parts=tuple(_part(t, home) for t in top.tables("parts")),
        projection=None if projection is None else _weights(projection, home),
        dims=top.needed_integer("dims", low=1),
        licence=top.text("licence"),
        gated=top.flag("gated", False),
        size_mb=top.number("size_mb", above=0),
        url=top.text("url", ""),
        made_for=top.text("made_for", ""),
        unverified=top.text("unverified", ""),
        slower=top.number("slower", above=0, default=0.0),
        source=path,
    )
    if card.tile_px % card.token_px:
        raise top.wrong("tile_px", f"must be a multiple of token_px ({card.token_px})")
    if card.core < 1:
        raise top.wrong("halo", f"leaves nothing of a tile of {card.tokens} tokens")
    if card.neighbourhood % 2 == 0:
        raise top.wrong("neighbourhood", "must be odd")
    top.done()
    return card


def user_folder() -> Path:
    """Return the folder where the user's own cards lie; made when it is not there."""
    folder = places.data_dir() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


_known: dict[tuple[Path, Path, int, int], ModelCard] = {}


def _read_once(path: Path, home: Path) -> ModelCard:
    """Read a card again only when its file has changed: lists of them are asked for often."""
    stat = path.stat()
    key = (path, home, stat.st_size, stat.st_mtime_ns)
    if key not in _known:
        _known[key] = read_card(path, home)
    return _known[key]


def cards() -> dict[str, ModelCard]:
    """Return every card by id: the default first, then the shipped, then the user's.

    Raises
    ------
    PathotuneError
        A card is wrong, or two files claim the same id.
    """
    mine = user_folder()
    found: dict[str, ModelCard] = {}
    for folder in (places.resources() / "models", mine):
        for path in sorted(folder.glob("*.toml")):
            card = _read_once(path, mine)
            if card.id in found:
                raise PathotuneError(
                    f"Two model cards have the id {card.id!r}: {found[card.id].source} and {path}.",
                    "Change the id in one of them.",
                )
            found[card.id] = card
    first = {DEFAULT_ID: found[DEFAULT_ID]} if DEFAULT_ID in found else {}
    return first | found


def card(card_id: str) -> ModelCard:
    """Return a card by its id.

    Raises
    ------
    PathotuneError
        There is none of that id.
    """
    known = cards()
    if card_id not in known:
        raise PathotuneError(
            f"There is no model called {card_id!r}.", f"Choose one of: {', '.join(known)}."
        )
    return known[card_id]
