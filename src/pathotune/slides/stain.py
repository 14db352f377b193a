"""What sort of picture a slide is, told before a model is run on the wrong one.

Every model here was made for brightfield H&E. Fluorescence and grey pictures
open and can be looked at; a model says plainly that it was made for something
else. Judged from a thumbnail, by brightness and colour alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def kind_of(thumbnail: NDArray[np.uint8]) -> Literal["brightfield", "fluorescence", "grey"]:
    """Judge a thumbnail (h, w, 3): light on dark, without colour, or stained."""
    pixels = thumbnail.reshape(-1, 3).astype(np.int16)
    brightest = pixels.max(axis=1)
    colour = brightest - pixels.min(axis=1)
    # densely packed nuclei are dark too, but never as dark as what does not shine
    dark = float(np.mean(brightest < 70)) > 0.5 and float(np.median(brightest)) < 45
    white = float(np.mean(brightest > 200))
    if dark and white < 0.2 and not _stained_on_black(pixels[brightest >= 70]):
        return "fluorescence"
    if float(np.mean(colour > 12)) < 0.002:
        return "grey"
    return "brightfield"


def _stained_on_black(lit: NDArray[np.int16]) -> bool:
    """Whether what is not black is stained tissue whose background was painted black."""
    if not len(lit):
        return False
    darkest = lit.min(axis=1)
    light = float(np.mean(darkest > 60)) > 0.6  # fluorescence lacks some colour altogether
    return light and float(np.mean(lit.max(axis=1) - darkest > 12)) > 0.5


def stain_problem(thumbnail: NDArray[np.uint8]) -> str:
    """Say in a sentence what a thumbnail (h, w, 3) is when it is not H&E; nothing when it is."""
    kind = kind_of(thumbnail)
    if kind == "fluorescence":
        return "This is a fluorescence image."
    if kind == "grey":
        return "This image has no colour."
    pixels = thumbnail.reshape(-1, 3).astype(np.int16)
    red, green, blue = pixels.T
    coloured = (pixels.max(axis=1) - pixels.min(axis=1)) > 25
    if not coloured.any():
        return ""
    pink = (red[coloured] > green[coloured] + 5) & (blue[coloured] > green[coloured] - 15)
    return "" if float(pink.mean()) >= 0.35 else "The colours do not look like H&E."


def looks_like_he(thumbnail: NDArray[np.uint8]) -> tuple[bool, str]:
    """Say whether pink and purple tissue is seen, and if not what is.

    Parameters
    ----------
    thumbnail : uint8 (h, w, 3)

    Returns
    -------
    bool, str
        The verdict and a sentence for the user (empty when it looks like H&E).
    """
    problem = stain_problem(thumbnail)
    return not problem, f"{problem[:-1]}; the model was made for H&E." if problem else ""
