"""All nuclei of a slide, open for the window and for whatever asks by place.

Places, boxes, classes and confidences lie in memory (about 50 bytes a nucleus),
outlines and measurements stay in the Parquet file and are read when asked for,
within a bound. A nucleus is known by its row, which never changes while the
file is open: edits hide rows and append new ones. Any thread may ask.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pathotune.events import PathotuneError
from pathotune.nuclei.grid import Grid, counted
from pathotune.nuclei.pages import Pages
from pathotune.nuclei.shape import SHAPES, shape_table
from pathotune.nuclei.store import PLACES, NucleusStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

COLUMNS_KEPT = 12
CELL_PX = 32  # side of a density cell at level 0, in level-0 pixels
PLAIN = "Nucleus"


class Outlines(NamedTuple):
    """Closed rings, one after the other.

    Attributes
    ----------
    points : float32 (p, 2)
        x and y in level-0 pixels; the last point of a ring is its first.
    starts : int64 (n + 1,)
        Ring i is ``points[starts[i]:starts[i + 1]]``.
    """

    points: NDArray[Any]
    starts: NDArray[Any]

    def ring(self, i: int) -> NDArray[Any]:
        """Return ring i, float32 (k, 2)."""
        part: NDArray[Any] = self.points[self.starts[i] : self.starts[i + 1]]
        return part


class Nuclei:
    """Nuclei by place; see `open` and `growing`.

    Attributes
    ----------
    about : dict
        um/px (``mpp``), segmenter, region and area, as the run wrote them.
    path : Path or None
    finished : bool
        False: the run was stopped; what it had found is here.
    xy : float32 (n, 2), boxes : float32 (n, 4), ids : int64 (n,)
        Of every row, hidden ones included. Level-0 pixels.
    alive : bool (n,)
        False: hidden by an edit.
    classes : tuple of str, codes : uint16 (n,), confidence : float32 (n,)
        Row i is of class ``classes[codes[i]]``.
    """

    def __init__(self, about: dict[str, Any], path: Path | None = None) -> None:
        self.about, self.path, self.finished = dict(about), path, True
        self._lock = threading.RLock()
        self._pages = Pages(stay=path is not None)
        self._rings: dict[int, NDArray[Any]] = {}  # rows that lie in no file
        self._own: dict[int, dict[str, float]] = {}
        self._room: dict[str, NDArray[Any]] = {}
        self._columns: OrderedDict[str, NDArray[Any]] = OrderedDict()
        self._grids: dict[tuple[int, str | None], NDArray[Any]] = {}
        self._tree: Any = None
        self.xy, self.boxes = np.zeros((0, 2), np.float32), np.zeros((0, 4), np.float32)
        self.ids, self.alive = np.zeros(0, np.int64), np.zeros(0, bool)
        self.codes, self.confidence = np.zeros(0, np.uint16), np.zeros(0, np.float32)
        self.classes: tuple[str, ...] = (PLAIN,)
        self._grid = Grid(self.xy, self.boxes)

    @classmethod
    def open(cls, path: str | Path) -> Nuclei:
        """Open a store; of a run that was stopped, open the tiles that are done.

        Raises
        ------
        PathotuneError
            There is no such file, or it is not a whole file of nuclei.
        """
        path = Path(path)
        parts = sorted(path.with_name(path.name + ".parts").glob("tile_*.parquet"))
        if not path.exists() and parts:
            found = cls({}, path)
            found.finished = False
            for part in parts:
                try:
                    found.add(part)
                except PathotuneError:  # the tile that was being written
                    continue
            if not found.about:
                raise PathotuneError(
                    f"The run behind {path.name} was stopped before its first tile was done.",
                    "Run the segmentation again.",
                )
            return found
        found = cls({}, path)
        found.add(path)
        return found

    @classmethod
    def growing(cls, about: dict[str, Any]) -> Nuclei:
        """Return an empty one that takes in the files of `NucleiDone` as they come (`add`)."""
        return cls(about)

    def add(self, file: Path) -> NDArray[np.int64]:
        """Take in all nuclei of a Parquet file of ours; return their rows."""
        with NucleusStore(file) as store, self._lock:
            first = len(self.ids)
            table = store.columns(["id", *PLACES, "class", "confidence"])
            names = table["class names"]
            self.about = self.about or store.about
            self._pages.add(Path(file), store.group_sizes, first)
            known = {name: i for i, name in enumerate(self.classes)}
            for name in names:
                known.setdefault(name, len(known))
            self.classes = tuple(known)
            translated = np.array([known[n] for n in names] or [0], np.uint16)
            return self._extend(
                np.stack([table["x"], table["y"]], axis=1),
                np.stack([table[k] for k in ("x0", "y0", "x1", "y1")], axis=1),
                table["id"],
                translated[table["class codes"]],
                table["confidence"],
            )

    def _extend(
        self, xy: Any, boxes: Any, ids: Any, codes: Any, confidence: Any
    ) -> NDArray[np.int64]:
        first = len(self.ids)

        def join(name: str, new: Any) -> None:
            old = getattr(self, name)
            base, size = self._room.get(name, old), first + len(new)
            if len(base) < size:  # with room to spare: a thousand edits are not a thousand copies
                spare = 0 if not first else first // 8 + 1000
                base = np.empty((size + spare, *old.shape[1:]), old.dtype)
                base[:first] = old
                self._room[name] = base
            base[first:size] = new
            setattr(self, name, base[:size])

        for name, new in (("boxes", boxes), ("xy", xy), ("codes", codes)):
            join(name, new)
        join("confidence", confidence)
        join("alive", np.ones(len(ids), bool))
        join("ids", ids)
        tail = len(self.ids) - self._grid.size
        if tail > max(2000, 0.1 * len(self.ids)):
            self._grid = Grid(self.xy, self.boxes)
        self._forget()
        return np.arange(first, len(self.ids))

    def _forget(self) -> None:
        self._grids.clear()
        self._columns.clear()
        self._tree = None

    def __len__(self) -> int:
        """Return how many nuclei there are, hidden ones left out."""
        return int(self.alive.sum())

    @property
    def mpp(self) -> float:
        """The um of a level-0 pixel."""
        return float(self.about["mpp"])

    def within(self, x0: float, y0: float, x1: float, y1: float) -> NDArray[np.int64]:
        """Return the rows whose box touches a rectangle of level-0 pixels, rising."""
        with self._lock:
            grid, boxes, alive = self._grid, self.boxes, self.alive
        rows = grid.touching(x0, y0, x1, y1)
        if len(alive) > grid.size:
            tail = boxes[grid.size :]
            hit = (tail[:, 0] <= x1) & (tail[:, 2] >= x0) & (tail[:, 1] <= y1) & (tail[:, 3] >= y0)
            rows = np.concatenate([rows, np.flatnonzero(hit) + grid.size])
        return rows[alive[rows]]

    def at(self, x: float, y: float) -> int | None:
        """Return the row of the nucleus under a point, the smallest if they overlap, or None."""
        import shapely

        rows = self.within(x, y, x, y)
        if not len(rows):
            return None
        found = self.outlines(rows)
        shapes = [shapely.make_valid(shapely.polygons(found.ring(i))) for i in range(len(rows))]
        hit = np.flatnonzero(shapely.intersects_xy(shapes, x, y))
        if not len(hit):
            return None
        return int(rows[min(hit, key=lambda i: shapes[i].area)])

    def nearest(self, x: float, y: float, k: int = 1) -> NDArray[np.int64]:
        """Return the rows of the k nearest centres, the nearest first; fewer if there are fewer."""
        from scipy.spatial import cKDTree

        with self._lock:
            if self._tree is None:
                rows = np.flatnonzero(self.alive)
                self._tree = rows, cKDTree(self.xy[rows])
            rows, tree = self._tree
        k = min(k, len(rows))
        if not k:
            return np.zeros(0, np.int64)
        found: NDArray[np.int64] = rows[np.atleast_1d(tree.query((x, y), k)[1])]
        return found

    def outlines(self, rows: Sequence[int] | NDArray[Any]) -> Outlines:
        """Return the closed outlines of rows, in the order asked for.

        Reads the row groups that are not in memory; call it in a worker.
        """
        rows = np.asarray(rows, np.int64)
        with self._lock:
            group = self._pages.of(rows)
            own = np.fromiter((r in self._rings for r in rows.tolist()), bool, len(rows))
            lengths = np.zeros(len(rows), np.int64)
            pieces: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
            for g in np.unique(group[~own]).tolist():
                which = np.flatnonzero((group == g) & ~own)
                values, ends = self._pages.outlines(g)
                local = rows[which] - self._pages.first(g)
                lengths[which] = ends[local + 1] - ends[local]
                pieces.append((which, values, ends[local]))
            mine = np.flatnonzero(own)
            for i in mine.tolist():
                lengths[i] = len(self._rings[int(rows[i])])
            starts = np.concatenate([[0], np.cumsum(lengths)])
            points = np.empty((int(starts[-1]), 2), np.float32)
            for which, values, begins in pieces:
                count = lengths[which]
                step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
                points[np.repeat(starts[which], count) + step] = values[
                    np.repeat(begins, count) + step
                ]
            for i in mine.tolist():
                points[starts[i] : starts[i + 1]] = self._rings[int(rows[i])]
        return Outlines(points, starts)

    def column(self, name: str, rows: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return a measurement, float32 (n,), of all rows or of some; NaN where it is not known.

        Raises
        ------
        PathotuneError
            There is no such measurement.
        """
        with self._lock:
            if name == "confidence":
                whole = self.confidence
            elif name in self._columns:
                self._columns.move_to_end(name)
                whole = self._columns[name]
            else:
                whole = self._columns[name] = self.read(name)
                while len(self._columns) > COLUMNS_KEPT:
                    self._columns.popitem(last=False)
        return whole if rows is None else whole[rows]

    def read(self, name: str) -> NDArray[Any]:
        """Read a measurement of all rows, kept nowhere; see `column`."""
        if name not in self.measures:
            raise PathotuneError(
                f"The nuclei have no measurement {name}.",
                f"There are: {', '.join(self.measures)}.",
            )
        whole = np.full(len(self.ids), np.nan, np.float32)
        self._pages.column(name, whole)
        for row, told in self._own.items():
            whole[row] = told.get(name, np.nan)
        return whole

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measurements that `column` knows."""
        with self._lock:
            return tuple(dict.fromkeys((*SHAPES, *self._pages.measures)))

    def values(self, row: int) -> dict[str, float | str]:
        """Return what is known of one nucleus: class, confidence and every measurement."""
        told: dict[str, float | str] = {"class": self.classes[int(self.codes[row])]}
        told["confidence"] = float(self.confidence[row])
        with self._lock:
            return {**told, **(self._own.get(row) or self._pages.values(row))}

    def density(self, level: int, class_name: str | None = None) -> tuple[NDArray[Any], float]:
        """Return nuclei per cell of a grid, one grid a zoom step.

        Parameters
        ----------
        level : int
            Cells are ``32 * 2**level`` level-0 pixels wide.
        class_name : str, optional
            Only this class.

        Returns
        -------
        counts : int32 (rows, columns)
            Cell 0, 0 begins at level-0 (0, 0).
        step : float
            Side of a cell in level-0 pixels; density per mm2 is ``counts / (step * mpp)**2 * 1e6``.
        """
        step = float(CELL_PX * 2**level)
        with self._lock:
            if (level, class_name) in self._grids:
                return self._grids[level, class_name], step
            keep = self.alive
            if class_name is not None:
                code = self.classes.index(class_name) if class_name in self.classes else -1
                keep = keep & (self.codes == code)
            xy = self.xy if keep.all() else self.xy[keep]
            grid = counted(xy, step, self.extent[2:])
            self._grids[level, class_name] = grid
        return grid, step

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 around all nuclei, level-0 pixels; zeros if there are none."""
        b = self.boxes
        if not len(b):
            return 0.0, 0.0, 0.0, 0.0
        low, high = b[:, :2].min(axis=0), b[:, 2:].max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def hide(self, rows: Iterable[int], hidden: bool = True) -> None:
        """Hide rows, or show them again."""
        with self._lock:
            self.alive[np.fromiter(rows, np.int64)] = not hidden
            self._grids.clear()
            self._tree = None

    def append(
        self, rings: Sequence[NDArray[Any]], names: Sequence[str] | None = None
    ) -> NDArray[np.int64]:
        """Add drawn nuclei, closed rings float32 (k, 2) in level-0 pixels; return their rows."""
        if not rings:
            return np.zeros(0, np.int64)
        with self._lock:
            told = shape_table(rings, self.mpp)
            boxes = np.stack([told[k] for k in ("x0", "y0", "x1", "y1")], axis=1)
            middles = np.stack([told["x"], told["y"]], axis=1)
            codes = [self.code(n) for n in (names or [PLAIN] * len(rings))]
            next_id = int(self.ids.max(initial=0)) + 1
            ids = np.arange(next_id, next_id + len(rings))
            first = len(self.ids)
            for i, ring in enumerate(rings):
                self._rings[first + i] = np.asarray(ring, np.float32)
                self._own[first + i] = {k: float(told[k][i]) for k in SHAPES}
            return self._extend(middles, boxes, ids, codes, np.ones(len(rings)))

    def code(self, name: str) -> int:
        """Return the number of a class; an unknown one is added."""
        with self._lock:
            if name not in self.classes:
                self.classes = (*self.classes, name)
            return self.classes.index(name)

    def set_classes(
        self, rows: NDArray[Any], names: Sequence[str], codes: Any, confidence: Any = None
    ) -> None:
        """Give rows a class: ``names[codes[i]]`` for ``rows[i]``, with a confidence of 0 to 1."""
        with self._lock:
            own = np.array([self.code(n) for n in names], np.uint16)
            self.codes[rows] = own[np.asarray(codes, np.int64)]
            if confidence is not None:
                self.confidence[rows] = confidence
            self._grids.clear()

    def counts(self) -> dict[str, int]:
        """Return how many nuclei there are of each class, those without any left out."""
        with self._lock:
            found = np.bincount(self.codes[self.alive], minlength=len(self.classes))
            return {n: int(c) for n, c in zip(self.classes, found, strict=True) if c}

    def close(self) -> None:
        """Let go of the file; asking again opens it again."""
        with self._lock:
            self._pages.close()

    def __enter__(self) -> Nuclei:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
