"""PNG and JPEG as slides of one level: screenshots, exported fields, teaching images.

They are decoded whole, so a size is agreed beyond which a plain message asks
for a pyramid instead of filling the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pathotune.events import PathotuneError
from pathotune.slides.readers._base import Reader, as_rgb

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

KEY = "raster"
ORDER = 3
LARGEST_PIXELS = 400_000_000
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


def claims(path: Path, head: bytes) -> bool:
    """Whether the file is a PNG or a JPEG."""
    del path
    return head.startswith(_MAGIC)


class RasterReader(Reader):
    """A decoded PNG or JPEG."""

    vendor = "image"

    def __init__(self, path: Path) -> None:
        try:
            with Image.open(path) as image:
                if image.width * image.height > LARGEST_PIXELS:
                    raise PathotuneError(
                        f"{path.name} has {image.width} x {image.height} pixels, "
                        "too many for a plain image.",
                        "Save it as a pyramidal TIFF and open that.",
                    )
                self.mpp = _mpp(image.info)
                mode = "RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"
                self._pixels: NDArray[np.uint8] | None = as_rgb(np.asarray(image.convert(mode)))
        except (
            UnidentifiedImageError,
            OSError,
            SyntaxError,
            Image.DecompressionBombError,
        ) as error:
            raise PathotuneError(
                f"{path.name} cannot be read ({error}); the file is damaged or incomplete.",
                "Copy or export it again.",
            ) from error
        height, width = self._pixels.shape[:2]
        self.sizes = ((width, height),)
        self.chunk = 512

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return a copy of a box."""
        del level
        if self._pixels is None:
            raise PathotuneError("This image has been closed.", "Open it again.")
        return self._pixels[y : y + height, x : x + width].copy()

    def close(self) -> None:
        """Free the memory."""
        self._pixels = None


def _mpp(info: dict[Any, Any]) -> tuple[float | None, float | None]:
    dpi = info.get("dpi")
    try:
        return (25400 / float(dpi[0]), 25400 / float(dpi[1])) if dpi else (None, None)
    except (ZeroDivisionError, TypeError, ValueError, IndexError):
        return None, None


def open_reader(path: Path) -> Reader:
    """Open a file for which `claims` was true."""
    return RasterReader(path)
