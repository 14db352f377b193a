"""What every export says and how it reaches the disk.

Results are for research only and each file says so; slide paths, names and
patient fields never go in. Files appear whole or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pathotune.marks.geojson import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

RESEARCH_USE = "Research use only; not for diagnosis."


def put(path: Path, content: bytes) -> list[Path]:
    """Write a file atomically and return it in a list."""
    write_atomically(path, lambda file: file.write(content))
    return [path]
