"""PNG and JPEG as slides of one level: screenshots, exported fields, teaching images.

They are decoded whole, so a size is agreed beyond which a plain message asks
for a pyramid instead of filling the memory.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pathotune.events import PathotuneError
from pathotune.slides.readers._base import Reader, as_rgb

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.slides.view import View

KEY = "raster"
ORDER = 3
LARGEST_PIXELS = 178_000_000  # half a gigabyte as RGB; Pillow itself refuses more
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, OverflowError, zlib.error, struct.error)
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
            with warnings.catch_warnings():
                # the limit below is ours, and told in our words
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    if image.width * image.height > LARGEST_PIXELS:
                        raise Image.DecompressionBombError
                    self.mpp = _mpp(image.info)
                    self.icc_profile = image.info.get("icc_profile") or b""
                    self._pixels: NDArray[np.uint8] | None = _pixels(image)
        except Image.DecompressionBombError as error:
            raise PathotuneError(
                f"{path.name} has too many pixels for a plain image "
                f"(more than {LARGEST_PIXELS // 1_000_000} million).",
                "Save it as a tiled, pyramidal TIFF and open that.",
            ) from error
        except (*_BROKEN, UnidentifiedImageError) as error:
            raise PathotuneError(
                f"{path.name} cannot be read; the file is damaged or incomplete.",
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


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Return (h, w, 3) of any mode; sixteen bits are brought to eight by their own range."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float32)
        most = next((n for n in (255, 1023, 4095, 16383, 65535) if values.max() <= n), values.max())
        return as_rgb((np.clip(values, 0, None) * (255 / most) + 0.5).astype(np.uint8))
    if image.mode in {"RGB", "L"} and "transparency" not in image.info:
        return as_rgb(np.array(image))
    mode = "RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"
    return as_rgb(np.asarray(image.convert(mode)))


def _mpp(info: dict[Any, Any]) -> tuple[float | None, float | None]:
    dpi = info.get("dpi")
    try:
        return (25400 / float(dpi[0]), 25400 / float(dpi[1])) if dpi else (None, None)
    except (ZeroDivisionError, TypeError, ValueError, IndexError):
        return None, None


def open_reader(path: Path, view: View) -> Reader:
    """Open a file for which `claims` was true; it holds one picture."""
    del view
    return RasterReader(path)
