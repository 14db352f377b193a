"""The class map as a picture with legend, scale bar and the research-use line.

Over the slide when it is at hand, so that a reader sees what was called what;
sized for a page, never larger than the map warrants.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pathotune.cases.exports._common import RESEARCH_USE, put
from pathotune.maps.classmap import ClassMap

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.slides.slide import Slide

SUFFIX = ".png"
ACCEPTS = ClassMap
LONG_SIDE = 1600
OPACITY = 0.45


def picture(thing: ClassMap, slide: Slide | None) -> tuple[NDArray[np.uint8], float]:
    """Return (h, w, 3), the map over the slide or on white, and its map pixels a pixel."""
    rows, cols = thing.labels.shape
    scale = max(1, min(LONG_SIDE // max(rows, cols, 1), 12))
    height, width = rows * scale, cols * scale
    labels = np.repeat(np.repeat(thing.labels, scale, axis=0), scale, axis=1)
    shrink = -(-max(height, width) // LONG_SIDE)
    labels = labels[::shrink, ::shrink]
    height, width = labels.shape
    if slide is None:
        below = np.full((height, width, 3), 255, np.uint8)
    else:
        step = thing.step * shrink / scale
        below = slide.read_downsampled(*thing.origin, step, width, height)
    table = np.array([(0, 0, 0), *thing.colours], np.float32)
    weight = np.where(labels[..., None] > 0, np.float32(OPACITY if slide is not None else 1), 0)
    mixed = below * (1 - weight) + table[labels] * weight
    result: NDArray[np.uint8] = (mixed + 0.5).astype(np.uint8)
    return result, shrink / scale


def _bar(um_per_pixel: float, width: int) -> tuple[float, str]:
    """Return a round length in um that fits a third of the width, and how to write it."""
    room = um_per_pixel * width / 3
    digit = 10.0 ** np.floor(np.log10(max(room, 1e-6)))
    length = max(d * digit for d in (1, 2, 5) if d * digit <= room)
    return length, f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} um"


def write(path: Path, thing: ClassMap, slide: Slide | None) -> list[Path]:
    """Draw the map with its legend.

    Raises
    ------
    PathotuneError
        The file cannot be saved.
    """
    pixels, size = picture(thing, slide)
    height, width = pixels.shape[:2]
    um_per_pixel = thing.mpp * size
    areas, percent = thing.areas_mm2(), thing.areas_percent()
    font = ImageFont.load_default(16)
    line = 24
    lines = [f"{name}  {areas[name]:.2f} mm2  {percent[name]:.0f} %" for name in thing.classes]
    room = max(int(font.getlength(text)) for text in [*lines, RESEARCH_USE]) + 60
    page_height = max(height, (len(lines) + 4) * line) + 20
    page = Image.new("RGB", (width + room + 20, page_height), "white")
    page.paste(Image.fromarray(pixels), (10, 10))
    draw = ImageDraw.Draw(page)
    x, y = width + 25, 10
    for text, colour in zip(lines, thing.colours, strict=True):
        draw.rectangle((x, y + 3, x + 16, y + 19), fill=colour, outline="black")
        draw.text((x + 26, y), text, fill="black", font=font)
        y += line
    length, text = _bar(um_per_pixel, min(width, room * 2))
    y += line // 2
    pixels_long = int(length / um_per_pixel)
    draw.rectangle((x, y + 6, x + min(pixels_long, room - 20), y + 10), fill="black")
    draw.text((x, y + 12), text, fill="black", font=font)
    draw.text((x, y + 12 + line), RESEARCH_USE, fill="black", font=font)
    memory = io.BytesIO()
    page.save(memory, "PNG")
    return put(path, memory.getvalue())
