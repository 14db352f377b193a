"""What sort of picture a slide is, told before a model is run on the wrong one.

Every model here was made for brightfield H&E. Fluorescence and grey pictures
open and can be looked at; a model says plainly that it was made for something
else, or learnt from another depth or channel. Judged from a thumbnail, by
brightness and colour, and from what the file says of its channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from pathotune.slides.view import View


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


def channel_problem(names: Sequence[str], chosen: int | None) -> str:
    """Say in a sentence that channels are no stain; nothing for a picture without channels.

    Parameters
    ----------
    names : sequence of str
        Of the file's channels; empty for colour.
    chosen : int or None
        Number of the one that is shown, from 1; None: the first three together.
    """
    if not names:
        return ""
    if chosen is not None:
        return f"One channel, {names[chosen - 1]}, is shown in grey."
    shown = zip(names, ("red", "green", "blue"), strict=False)
    said = ", ".join(f"{name} in {colour}" for name, colour in shown)
    return f"Channels are shown as colours, {said}; they are not stains."


def picture_problem(now: View, learnt: Iterable[Mapping[str, Any]]) -> str:
    """Say what differs between the picture shown and those a model learnt from; else nothing.

    Parameters
    ----------
    now : View
        What is shown.
    learnt : iterable of mapping
        `View.words` of the pictures that the model learnt from.
    """
    pictures = list(learnt)
    if not pictures:
        return ""
    if bool(now.icc) not in {bool(p.get("icc")) for p in pictures}:
        used, shown = ("without", "with") if now.icc else ("with", "without")
        return (
            f"The model learnt from colours {used} the colour profile applied; this slide is "
            f"shown {shown} it. Switch it to judge alike."
        )
    if now.channel not in {p.get("channel") for p in pictures}:
        return (
            "The model learnt from another channel, or from channels together. Choose the one "
            "it learnt from in the Slide dock."
        )
    depths = {p.get("z") or 1 for p in pictures}
    if (now.z or 1) not in depths:
        return (
            f"The model learnt at depth {', '.join(map(str, sorted(depths)))}; shown is depth "
            f"{now.z or 1}, where other things are in focus. Judge the map with care."
        )
    return ""


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
