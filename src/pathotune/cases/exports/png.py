"""A picture of the map for a slide show: the tissue, the classes over it, and a legend.

The classes lie over the slide's thumbnail, so that the tissue stays to be seen;
without the slide they stand alone. Names are beside the colours, because a
colour alone tells nothing to one reader in twelve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pathotune.cases.replacing import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

    from pathotune.maps.classmap import ClassMap
    from pathotune.slides.slide import Slide

SUFFIX = ".png"
ACCEPTS = ("classmap",)
LONG_SIDE = 1600
STRENGTH = 0.5


def write(path: Path, classmap: ClassMap, slide: Slide | None = None) -> list[Path]:
    """Write the picture, at most 1600 pixels wide or high and a legend below; return the file.

    Parameters
    ----------
    path : Path
        The file to write.
    classmap : ClassMap
        The map.
    slide : Slide, optional
        Its tissue is drawn under the map.
    """
    picture = _with_legend(over_slide(classmap, slide), classmap)
    with replacing(path) as draft:
        picture.save(draft, format="PNG", optimize=True)
    return [path]


def over_slide(classmap: ClassMap, slide: Slide | None) -> NDArray[np.uint8]:
    """Return (h, w, 3): the classes over the part of the slide that the map covers."""
    rows, cols = classmap.labels.shape
    scale = min(1.0, LONG_SIDE / max(rows, cols))
    height, width = max(1, round(rows * scale)), max(1, round(cols * scale))
    r = np.minimum((np.arange(height) + 0.5) / height * rows, rows - 1).astype(int)
    c = np.minimum((np.arange(width) + 0.5) / width * cols, cols - 1).astype(int)
    labels = classmap.labels[np.ix_(r, c)]
    table = np.array([(255, 255, 255), *classmap.colours], np.float32)
    colours = table[labels]
    if slide is None:
        return np.asarray(colours.round(), np.uint8)
    x, y = classmap.origin
    step = classmap.step * cols / width  # level-0 pixels of a pixel of the picture
    below = slide.read_downsampled(x, y, step, width, height).astype(np.float32)
    alpha = np.where(labels > 0, STRENGTH, 0.0)[..., None].astype(np.float32)
    return np.asarray((alpha * colours + (1 - alpha) * below).round(), np.uint8)


def _with_legend(body: NDArray[np.uint8], classmap: ClassMap) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    size = max(14, body.shape[1] // 70)
    font = ImageFont.load_default(size)
    mm2, percent = classmap.areas_mm2(), classmap.areas_percent()
    entries = [
        (tuple(int(v) for v in colour), f"{name}  {mm2[name]:.2f} mm²  {percent[name]:.0f} %")
        for name, colour in zip(classmap.classes, classmap.colours, strict=True)
    ]
    width = max(body.shape[1], 360)
    chip, line = round(size * 0.9), round(size * 1.7)
    widest = max(round(font.getlength(text)) for _, text in entries) + chip + 2 * size
    columns = max(1, (width - size) // widest)
    lines = -(-len(entries) // columns) + 1
    picture = Image.new("RGB", (width, body.shape[0] + lines * line + size), "white")
    picture.paste(Image.fromarray(body), (0, 0))
    draw = ImageDraw.Draw(picture)
    for n, (colour, text) in enumerate(entries):
        x = size + n % columns * widest
        y = body.shape[0] + size // 2 + n // columns * line
        draw.rectangle((x, y + size // 5, x + chip, y + size // 5 + chip), colour, "#555555")
        draw.text((x + chip + size // 2, y), text, "#1a1a1a", font)
    y = body.shape[0] + size // 2 + (lines - 1) * line
    draw.text((size, y), "For research use only. Not for diagnosis.", "#555555", font)
    return picture
