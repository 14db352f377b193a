"""Two maps against each other: the fast model's and the better one's.

A figure says that a model is better; the eye must be able to check where. Both
maps lie on one lattice, so that they are compared token by token in one labels
layer: the better model's map, a swipe between the two, or only the places
where they differ. The fast model's own layer is hidden meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from psygnal import Signal

from napari_pathotune import _layers
from napari_pathotune._working import Work, draw, finished_map
from pathotune.events import TilesDone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_pathotune._session import Session

    Tokens = NDArray[np.uint8]

Mode = Literal["better", "swipe", "differences"]
NAME = "Comparison"
KEY = "compare"
_GAP = 250  # of the screen's width lies bare between the two sides of a swipe, one part


@dataclass(frozen=True, slots=True)
class Differing:
    """The share of tokens on both maps that have another class, None without any."""

    share: float | None


class Comparison:
    """What is shown of two maps of one session.

    Signals
    -------
    changed()
        It began, ended, or its numbers are new.

    Attributes
    ----------
    differing : float or None
        The share of tokens on both maps that have another class.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self.mode: Mode = "swipe"
        self.split = 0.5
        self._better: Any = None
        self._table: NDArray[np.uint8] | None = None
        self._shown: NDArray[np.uint8] | None = None
        self._layer: Any = None
        self._base_was_visible = True
        self._boxes: list[TilesDone] = []
        self.differing: float | None = None
        session.map_changed.connect(self._on_map)
        session.slide_changed.connect(self.end)
        session.model_changed.connect(self._on_model)

    @property
    def on(self) -> bool:
        """Whether two maps are being compared."""
        return self._better is not None

    @property
    def words(self) -> str:
        """How far the maps differ and what the colours say, in a sentence or two."""
        if self.differing is None:
            return "Drawing the better model's map..."
        text = f"They differ on {100 * self.differing:.1f} % of what both have drawn."
        if self.mode == "differences":
            text += " In colour there: what the better model says."
        return text

    # -- setters --------------------------------------------------------------------

    def begin(self, bundle: Any) -> None:
        """Draw the better model's map beside the fast one's, the screen first."""
        session = self._session
        slide, plan, viewer = session.slide, session.loop.plan, session.viewer
        fast = session.loop.classmap
        if slide is None or plan is None or viewer is None or fast is None:
            return
        self.end()
        better = finished_map(slide, plan, bundle)
        self._better = better
        self._table = _translation(fast.classes, better.classes)
        self._shown = np.zeros_like(better.labels)
        self._layer = _layers.add_labels(
            viewer,
            slide,
            self._shown,
            name=NAME,
            place=_layers.grid_place(slide, better.step, better.origin),
            opacity=session.view.opacity,
        )
        self._layer.colormap = _layers.class_colours(better.colours)
        base = session.view.layer
        self._base_was_visible = base is not None and base.visible
        if base is not None:
            base.visible = False
        work = Work(
            slide,
            session.tissue,
            plan,
            session.device,
            session.loop.focus,
            plan.card.id in session.allow_download,
        )
        session.run(
            "engine",
            lambda: draw(work, bundle, better),
            what="Drawing the better model's map",
            where="tune",
            key=KEY,
            replace=True,
            background=True,
            on_event=self._on_event,
            on_done=lambda _: self.changed.emit(),
        )
        self._paint(None)

    def end(self, *_: Any) -> None:
        """Show the fast model's map again."""
        if self._better is None:
            return
        session, layer = self._session, self._layer
        session.jobs.cancel(KEY)
        session.jobs.cancel("compose")
        self._better = self._layer = self._shown = self.differing = None
        self._boxes.clear()
        viewer = session.viewer
        if viewer is not None and layer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)
        base = session.view.layer
        if base is not None and self._base_was_visible:
            base.visible = True
        self.changed.emit()

    def set_mode(self, mode: Mode) -> None:
        """Show the better map, a swipe between both, or where they differ."""
        self.mode = mode
        self._paint(None)

    def set_split(self, split: float) -> None:
        """Move the swipe: the fast model lies left of this share of the screen's width."""
        self.split = split
        if self.mode == "swipe":
            self._paint(None)

    # -- what is shown ------------------------------------------------------------------

    def _on_event(self, event: Any) -> None:
        if isinstance(event, TilesDone):
            self._paint(event)

    def _on_map(self, box: Any) -> None:
        if self._better is not None:
            self._paint(box)

    def _on_model(self) -> None:
        if self._session.bundle is not None:
            self.end()

    def _paint(self, box: TilesDone | None) -> None:
        """Compose this box, or all of it, in the fast lane: a slide has millions of tokens."""
        better, fast, shown = self._better, self._session.loop.classmap, self._shown
        table = self._table
        if better is None or shown is None or table is None or fast is None:
            return
        whole = TilesDone(0, 0, *better.labels.shape)
        self._boxes.append(whole if box is None else box)
        boxes = list(self._boxes)
        view = self._session.loop.focus()
        window = whole if view is None else TilesDone(*_window(better, view))
        wide = window.col1 - window.col0
        at, gap = window.col0 + round(self.split * wide), max(1, wide // _GAP)
        mode = self.mode

        def compose() -> Iterator[Any]:
            for part in [window, *boxes] if whole in boxes else boxes:
                _compose(shown, fast.labels, better.labels, table, part, mode, at, gap)
                yield part
            yield Differing(_differing(fast.labels, better.labels, table))

        def done(_: Any) -> None:
            self._boxes = [b for b in self._boxes if b not in boxes]

        self._session.run(
            "fast",
            compose,
            what="Comparing the maps",
            where="tune",
            key="compose",
            replace=True,
            quiet=True,
            on_event=self._on_composed,
            on_done=done,
        )

    def _on_composed(self, event: Any) -> None:
        if isinstance(event, Differing):
            self.differing = event.share
            self.changed.emit()
        elif self._layer is not None and self._layer.visible:
            self._layer.refresh(thumbnail=False, highlight=False, extent=False)


def _window(classmap: Any, view: Any) -> tuple[int, int, int, int]:
    """Return the tokens (r0, c0, r1, c1) of a part of the slide."""
    (x0, y0), step, (rows, cols) = classmap.origin, classmap.step, classmap.labels.shape
    r0, c0 = int((view.y - y0) // step), int((view.x - x0) // step)
    r1, c1 = int((view.y1 - y0) // step) + 1, int((view.x1 - x0) // step) + 1
    return max(r0, 0), max(c0, 0), min(r1, rows), min(c1, cols)


def _compose(
    shown: Tokens,
    fast: Tokens,
    better: Tokens,
    table: Tokens,
    box: TilesDone,
    mode: Mode,
    column: int,
    gap: int = 1,
) -> None:
    """Write what is seen of two maps into `shown`, in this box; a swipe has a bare gap."""
    rows, cols = slice(box.row0, box.row1), slice(box.col0, box.col1)
    old, new = table[fast[rows, cols]], better[rows, cols]
    if mode == "better":
        shown[rows, cols] = new
    elif mode == "differences":
        shown[rows, cols] = np.where((old != new) & (old > 0), new, 0)
    else:
        at = np.arange(box.col0, box.col0 + new.shape[1])
        both = np.where((at < column)[np.newaxis], old, new)
        both[:, (at >= column) & (at < column + gap) & (column > 0)] = 0
        shown[rows, cols] = both


def _differing(fast: Tokens, better: Tokens, table: Tokens) -> float | None:
    """Return the share of tokens on both maps with another class; None while there are none."""
    differ = both = 0
    for row in range(0, len(better), 256):
        a, b = table[fast[row : row + 256]], better[row : row + 256]
        there = (a > 0) & (b > 0)
        both += int(there.sum())
        differ += int((a != b)[there].sum())
    return differ / both if both else None


def _translation(old: tuple[str, ...], new: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return the label in `new` for each label in `old`; a class that is not there becomes 0."""
    table = np.zeros(256, np.uint8)
    for label, name in enumerate(old, start=1):
        if name in new:
            table[label] = new.index(name) + 1
    return table
