"""Which pages of a TIFF are the levels of its main image, and which its channels.

tifffile finds what the standards describe. Other programs also write thirds or
odd sizes, as sub-images or as further pages marked as reduced; those are levels
too when they have the shape and the kind of pixels of the full image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pathotune.slides.readers._ome import images
from pathotune.slides.view import Scene, View, largest, number


@dataclass(frozen=True, slots=True)
class Shown:
    """Which series, depth and channel are shown, and what there is to choose from.

    `hint` tells other scenes of a file apart from its default; `image` is the
    place in OME-XML.
    """

    series: Any
    scenes: tuple[Scene, ...] = ()
    scene: int = 1
    depth: int = 1
    z: int = 1
    channels: tuple[str, ...] = ()
    channel: int | None = None
    hint: str = ""
    image: int = 0
    times: int = 1


def choose(file: Any, view: View) -> Shown:
    """Return what is shown of a file; only OME says which images are pictures of their own.

    Raises
    ------
    PathotuneError
        The view asks for what the file lacks.
    """
    default_series = max(file.series, key=lambda s: math.prod(s.shape))
    words = images(file.ome_metadata or "") if file.is_ome else []
    every = list(file.series) if file.is_ome else [default_series]
    scenes = []
    for i, series in enumerate(every):
        size = dict(zip(series.axes, series.shape, strict=True))
        title = (words[i].name if i < len(words) else "") or f"Image {i + 1}"
        scenes.append(Scene(i + 1, title, size.get("X", 1), size.get("Y", 1)))
    default = largest(scenes)
    scene = number(view.scene, len(scenes), "scene", default)
    series = every[scene - 1]
    size = dict(zip(series.axes, series.shape, strict=True))
    depth = size.get("Z", 1)
    count = size.get("C", 1) if "S" not in series.axes else 1
    told = words[scene - 1].channels if scene <= len(words) else ()
    named = [told[i] if i < len(told) else "" for i in range(count)]
    channels = tuple(name or f"Channel {i}" for i, name in enumerate(named, start=1))
    channel = None
    if view.channel is not None:
        channel = number(view.channel, count, "channel")
    return Shown(
        series,
        tuple(scenes) if len(scenes) > 1 else (),
        scene,
        depth,
        number(view.z, depth, "z-plane"),
        channels if count > 1 else (),
        channel if count > 1 else None,
        "" if scene == default else f"scene {scene}",
        scene - 1 if file.is_ome else 0,
        size.get("T", 1),
    )


def find_levels(file: Any, shown: Shown) -> list[list[Any]]:
    """Return the planes (pages) of every level of the chosen image, finest first.

    Raises
    ------
    ValueError
        There is no image in the file.
    """
    found = [_planes(level, shown.z - 1, shown.channel) for level in shown.series.levels]
    levels = {p[0].imagewidth: p for p in found}
    first = max(levels.values(), key=lambda p: p[0].imagewidth)
    if len(first) == 1:
        full = first[0]
        others = list(full.pages or ())
        if not shown.scenes:
            # frames are planes like their first; a page that is a level of its own is never one
            others += [p for p in file.pages if getattr(p, "subfiletype", 0) & 1 and p.is_tiled]
        for page in map(_loaded, others):
            ratio = full.imagewidth / page.imagewidth
            if ratio > 1 and abs(full.imagelength / page.imagelength / ratio - 1) < 0.02:
                alike = page.samplesperpixel == full.samplesperpixel
                if alike and page.dtype == full.dtype:
                    levels.setdefault(page.imagewidth, [page])
    return [levels[width] for width in sorted(levels, reverse=True)]


def _loaded(page: Any) -> Any:
    return page.aspage() if hasattr(page, "aspage") else page


def _planes(level: Any, z: int, channel: int | None) -> list[Any]:
    """Return one page, or up to three pages that are channels of one image, at a depth."""
    if not len(level.pages) or level.pages[0] is None:
        raise ValueError("no image in the file")
    first = _loaded(level.pages[0])
    if first.dtype is None:
        raise ValueError("pixels of a kind that is not known")
    if len(level.pages) == 1:
        return [first]
    # pages run over all axes before the image's own; times are taken at the first
    at = {"Z": z, "C": 0 if channel is None else channel - 1}
    apart = first.samplesperpixel < 3 and "C" in level.axes and channel is None
    count = min(level.shape[level.axes.index("C")], 3) if apart else 1
    outer = [(a, n) for a, n in zip(level.axes, level.shape, strict=True) if a not in "YXS"]
    chosen = []
    for i in range(count):
        index = 0
        for axis, n in outer:
            index = index * n + min(n - 1, at.get(axis, 0) + (i if axis == "C" else 0))
        chosen.append(level.pages[index])
    return [_loaded(p) for p in chosen if p is not None]
