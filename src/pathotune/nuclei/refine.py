"""Corrected nuclei teach the network, and places kept apart say whether it helped.

Around every correction a window is read; what was corrected there counts fully,
what was left as it stood beside it counts less, and the rest of the slide is held
by the network's own answers, so that a few corrections do not make it forget.
Whole places of corrections are kept out of the learning and judged before and
after. The result is a file of its own: nothing is switched, and going back is
choosing the other one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import Note, PathotuneError
from pathotune.nuclei.raster import paint
from pathotune.nuclei.stains import look

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pathotune.events import Job
    from pathotune.nuclei.edits import Edits
    from pathotune.nuclei.query import Nuclei
    from pathotune.nuclei.segmenter import Found
    from pathotune.slides.slide import Slide

MPP = 0.5
WINDOW_PX = 192  # 96 um
NEAR_UM = 24.0  # a correction this near to a window's middle needs no window of its own
RIM_UM = 3.0  # around a corrected nucleus, that counts fully
PLACE_UM = 192.0  # corrections of one square of this side are learnt from or judged, never both
LEAST = 4  # corrections to learn from
BESIDE = 0.3  # weight of what was not corrected
AT_MOST = 200  # windows


@dataclass(frozen=True)
class Window:
    """A view around a correction.

    Attributes
    ----------
    pixels : uint8 (h, w, 3)
    labels : int32 (h, w)
        As corrected.
    weight : float32 (h, w)
        1 around what was corrected, `BESIDE` elsewhere.
    place : (int, int)
        Square of the slide in which it lies.
    middle : (float, float)
        In um.
    """

    pixels: NDArray[Any]
    labels: NDArray[Any]
    weight: NDArray[Any]
    place: tuple[int, int]
    middle: tuple[float, float] = (float("nan"), float("nan"))


def windows(slide: Slide, nuclei: Nuclei, edits: Edits) -> list[Window]:
    """Return the views around the corrections that stand.

    Raises
    ------
    PathotuneError
        um/px is missing, or there are fewer than 4 corrections.
    """
    scale = MPP / slide.need_mpp()
    boxes = edits.corrected
    if len(boxes) < LEAST:
        raise PathotuneError(
            f"{len(boxes)} outlines were corrected; {LEAST} are needed to learn from.",
            "Add, delete, split, merge or redraw nuclei where the outlines are wrong.",
        )
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    chosen: list[NDArray[Any]] = []
    for middle in middles:
        near = NEAR_UM / slide.need_mpp()
        if all(np.abs(middle - c).max() > near for c in chosen):
            chosen.append(middle)
    return [_window(slide, nuclei, boxes, at, scale) for at in chosen[:AT_MOST]]


def _window(
    slide: Slide, nuclei: Nuclei, boxes: NDArray[Any], middle: NDArray[Any], scale: float
) -> Window:
    side = WINDOW_PX * scale
    x, y = (float(v) for v in middle - side / 2)
    pixels = slide.read_scaled(x, y, MPP, WINDOW_PX, WINDOW_PX)
    rows = nuclei.within(x, y, x + side, y + side)
    found = nuclei.outlines(rows)
    labels = np.zeros((WINDOW_PX, WINDOW_PX), np.int32)
    rings = [found.ring(i) for i in range(len(rows))]
    paint(labels, rings, np.arange(1, len(rows) + 1), (x, y), scale)
    weight = np.full(labels.shape, BESIDE, np.float32)
    rim = RIM_UM / MPP
    for x0, y0, x1, y1 in (boxes - (x, y, x, y)) / scale:
        left, top = max(0, int(x0 - rim)), max(0, int(y0 - rim))
        weight[top : max(0, int(y1 + rim)), left : max(0, int(x1 + rim))] = 1
    um = middle * slide.need_mpp()
    place = np.floor(um / PLACE_UM).astype(int)
    return Window(
        pixels, labels, weight, (int(place[0]), int(place[1])), (float(um[0]), float(um[1]))
    )


def apart(found: list[Window], seed: int = 0) -> tuple[list[Window], list[Window]]:
    """Return the windows to learn from and those to judge on, by whole places.

    Raises
    ------
    PathotuneError
        All corrections lie in one place.
    """
    places = sorted({w.place for w in found})
    if len(places) < 2:
        raise PathotuneError(
            "All corrections lie in one place, so none can be kept apart to judge the result.",
            f"Correct nuclei in another part of the slide too, {PLACE_UM:.0f} um away or more.",
        )
    order = np.random.default_rng(seed).permutation(len(places))
    out = {places[i] for i in order[: max(1, len(places) // 3)]}
    learnt, judged = ([w for w in found if (w.place in out) == side] for side in (False, True))
    # a window reaches beyond its square: what also lies in a judged window is not learnt from
    reach = WINDOW_PX * MPP
    learnt = [w for w in learnt if not any(_far(w, j) < reach for j in judged)]
    if not learnt:
        raise PathotuneError(
            "The corrections lie so close together that none can be kept apart to judge the "
            "result.",
            f"Correct nuclei in another part of the slide too, {PLACE_UM:.0f} um away or more.",
        )
    return learnt, judged


def _far(one: Window, other: Window) -> float:
    return max(abs(a - b) for a, b in zip(one.middle, other.middle, strict=True))


def agreement(answers: list[Found], judged: list[Window]) -> dict[str, float]:
    """Return mean AJI, PQ and detection F1 on what was corrected in windows kept apart."""
    from pathotune.nuclei.scores import NAMES, scores

    rows = []
    for answer, window in zip(answers, judged, strict=True):
        sure = window.weight == 1
        rows.append(scores(_touching(answer.labels, sure), _touching(window.labels, sure)))
    return {n: float(np.mean([r[n] for r in rows])) for n in NAMES}


def _touching(labels: NDArray[Any], where: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the labels whose nucleus lies mostly where it counts, the others made background."""
    count = np.bincount(labels[where], minlength=int(labels.max()) + 1)
    keep = count > 0.5 * np.bincount(labels.ravel(), minlength=len(count))
    keep[0] = False
    return np.where(keep[labels], labels, 0)


