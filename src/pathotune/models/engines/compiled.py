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

from pathotune import places

ABOUT = "about.json"
LIMIT_BYTES = 4_000_000_000
_VERSION = 1  # raise when graphs are made in another way


def root() -> Path:
    """Return the folder of all converted networks; PATHOTUNE_COMPILED moves it."""
    chosen = os.environ.get("PATHOTUNE_COMPILED")
    return Path(chosen) if chosen else places.cache_dir() / "compiled"


def folder(card_hash: str, half: bool) -> Path:
    """Return where a card's graphs lie; `half`: with 16-bit numbers where harmless."""
    facts = [_VERSION, card_hash, importlib.metadata.version("openvino"), half]
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
    from pathotune.models.quiet import import_openvino

    import_openvino().save_model(model, path, compress_to_fp16=False)


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
