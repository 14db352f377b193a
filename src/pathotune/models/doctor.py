"""A check-up: what on this computer would keep the program from working, and the remedy.

Each finding is a sentence with a hint, not a stack of version numbers: it is
read by somebody who wants to open a slide. One part that is broken must not
hide the others, so every look is taken by itself, and nothing here touches the
network.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathotune import __version__, places
from pathotune.events import PathotuneError
from pathotune.models import cards, weights

if TYPE_CHECKING:
    from collections.abc import Callable

_LITTLE_DISK = 5 << 30
_LITTLE_MEMORY = 4 << 30
_READERS = {
    "openslide": "most scanners' formats (SVS, NDPI, MRXS, SCN, ...)",
    "tifffile": "TIFF and OME-TIFF",
    "imagecodecs": "compressed TIFF",
    "simplejpeg": "SVS and TIFF of JPEG tiles",
    "PIL": "PNG and JPEG",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it is fine, in a sentence, and what to do if not."""

    name: str
    ok: bool
    text: str
    hint: str = ""


def checkup() -> list[Finding]:
    """Look at everything that the program depends on; imports torch, takes seconds."""
    looks: tuple[Callable[[], list[Finding]], ...] = (
        _program,
        _torch,
        _device,
        _engine,
        _readers,
        _models,
        _disk,
        _memory,
        _network,
    )
    found: list[Finding] = []
    for look in looks:
        try:
            found += look()
        except (ImportError, OSError, RuntimeError, ValueError, PathotuneError) as error:
            name = look.__name__.removeprefix("_")
            found.append(
                Finding(
                    name, False, f"{name.capitalize()} cannot be checked: {error}", _hint(error)
                )
            )
    return found


def _hint(error: Exception) -> str:
    if isinstance(error, PathotuneError):
        return error.hint
    return "Install napari-pathotune again into a fresh environment."


def _program() -> list[Finding]:
    text = (
        f"napari-pathotune {__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}."
    )
    return [Finding("program", True, text)]


def _torch() -> list[Finding]:
    from pathotune.models._torchvision import import_timm, mend

    timm = import_timm()
    import torch

    state = mend()
    text = f"torch {torch.__version__} and timm {timm.__version__} work."
    if state == "mended":
        text += " torchvision was built for another torch; the program works around it."
    return [Finding("torch", True, text)]


def _device() -> list[Finding]:
    from pathotune.models import runtime

    found = []
    for device in runtime.devices():
        memory = "" if device.memory is None else f", {device.memory / 2**30:.0f} GB"
        found.append(Finding("device", True, f"{device.name}{memory}."))
    driver = _nvidia_driver()
    if driver and not any(f.text.startswith("CUDA") for f in found):
        import torch

        if torch.version.cuda is None:
            hint = "Install torch with CUDA (see pytorch.org), then torchvision to match."
            text = f"torch was installed without CUDA, so this is not used: {driver}."
            found.append(Finding("device", False, text, hint))
        else:
            text = f"The graphics card cannot be used: {driver}, torch wants CUDA "
            text += f"{torch.version.cuda}."
            found.append(Finding("device", False, text, "Update the graphics driver."))
    elif driver:
        found.append(Finding("driver", True, f"{driver}."))
    else:
        text = "No NVIDIA graphics card: everything works on the processor, only slower."
        found.append(Finding("driver", True, text))
    return found


def _engine() -> list[Finding]:
    """Tell what computes on the processor, and why."""
    from pathotune.models import quiet, runtime
    from pathotune.models.engines import openvino

    half = runtime.has_bf16()
    kind = "multiplies 16-bit numbers" if half else "has no 16-bit arithmetic"
    if not openvino.available():
        text = "torch computes on the processor, in 32 bits: OpenVINO is not installed."
        return [
            Finding("engine", True, text, "pip install openvino makes it several times faster.")
        ]
    try:
        version = quiet.import_openvino().__version__
    except (ImportError, OSError, RuntimeError) as error:
        text = f"torch computes on the processor: OpenVINO does not load ({error})."
        return [Finding("engine", False, text, "pip install --force-reinstall openvino")]
    text = (
        f"OpenVINO {version.partition('-')[0]} computes on the processor, which {kind}"
        f"{': where a network bears them they are used' if half else ', so it takes 32'}."
    )
    found = [Finding("engine", True, text)]
    card = cards.cards().get(cards.DEFAULT_ID)
    verdict = None if card is None else openvino.verdict(card.hash(), half)
    if card is not None and verdict is not None:
        found.append(Finding("engine", True, f"{card.name} runs in {verdict}."))
    return found


def _nvidia_driver() -> str:
    """Return the card and its driver as the system tells them, or nothing."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "an NVIDIA card whose driver does not answer"
    name, _, version = answer.stdout.strip().partition("\n")[0].partition(",")
    return f"{name.strip()} with driver {version.strip()}" if name else ""


def _readers() -> list[Finding]:
    found = []
    for module, reads in _READERS.items():
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as error:
            package = {"PIL": "pillow", "openslide": "openslide-python openslide-bin"}
            found.append(
                Finding(
                    "reader",
                    False,
                    f"{module} does not load, so {reads} cannot be opened ({error}).",
                    f"pip install {package.get(module, module)}",
                )
            )
        else:
            found.append(Finding("reader", True, f"{module} reads {reads}."))
    return found


def _models() -> list[Finding]:
    found, elsewhere = [], 0
    for card in cards.cards().values():
        try:
            if card.shipped and not card.here and card.parts[0].weights.kind != "embedded":
                elsewhere += 1
                continue
            if card.needs_download:
                gate = ", gated" if card.gated else ""
                text = f"{card.name}: not downloaded ({card.size_mb:.0f} MB, {card.licence}{gate})."
                found.append(Finding("model", True, text))
                continue
            for wanted in card.weights:
                weights.resolve(wanted, card)
            found.append(Finding("model", True, f"{card.name}: the weights are here and whole."))
        except PathotuneError as error:
            found.append(Finding("model", False, f"{card.name}: {error.message}", error.hint))
    text = f"{elsewhere} more networks are known; `pathotune models` says where they are from."
    found.append(Finding("models", True, text))
    found.append(Finding("cards", True, f"Your own model cards go into {cards.user_folder()}."))
    if cards.DEFAULT_ID not in cards.cards():
        text = f"The default model {cards.DEFAULT_ID!r} is not there."
        found.append(Finding("model", False, text, "Install napari-pathotune again."))
    return found


def _disk() -> list[Finding]:
    from pathotune.models.features import FeatureStore

    place = places.cache_dir()
    free, used = shutil.disk_usage(place).free, FeatureStore.usage()
    text = (
        f"{free / 1e9:.0f} GB are free for features in {place}; features of slides take "
        f"{used / 1e9:.1f} GB."
    )
    hint = "Make room, or choose another folder for features in the preferences."
    return [Finding("disk", free >= _LITTLE_DISK, text, "" if free >= _LITTLE_DISK else hint)]


def _memory() -> list[Finding]:
    try:
        psutil = importlib.import_module("psutil")  # comes with napari
    except ImportError:
        return []
    free = int(psutil.virtual_memory().available)
    ok = free >= _LITTLE_MEMORY
    text = f"{free / 2**30:.0f} GB of memory are free."
    return [Finding("memory", ok, text, "" if ok else "Close other programs.")]


def _network() -> list[Finding]:
    if weights.is_offline():
        return [Finding("network", True, "Offline: nothing is ever downloaded.")]
    text = "Downloads are possible, but only after you agree to each."
    return [Finding("network", True, text)]
