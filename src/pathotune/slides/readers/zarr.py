"""OME-Zarr folders, versions 0.4 and 0.5, with one or several images.

What is in the folder is read from its own JSON, so that a folder of another
kind is declined without loading the zarr library. Levels and um/px come from
the multiscale's scale transforms; squares that were decoded are kept in the
same memory as those of other formats.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError
from pathotune.slides.readers._base import Reader, as_rgb
from pathotune.slides.readers._mosaic import mosaic
from pathotune.slides.readers._tiff_scale import LENGTHS
from pathotune.slides.tile_cache import TILES
from pathotune.slides.view import Scene, View, largest, number

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

KEY = "zarr"
ORDER = 0
_WORDS = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}
_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
_MOST_SCENES = 1000
_MOST_WELLS = 400  # pictures of a plate that are offered; each is opened to know its size
_owners = itertools.count()


def claims(path: Path, head: bytes) -> bool:
    """Whether the path is a folder that zarr wrote, or is named as if."""
    del head
    return path.is_dir() and (
        any((path / name).is_file() for name in _FILES) or path.suffix.lower() == ".zarr"
    )


def _attributes(folder: Path) -> dict[str, Any]:
    """Return what a group says of itself; empty when it says nothing that can be read."""
    for name in ("zarr.json", ".zattrs"):
        try:
            found = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if name == "zarr.json" and isinstance(found, dict):
            found = found.get("attributes")
            found = found.get("ome", found) if isinstance(found, dict) else found
        if isinstance(found, dict):
            return found
    return {}


def _images(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the groups that are pictures: the folder itself, or those numbered in it."""
    own = _attributes(folder)
    if own.get("multiscales"):
        return [(folder, own)]
    if "plate" in own:
        return _wells(folder, own["plate"])
    found = []
    for i in range(_MOST_SCENES):
        group = folder / str(i)
        if not group.is_dir():
            break
        says = _attributes(group)
        if says.get("multiscales"):
            found.append((group, says))
    return found


def _wells(folder: Path, plate: Any) -> list[tuple[Path, dict[str, Any]]]:
    """Return the pictures of a plate, well by well, each named after its well and field."""
    found: list[tuple[Path, dict[str, Any]]] = []
    listed = plate.get("wells") if isinstance(plate, dict) else None
    for one in listed if isinstance(listed, list) else []:
        place = str(one.get("path", "")) if isinstance(one, dict) else ""
        well = _attributes(folder / place).get("well") if place else None
        fields = well.get("images") if isinstance(well, dict) else None
        for n, field in enumerate(fields if isinstance(fields, list) else [], start=1):
            group = folder / place / str(field.get("path", "") if isinstance(field, dict) else "")
            inside = folder.resolve() in group.resolve().parents
            says = _attributes(group) if inside else {}
            if says.get("multiscales") and len(found) < _MOST_WELLS:
                name = f"Well {place.replace('/', '')}"
                title = name if len(fields or ()) == 1 else f"{name}, field {n}"
                first, *others = says["multiscales"]
                found.append((group, says | {"multiscales": [{**first, "name": title}, *others]}))
    return found


