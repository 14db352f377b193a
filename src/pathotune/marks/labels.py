"""Which tokens of a slide carry a label, and from which region.

A token belongs to a region when its centre lies inside. What is too small or
too thin to hold a centre (a point, a short stroke) labels the tokens it
touches, so that nothing a pathologist marks is without effect. Where regions
overlap it takes an answer which of them counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from pathotune.marks.annotations import Annotation


@dataclass(frozen=True)
class LabelledTokens:
    """Labelled tokens, each once.

    Attributes
    ----------
    rows, cols : int (n,)
        Places on the lattice.
    class_index : int (n,)
        Index into the classes given.
    region_index : int (n,)
        Index into `region_ids`.
    region_ids : list of str
        Ids of the annotations that label at least one token.
    region_class : int (r,)
        Class of every region.
    """

    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    class_index: NDArray[np.intp]
    region_index: NDArray[np.intp]
    region_ids: list[str]
    region_class: NDArray[np.intp]


def tokens_of(
    area: BaseGeometry, x0: float, y0: float, step: float, rows: int, cols: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return (rows, cols) of the tokens that one area labels.

    Parameters
    ----------
    area : shapely geometry
        Level-0 pixels; polygons, lines or points.
    x0, y0, step : float
        Corner and side of the lattice's tokens, level-0 pixels.
    rows, cols : int
        Size of the lattice.
    """
    nothing = np.empty(0, np.intp)
    if area.is_empty:
        return nothing, nothing
    left, top, right, bottom = area.bounds
    c0, c1 = max(0, int((left - x0) // step)), min(cols, int((right - x0) // step) + 1)
    r0, r1 = max(0, int((top - y0) // step)), min(rows, int((bottom - y0) // step) + 1)
    if c1 <= c0 or r1 <= r0:
        return nothing, nothing
    shapely.prepare(area)
    if area.area > 0:
        x = x0 + (np.arange(c0, c1) + 0.5) * step
        y = y0 + (np.arange(r0, r1) + 0.5) * step
        inside = shapely.contains_xy(area, x[None, :], y[:, None])
        if inside.any():
            found_rows, found_cols = np.nonzero(inside)
            return found_rows + r0, found_cols + c0
    corner_x = x0 + np.arange(c0, c1) * step
    corner_y = y0 + np.arange(r0, r1) * step
    boxes = shapely.box(
        corner_x[None, :], corner_y[:, None], corner_x[None, :] + step, corner_y[:, None] + step
    )
    found_rows, found_cols = np.nonzero(shapely.intersects(area, boxes))
    return found_rows + r0, found_cols + c0


def label_tokens(
    annotations: Sequence[Annotation],
    x0: float,
    y0: float,
    step: float,
    rows: int,
    cols: int,
    classes: Sequence[str],
    known: dict[str, tuple[Annotation, NDArray[np.intp], NDArray[np.intp]]] | None = None,
    overlap: str = "last",
) -> LabelledTokens:
    """Label the tokens under annotations.

    Parameters
    ----------
    annotations : sequence of Annotation
        In the order drawn; those of other classes or of none are passed over. Locked ones
        count: in QuPath a lock only guards a region against edits.
    x0, y0, step, rows, cols
        The lattice, see `tokens_of`.
    classes : sequence of str
        Names in the order of the class index.
    known : dict, optional
        Tokens found before, by id; kept up to date here. For one lattice only.
    overlap : {"last", "first", "smaller", "leave-out"}
        Which region a token under several belongs to: the later, the earlier, the smaller
        one, or none when their classes differ.

    Returns
    -------
    LabelledTokens
    """
    index = {name: i for i, name in enumerate(classes)}
    used = [a for a in annotations if a.class_name in index]
    places: list[NDArray[np.intp]] = []
    owners: list[NDArray[np.intp]] = []
    for number, annotation in enumerate(used):
        before = None if known is None else known.get(annotation.id)
        if before is not None and before[0] is annotation:
            _, found_rows, found_cols = before
        else:
            found_rows, found_cols = tokens_of(annotation.area(), x0, y0, step, rows, cols)
        if known is not None:
            known[annotation.id] = (annotation, found_rows, found_cols)
        places.append(found_rows * cols + found_cols)
        owners.append(np.full(len(found_rows), number, np.intp))
    place = np.concatenate(places) if places else np.empty(0, np.intp)
    owner = np.concatenate(owners) if owners else np.empty(0, np.intp)
    # Where regions overlap the last assignment to a place stays; untouched pages cost nothing.
    holder = np.empty(max(rows * cols, 1), np.intp)
    order = _order(overlap, [len(p) for p in places])
    for number in order:
        holder[places[number]] = number
    keep = holder[place] == owner
    if overlap == "leave-out" and len(place):
        kinds = np.array([index[a.class_name or ""] for a in used], np.intp)
        claimed = np.zeros(len(holder), bool)
        claimed[place[kinds[owner] != kinds[holder[place]]]] = True
        keep &= ~claimed[place]
    place, owner = place[keep], owner[keep]
    present, region_index = np.unique(owner, return_inverse=True)
    region_class = np.array([index[used[i].class_name or ""] for i in present], np.intp)
    region_index = region_index.reshape(-1)
    return LabelledTokens(
        place // max(cols, 1),
        place % max(cols, 1),
        region_class[region_index] if len(present) else np.empty(0, np.intp),
        region_index,
        [used[i].id for i in present],
        region_class,
    )


def _order(overlap: str, sizes: Sequence[int]) -> Sequence[int]:
    """Return the regions in the order in which they claim tokens; the last one to claim wins."""
    if overlap == "first":
        return range(len(sizes) - 1, -1, -1)
    if overlap == "smaller":
        return sorted(range(len(sizes)), key=lambda i: -sizes[i])
    return range(len(sizes))
