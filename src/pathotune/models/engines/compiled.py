"""The folder of converted networks: found by what they were made of, and bounded.

Converting a network takes seconds and needs torch, reading the result back a
fraction of one and does not. The key holds the card's hash, the version of the
compiler, what the processor can multiply and the exactness asked for, so that
nothing stale is ever met. Oldest unused go first when the folder grows; a disk
that cannot be written costs the keeping only.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pathotune import places

ABOUT = "about.json"
LIMIT_BYTES = 4_000_000_000
_HEAVY = 16384  # bytes of a constant from which it is written beside the graph
_ALIGNED = 64
_WEIGHT = "pathotune-weight-"
_VERSION = 2  # raise when graphs are made in another way


def root() -> Path:
    """Return the folder of all converted networks; PATHOTUNE_COMPILED moves it."""
    chosen = os.environ.get("PATHOTUNE_COMPILED")
    return Path(chosen) if chosen else places.cache_dir() / "compiled"


def folder(card_hash: str, half: bool) -> Path:
    """Return where a card's graphs lie; `half`: with 16-bit numbers where harmless."""
    try:
        version = importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:  # installed in another way than by pip
        version = "unknown"
    facts = [_VERSION, card_hash, version, half]
    return root() / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def keep(where: Path | None, models: list[Any], facts: dict[str, Any]) -> bool:
    """Write graphs and facts at once, or not at all; returns whether they are there now."""
    if where is None:
        return False
    beside = where.with_name(f"{where.name}.{os.getpid()}")
    try:
        beside.mkdir(parents=True, exist_ok=True)
        for i, model in enumerate(models):
            _save(model, beside / f"part{i}.xml")
        (beside / ABOUT).write_text(json.dumps(facts), encoding="utf-8")
        if _size(beside) > LIMIT_BYTES:
            return False
        shutil.rmtree(where, ignore_errors=True)
        beside.rename(where)
    except (OSError, RuntimeError):  # OpenVINO tells a full disk as a RuntimeError
        return False
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    _evict(where)
    return True


def _save(model: Any, path: Path) -> None:
    """Write a model as a small graph and its weights beside it.

    OpenVINO's own writing holds Python's lock as long as it lasts, seconds with large
    weights, in which a window stands still; so it writes a graph whose weights are inputs.
    """
    from pathotune.models.quiet import import_openvino

    ov = import_openvino()
    graph = model.clone()  # shares its weights
    with path.with_suffix(".weights").open("wb") as file:
        heavy = [op for op in graph.get_ops() if op.get_type_name() == "Constant"]
        heavy = [op for op in heavy if op.get_byte_size() >= _HEAVY]
        for constant in heavy:
            file.seek(-(-file.tell() // _ALIGNED) * _ALIGNED)
            name = f"{_WEIGHT}{file.tell()}"
            stand_in = ov.opset1.parameter(
                list(constant.get_output_shape(0)), constant.get_element_type(), name=name
            )
            file.write(np.ascontiguousarray(constant.data).view(np.uint8).reshape(-1).data)
            constant.output(0).replace(stand_in.output(0))
            graph.add_parameters([stand_in])
    ov.save_model(graph, path, compress_to_fp16=False)


def read(path: Path) -> tuple[Any, Any]:
    """Return a model that `keep` wrote, and the mapped weights, which must live as long.

    Raises
    ------
    OSError, ValueError, RuntimeError
        Nothing whole is there.
    """
    from pathotune.models.quiet import import_openvino

    ov = import_openvino()
    model = ov.Core().read_model(path)
    file = path.with_suffix(".weights")
    mapped = np.memmap(file, np.uint8, "c") if file.stat().st_size else np.empty(0, np.uint8)
    for stand_in in model.get_parameters():
        name = stand_in.get_friendly_name()
        if not name.startswith(_WEIGHT):
            continue
        kind, shape = stand_in.get_element_type().to_dtype(), stand_in.get_output_shape(0)
        start = int(name.removeprefix(_WEIGHT))
        values = mapped[start : start + int(np.prod(shape)) * kind.itemsize]
        constant = ov.op.Constant(values.view(kind).reshape(list(shape)), shared_memory=True)
        stand_in.output(0).replace(constant.output(0))
        model.remove_parameter(stand_in)
    return model, mapped


def touch(where: Path) -> None:
    """Note that a card's graphs were used now."""
    with suppress(OSError):
        os.utime(where / ABOUT)


def _size(where: Path) -> int:
    return sum(f.stat().st_size for f in where.iterdir())


def _evict(but: Path) -> None:
    """Remove the longest unused until all fit."""
    known = []
    for about in root().glob("*/" + ABOUT):
        with suppress(OSError):  # another process is removing it
            known.append((about.stat().st_mtime, _size(about.parent), about.parent))
    excess = sum(size for _, size, _ in known) - LIMIT_BYTES
    for _, size, old in sorted(known):
        if excess <= 0:
            return
        if old != but:
            shutil.rmtree(old, ignore_errors=True)
            excess -= size
