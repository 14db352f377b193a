"""Counts, densities and shares, by region, by the tissue below and by class.

A nucleus belongs to a region or a tissue when its centre does. Areas of tissue
are counted on the class map's own grid, the same for the nuclei and the mm2 they
are divided by. No figure is given where there is no area to divide by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from pathotune.nuclei.query import Nuclei

WHOLE = "Whole slide"
ALL = "All"
MEANS = ("area_um2", "eccentricity", "solidity", "haematoxylin_mean", "dab_mean", "nearest_um")


class Ground(Protocol):
    """What a class map is here: names, and a grid of 0 (nothing) or 1..n on the slide."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the tissues."""
        ...

    @property
    def labels(self) -> NDArray[Any]:
        """Numbers of the tissues, (rows, columns)."""
        ...

    @property
    def origin(self) -> tuple[float, float]:
        """Corner in level-0 pixels."""
        ...

    @property
    def step(self) -> float:
        """Level-0 pixels per cell."""
        ...


def tissue_under(xy: NDArray[Any], ground: Ground) -> NDArray[np.int64]:
    """Return the tissue below each centre, (n,): 0 for none, 1..n as in ``ground.classes``."""
    place = np.floor((np.asarray(xy, float) - ground.origin) / ground.step).astype(np.int64)
    rows, columns = ground.labels.shape
    inside = (place >= 0).all(axis=1) & (place[:, 0] < columns) & (place[:, 1] < rows)
    out = np.zeros(len(place), np.int64)
    out[inside] = ground.labels[place[inside, 1], place[inside, 0]]
    return out


def summarise(
    nuclei: Nuclei,
    regions: Mapping[str, BaseGeometry] | None = None,
    ground: Ground | None = None,
) -> list[dict[str, Any]]:
    """Count nuclei by region, tissue and class.

    Parameters
    ----------
    nuclei : Nuclei
    regions : mapping of name to shapely geometry, optional
        In level-0 pixels; the whole slide is always there as well.
    ground : Ground, optional
        A class map.

    Returns
    -------
    list of dict
        region, tissue, class ("All" for all together), count, area_mm2, per_mm2, fraction (of
        the nuclei of that region and tissue) and the means of `MEANS`, None where not known.
    """
    import shapely

    rows = np.flatnonzero(nuclei.alive)
    xy = nuclei.xy[rows].astype(float)
    codes = nuclei.codes[rows]
    means = {m: nuclei.column(m, rows) for m in MEANS if m in nuclei.measures}
    below = np.zeros(len(rows), np.int64) if ground is None else tissue_under(xy, ground)
    told: list[dict[str, Any]] = []
    per_mm2 = nuclei.mpp**2 / 1e6
    for region, shape in [(WHOLE, None), *(regions or {}).items()]:
        if shape is None:
            inside, area = np.ones(len(rows), bool), nuclei.about.get("area_mm2")
        else:
            shapely.prepare(shape)
            inside = shapely.intersects_xy(shape, xy[:, 0], xy[:, 1])
            area = shape.area * per_mm2
        tissues: list[tuple[str, NDArray[np.bool_], float | None]] = [(ALL, inside, area)]
        if ground is not None:
            sizes = _areas(ground, shape) * per_mm2
            for number, name in enumerate(ground.classes, 1):
                tissues.append((name, inside & (below == number), float(sizes[number])))
        for tissue, chosen, size in tissues:
            total = int(chosen.sum())
            for code in (None, *np.unique(codes).tolist()):
                mine = chosen if code is None else chosen & (codes == code)
                count = int(mine.sum())
                row = {
                    "region": region,
                    "tissue": tissue,
                    "class": ALL if code is None else nuclei.classes[code],
                    "count": count,
                    "area_mm2": size,
                    "per_mm2": count / size if size else None,
                    "fraction": count / total if total else None,
                }
                told.append(row | {m: _mean(v[mine]) for m, v in means.items()})
    return told


def _mean(values: NDArray[Any]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _areas(ground: Ground, shape: BaseGeometry | None) -> NDArray[Any]:
    """Return the area of each tissue in level-0 pixels, number 0 (none) first."""
    import shapely

    labels = ground.labels
    keep = np.ones(labels.shape, bool)
    if shape is not None:
        x = ground.origin[0] + (np.arange(labels.shape[1]) + 0.5) * ground.step
        y = ground.origin[1] + (np.arange(labels.shape[0]) + 0.5) * ground.step
        keep = shapely.intersects_xy(shape, *np.meshgrid(x, y))
    counts = np.bincount(labels[keep].ravel(), minlength=len(ground.classes) + 1)
    return counts * float(ground.step) ** 2
