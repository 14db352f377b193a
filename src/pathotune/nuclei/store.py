"""All nuclei of a slide in one Parquet file that is read by place.

A tile's nuclei are one row group, and Parquet keeps the least and greatest x
and y of every row group in its footer: that is the spatial index. Opening reads
the footer alone, and asking for a box reads the row groups that touch it, so a
million nuclei open at once and memory follows what is looked at.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError
from pathotune.nuclei.measure import MEASURES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pathotune.slides.geometry import Region

FORMAT = "pathotune-nuclei-1"
PLACES = ("x", "y", "x0", "y0", "x1", "y1")
Table = dict[str, Any]


def schema(about: dict[str, Any]) -> Any:
    """Return the Parquet schema; `about` (JSON) travels in the footer."""
    import pyarrow as pa

    fields = [pa.field("id", pa.int64()), *(pa.field(p, pa.float64()) for p in PLACES)]
    fields += [pa.field("class", pa.string()), pa.field("confidence", pa.float32())]
    fields += [pa.field(m, pa.float32()) for m in MEASURES]
    fields += [pa.field("outline", pa.list_(pa.float32()))]
    return pa.schema(fields, {"pathotune": json.dumps({"format": FORMAT, **about})})


def to_arrow(rows: Table, about: dict[str, Any], first_id: int = 1) -> Any:
    """Return rows as `measure` makes them as an Arrow table, ids counted from `first_id`."""
    import pyarrow as pa

    n = len(rows["x"])
    flat = [ring.ravel() for ring in rows["outline"]]
    offsets = np.concatenate([[0], np.cumsum([len(f) for f in flat])]).astype(np.int32)
    values = np.concatenate(flat) if flat else np.zeros(0, np.float32)
    columns = {
        **{name: rows[name] for name in (*PLACES, "confidence")},
        # what is not known here: neighbours before all tiles are done, colours of drawn outlines
        **{name: rows.get(name, np.full(n, np.nan)) for name in MEASURES},
        "id": np.arange(first_id, first_id + n),
        "class": rows.get("class", ["Nucleus"] * n),
        "outline": pa.ListArray.from_arrays(offsets, pa.array(values, pa.float32())),
    }
    kinds = schema(about)
    arrays = [
        v if isinstance(v := columns[f.name], pa.Array) else pa.array(v, f.type) for f in kinds
    ]
    return pa.Table.from_arrays(arrays, schema=kinds)


class NucleusStore:
    """An open store; nothing but the footer is read before it is asked for.

    Attributes
    ----------
    path : Path
    about : dict
        um/px, segmenter, stains, region and area, as written by the run.
    """

    def __init__(self, path: str | Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = Path(path)
        try:
            self._file = pq.ParquetFile(self.path)
            told = json.loads((self._file.schema_arrow.metadata or {})[b"pathotune"])
            if told.pop("format") != FORMAT:
                raise KeyError("format")
        except FileNotFoundError as error:
            raise PathotuneError(f"There is no file {self.path}.", "Check the name.") from error
        except (pa.ArrowInvalid, KeyError, ValueError, OSError) as error:
            raise PathotuneError(
                f"{self.path.name} is not a whole file of nuclei.",
                "Run the segmentation again; what was computed is kept and taken up.",
            ) from error
        self.about: dict[str, Any] = told
        self._boxes = self._index()

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def _index(self) -> NDArray[Any]:
        """Return (groups, 4): the box around each row group, from the footer."""
        meta = self._file.metadata
        names = {meta.schema.column(i).path: i for i in range(len(meta.schema))}
        boxes = np.zeros((meta.num_row_groups, 4))
        for group in range(meta.num_row_groups):
            row = meta.row_group(group)
            for k, name in enumerate(("x0", "y0", "x1", "y1")):
                stats = row.column(names[name]).statistics
                if stats is not None and stats.has_min_max:  # a run that found nothing has none
                    boxes[group, k] = stats.min if k < 2 else stats.max
        return boxes

    @property
    def group_sizes(self) -> list[int]:
        """How many nuclei each row group holds."""
        meta = self._file.metadata
        return [meta.row_group(g).num_rows for g in range(meta.num_row_groups)]

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measurements in this file."""
        other = {"id", "class", "confidence", "outline", *PLACES}
        return tuple(n for n in self._file.schema_arrow.names if n not in other)

    def columns(self, names: list[str], group: int | None = None) -> Table:
        """Return whole columns, of all nuclei or of one row group.

        ``class`` comes as ``class codes``, int (n,), into ``class names``, a list.
        """
        import pyarrow as pa

        sizes = self.group_sizes
        groups = range(len(sizes)) if group is None else [group]
        total = sum(sizes[g] for g in groups)
        # one row group at a time: read as a whole, a million nuclei pass a gigabyte
        out: Table = {
            n: np.empty(total, np.int64 if n == "id" else np.float32) for n in names if n != "class"
        }
        codes, known = np.zeros(total, np.int32), dict[str, int]()
        done = 0
        for g in groups:
            table = self._file.read_row_group(g, columns=names)
            for name in out:
                out[name][done : done + sizes[g]] = table.column(name).to_numpy()
            if "class" in names and sizes[g]:
                coded = table.column("class").combine_chunks().dictionary_encode()
                own = coded.dictionary.to_pylist()
                own = [known.setdefault(n or "Nucleus", len(known)) for n in own]
                part = coded.indices.fill_null(-1).to_numpy()
                codes[done : done + sizes[g]] = np.array([*own, 0])[part]
            done += sizes[g]
        if "class" in names:
            out |= {"class codes": codes, "class names": list(known)}
        pa.default_memory_pool().release_unused()
        return out

    def outlines(self, group: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return a row group's points, float32 (p, 2), and where rings begin, int64 (n + 1,)."""
        column = self._file.read_row_group(group, ["outline"]).column(0).combine_chunks()
        lengths = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64) // 2
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, 2), starts

    def chunks(self, columns: list[str] | None = None) -> Iterator[Table]:
        """Yield all nuclei, one row group at a time."""
        for group in range(len(self._boxes)):
            yield _table(self._file.read_row_group(group, columns))

    def within(self, box: Region, columns: list[str] | None = None) -> Table:
        """Return the nuclei whose own box touches a box of level-0 pixels."""
        import pyarrow as pa

        b = self._boxes
        hit = (b[:, 0] < box.x1) & (b[:, 2] > box.x) & (b[:, 1] < box.y1) & (b[:, 3] > box.y)
        need = None if columns is None else list(dict.fromkeys([*columns, *PLACES]))
        parts = [self._file.read_row_group(int(g), need) for g in np.flatnonzero(hit)]
        if not parts:
            whole = self._file.schema_arrow.empty_table()
            return _table(whole if need is None else whole.select(need))
        table = _table(pa.concat_tables(parts))
        inside = (
            (table["x0"] < box.x1)
            & (table["x1"] > box.x)
            & (table["y0"] < box.y1)
            & (table["y1"] > box.y)
        )
        return chosen(table, inside)

    def density(self, cell_um: float = 250.0) -> tuple[NDArray[Any], float]:
        """Return nuclei per mm2 on a grid of square cells, and a cell's side in level-0 pixels.

        Row 0, column 0 begins at level-0 (0, 0); the grid ends with the last nucleus.
        """
        step = cell_um / float(self.about["mpp"])
        right, low = self._boxes[:, 2].max(initial=0), self._boxes[:, 3].max(initial=0)
        grid = np.zeros((int(low / step) + 1, int(right / step) + 1))
        for part in self.chunks(["x", "y"]):
            np.add.at(grid, ((part["y"] / step).astype(int), (part["x"] / step).astype(int)), 1)
        return grid / (cell_um**2 / 1e6), step

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> NucleusStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def chosen(rows: Table, keep: NDArray[np.bool_]) -> Table:
    """Return the rows that are marked, bool (n,)."""
    take = np.flatnonzero(keep)
    return {k: [v[i] for i in take] if isinstance(v, list) else v[take] for k, v in rows.items()}


def _table(arrow: Any) -> Table:
    """Return columns as numpy arrays; outlines as a list of float32 (k, 2), classes as strings."""
    out: Table = {}
    for name in arrow.column_names:
        column = arrow.column(name).combine_chunks()
        if name == "outline":
            flat, ends = column.flatten().to_numpy(), np.cumsum(column.value_lengths().to_numpy())
            out[name] = [r.reshape(-1, 2) for r in np.split(flat, ends[:-1])] if len(ends) else []
        elif name == "class":
            out[name] = np.array(column.to_pylist(), object)
        else:
            out[name] = column.to_numpy(zero_copy_only=False)
    return out
