"""Import torch and timm beside a living window without stopping it.

A plain ``import torch`` in a worker thread freezes the window for a quarter of
a second: its libraries are mapped while Python's global lock is held, and the
half million objects that torch, torchvision and timm create set off full
garbage collections of 50 to 200 ms each. Both are avoidable: the libraries are
mapped beforehand through a foreign call, which gives the lock up, and the
collector rests during the import and is told to leave what was imported alone.
`benchmarks/import_gap.py` prints the longest gap with and without.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from threading import Lock
from typing import Any

# In the order in which they need one another; the first only on CUDA builds.
_LIBRARIES = (
    "libc10.so",
    "libtorch_cpu.so",
    "libc10_cuda.so",
    "libtorch_cuda.so",
    "libtorch.so",
    "libtorch_python.so",
)
_RTLD_GLOBAL = getattr(os, "RTLD_GLOBAL", 0)
# Drawing a frame takes the lock back after each of dozens of calls to the graphics library; at
# Python's usual 5 ms a turn, an import would make one frame last a quarter of a second.
_TURN_S = 0.0005
_lock = Lock()


def _folder(package: str, inside: str) -> Path:
    """Return a folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return Path(os.devnull)
    return Path(next(iter(spec.submodule_search_locations))) / inside


def _map(folder: Path, names: tuple[str, ...], shared: int) -> None:
    """Map libraries while other threads run; a miss only costs time.

    The first `shared` of them show their symbols to all that come later.
    """
    # ctypes' own loader keeps the lock; a call of dlopen as a foreign function does not.
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype = ctypes.c_void_p
    dlopen.argtypes = [ctypes.c_char_p, ctypes.c_int]
    for number, name in enumerate(names):
        for library in folder.glob(name):
            mode = os.RTLD_LAZY | (_RTLD_GLOBAL if number < shared else 0)
            dlopen(os.fsencode(library), mode)


def import_torch(*modules: str) -> None:
    """Import torch and `modules` (dotted names) once, leaving other threads their turn.

    Safe to call from any thread and any number of times. `thaw` undoes the one
    lasting effect, that the collector passes over what existed at this moment.
    """
    wanted = [m for m in ("torch", *modules) if m not in sys.modules]
    if not wanted:
        return
    with _lock:
        if "torch" not in sys.modules:
            # Waiting threads of OpenMP otherwise spin, and take from the window, the readers and
            # one another the cores they wait on: half the speed on two busy cores.
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if "torch" not in sys.modules and sys.platform.startswith("linux"):
            with contextlib.suppress(OSError, AttributeError):
                _map(_folder("torch", "lib"), _LIBRARIES, 1)
        was_on, turns = gc.isenabled(), sys.getswitchinterval()
        gc.disable()
        sys.setswitchinterval(_TURN_S)
        try:
            for name in wanted:
                importlib.import_module(name)
            gc.freeze()
        finally:
            sys.setswitchinterval(turns)
            if was_on:
                gc.enable()


def import_openvino() -> Any:
    """Import OpenVINO once, its libraries mapped beforehand and its telemetry left out."""
    found = sys.modules.get("openvino")
    if found is not None and hasattr(found, "Core"):
        return found
    with _lock:
        if sys.platform.startswith("linux"):
            with contextlib.suppress(OSError, AttributeError):
                _map(_folder("openvino", "libs"), ("libtbb.so.12", "libopenvino.so*"), 0)
        silenced = "openvino_telemetry" not in sys.modules
        if silenced:  # it would start a thread that reports to its makers; without it they use
            sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # an empty one
        try:
            return importlib.import_module("openvino")
        finally:
            if silenced:
                del sys.modules["openvino_telemetry"]


def thaw() -> None:
    """Let the collector look at everything again, when a window has closed."""
    gc.unfreeze()
