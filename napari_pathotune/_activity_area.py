"""Our progress in napari's own activity area, beside that of other plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils import progress

if TYPE_CHECKING:
    from napari_pathotune._bus import Activity, Bus


class ActivityArea:
    """Mirrors a session's activity: one bar while something runs."""

    def __init__(self, session: Bus) -> None:
        self._bar: Any = None
        self._what = ""
        session.activity_changed.connect(self._on_activity)
        session.closed.connect(self.clear)

    def clear(self) -> None:
        """Take the bar away."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def _on_activity(self, activity: Activity | None) -> None:
        if activity is None:
            self.clear()
            return
        if self._bar is None or (activity.what, activity.total) != (self._what, self._bar.total):
            self.clear()
            self._what = activity.what
            self._bar = progress(total=activity.total, desc=activity.what)
        self._bar.update(activity.done - self._bar.n)