class ZarrReader(Reader):
    """An OME-Zarr folder."""

    vendor = "ome-zarr"

    def __init__(self, path: Path, view: View) -> None:
        self.name = path.name
        self._owner = ("zarr", next(_owners))
        images = _images(path)
        if not images and "plate" in _attributes(path):
            raise PathotuneError(
                f"{path.name} is a plate whose wells hold no picture that can be found.",
                "Copy the whole folder again; or open the folder of one picture inside it.",
            )
        if not images:
            raise PathotuneError(
                f"{path.name} is a Zarr folder without a picture in it.",
                "Open an OME-Zarr image: a folder whose metadata lists its levels (multiscales).",
            )
        try:
            opened = [self._levels_of(group, says) for group, says in images]
        except PathotuneError:
            raise
        except Exception as error:
            raise self._broken() from error
        scenes = []
        for i, ((group, says), (axes, levels, _)) in enumerate(
            zip(images, opened, strict=True), start=1
        ):
            size = dict(zip(axes, levels[0].shape, strict=True))
            title = str(says["multiscales"][0].get("name") or f"Image {group.name}")
            scenes.append(Scene(i, title, size["x"], size["y"]))
        default = largest(scenes)
        self.scene = number(view.scene, len(scenes), "scene", default)
        self.scenes = tuple(scenes) if len(scenes) > 1 else ()
        self.quickhash = "" if self.scene == default else f"scene {self.scene}"
        says = images[self.scene - 1][1]
        self._axes, self._levels, self.mpp = opened[self.scene - 1]
        count = dict(zip(self._axes, self._levels[0].shape, strict=True))
        self.depth, self.times = count.get("z", 1), count.get("t", 1)
        self.z = number(view.z, self.depth, "z-plane")
        channels = count.get("c", 1)
        dtype = self._levels[0].dtype
        colour = channels in {3, 4} and dtype == np.uint8
        self._windows, names = _channels(says, channels)
        self.channels = () if colour or channels == 1 else names
        self.channel = (
            number(view.channel, max(1, len(self.channels)), "channel")
            if view.channel is not None
            else None
        )
        self._colour = colour
        self._limits: NDArray[np.float64] | None = None
        self.sizes = tuple(self._extent(level) for level in self._levels)
        chunks = dict(zip(self._axes, self._levels[0].chunks, strict=True))
        self.chunk = int(min(1024, max(128, chunks["x"])))

    def _broken(self) -> PathotuneError:
        return PathotuneError(
            f"{self.name} cannot be read; the folder is damaged or incomplete.",
            "Copy the whole folder again from where it came, then open it again.",
        )

    def _levels_of(
        self, group: Path, says: dict[str, Any]
    ) -> tuple[tuple[str, ...], list[Any], tuple[float | None, float | None]]:
        """Return axes, arrays from the finest on, and um/px along x and y."""
        import zarr

        multiscale = says["multiscales"][0]
        paths = [str(d["path"]) for d in multiscale["datasets"]]
        if any(group.resolve() not in (group / p).resolve().parents for p in paths):
            raise ValueError("a level lies outside the folder")
        levels = [zarr.open_array(str(group / p), mode="r") for p in paths]
        named = multiscale.get("axes") or "tczyx"[-levels[0].ndim :]
        axes = tuple(a["name"] if isinstance(a, dict) else str(a) for a in named)
        if not {"x", "y"} <= set(axes) or any(len(axes) != level.ndim for level in levels):
            raise ValueError("axes do not fit")
        if levels[0].dtype.kind not in "uif":
            raise ValueError("pixels of a kind that is not known")
        pairs = list(zip(levels, multiscale["datasets"], strict=True))
        pairs.sort(key=lambda pair: -pair[0].shape[axes.index("x")])
        return axes, [level for level, _ in pairs], _scale(multiscale, pairs[0][1], named, axes)

    def _extent(self, level: Any) -> tuple[int, int]:
        shape = dict(zip(self._axes, level.shape, strict=True))
        return shape["x"], shape["y"]

    def _raw(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """Return (h, w, c) of the chosen depth and channels."""
        one = None if self.channel is None or not self.channels else self.channel - 1
        take: dict[str, Any] = {
            "x": slice(x, x + width),
            "y": slice(y, y + height),
            "z": self.z - 1,
            "c": slice(0, 4 if self._colour else 3) if one is None else slice(one, one + 1),
        }
        kept = [a for a in self._axes if a in "xyc"]
        try:
            block = np.asarray(self._levels[level][tuple(take.get(a, 0) for a in self._axes)])
        except Exception as error:
            raise self._broken() from error
        if "c" not in kept:
            kept, block = [*kept, "c"], block[..., None]
        return block.transpose([kept.index(a) for a in "yxc"])

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return 8-bit RGB of a box of a level."""
        side = self.chunk
        level_w, level_h = self.sizes[level]

        def make(row: int, column: int) -> NDArray[np.uint8]:
            left, top = column * side, row * side
            w, h = min(side, level_w - left), min(side, level_h - top)
            square = TILES.buffer((h, w, 3))
            square[...] = self._rgb(self._raw(level, left, top, w, h))
            return square

        return mosaic(self._owner, (level, 1), (side, side), (x, y, width, height), make)

    def _rgb(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        if pixels.dtype != np.uint8:
            low, high = self._range()
            scaled = (pixels.astype(np.float32) - low) * (255 / (high - low))
            pixels = np.clip(np.nan_to_num(scaled) + 0.5, 0, 255).astype(np.uint8)
        if pixels.shape[2] == 2:
            pixels = np.concatenate([pixels, np.zeros_like(pixels[..., :1])], axis=2)
        return as_rgb(np.ascontiguousarray(pixels))

    def _range(self) -> NDArray[np.float64]:
        """Return darkest and lightest values: the file's, or those of the coarsest level."""
        if self._limits is None:
            first = 0 if self.channel is None else self.channel - 1
            width, height = (min(s, 2048) for s in self.sizes[-1])
            sample = self._raw(len(self.sizes) - 1, 0, 0, width, height)
            low, high = np.nanpercentile(sample, (0.5, 99.8), axis=(0, 1))
            for i in range(sample.shape[2]):
                window = self._windows[first + i] if first + i < len(self._windows) else None
                if window is not None:
                    low[i], high[i] = window
            self._limits = np.stack([low, np.maximum(high, low + 1e-6)])
        return self._limits

    def close(self) -> None:
        """Forget the squares; nothing is held open."""
        TILES.forget(self._owner)


def _channels(
    says: dict[str, Any], count: int
) -> tuple[list[tuple[float, float] | None], tuple[str, ...]]:
    """Return each channel's display range, where the file tells it, and each one's name."""
    omero = says.get("omero")
    told = omero.get("channels") if isinstance(omero, dict) else None
    told = [c if isinstance(c, dict) else {} for c in told] if isinstance(told, list) else []
    told += [{}] * (count - len(told))
    windows: list[tuple[float, float] | None] = []
    for channel in told[:count]:
        window = channel.get("window")
        try:
            start, end = float(window["start"]), float(window["end"])
            windows.append((start, end) if end > start else None)
        except (KeyError, TypeError, ValueError):
            windows.append(None)
    names = [str(c.get("label") or f"Channel {i}") for i, c in enumerate(told[:count], start=1)]
    return windows, tuple(names)


def _scale(
    multiscale: dict[str, Any], dataset: dict[str, Any], named: Any, axes: tuple[str, ...]
) -> tuple[float | None, float | None]:
    """Return um/px along x and y: the level's scale times the one of all levels."""
    sides: list[float | None] = []
    for axis in "xy":
        i = axes.index(axis)
        unit = named[i].get("unit") if isinstance(named[i], dict) else None
        per = _WORDS.get(str(unit), LENGTHS.get(str(unit)))
        try:
            value = 1.0
            steps = (
                [t for d in (dataset, multiscale) for t in d["coordinateTransformations"]]
                if ("coordinateTransformations" in multiscale)
                else dataset["coordinateTransformations"]
            )
            for step in steps:
                if step["type"] == "scale":
                    value *= float(step["scale"][i])
            sides.append(value * per if per else None)
        except (KeyError, TypeError, ValueError, IndexError):
            sides.append(None)
    return sides[0], sides[1]


def open_reader(path: Path, view: View) -> Reader:
    """Open a folder for which `claims` was true."""
    return ZarrReader(path, view)
