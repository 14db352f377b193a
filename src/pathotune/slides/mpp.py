"""Whether a pixel size is believable, and what the user said when it was not.

Areas and models hang on um/px, and files lie: a TIFF saved by a paint program
says 72 dpi, a stitched one gives x and y that differ. What is not believable
counts as missing and is asked once; the answer is kept on this computer under
the slide's fingerprint, never with its name.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from pathlib import Path
from threading import Lock

from pathotune import places
from pathotune.events import PathotuneError

PRINT_DPI = (72, 96, 100, 150, 200, 300, 600, 1200)
LARGEST_DIFFERENCE = 0.05
ASKED_RANGE = (0.05, 50.0)
COARSEST = 8  # times a network's um/px: beyond it a slide is an overview, not tissue
LARGEST = 1000.0  # a millimetre; files that say "1 dpi" mean that they do not know
_DPI_TOLERANCE = 2e-3  # whole pixels per cm and per m do not give whole dpi
_lock = Lock()


def refuse_blur(mpp: float, network_mpp: float) -> None:
    """Make sure that a network sees tissue in a slide.

    Parameters
    ----------
    mpp, network_mpp : float
        um/px of the slide and of what the network looks at.

    Raises
    ------
    PathotuneError
        The slide is more than eight times coarser.
    """
    if mpp > COARSEST * network_mpp:
        raise PathotuneError(
            f"A pixel is {mpp:.3g} µm wide here; the network looks at {network_mpp:g} µm/px and "
            "would see nothing but blur. No map is made.",
            "Use the picture at its full size, or mend µm/px if it is wrong.",
        )


def believable(mpp_x: float | None, mpp_y: float | None) -> str | None:
    """Say why a file's pixel size cannot be believed, or return None when it can.

    Parameters
    ----------
    mpp_x, mpp_y : float or None
        um per pixel along x and y.

    Returns
    -------
    str or None
        A sentence for the user; None when both values are usable.
    """
    if mpp_x is None or mpp_y is None:
        return "This slide does not say how large a pixel is."
    if not (math.isfinite(mpp_x) and math.isfinite(mpp_y)) or mpp_x <= 0 or mpp_y <= 0:
        return "The pixel size in this file is not a size at all."
    if max(mpp_x, mpp_y) > LARGEST:
        return f"The file gives pixels of {max(mpp_x, mpp_y) / 1000:.3g} mm, larger than a cell is."
    if abs(mpp_x - mpp_y) > LARGEST_DIFFERENCE * max(mpp_x, mpp_y):
        return (
            f"The file gives pixels that are not square ({mpp_x:.4g} by {mpp_y:.4g} um), "
            "which no scanner makes."
        )
    mean = (mpp_x + mpp_y) / 2
    for dpi in PRINT_DPI:
        if abs(mean * dpi / 25400 - 1) < _DPI_TOLERANCE:
            return f"The file gives a print resolution ({dpi} dpi), not the scanner's pixel size."
    return None


def check_answer(mpp: float) -> float:
    """Return a um/px typed by the user, or say what is wrong with it.

    Raises
    ------
    PathotuneError
        Not a number, or outside 0.05 to 50 um/px.
    """
    low, high = ASKED_RANGE
    if not isinstance(mpp, int | float) or not math.isfinite(mpp) or not low <= mpp <= high:
        raise PathotuneError(
            f"{mpp} um/px cannot be the pixel size of a slide.",
            f"Give a number from {low} to {high}: 0.25 for a 40x scan, 0.5 for 20x.",
        )
    return float(mpp)


def _file() -> Path:
    return places.data_dir() / "mpp.json"


def _answers() -> dict[str, float]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(k): float(v) for k, v in found.items() if _fits(v)}


def _fits(value: object) -> bool:
    return isinstance(value, int | float) and ASKED_RANGE[0] <= value <= ASKED_RANGE[1]


def remembered(fingerprint: str) -> float | None:
    """Return the user's earlier answer for this slide, if there is one."""
    with _lock:
        return _answers().get(fingerprint)


def remember(fingerprint: str, mpp: float) -> None:
    """Keep the user's answer; a full disk costs only the remembering."""
    with _lock, contextlib.suppress(OSError):
        answers = _answers()
        answers[fingerprint] = mpp
        handle, name = tempfile.mkstemp(dir=_file().parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                json.dump(answers, out)
            Path(name).replace(_file())
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
