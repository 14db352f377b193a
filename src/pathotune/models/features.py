"""The token features of one slide, kept on disk, so that a new stroke costs no network.

A backbone looks at every piece of tissue once; its tokens are kept as eight-bit
numbers with one scale a token, in blocks of one tile. Every probe, window and
export reads them from here through numpy alone. The key is the slide's stamp,
the card's hash, the lattice and the exactness asked for: a changed slide or
weight file finds an empty store, and old ones are thrown out oldest first. A
full disk costs the keeping, not the work: what no longer fits stays in memory.
"""

from __future__ import annotations

import hashlib
import json
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pathotune.events import PathotuneError
from pathotune.models import _cache
from pathotune.models._blockfile import BlockFile
from pathotune.models._neighbours import box_mean, neighbour_sums
from pathotune.models.extract import compute_features

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.models.cards import ModelCard
    from pathotune.slides.tiles import TileGrid

__all__ = ["FeatureStore", "box_mean", "compute_features"]

_FORMAT = 1
_MEMORY = 1 << 30  # slots from here on are blocks in memory
_MEMORY_BYTES = 1 << 30  # what may stay in memory when the disk takes no more
_LOOK = 32  # tiles between two looks at how much room is taken
_GATHER = 4096  # scattered tokens at a time: bounds the memory of their neighbours