def refine(
    slide: Slide,
    nuclei: Nuclei,
    edits: Edits,
    out: Path,
    *,
    base: Path | None = None,
    steps: int = 120,
    seed: int = 0,
) -> Job[dict[str, Any]]:
    """Fine-tune the nucleus network on corrected nuclei and write it as a file of its own.

    Parameters
    ----------
    slide, nuclei, edits
        The slide, its nuclei and what was corrected in them.
    out : Path
        A ``.safetensors`` file; `prepare` takes it as a segmenter.
    base : Path, optional
        The network to begin with; the shipped one.
    steps : int
    seed : int

    Yields
    ------
    Note, Progress, NucleiJudged

    Returns
    -------
    dict
        before and after (aji, pq, dq, sq, dice, detection_f1 on places kept apart), better,
        corrections, windows, held_out, places, steps, verdict (a sentence), out.

    Raises
    ------
    PathotuneError
        Too few corrections, all in one place, or the disk is full.
    """
    from pathotune.nuclei.net.tuning import tune

    found = windows(slide, nuclei, edits)
    learnt, judged = apart(found, seed)
    yield Note(
        f"{len(learnt)} views around corrections are learnt from, {len(judged)} in other places "
        "are kept apart to judge."
    )
    rest = look(slide, MPP, None, WINDOW_PX)
    told = yield from tune(learnt, judged, rest, out, base=base, steps=steps, seed=seed)
    before, after = told["before"], told["after"]
    better = after["aji"] > before["aji"]
    change = f"from {before['aji']:.2f} to {after['aji']:.2f} (AJI, {len(judged)} views kept apart)"
    verdict = (
        f"The corrections helped: {change}."
        if better
        else f"The corrections did not help on nuclei it did not learn from: {change}. Keep the "
        "network you have, or correct more."
    )
    yield Note(verdict, "info" if better else "warning")
    return {
        **told,
        "better": better,
        "corrections": len(edits.corrected),
        "windows": len(found),
        "held_out": len(judged),
        "places": len({w.place for w in found}),
        "verdict": verdict,
        "out": str(out),
    }
