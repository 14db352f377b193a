"""The docks of a viewer, opened together and raised by name.

Docks do not know one another: one that wants another raised says so to the
session, and this object does it. It also watches the window, because napari
tells nobody when a viewer closes and the session's threads must end before Qt
does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication, QDockWidget, QWidget

from napari_pathotune._session import Session

if TYPE_CHECKING:
    from napari.viewer import Viewer

NAMES = ("slide", "annotate", "tune", "classify", "nuclei")


def full_name(name: str) -> str:
    """Return the name under which napari's own menu knows a dock of ours."""
    return f"{name.capitalize()} (PathoTune)"


def _make(name: str, viewer: Viewer) -> QWidget:
    if name == "slide":
        from napari_pathotune._slide_dock import SlideDock as Dock
    elif name == "annotate":
        from napari_pathotune._annotate_dock import AnnotateDock as Dock
    elif name == "tune":
        from napari_pathotune._tune_dock import TuneDock as Dock
    elif name == "nuclei":
        from napari_pathotune._nuclei_dock import NucleiDock as Dock
    else:
        from napari_pathotune._classify_dock import ClassifyDock as Dock
    return Dock(viewer)


class Docks(QObject):
    """Opens and raises the docks of one session."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.jobs)
        self._session = session
        self._window: QObject | None = None
        self._closing = False
        session.dock_wanted.connect(self.raise_dock)
        session.closed.connect(self._let_go)
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self._on_quit)

    @classmethod
    def of(cls, viewer: Viewer) -> Docks:
        """Return the docks of a viewer's session, made on first use."""
        session = Session.of(viewer)
        found = session.jobs.findChild(cls)
        return cls(session) if found is None else found

    def find(self, name: str) -> QDockWidget | None:
        """Return a dock that is open in the window."""
        viewer = self._session.viewer
        there = {} if viewer is None else viewer.window.dock_widgets
        names = (full_name(name), f"{name.capitalize()} (napari-pathotune)")
        widget = next((there[n] for n in names if n in there), None)
        parent = None if widget is None else widget.parent()
        return parent if isinstance(parent, QDockWidget) else None

    def open(self, name: str) -> QDockWidget | None:
        """Open a dock as a tab beside the others, or return the one that is open."""
        found = self.find(name)
        viewer = self._session.viewer
        if found is not None or viewer is None:
            return found
        dock: QDockWidget = viewer.window.add_dock_widget(
            _make(name, viewer),
            name=full_name(name),
            area="right",
            tabify=any(self.find(n) is not None for n in NAMES),
            add_vertical_stretch=False,
        )
        self.settle(name)
        return dock

    def settle(self, name: str) -> None:
        """Give a dock its short title, and watch its window."""
        dock = self.find(name)
        if dock is None:
            return
        dock.setWindowTitle(name.capitalize())
        window = dock.window()
        if window is not self._window:
            self._window = window
            window.installEventFilter(self)

    def open_all(self, front: str = "slide") -> None:
        """Open all, in the order of the work, and raise one."""
        for name in NAMES:
            self.open(name)
            self.settle(name)
        self.raise_dock(front)

    def raise_dock(self, name: str) -> None:
        """Bring a dock to the front, opening it if it is closed."""
        dock = self.open(name)
        if dock is not None:
            dock.show()
            dock.raise_()

    def _on_quit(self) -> None:
        self._session.close()

    def _let_go(self) -> None:
        """Keep nothing of the window alive."""
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None

    # -- the end of the window ----------------------------------------------------------

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """End the session with its window, not when the user decides to stay after all."""
        if watched is not self._window:
            return False
        if event.type() == QEvent.Type.Close:
            self._closing = True
            if not event.spontaneous():  # asked for by a program: nobody can refuse
                self._session.close()
        elif event.type() == QEvent.Type.Hide and self._closing and not event.spontaneous():
            self._session.close()
        return False