class FeatureStore:
    """Token features of one slide; one writer and many readers in one process.

    Attributes
    ----------
    dims : int
        Features of a token.
    shape : (int, int)
        Rows and columns of the lattice.
    problem : str or None
        Why features are kept in memory only, in the user's words.
    limit_bytes : int
        What all stores together may take.
    """

    limit_bytes: ClassVar[int] = 20_000_000_000
    _open: ClassVar[dict[Path, FeatureStore]] = {}
    _open_lock: ClassVar[RLock] = RLock()

    def __init__(self, folder: Path, dims: int, grid: TileGrid, facts: dict[str, Any]) -> None:
        self.folder = folder
        self.dims = dims
        self.core = grid.core
        self.shape = (grid.lattice.rows, grid.lattice.cols)
        self.problem: str | None = None
        core = grid.core
        self._dtype = np.dtype([("scale", "<f4", (core, core)), ("q", "i1", (core, core, dims))])
        self._slots = np.full((grid.tile_rows, grid.tile_cols), -1, dtype=np.int64)
        self._memory: list[NDArray[Any]] = []
        self._file: BlockFile | None = None
        self._users, self._puts = 1, 0
        self._lock = RLock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = BlockFile(folder, self._dtype)
            for row, col, slot in self._file.known():
                if row < grid.tile_rows and col < grid.tile_cols:
                    self._slots[row, col] = slot
            if self._file.writable:
                (folder / "about.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
            else:
                self.problem = (
                    "Another program computes features of this slide. What is computed here "
                    "is not kept."
                )
        except OSError as error:
            self._keep_in_memory(error)

    @classmethod
    def open(
        cls,
        slide_stamp: str,
        card: ModelCard,
        grid: TileGrid,
        root: Path | None = None,
        device: str = "auto",
    ) -> FeatureStore:
        """Open the store of a slide, a card and a lattice; empty when there is none yet.

        The same store opened twice in a process is one object, closed when each
        opener has closed it. A folder that cannot be written is no error: see `problem`.

        Parameters
        ----------
        slide_stamp : str
            `Slide.stamp`: changes when the file changes.
        card : ModelCard
        grid : TileGrid
        root : Path, optional
            Folder of all stores; by default in the user's cache.
        device : str
            Where features will be computed. Those of 32 bits ("cpu-f32") are kept apart:
            16 bits move a token by one and a half times what keeping it in eight does.
        """
        lattice = grid.lattice
        facts = {
            "format": _FORMAT,
            "slide": slide_stamp,
            "model": card.hash(),
            "lattice": [lattice.x0, lattice.y0, lattice.step, lattice.rows, lattice.cols],
            "tile": [grid.core, grid.halo, grid.token_px, card.dims],
        }
        if device.endswith("-f32"):
            facts["exact"] = True
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
        folder = (_cache.root(root) / key).absolute()
        with cls._open_lock:
            found = cls._open.get(folder)
            if found is not None:
                found._users += 1
                return found
            if not folder.exists():
                cls.evict(cls.limit_bytes, root)
            store = cls(folder, card.dims, grid, facts | {"model_id": card.id})
            cls._open[folder] = store
            return store

    def close(self) -> None:
        """Close; what is on disk stays."""
        with self._open_lock:
            self._users -= 1
            if self._users > 0:
                return
            self._open.pop(self.folder, None)
        with self._lock:
            self._slots[:] = -1
            self._memory.clear()
            if self._file is not None:
                self._file.close()
                self._file = None

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def nbytes(self) -> int:
        """Bytes kept, on disk and in memory."""
        on_disk = self._file.nbytes if self._file is not None else 0
        return on_disk + len(self._memory) * self._dtype.itemsize

    def has(self, cell: Iterable[int]) -> bool:
        """Tell whether a tile's features are here and undamaged."""
        row, col = (int(v) for v in cell)
        return self._slot(row, col) >= 0

    def missing(self, cells: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Return those of the tiles (n, 2) that are not here, in the same order.

        Checks what it passes over (about 1 GB a second, once): call it in a worker.
        """
        cells = np.asarray(cells, dtype=np.int32).reshape(-1, 2)
        return cells[[not self.has(cell) for cell in cells]]

    def _slot(self, row: int, col: int) -> int:
        """Return a tile's slot, or -1; a block found damaged is forgotten."""
        slot = int(self._slots[row, col])
        file = self._file
        if slot < 0 or slot >= _MEMORY or file is None:
            return slot
        try:
            if file.sound(slot):
                return slot
        except (OSError, ValueError):  # the file was cut or removed under us
            pass
        self._slots[row, col] = -1
        return -1

    def _block(self, slot: int) -> NDArray[Any] | None:
        if slot >= _MEMORY:
            return self._memory[slot - _MEMORY]
        file = self._file
        return None if file is None else file.blocks(slot)[slot]

    def put(self, cell: Iterable[int], tokens: NDArray[np.float32]) -> None:
        """Keep a tile's tokens.

        Parameters
        ----------
        cell : (row, col)
        tokens : (core, core, D) float32

        Raises
        ------
        PathotuneError
            The disk is full and so is the memory set aside.
        """
        row, col = (int(v) for v in cell)
        if tokens.shape != (self.core, self.core, self.dims):
            raise ValueError(f"expected {(self.core, self.core, self.dims)}, not {tokens.shape}")
        block = self._quantised(tokens)
        self._puts += 1
        if self._puts % _LOOK == 0:
            self._keep_to_limit()
        with self._lock:
            if self.problem is None and self._file is not None:
                try:
                    self._slots[row, col] = self._file.append(row, col, block)
                    return
                except OSError as error:
                    self._keep_in_memory(error)
            if (len(self._memory) + 1) * block.nbytes > _MEMORY_BYTES:
                raise PathotuneError(
                    "The computation stopped: the features of this slide can be kept neither on "
                    "disk nor in memory. The map so far stays.",
                    f"Make room on the disk of {self.folder.parent}, or choose another folder for "
                    "features in the preferences.",
                )
            self._memory.append(block)
            self._slots[row, col] = _MEMORY + len(self._memory) - 1

    def _quantised(self, tokens: NDArray[np.float32]) -> NDArray[Any]:
        finite = np.nan_to_num(tokens, nan=0.0, posinf=0.0, neginf=0.0)
        block = np.zeros((), dtype=self._dtype)
        scale = np.abs(finite).max(axis=-1) / np.float32(127)
        block["scale"] = scale
        steps = finite / np.maximum(scale, np.float32(1e-30))[..., None]
        block["q"] = np.rint(steps).astype(np.int8)
        return block

    def _keep_to_limit(self) -> None:
        """Make room for a store that grows: others go first, then it grows in memory only."""
        root, limit = self.folder.parent, self.limit_bytes
        if self.problem is None and self.usage(root) > limit:
            self.evict(limit, root)
            if self.usage(root) > limit:
                self.problem = (
                    f"The features of this slide fill the {limit / 1e9:.3g} GB set aside for them. "
                    "The work goes on, but the rest will be computed again next time; the "
                    "preferences give them more room."
                )

    def _keep_in_memory(self, error: OSError) -> None:
        why = _cache.why(error)
        self.problem = (
            f"Features cannot be kept in {self.folder.parent}: {why}. The work goes on, but this "
            "slide will be computed again next time."
        )

    def window(
        self,
        row0: int,
        col0: int,
        row1: int,
        col1: int,
        neighbourhood: int = 1,
        allowed: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a box of tokens.

        Parameters
        ----------
        row0, col0, row1, col1 : int
            Half-open; may reach beyond the lattice.
        neighbourhood : int
            Average each token with its valid neighbours in this square, those just
            outside the box included.
        allowed : (rows, cols) bool, optional
            Tokens of the lattice that count, for instance those on tissue.

        Returns
        -------
        features : (h, w, D) float32
            Zero where not valid.
        valid : (h, w) bool
        """
        rim = neighbourhood // 2
        r0, c0, h, w = row0 - rim, col0 - rim, row1 - row0 + 2 * rim, col1 - col0 + 2 * rim
        q = np.zeros((h, w, self.dims), dtype=np.int8)
        scale = np.zeros((h, w), dtype=np.float32)
        valid = np.zeros((h, w), dtype=bool)
        core, (rows, cols) = self.core, self.shape
        top, bottom = max(r0, 0), min(r0 + h, rows)
        left, right = max(c0, 0), min(c0 + w, cols)
        for i in range(top // core, -(-bottom // core)):
            for j in range(left // core, -(-right // core)):
                slot = self._slot(i, j)
                block = self._block(slot) if slot >= 0 else None
                if block is None:
                    continue
                a, b = max(top, i * core), min(bottom, (i + 1) * core)
                c, d = max(left, j * core), min(right, (j + 1) * core)
                here = np.s_[a - r0 : b - r0, c - c0 : d - c0]
                there = np.s_[a - i * core : b - i * core, c - j * core : d - j * core]
                q[here], scale[here], valid[here] = block["q"][there], block["scale"][there], True
        if allowed is not None and top < bottom and left < right:
            here = np.s_[top - r0 : bottom - r0, left - c0 : right - c0]
            valid[here] &= allowed[top:bottom, left:right]
            scale[~valid] = 0.0
        features = np.multiply(q, scale[..., None], dtype=np.float32)
        if rim:
            features = box_mean(features, valid, neighbourhood)[rim : h - rim, rim : w - rim]
            valid = valid[rim : h - rim, rim : w - rim]
            features = np.where(valid[..., None], features, np.float32(0))
        return features, valid

    def gather(
        self,
        rows: NDArray[np.integer[Any]],
        cols: NDArray[np.integer[Any]],
        neighbourhood: int = 1,
        allowed: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read scattered tokens.

        Parameters
        ----------
        rows, cols : (n,) int
            Inside the lattice.
        neighbourhood, allowed
            As for `window`.

        Returns
        -------
        features : (n, D) float32
            Zero where not ok.
        ok : (n,) bool
            The token itself is here (and allowed).
        """
        rows, cols = np.asarray(rows), np.asarray(cols)
        features = np.zeros((len(rows), self.dims), dtype=np.float32)
        ok = np.zeros(len(rows), dtype=bool)
        order = np.lexsort((cols, rows))
        for start in range(0, len(rows), _GATHER):
            part = order[start : start + _GATHER]
            r, c, matrix = neighbour_sums(rows[part], cols[part], self.shape, neighbourhood)
            values, valid = self._scattered(r, c)
            if allowed is not None:
                valid &= allowed[r, c]
                values[~valid] = 0.0
            count = np.maximum(matrix @ valid.astype(np.float32), 1.0)
            own = np.searchsorted(r * self.shape[1] + c, rows[part] * self.shape[1] + cols[part])
            ok[part] = valid[own]
            features[part] = (matrix @ values) / count[:, None] * valid[own][:, None]
        return features, ok

    def _scattered(
        self, rows: NDArray[np.intp], cols: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return (m, D) features and (m,) validity of single tokens."""
        values = np.zeros((len(rows), self.dims), dtype=np.float32)
        valid = np.zeros(len(rows), dtype=bool)
        i, j = rows // self.core, cols // self.core
        tile = i * self._slots.shape[1] + j
        order = np.argsort(tile, kind="stable")
        starts = np.flatnonzero(np.diff(tile[order], prepend=-1))
        for at in np.split(order, starts[1:]):
            if not len(at):
                continue
            slot = self._slot(int(i[at[0]]), int(j[at[0]]))
            block = self._block(slot) if slot >= 0 else None
            if block is not None:
                r, c = rows[at] % self.core, cols[at] % self.core
                values[at] = block["q"][r, c] * block["scale"][r, c][:, None]
                valid[at] = True
        return values, valid

    @staticmethod
    def usage(root: Path | None = None) -> int:
        """Return the bytes that all stores take on disk."""
        return sum(size for _, size, _ in _cache.stores(root))

    @classmethod
    def evict(cls, limit_bytes: int, root: Path | None = None) -> int:
        """Remove whole stores, the longest unused first, until all fit in `limit_bytes`.

        Stores that this or another process has open stay. The limit holds from now on.
        Returns the bytes freed.
        """
        with cls._open_lock:
            cls.limit_bytes = limit_bytes
            return _cache.evict(limit_bytes, root, cls._open)
