"""Where and how a backbone runs: device, batch size, threads, and too little memory.

One processor core belongs to the window while anything runs behind it, so the
number of threads is set in the thread that computes. The batch shape is fixed
per device because kernels are chosen by shape and a tile must give the same
tokens whatever its neighbours in the batch. When memory runs out the batch is
halved, and the user is told.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathotune.events import PathotuneError
from pathotune.models.quiet import import_torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_CPU_PIXELS = 4 * 224**2  # as fast as twice that on two cores, and a cancel waits half as long
_GPU_BATCH = 64
_GPU_BYTES_PER_TILE = 96 << 20  # a ViT-L at 224 px with room to spare

# How torch, the system and CUDA's libraries, each in words of their own, run out of memory.
_HUNGRY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "ALLOC_FAILED",  # cuBLAS and cuDNN
    "cudaErrorMemoryAllocation",
    "unable to find an engine",  # cuDNN, whose workspace did not fit
    "Unable to find a valid cuDNN algorithm",
)

_leave_a_core: bool | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A place to compute: `key` for programs, `name` for people, memory in bytes or None."""

    key: str
    name: str
    memory: int | None = None


EXACT = "-f32"
"""Ending of a device's key: compute in 32 bits even where 16 do no harm."""


def devices() -> list[Device]:
    """Return the places to compute on this machine, the fastest first.

    Imports torch only where it could have a graphics card to tell of.
    """
    return [*_graphics(), *_processors()]


def _processors() -> list[Device]:
    count = f"{cores()} cores" if cores() > 1 else "1 core"
    if not (has_bf16() and importlib.util.find_spec("openvino")):
        return [Device("cpu", f"CPU (f32), {count}")]
    return [
        Device("cpu", f"CPU (bf16), {count}"),
        Device("cpu" + EXACT, f"CPU (f32, exact), {count}"),
    ]


def _graphics() -> list[Device]:
    if not _torch_may_see_graphics():
        return []
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
    return found


def _torch_may_see_graphics() -> bool:
    """Tell whether it is worth importing torch, which takes seconds, to ask for graphics cards."""
    if "torch" in sys.modules or not sys.platform.startswith("linux"):
        return True
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return True  # the import tells what is wrong
    folder = Path(next(iter(spec.submodule_search_locations))) / "lib"
    return any((folder / f"libtorch_{kind}.so").is_file() for kind in ("cuda", "hip"))


@lru_cache(maxsize=1)
def has_bf16() -> bool:
    """Tell whether the processor multiplies 16-bit numbers (AVX512_BF16 or AMX) in hardware."""
    try:  # where Linux tells of its processor
        known = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        known = ""
    if known:
        lines = [line for line in known.splitlines() if line.startswith("flags")]
        flags = set(lines[0].partition(":")[2].split()) if lines else set()
        return not flags.isdisjoint({"avx512_bf16", "amx_bf16"})
    import_torch()
    import torch

    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in asked)


def split(device: str) -> tuple[str, bool]:
    """Return the torch device of a device's key, and whether 32 bits are asked for."""
    return device.removesuffix(EXACT), device.endswith(EXACT)


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
        "auto" takes the fastest; "cpu", "cuda", "cuda:1" or "mps" must exist. With
        "-f32" behind it ("cpu-f32") it computes in 32 bits.

    Raises
    ------
    PathotuneError
        The wanted device is not there.
    """
    known = [d.key for d in devices()]
    if wanted == "auto":
        return known[0]
    where, exact = split(wanted)
    where = "cuda" if where == "cuda:0" else where
    wanted = where + EXACT if exact else where
    if where not in known:
        raise PathotuneError(
            f"The device {wanted!r} is not available on this computer.",
            f"Choose one of: auto, {', '.join(known)}.",
        )
    return wanted


def batch_size(device: str, tile_px: int = 224) -> int:
    """Return how many tiles of `tile_px` go through the backbone at a time."""
    device = split(device)[0]
    if not device.startswith("cuda"):
        return max(1, round(_CPU_PIXELS / tile_px**2))
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    per_tile = max(1, int(_GPU_BYTES_PER_TILE * (tile_px / 224) ** 2))
    return max(1, min(_GPU_BATCH, int(free * 0.5) // per_tile))


def readers(device: str) -> int:
    """Return how many threads should read tiles for a device.

    Beside a processor's model two are plenty; a graphics card takes what the other
    cores can decode.
    """
    return max(2, min(8, cores() - 1)) if device.startswith("cuda") else 2


def leave_a_core(leave: bool | None) -> None:
    """Keep one core free from now on, or not; None: when not run by the main thread.

    A job that is pumped by another thread than the main one is run by a window.
    """
    global _leave_a_core
    _leave_a_core = leave


def beside_a_window() -> bool:
    """Tell whether this thread computes beside a window that must not be held up."""
    if _leave_a_core is not None:
        return _leave_a_core
    return threading.current_thread() is not threading.main_thread()


def thread_limit() -> int:
    """Return the number of threads that a computation may use."""
    return max(1, cores() - 1) if beside_a_window() else cores()


def threads_here() -> int:
    """Return `thread_limit`, or less where OMP_NUM_THREADS asks for less."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(thread_limit(), max(1, int(asked))) if asked.isdecimal() else thread_limit()


@contextmanager
def limited_threads() -> Iterator[int]:
    """Compute with `thread_limit` threads in this thread; the old number comes back after."""
    if "torch" not in sys.modules:  # nor is it needed, where OpenVINO computes
        yield thread_limit()
        return
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
    if isinstance(error, MemoryError):
        return True
    text = str(error)  # torch.OutOfMemoryError is a RuntimeError and says so
    return isinstance(error, RuntimeError) and any(words in text for words in _HUNGRY)


def release_memory(device: str) -> None:
    """Give cached memory of a device back after it ran out."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def too_little_memory(card: Any, device: str) -> PathotuneError:
    """Return the error for a model that does not fit even with one tile at a time."""
    where = "this computer's memory" if split(device)[0] == "cpu" else "the graphics card's memory"
    return PathotuneError(
        f"{card.name} does not fit into {where}, not even one tile at a time.",
        "Close other programs or choose a smaller model."
        if split(device)[0] == "cpu"
        else "Compute on the CPU, close other programs that use the graphics card, "
        "or choose a smaller model.",
    )
