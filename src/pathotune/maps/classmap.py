"""The answer: a class for every 7 um of the slide, with its probabilities.

A class map is two arrays on a lattice and the little that places them on the
slide. It is written in place while a job runs and shown while it is written;
areas, outlines and files are read from the labels alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pathotune.events import PathotuneError
from pathotune.marks.geojson import write_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

FORMAT = "pathotune-classmap"
VERSION = 1


@dataclass
class ClassMap:
    """A class map over a slide or a part of it.

    Attributes
    ----------
    classes : tuple of str
    colours : tuple of (red, green, blue)
        0 to 255, in the order of the classes.
    origin : (float, float)
        Level-0 (x, y) of the corner of the map.
    step : float
        Level-0 pixels per map pixel.
    mpp : float
        um per map pixel.
    labels : uint8 (rows, cols)
        0 where nothing was predicted, 1..n in the order of the classes.
    probs : float16 (rows, cols, n) or None
    """

    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    origin: tuple[float, float]
    step: float
    mpp: float
    labels: NDArray[np.uint8]
    probs: NDArray[np.float16] | None = None

    @classmethod
    def empty(
        cls,
        classes: tuple[str, ...],
        colours: tuple[tuple[int, int, int], ...],
        origin: tuple[float, float],
        step: float,
        mpp: float,
        rows: int,
        cols: int,
    ) -> ClassMap:
        """Return a map with nothing predicted yet."""
        labels = np.zeros((rows, cols), np.uint8)
        probs = np.zeros((rows, cols, len(classes)), np.float16)
        return cls(tuple(classes), tuple(colours), origin, step, mpp, labels, probs)

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Return (rows, cols): where there is an answer."""
        return self.labels > 0

    def areas_mm2(self) -> dict[str, float]:
        """Return the area of every class in mm2, zeros included."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes) + 1)
        pixel = (self.mpp / 1000) ** 2
        return {name: float(counts[i]) * pixel for i, name in enumerate(self.classes, 1)}

    def areas_percent(self) -> dict[str, float]:
        """Return the share of every class in what was predicted, in percent."""
        areas = self.areas_mm2()
        total = sum(areas.values())
        return {name: 100 * area / total if total else 0.0 for name, area in areas.items()}

    def uncertainty(self) -> NDArray[np.float32]:
        """Return (rows, cols): entropy of the probabilities, 0 sure to 1 all classes alike.

        0 where nothing was predicted or probabilities were not kept.
        """
        if self.probs is None or len(self.classes) < 2:
            return np.zeros(self.labels.shape, np.float32)
        result = np.zeros(self.labels.shape, np.float32)
        for first in range(0, len(result), 256):  # a large map is never copied at once
            rows = slice(first, first + 256)
            p = np.clip(self.probs[rows].astype(np.float32), 1e-6, 1)
            entropy = -(p * np.log(p)).sum(axis=2) / np.float32(np.log(len(self.classes)))
            result[rows] = np.where(self.labels[rows] > 0, np.clip(entropy, 0, 1), 0)
        return result

    def at(self, x: float, y: float) -> tuple[str, dict[str, float]] | None:
        """Return the class and all probabilities under a level-0 position, or None."""
        col = int(np.floor((x - self.origin[0]) / self.step))
        row = int(np.floor((y - self.origin[1]) / self.step))
        if not (0 <= row < self.labels.shape[0] and 0 <= col < self.labels.shape[1]):
            return None
        label = int(self.labels[row, col])
        if not label:
            return None
        shares = {} if self.probs is None else self.probs[row, col].astype(float)
        named = dict(zip(self.classes, map(float, shares), strict=False)) if len(shares) else {}
        return self.classes[label - 1], named

    def polygons(self) -> dict[str, list[BaseGeometry]]:
        """Return the outlines of every class: exact polygons with holes, level-0 pixels."""
        from pathotune.maps.outlines import outlines

        return {
            name: outlines(self.labels == value, self.origin, self.step)
            for value, name in enumerate(self.classes, 1)
        }

    def save(self, path: str | Path) -> None:
        """Write the map as safetensors, so that it can be opened or resumed.

        Raises
        ------
        PathotuneError
            The disk is full or the folder cannot be written; an old file stays.
        """
        from safetensors.numpy import save

        about = {
            "format": FORMAT,
            "version": VERSION,
            "classes": list(self.classes),
            "colours": [list(c) for c in self.colours],
            "origin": list(self.origin),
            "step": self.step,
            "mpp": self.mpp,
        }
        arrays: dict[str, NDArray[np.generic]] = {"labels": np.ascontiguousarray(self.labels)}
        if self.probs is not None:
            arrays["probs"] = np.ascontiguousarray(self.probs)
        content = save(arrays, metadata={"pathotune": json.dumps(about)})
        write_atomically(Path(path), lambda file: file.write(content))

    @classmethod
    def load(cls, path: str | Path) -> ClassMap:
        """Open a saved map.

        Raises
        ------
        PathotuneError
            It is missing, damaged, or not a class map of this program.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        try:
            with safe_open(path, framework="np") as file:
                about = json.loads((file.metadata() or {}).get("pathotune", "{}"))
                if about.get("format") != FORMAT or about.get("version") != VERSION:
                    raise ValueError("another format")
                labels = file.get_tensor("labels")
                probs = file.get_tensor("probs") if "probs" in file.keys() else None
            classes = tuple(str(name) for name in about["classes"])
            colours = tuple((int(r), int(g), int(b)) for r, g, b in about["colours"])
            x, y = (float(v) for v in about["origin"])
            step, mpp = float(about["step"]), float(about["mpp"])
            if (
                labels.dtype != np.uint8
                or labels.ndim != 2
                or labels.max(initial=0) > len(classes)
                or len(colours) != len(classes)
                or not (step > 0 and mpp > 0)
                or (probs is not None and probs.shape != (*labels.shape, len(classes)))
            ):
                raise ValueError("its parts do not fit together")
        except (OSError, TypeError, ValueError, KeyError, SafetensorError) as error:
            raise PathotuneError(
                f"{path.name} is not a class map of this program ({error}).",
                "Choose a map that was saved here, or map the slide again.",
            ) from error
        return cls(classes, colours, (x, y), step, mpp, labels, probs)
