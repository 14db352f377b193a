"""Whether a slide lies on a drive that would hold the window up.

Two signs: the system calls the drive a network drive, or reading at places that
nobody has looked at yet takes time. A fast local disk answers the first try in
a few milliseconds, so asking costs an opened slide nothing to speak of.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from pathotune.slides.slide import Slide

SLOW_S = 0.08  # a reading that takes longer would be felt
_NETWORK = ("nfs", "cifs", "smb", "afs", "ceph", "gluster", "lustre", "9p", "davfs", "ncpfs")
_FUSE = ("sshfs", "s3fs", "rclone", "gcsfuse", "goofys", "smbnetfs", "davfs", "glusterfs")
_REMOTE = 4  # what Windows calls a network drive
_PLACES = 4


def on_network(path: Path) -> bool:
    """Whether the system says that a file lies on a network drive; False where it does not say."""
    if str(path).startswith(("\\\\", "//")):
        return True
    try:
        if platform.system() == "Linux":
            return _is_network(_kind(path.resolve(), Path("/proc/self/mounts").read_text()))
        windows: Any = getattr(ctypes, "windll", None)
        if windows is not None:
            return bool(windows.kernel32.GetDriveTypeW(path.resolve().anchor) == _REMOTE)
    except OSError:
        pass
    return False


def _kind(path: Path, mounts: str) -> str:
    """Return the file system of a path, from the system's table of mounts."""
    best, found = -1, ""
    for line in mounts.splitlines():
        parts = line.split()
        if len(parts) < 3:
            continue
        place = Path(parts[1].replace("\\040", " "))
        if path.is_relative_to(place) and len(place.parts) >= best:
            best, found = len(place.parts), parts[2]
    return found


def _is_network(kind: str) -> bool:
    kind = kind.lower()
    if kind.startswith("fuse."):
        return kind.removeprefix("fuse.").startswith(_FUSE)
    return kind.startswith(_NETWORK)


def is_slow(slide: Slide) -> bool:
    """Whether to read a slide in the background (not in the GUI thread).

    It reads up to four places; one that comes quickly is enough, so that a busy
    processor is not taken for a slow drive.
    """
    if on_network(slide.path):
        return True
    side = slide.chunk
    for _ in range(_PLACES):  # others each time: what was read lately is in memory
        across, down = random.random(), random.random()
        began = time.perf_counter()
        with contextlib.suppress(PathotuneError, OSError):  # damaged there, perhaps only there
            slide.read_level(0, int(slide.width * across), int(slide.height * down), side, side)
        if time.perf_counter() - began < SLOW_S:
            return False
    return True
