"""What every reader offers, so that the slide above it needs no ``if``.

A reader knows one family of files. It gives levels in their own pixels and
whatever the file says about itself; placing levels over one another, scales,
and doubts about um/px are the slide's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.slides.view import Scene


class Reader(ABC):
    """An open file.

    Attributes
    ----------
    sizes : tuple of (width, height)
        Levels from the finest on, in pixels.
    mpp : tuple of (float or None, float or None)
        um/px along x and y as the file says it, believable or not.
    vendor : str
        The scanner's maker or the format's name.
    objective : float or None
        Nominal magnification.
    chunk : int
        Side of the file's own tiles, a hint for the viewer.
    quickhash : str
        What the reader knows of the content beyond this one file; may be empty.
    scenes : tuple of Scene
        The pictures to choose from; empty when there is one.
    scene, depth, z : int
        Number of the chosen picture, how many depths it has, the chosen one.
    channels : tuple of str
        Names to choose from; empty for colour and for one channel.
    channel : int or None
        The chosen one; None shows the first three as red, green and blue.
    times : int
        How many time points it has; the first is shown.
    icc_profile : bytes
        The file's own; empty when it has none.
    """

    sizes: tuple[tuple[int, int], ...]
    mpp: tuple[float | None, float | None] = (None, None)
    vendor: str = "unknown"
    objective: float | None = None
    chunk: int = 256
    quickhash: str = ""
    scenes: tuple[Scene, ...] = ()
    scene: int = 1
    depth: int = 1
    z: int = 1
    channels: tuple[str, ...] = ()
    channel: int | None = None
    times: int = 1
    icc_profile: bytes = b""

    @abstractmethod
    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return (height, width, 3) pixels of a level; the box lies inside the level.

        Safe to call from several threads.
        """

    def reductions(self, level: int) -> tuple[int, ...]:
        """Return the whole numbers by which a level can be read smaller at no extra cost."""
        del level
        return (1,)

    def may_reduce(self, level: int) -> bool:
        """Whether a level looks as if it had `reductions`; answered without reading pixels."""
        return len(self.reductions(level)) > 1

    def read_reduced(
        self, level: int, reduction: int, x: int, y: int, width: int, height: int, *, exact: bool
    ) -> NDArray[np.uint8]:
        """Return (height, width, 3) of a level shrunk by one of its `reductions`.

        Each pixel is the mean of `reduction` x `reduction` pixels of the level,
        to half a grey level if `exact` is wanted and to about one otherwise;
        those beyond its borders count as white. The box is in shrunk pixels and
        lies inside the level, whose size is rounded up. Safe to call from
        several threads.
        """
        del exact
        if reduction != 1:
            raise ValueError(f"{self.vendor} files cannot be read {reduction} times smaller")
        return self.read(level, x, y, width, height)

    @abstractmethod
    def close(self) -> None:
        """Give the file back to the system; called once."""

    def associated(self) -> tuple[str, ...]:
        """Return names of label, macro and the like."""
        return ()

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Return (h, w, 3) of an associated image."""
        raise KeyError(name)


def as_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (h, w, 3) of grey, grey with alpha, RGB or RGBA; transparent becomes white."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] > 4:
        pixels = np.ascontiguousarray(pixels[..., :3])
    channels = pixels.shape[2]
    if channels == 3:
        return pixels
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    colour = pixels[..., : channels - 1]
    alpha = pixels[..., channels - 1 :]
    if (alpha != 255).any():
        share = alpha.astype(np.float32) / 255
        colour = (colour * share + 255 * (1 - share) + 0.5).astype(np.uint8)
    return as_rgb(np.ascontiguousarray(colour)) if channels == 2 else np.ascontiguousarray(colour)
