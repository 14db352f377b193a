"""Boxes and levels in level-0 pixels, the one coordinate system of the engine.

x goes right and y goes down; pixel i covers [i, i + 1). Every wing speaks these
two types, so they live apart from the reading that needs files.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Region:
    """A box in level-0 pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def x1(self) -> int:
        """Return the first column right of the box."""
        return self.x + self.width

    @property
    def y1(self) -> int:
        """Return the first row below the box."""
        return self.y + self.height

    def intersect(self, other: Region) -> Region | None:
        """Return what both cover, or None."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        x1, y1 = min(self.x1, other.x1), min(self.y1, other.y1)
        return Region(x, y, x1 - x, y1 - y) if x1 > x and y1 > y else None

    def expand(self, pixels: int) -> Region:
        """Return the box grown by `pixels` on every side."""
        return Region(
            self.x - pixels, self.y - pixels, self.width + 2 * pixels, self.height + 2 * pixels
        )

    def contains(self, x: float, y: float) -> bool:
        """Whether a point lies inside."""
        return self.x <= x < self.x1 and self.y <= y < self.y1


@dataclass(frozen=True, slots=True)
class Level:
    """A level's size, and how many level-0 pixels one of its pixels spans along x and y."""

    width: int
    height: int
    downsample_x: float
    downsample_y: float
