"""A screen where there is none, so that a picture of the real window can be taken anywhere.

OpenGL needs an X server; on a computer without one, Xvfb is a server that
draws into memory. It picks a free display number itself, so two runs do not
meet, and it ends with the block it was started for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 10.0


def has_display() -> bool:
    """Tell whether a window would be seen by somebody."""
    if sys.platform in {"win32", "darwin"}:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextmanager
def virtual_screen(width: int = 1600, height: int = 1000) -> Iterator[dict[str, str] | None]:
    """Start a virtual screen and give the environment variables for it, or None without Xvfb.

    Parameters
    ----------
    width, height : int
        Size in pixels.
    """
    program = shutil.which("Xvfb")
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "display"
        size = f"{width}x{height}x24"
        with told.open("w") as number:
            server = subprocess.Popen(
                [program, "-displayfd", "1", "-screen", "0", size, "-nolisten", "tcp"],
                stdout=number,
                stderr=subprocess.DEVNULL,
            )
        try:
            end = time.monotonic() + WAIT_S
            while not told.read_text().endswith("\n") and server.poll() is None:
                if time.monotonic() > end:
                    break
                time.sleep(0.05)
            display = told.read_text().strip()
            yield {"DISPLAY": f":{display}", "QT_QPA_PLATFORM": "xcb"} if display else None
        finally:
            server.terminate()
            server.wait(WAIT_S)
