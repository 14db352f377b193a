"""Where and how a backbone runs: device, batch size, threads, and too little memory.

One processor core belongs to the window while anything runs behind it, so the
number of threads is set in the thread that computes. The batch shape is fixed
per device because kernels are chosen by shape and a tile must give the same
tokens whatever its neighbours in the batch. When memory runs out the batch is
halved, and the user is told.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pathotune.events import PathotuneError
from pathotune.models.quiet import import_torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_CPU_PIXELS = 4 * 224**2  # as fast as twice that on two cores, and a cancel waits half as long
_GPU_BATCH = 64
_GPU_BYTES_PER_TILE = 96 << 20  # a ViT-L at 224 px with room to spare

_leave_a_core: bool | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A place to compute: `key` for programs, `name` for people, memory in bytes or None."""

    key: str
    name: str
    memory: int | None = None


def devices() -> list[Device]:
    """Return the places to compute on this machine, the fastest first; imports torch."""
    import_torch()
    import torch

    found = [
        Device(
            "cuda" if i == 0 else f"cuda:{i}",
            f"CUDA: {torch.cuda.get_device_name(i)}",
            int(torch.cuda.get_device_properties(i).total_memory),
        )
        for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    if torch.backends.mps.is_available():
        found.append(Device("mps", "Apple graphics"))
    return [*found, Device("cpu", f"CPU, {cores()} cores")]


def cores() -> int:
    """Return the processor cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def pick_device(wanted: str = "auto") -> str:
    """Return the device to use.

    Parameters
    ----------
    wanted : str
        "auto" takes the fastest; "cpu", "cuda", "cuda:1" or "mps" must exist.

    Raises
    ------
    PathotuneError
        The wanted device is not there.
    """
    known = [d.key for d in devices()]
    if wanted == "auto":
        return known[0]
    if wanted == "cuda:0":
        wanted = "cuda"
    if wanted not in known:
        raise PathotuneError(
            f"The device {wanted!r} is not available on this computer.",
            f"Choose one of: auto, {', '.join(known)}.",
        )
    return wanted


def batch_size(device: str, tile_px: int = 224) -> int:
    """Return how many tiles of `tile_px` go through the backbone at a time."""
    if not device.startswith("cuda"):
        return max(1, round(_CPU_PIXELS / tile_px**2))
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    per_tile = max(1, int(_GPU_BYTES_PER_TILE * (tile_px / 224) ** 2))
    return max(1, min(_GPU_BATCH, int(free * 0.5) // per_tile))


def leave_a_core(leave: bool | None) -> None:
    """Keep one core free from now on, or not; None: when not run by the main thread.

    A job that is pumped by another thread than the main one is run by a window.
    """
    global _leave_a_core
    _leave_a_core = leave


def thread_limit() -> int:
    """Return the number of threads that a computation may use."""
    leave = _leave_a_core
    if leave is None:
        leave = threading.current_thread() is not threading.main_thread()
    return max(1, cores() - 1) if leave else cores()


@contextmanager
def limited_threads() -> Iterator[int]:
    """Compute with `thread_limit` threads in this thread; the old number comes back after."""
    import torch

    before = torch.get_num_threads()
    wanted = min(thread_limit(), before)
    torch.set_num_threads(wanted)
    try:
        yield wanted
    finally:
        torch.set_num_threads(before)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on any device."""
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )


def release_memory(device: str) -> None:
    """Give cached memory of a device back after it ran out."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def too_little_memory(card: Any, device: str) -> PathotuneError:
    """Return the error for a model that does not fit even with one tile at a time."""
    where = "this computer's memory" if device == "cpu" else "the graphics card's memory"
    return PathotuneError(
        f"{card.name} does not fit into {where}, not even one tile at a time.",
        "Close other programs or choose a smaller model."
        if device == "cpu"
        else "Compute on the CPU, close other programs that use the graphics card, "
        "or choose a smaller model.",
    )
