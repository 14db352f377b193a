"""Colours as the scanner's profile says they are meant, brought to sRGB.

A profile is a function of a pixel's three numbers, which Little CMS turns into
tables when the transform is built; applying it is then a look-up. One transform
serves all threads, because its one-pixel memory is switched off.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Correct = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

_NO_CACHE = 0x0040  # cmsFLAGS_NOCACHE: what lets threads share a transform


def to_srgb(profile: bytes) -> Correct | None:
    """Return a function that corrects (h, w, 3) pixels; None when the profile is of no use.

    Parameters
    ----------
    profile : bytes
        An ICC profile for RGB; anything else is of no use.
    """
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            renderingIntent=ImageCms.Intent.PERCEPTUAL,
            flags=ImageCms.Flags(_NO_CACHE),
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None

    def apply(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        corrected = transform.apply(image)
        return np.array(corrected)

    return apply
