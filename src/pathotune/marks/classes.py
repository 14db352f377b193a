"""Classes that a pathologist tells apart: a name and a colour that stays tellable.

Colours come from the palette of Okabe and Ito, whose hues stay distinct with
every common colour vision; a new class takes the first that is free.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pathotune import places

if TYPE_CHECKING:
    from collections.abc import Iterable

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class AnnotationClass:
    """A class: `name`, and `colour` as red, green, blue from 0 to 255."""

    name: str
    colour: Colour


@cache
def palette(name: str = "okabe_ito") -> tuple[Colour, ...]:
    """Return the colours of a palette in `resources/palettes`."""
    path = places.resources() / "palettes" / f"{name}.toml"
    found = tomllib.loads(path.read_text(encoding="utf-8"))["colours"]
    return tuple((int(r), int(g), int(b)) for r, g, b in found)


def next_colour(used: Iterable[Colour]) -> Colour:
    """Return the first colour of the palette that is free, or the least used one."""
    taken = list(used)
    return min(palette(), key=taken.count)
