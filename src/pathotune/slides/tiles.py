"""Where a model looks on a slide, and reading those tiles ahead of it.

Values are drawn per token (about 7 um), so the slide carries a lattice of
tokens anchored at a fixed corner. A tile is read with a margin of tokens on
every side that are thrown away, because what a network says near the border of
its input depends on the border: no tile grid shows in a map. Everything
follows from slide size, um/px and the model, never from the order of reading.
"""

from __future__ import annotations

import math
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.slides.geometry import Region

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from numpy.typing import NDArray

    from pathotune.slides.slide import Slide
    from pathotune.slides.tissue import TissueMask

Cell = tuple[int, int]


@dataclass(frozen=True)
class Lattice:
    """Tokens over a slide.

    Token (r, c) covers x in [x0 + c * step, x0 + (c + 1) * step), in level-0
    pixels, and y likewise.
    """

    x0: float
    y0: float
    step: float
    rows: int
    cols: int

    def centres(
        self, rows: NDArray[np.integer], cols: NDArray[np.integer]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return level-0 (x, y) of the tokens' centres."""
        return self.x0 + (cols + 0.5) * self.step, self.y0 + (rows + 0.5) * self.step

    def window(self, region: Region) -> tuple[int, int, int, int]:
        """Return the half-open box (row0, col0, row1, col1) of tokens that a region touches."""
        c0 = math.floor((region.x - self.x0) / self.step + 1e-6)
        r0 = math.floor((region.y - self.y0) / self.step + 1e-6)
        c1 = math.ceil((region.x1 - self.x0) / self.step - 1e-6)
        r1 = math.ceil((region.y1 - self.y0) / self.step - 1e-6)
        row0, col0 = min(max(r0, 0), self.rows), min(max(c0, 0), self.cols)
        return row0, col0, max(row0, min(r1, self.rows)), max(col0, min(c1, self.cols))

    def region(self, row0: int, col0: int, row1: int, col1: int) -> Region:
        """Return the smallest region that holds a box of tokens."""
        x, y = math.floor(self.x0 + col0 * self.step), math.floor(self.y0 + row0 * self.step)
        x1, y1 = math.ceil(self.x0 + col1 * self.step), math.ceil(self.y0 + row1 * self.step)
        return Region(x, y, x1 - x, y1 - y)


@dataclass(frozen=True)
class TileGrid:
    """Tiles that cover a lattice.

    Tile (i, j) keeps the `core` x `core` tokens from (i * core, j * core) on
    and is read with `halo` more tokens on each side:
    ``tile_px = (core + 2 * halo) * token_px``.
    """

    lattice: Lattice
    mpp: float
    tile_px: int
    token_px: int
    core: int
    halo: int
    tile_rows: int
    tile_cols: int

    @classmethod
    def plan(
        cls,
        slide_width: int,
        slide_height: int,
        slide_mpp: float,
        *,
        mpp: float,
        tile_px: int,
        token_px: int,
        halo: int,
        origin: tuple[float, float] = (0.0, 0.0),
        extent: tuple[float, float] | None = None,
    ) -> TileGrid:
        """Plan tiles for a slide and a model.

        Parameters
        ----------
        slide_width, slide_height : int
            Level-0 pixels.
        slide_mpp, mpp : float
            um/px of the slide and of the model.
        tile_px, token_px : int
            Side of a tile and of a token, in the model's pixels.
        halo : int
            Tokens thrown away on each side of a tile.
        origin : (float, float)
            Level-0 (x, y) of the lattice's corner.
        extent : (float, float), optional
            Width and height to cover, level-0 pixels; the rest of the slide if
            not given.

        Raises
        ------
        ValueError
            The tile holds no token between its margins.
        """
        core = tile_px // token_px - 2 * halo
        if core < 1:
            raise ValueError(f"a tile of {tile_px} px has no room for a halo of {halo} tokens")
        step = token_px * mpp / slide_mpp
        width, height = extent or (slide_width - origin[0], slide_height - origin[1])
        # a hair of tolerance, so that 64.0000001 steps are 64
        cols = max(1, math.ceil(width / step - 1e-6))
        rows = max(1, math.ceil(height / step - 1e-6))
        lattice = Lattice(origin[0], origin[1], step, rows, cols)
        return cls(lattice, mpp, tile_px, token_px, core, halo, -(-rows // core), -(-cols // core))

    def token_box(self, cell: Cell | NDArray[np.integer]) -> tuple[int, int, int, int]:
        """Return the half-open box of tokens that a tile keeps, clipped to the lattice."""
        r, c = int(cell[0]) * self.core, int(cell[1]) * self.core
        return r, c, min(r + self.core, self.lattice.rows), min(c + self.core, self.lattice.cols)

    def origin(self, cell: Cell | NDArray[np.integer]) -> tuple[float, float]:
        """Return level-0 (x, y) of the corner from which a tile is read, margin included."""
        step = self.lattice.step
        x = self.lattice.x0 + (int(cell[1]) * self.core - self.halo) * step
        y = self.lattice.y0 + (int(cell[0]) * self.core - self.halo) * step
        return x, y

    def tokens(self, tissue: TissueMask | None) -> NDArray[np.bool_]:
        """Return (rows, cols): which tokens' centres lie on tissue."""
        lattice = self.lattice
        if tissue is None:
            return np.ones((lattice.rows, lattice.cols), bool)
        x = lattice.x0 + (np.arange(lattice.cols) + 0.5) * lattice.step
        y = lattice.y0 + (np.arange(lattice.rows) + 0.5) * lattice.step
        return tissue.on_grid(x, y)

    def cells(
        self, tissue: TissueMask | None, region: Region | None = None, margin_tokens: int = 0
    ) -> NDArray[np.int32]:
        """Return (n, 2) tiles that hold a token on tissue, row by row.

        Parameters
        ----------
        tissue : TissueMask or None
            None: every tile.
        region : Region, optional
            Only tiles that touch it.
        margin_tokens : int
            Tokens by which the region is grown, so that the neighbours of its
            outermost tokens are computed too.
        """
        wanted = self.tokens(tissue)
        if region is not None:
            r0, c0, r1, c1 = self.lattice.window(region)
            keep = np.zeros_like(wanted)
            m = margin_tokens
            keep[max(0, r0 - m) : r1 + m, max(0, c0 - m) : c1 + m] = True
            wanted = wanted & keep
        tall, wide = self.tile_rows * self.core, self.tile_cols * self.core
        padded = np.zeros((tall, wide), bool)
        padded[: wanted.shape[0], : wanted.shape[1]] = wanted
        blocks = padded.reshape(self.tile_rows, self.core, self.tile_cols, self.core)
        return np.argwhere(blocks.any(axis=(1, 3))).astype(np.int32)

    def order(self, cells: NDArray[np.int32], focus: Region | None) -> NDArray[np.int32]:
        """Return the tiles nearest to the middle of `focus` first, those inside it before all."""
        if focus is None or len(cells) == 0:
            return cells
        r0, c0, r1, c1 = self.lattice.window(focus)
        top, left = cells[:, 0] * self.core, cells[:, 1] * self.core
        inside = (top < r1) & (top + self.core > r0) & (left < c1) & (left + self.core > c0)
        dy = top + self.core / 2 - (r0 + r1) / 2
        dx = left + self.core / 2 - (c0 + c1) / 2
        return cells[np.lexsort((dx * dx + dy * dy, ~inside))]


def read_tile(slide: Slide, grid: TileGrid, cell: Cell | NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return one tile (tile_px, tile_px, 3), margin included; white beyond the slide."""
    x, y = grid.origin(cell)
    return slide.read_scaled(x, y, grid.mpp, grid.tile_px, grid.tile_px)


def read_batches(
    slide: Slide,
    grid: TileGrid,
    cells: Iterable[Cell | NDArray[np.integer]],
    batch: int,
    readers: int = 2,
) -> Generator[tuple[NDArray[np.int32], NDArray[np.uint8]], None, None]:
    """Read tiles ahead in threads and give them in batches, in the order asked for.

    Parameters
    ----------
    slide, grid
        What to read and where its tiles lie.
    cells : iterable of (row, col)
        Pulled lazily, at most two batches ahead, so that the order may still
        change while tiles are read.
    batch : int
        Tiles a batch; the last may be smaller.
    readers : int
        Threads that read.

    Yields
    ------
    cells : int32 (n, 2)
    tiles : uint8 (n, tile_px, tile_px, 3)

    Raises
    ------
    Exception
        Whatever a reading thread met. All threads have ended when the
        generator is closed.
    """
    wanted: queue.Queue[tuple[Cell, queue.Queue[Any]] | None] = queue.Queue()
    stopping = threading.Event()

    def work() -> None:
        while (item := wanted.get()) is not None:
            cell, answer = item
            if stopping.is_set():
                continue
            try:
                answer.put(read_tile(slide, grid, cell))
            except BaseException as error:  # noqa: BLE001 - handed to the consumer as it is
                answer.put(error)

    threads = [
        threading.Thread(target=work, name=f"pathotune-reader-{i}", daemon=True)
        for i in range(max(1, readers))
    ]
    for thread in threads:
        thread.start()
    source = iter(cells)
    ahead: list[tuple[Cell, queue.Queue[Any]]] = []
    exhausted = False
    try:
        while True:
            while not exhausted and len(ahead) < 2 * batch:
                found = next(source, None)
                if found is None:
                    exhausted = True
                    break
                cell = (int(found[0]), int(found[1]))
                item: tuple[Cell, queue.Queue[Any]] = (cell, queue.Queue(1))
                ahead.append(item)
                wanted.put(item)
            if not ahead:
                return
            now, ahead = ahead[:batch], ahead[batch:]
            tiles = np.empty((len(now), grid.tile_px, grid.tile_px, 3), np.uint8)
            for i, (_, answer) in enumerate(now):
                tile = answer.get()
                if isinstance(tile, BaseException):
                    raise tile
                tiles[i] = tile
            yield np.array([cell for cell, _ in now], np.int32), tiles
    finally:
        stopping.set()
        for _ in threads:
            wanted.put(None)
        for thread in threads:
            thread.join()
