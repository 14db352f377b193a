"""The classes of nuclei, kept beside the store from one session to the next.

The store itself is not written again for a change of classes. The file says which
store it belongs to; after a new run the rows are others, and it is left aside.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.marks.geojson import write_atomically

if TYPE_CHECKING:
    from pathotune.nuclei.query import Nuclei


def classes_of(store: Path) -> Path:
    """Return where the classes of a store lie."""
    return store.with_name(store.name + ".classes.parquet")


def _stamp(nuclei: Nuclei, size: int) -> str:
    return f"{size}-{zlib.crc32(np.ascontiguousarray(nuclei.xy[:size]).tobytes())}"


def save_classes(nuclei: Nuclei, size: int | None = None) -> Path:
    """Write class and confidence of the nuclei of a store; those drawn later are in the edits.

    Parameters
    ----------
    nuclei : Nuclei
        Opened from a file.
    size : int, optional
        How many of its rows lie in the file; all.

    Raises
    ------
    PathotuneError
        It cannot be saved; an old file of that name stays as it was.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = classes_of(Path(nuclei.path or ""))
    n = len(nuclei.ids) if size is None else size
    told = {"stamp": _stamp(nuclei, n), "classes": list(nuclei.classes)}
    table = pa.table({"class": nuclei.codes[:n], "confidence": nuclei.confidence[:n]})
    table = table.replace_schema_metadata({"pathotune": json.dumps(told)})

    def write(file: Any) -> None:
        pq.write_table(table, file, compression="zstd")

    write_atomically(path, write)
    return path


def load_classes(nuclei: Nuclei) -> bool:
    """Give nuclei the classes that were kept; call it before the edits are replayed.

    Returns
    -------
    bool
        False: there are none, they belong to another run, or the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(classes_of(Path(nuclei.path or "")))
        told = json.loads((table.schema.metadata or {})[b"pathotune"])
        n = len(nuclei.ids)
        if told["stamp"] != _stamp(nuclei, n) or len(table) != n:
            return False
        codes = table.column("class").to_numpy()
        sure = table.column("confidence").to_numpy()
        nuclei.set_classes(np.arange(n), [str(c) for c in told["classes"]], codes, sure)
    except (OSError, pa.ArrowException, ValueError, KeyError, IndexError, TypeError):
        return False
    return True
