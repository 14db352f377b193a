"""The nucleus under the cursor: its values in the dock and in napari's status line.

The question is put to a lane, never to the GUI thread, for the answer may need a
page of the file; while the mouse runs only the newest question counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QLabel

from napari_pathotune import _forms as forms
from napari_pathotune import _layers
from napari_pathotune._nuclei_words import told
from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from napari_pathotune._nuclei_desk import NucleiDesk
    from pathotune.nuclei.query import Nuclei

NOTHING = "Under the cursor: no nucleus"
WAIT_MS = 40


class UnderCursor(QLabel):
    """A line that follows the mouse."""

    def __init__(self, desk: NucleiDesk) -> None:
        super().__init__(NOTHING)
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self._desk = desk
        self._at: tuple[float, float] | None = None
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(WAIT_MS)
        self._soon.timeout.connect(self._ask)
        viewer = desk.session.viewer
        if viewer is not None:
            forms.listen(self, (viewer.cursor.events.position, self._on_cursor))

    def _on_cursor(self, event: Any) -> None:
        slide = self._desk.session.slide
        if slide is None or self._desk.nuclei is None:
            return
        self._at = _layers.world_to_pixel(slide, event.value)
        if not self._soon.isActive():
            self._soon.start()

    def _ask(self) -> None:
        nuclei, at = self._desk.nuclei, self._at
        if nuclei is None or at is None:
            return
        self._desk.session.run(
            "fast",
            lambda: under(nuclei, *at),
            what="Looking under the cursor",
            where="nuclei",
            key="nuclei-under",
            replace=True,
            quiet=True,
            on_done=self._answer,
        )

    def _answer(self, values: dict[str, float | str] | None) -> None:
        if not isalive(self):
            return  # the window was closed while the question was on its way
        text = NOTHING if values is None else f"Under the cursor: {told(values)}"
        self.setText(text)
        viewer = self._desk.session.viewer
        if viewer is not None and values is not None:
            viewer.status = told(values)


def under(nuclei: Nuclei, x: float, y: float) -> dict[str, float | str] | None:
    """Return the values of the nucleus at a point of level 0 (any thread)."""
    try:
        row = nuclei.at(x, y)
        return None if row is None else nuclei.values(row)
    except (PathotuneError, OSError):  # its tiles were joined into one file just now
        return None
