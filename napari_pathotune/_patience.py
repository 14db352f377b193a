"""What napari draws of a slide: at once from the drive, or, where that is slow, when it has come.

napari asks for pixels in the GUI thread, so a drive that needs a third of a
second a reading would hold the window up at every move. On such a drive the
window is given what is in memory (pieces that have come, else a coarser level,
enlarged), threads read the rest, and the layer is drawn again in short turns. A
fast drive is read directly, which draws once and not twice; when readings begin
to make the window wait, this changes by itself. napari's own asynchronous
slicing is a setting of the whole program and not ours to change. Whoever asks
for pixels from elsewhere, a script or a console, always gets the true ones.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as Picture
from qtpy.QtCore import QObject, QTimer, Signal

from napari_pathotune._slow_reads import NAME, SlowReads
from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_pathotune._slow_reads import Piece
    from pathotune.slides.levels import LevelArray

    Pixels = NDArray[np.uint8]
    Box = tuple[int, int, int, int]  # top, bottom, left, right

_SIDE = 512  # of a piece, about
_MOMENT_S = 0.02  # the window may wait for what is likely to come at once
_WAITED_S = 0.15  # for a drive, in one look: felt
_STRIKES, _AFTERWARDS = 2, 20  # waits before the drive is asked, and again after it was quick
_PAUSE_MS = 80  # between two turns of drawing
_AGAIN_MS = 6000  # after which what could not be read is asked for once more
_REST = 3  # times what a turn took is left to the window
_COARSER, _FEW = 3.5, 4  # a level so much coarser comes first, if it takes so few pieces


class Patience(QObject):
    """How one layer's levels are read; in the GUI thread.

    Parameters
    ----------
    levels : sequence of LevelArray
        From the finest on.
    is_slow : callable
        Asked in a thread, after the window had to wait, whether the drive is why.

    Signals
    -------
    failed(PathotuneError)
        The drive does not answer; once until it does again.
    """

    failed = Signal(object)
    _came = Signal()
    _bad = Signal(object)
    _slow = Signal()

    def __init__(
        self, levels: Sequence[LevelArray], is_slow: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__()
        self._is_slow = is_slow
        self.levels = [PatientLevel(self, i, level) for i, level in enumerate(levels)]
        self._sources = list(levels)
        self._coarsest = len(levels) - 1
        self._whole: Pixels | None = None
        self._reads: SlowReads | None = None
        self._stopped = False
        self._strikes = 0
        self._told = False
        self._pause = _PAUSE_MS
        self._layer: Any = lambda: None
        side = levels[0].chunks[0]
        self._side = min(1024, side * max(1, round(_SIDE / side)))
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._turn)
        self._came.connect(self._on_came)
        self._bad.connect(self._on_bad)
        self._slow.connect(self.begin)

    @property
    def waits(self) -> bool:
        """Whether the window is spared the readings."""
        return self._reads is not None

    @property
    def idle(self) -> bool:
        """Whether no thread reads."""
        return self._reads is None or self._reads.idle

    def know(self, whole: Pixels, slow: bool = False) -> None:
        """Take the pixels of the coarsest level; on a slow drive the rest is waited for."""
        if whole.shape == self._sources[-1].shape:
            self._whole = whole
            if slow:
                self.begin()

    def serve(self, layer: Image) -> None:
        """Draw this layer again when pixels come."""
        self._layer = weakref.ref(layer)

    def begin(self) -> None:
        """Read in the background from now on."""
        if self._reads is None and self._whole is not None and not self._stopped:
            self._reads = SlowReads(self._read, self._came.emit, self._bad.emit)

    def stop(self) -> None:
        """Read no more; threads end with the reading they are in."""
        self._stopped = True
        self._layer = lambda: None
        self._later.stop()
        if self._reads is not None:
            self._reads.stop()

    # -- what the levels ask --------------------------------------------------

    def take(self, number: int, key: Any) -> Pixels:
        """Return what napari draws of a level."""
        source = self._sources[number]
        box = _box(key, source.shape)
        if box is None:
            return source[key]
        top, bottom, left, right = box
        if number == self._coarsest and self._whole is not None:
            return self._whole[top:bottom, left:right]
        if self._reads is not None and not self._stopped:
            return self._answer(self._reads, number, box)
        began, worked = time.perf_counter(), time.thread_time()
        pixels = source[top:bottom, left:right]
        waited = time.perf_counter() - began - (time.thread_time() - worked)
        if number == self._coarsest:
            self.know(pixels)
        elif waited > _WAITED_S:
            self._strikes += 1
            if self._strikes >= _STRIKES:
                self._strikes = -_AFTERWARDS
                threading.Thread(target=self._ask_drive, name=NAME, daemon=True).start()
        return pixels

    def _ask_drive(self) -> None:
        """Find out, in a thread, whether the drive made the window wait, or a busy processor."""
        with contextlib.suppress(PathotuneError):  # it has been closed meanwhile
            if self._is_slow() and not self._stopped:
                self._slow.emit()

    def _read(self, piece: Piece) -> Pixels:
        number, row, column = piece
        side = self._side
        rows, columns = (slice(i * side, (i + 1) * side) for i in (row, column))
        return self._sources[number][rows, columns]

    def _answer(self, reads: SlowReads, number: int, box: Box) -> Pixels:
        """Return a box from memory, and have the rest of it read."""
        wanted = self._pieces(number, box)
        missing = [p for p in wanted if reads.get(p) is None]
        if missing:
            reads.want([*self._first(reads, number, box), *missing])
            if reads.typical_s and reads.typical_s < _MOMENT_S:
                reads.wait(missing, _MOMENT_S)
        top, bottom, left, right = box
        out = np.empty((bottom - top, right - left, 3), np.uint8)
        for piece in wanted:
            own = self._place(piece)
            part = (max(top, own[0]), min(bottom, own[1]), max(left, own[2]), min(right, own[3]))
            pixels = reads.get(piece)
            if pixels is None:
                shown = self._stand_in(reads, number, part)
            else:
                shown = pixels[
                    part[0] - own[0] : part[1] - own[0], part[2] - own[2] : part[3] - own[2]
                ]
            out[part[0] - top : part[1] - top, part[2] - left : part[3] - left] = shown
        return out

    def _place(self, piece: Piece) -> Box:
        number, row, column = piece
        height, width = self._sources[number].shape[:2]
        side = self._side
        top, left = row * side, column * side
        return top, min(height, top + side), left, min(width, left + side)

    def _pieces(self, number: int, box: Box) -> list[Piece]:
        """Return the pieces that cover a box, those in its middle first."""
        side = self._side
        top, bottom, left, right = box
        found = [
            (number, row, column)
            for row in range(top // side, -(-bottom // side))
            for column in range(left // side, -(-right // side))
        ]
        y, x = (top + bottom) / 2 / side - 0.5, (left + right) / 2 / side - 0.5
        return sorted(found, key=lambda p: (p[1] - y) ** 2 + (p[2] - x) ** 2)

    def _coarser(self, number: int, to: int, box: Box) -> tuple[float, float, float, float]:
        """Return a box of a level in the pixels of another."""
        height, width = self._sources[number].shape[:2]
        rows, columns = self._sources[to].shape[:2]
        down, across = rows / height, columns / width
        return box[0] * down, box[1] * down, box[2] * across, box[3] * across

    def _around(self, to: int, exact: tuple[float, float, float, float]) -> Box:
        rows, columns = self._sources[to].shape[:2]
        top, left = max(0, int(exact[0]) - 1), max(0, int(exact[2]) - 1)
        return top, min(rows, int(exact[1]) + 2), left, min(columns, int(exact[3]) + 2)

    def _first(self, reads: SlowReads, number: int, box: Box) -> list[Piece]:
        """Return few pieces of a coarser level that show the whole box sooner."""
        width = self._sources[number].shape[1]
        for to in range(number + 1, self._coarsest):
            if width / self._sources[to].shape[1] < _COARSER:
                continue
            there = self._around(to, self._coarser(number, to, box))
            missing = [p for p in self._pieces(to, there) if reads.get(p) is None]
            return missing if len(missing) <= _FEW else []
        return []

    def _stand_in(self, reads: SlowReads, number: int, box: Box) -> Pixels:
        """Return a box enlarged from the finest coarser level that is in memory."""
        for to in range(number + 1, self._coarsest + 1):
            exact = self._coarser(number, to, box)
            around = self._around(to, exact)
            top, bottom, left, right = around
            if to == self._coarsest:
                assert self._whole is not None  # `begin` makes sure
                source = self._whole[top:bottom, left:right]
            elif all(reads.get(p) is not None for p in self._pieces(to, around)):
                source = self._answer(reads, to, around)
            else:
                continue
            break
        inner = (exact[2] - left, exact[0] - top, exact[3] - left, exact[1] - top)
        size = (box[3] - box[2], box[1] - box[0])
        enlarged = Picture.fromarray(np.ascontiguousarray(source)).resize(
            size, Picture.Resampling.BILINEAR, box=inner
        )
        return np.asarray(enlarged)

    # -- what the threads say -------------------------------------------------------

    def _on_came(self) -> None:
        self._told = False
        soon = self._later.isActive() and self._later.remainingTime() <= self._pause
        if not self._stopped and not soon:
            self._later.start(self._pause)

    def _on_bad(self, error: Any) -> None:
        if self._stopped:
            return
        if not self._told:
            self._told = True
            self.failed.emit(error)
        if not self._later.isActive():
            self._later.start(_AGAIN_MS)  # drawing asks again

    def _turn(self) -> None:
        """Draw what has come."""
        layer = self._layer()
        if layer is None:
            return
        began = time.perf_counter()
        layer.refresh(extent=False, thumbnail=False, highlight=False)
        took = time.perf_counter() - began
        self._pause = max(_PAUSE_MS, int(took * 1000 * _REST))


class PatientLevel:
    """A level as napari wants it."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, patience: Patience, number: int, level: LevelArray) -> None:
        self.patience, self._number, self._level = patience, number, level
        self.shape, self.chunks = level.shape, level.chunks
        self.size = self.nbytes = level.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Pixels:
        if _for_the_window(sys._getframe(1)):
            return self.patience.take(self._number, key)
        return self._level[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        everything = (slice(None), slice(None))
        if _for_the_window(sys._getframe(1)):
            whole = self.patience.take(self._number, everything)
        else:
            whole = self._level[everything]
        return whole if dtype is None else whole.astype(dtype)


def _for_the_window(frame: Any) -> bool:
    """Whether napari asks in the GUI thread; who else asks, gets pixels and waits for them."""
    if threading.get_ident() != threading.main_thread().ident:
        return False
    return str(frame.f_globals.get("__name__", "")).startswith("napari.")


def _box(key: Any, shape: tuple[int, ...]) -> Box | None:
    """Return the box that a key cuts out; None when it is not a plain box of full colours."""
    key = key if isinstance(key, tuple) else (key,)
    key = (*key, *[slice(None)] * (3 - len(key)))
    if len(key) != 3 or not all(isinstance(k, slice) for k in key):
        return None
    found = [k.indices(n) for k, n in zip(key, shape, strict=True)]
    (top, bottom, _), (left, right, _), (first, last, _) = found
    plain = all(step == 1 for *_, step in found) and (first, last) == (0, shape[2])
    return (top, bottom, left, right) if plain and top < bottom and left < right else None


def patience_of(layer: Any) -> Patience | None:
    """Return how a slide's layer is read; None for other layers."""
    data: Any = getattr(layer, "data", None)
    several = data is not None and getattr(layer, "multiscale", False)
    first = data[0] if several else data
    found = getattr(first, "patience", None)
    return found if isinstance(found, Patience) else None
