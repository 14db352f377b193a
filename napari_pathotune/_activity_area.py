"""Our progress in napari's own activity area, beside that of other plugins.

Every step, name and beginning of napari's bar runs the event loop in the midst
of the call, and with it a redrawing of the whole window. So the bar comes only
when something takes a while, from a turn of the event loop of its own, and
moves without steps: its length and the words behind it change, its place stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils import progress
from qtpy.QtCore import QTimer

from napari_pathotune import _forms as forms

if TYPE_CHECKING:
    from napari_pathotune._bus import Activity, Bus

NAME = "PathoTune"
PATIENCE_MS = 400  # what is over sooner needs no bar
_DONE = 1000  # where the bar stands; done : total = _DONE : its length
_ENDLESS = 1_000_000_000


class ActivityArea:
    """Mirrors a session's activity: one bar while something runs."""

    def __init__(self, session: Bus) -> None:
        self._bar: Any = None
        self._activity: Activity | None = None
        self._soon = QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(PATIENCE_MS)
        self._soon.timeout.connect(self.show)
        session.activity_changed.connect(self._on_activity)
        session.closed.connect(self.clear)

    def clear(self) -> None:
        """Take the bar away."""
        self._soon.stop()
        self._activity = None
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def _on_activity(self, activity: Activity | None) -> None:
        if activity is None:
            self.clear()
            return
        self._activity = activity
        if self._bar is not None:
            self._move()
        elif not self._soon.isActive():
            self._soon.start()

    def show(self) -> None:
        """Make the bar, if something still runs."""
        if self._activity is None or self._bar is not None:
            return
        self._take(progress(total=_ENDLESS, initial=_DONE, desc=NAME))

    def _take(self, bar: Any) -> None:
        # in the turn that napari has just taken the work may have ended
        if self._activity is None or self._bar is not None:
            bar.close()
            return
        self._bar = bar
        self._move()

    def _move(self) -> None:
        activity = self._activity
        if activity is None:
            return
        share = activity.done / activity.total if activity.total else 0.0
        self._bar.total = min(_ENDLESS, round(_DONE / share)) if share > 0 else _ENDLESS
        left = forms.time_left(activity.seconds_left)
        self._bar.events.eta(value=f"{activity.what}, {left}" if left else activity.what)
