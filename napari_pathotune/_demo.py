"""The demo's window: a slide, its marks, all docks, and what to do next.

The engine's demo starts this as a program of its own, because the engine does
not know the window. With ``--picture`` it saves a picture of the finished state
and ends, which is how a computer without a screen gets to see the window.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QLabel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.viewer import Viewer

    from napari_pathotune._session import Session

SIZE = (1500, 940)
LIMIT_S = 150.0
_LOOK_MS = 250
_SETTLE_S = 1.5  # the last repaint after the verdict

NEXT = (
    "<b>What next?</b>&nbsp;&nbsp;"
    "<b>1</b>&nbsp;Zoom in and compare the map with the tissue; press C to hide and show it."
    "&nbsp;&nbsp;<b>2</b>&nbsp;In Annotate pick a class and draw round a spot that is wrong: "
    "the map follows."
    "&nbsp;&nbsp;<b>3</b>&nbsp;In Slide open a slide of your own, and mark two classes on it."
)


def open_window(slide: str, marks: str, device: str = "auto") -> tuple[Viewer, Session]:
    """Open napari with a slide, its marks and all docks; the map follows by itself."""
    import napari

    from napari_pathotune._docks import Docks
    from napari_pathotune._session import Session

    viewer = napari.Viewer(title="PathoTune demo")
    viewer.window.resize(*SIZE)
    session = Session.of(viewer)
    session.set_device(device)
    Docks.of(viewer).open_all(front="classify")
    _show_next(viewer)

    def load(opened: Any) -> None:
        if opened is not None:
            session.slide_changed.disconnect(load)
            session.load_annotations(marks)

    session.slide_changed.connect(load)
    session.open(slide)
    return viewer, session


def _show_next(viewer: Viewer) -> None:
    text = QLabel(NEXT)
    text.setTextFormat(Qt.TextFormat.RichText)
    text.setWordWrap(True)
    text.setContentsMargins(8, 4, 8, 4)
    dock = viewer.window.add_dock_widget(
        text, name="What next", area="bottom", add_vertical_stretch=False
    )
    window = dock.window()
    # The map has the screen; before the window has its size Qt shares the height out evenly.
    QTimer.singleShot(500, lambda: window.resizeDocks([dock], [40], Qt.Orientation.Vertical))


def finished(session: Session) -> bool:
    """Tell whether the whole map is painted and judged, or something went wrong for good."""
    status = session.loop.status
    return bool(status.has_map and not status.computing and session.loop.evaluation is not None)


def take_picture(viewer: Viewer, session: Session, path: str) -> None:
    """Save a picture of the whole window once the map stands, then close it."""
    start = time.monotonic()
    done: list[float] = []
    session.failed.connect(lambda failure: sys.stderr.write(f"{failure.message}\n"))

    def look() -> None:
        now = time.monotonic()
        if finished(session) and not done:
            done.append(now)
        late = now - start > LIMIT_S
        if (done and now - done[0] > _SETTLE_S) or late:
            timer.stop()
            if late:
                sys.stderr.write("the map was not finished in time\n")
            else:
                viewer.screenshot(path, canvas_only=False, flash=False)
            viewer.close()

    timer = QTimer(viewer.window._qt_window)
    timer.timeout.connect(look)
    timer.start(_LOOK_MS)


def main(argv: Sequence[str] | None = None) -> int:
    """Open the demo's window; with --picture save what it looks like and end."""
    parser = argparse.ArgumentParser(prog="napari_pathotune._demo")
    parser.add_argument("--slide", required=True)
    parser.add_argument("--marks", required=True, help="GeoJSON")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--picture", default=None)
    args = parser.parse_args(argv)
    import napari

    viewer, session = open_window(args.slide, args.marks, args.device)
    if args.picture:
        take_picture(viewer, session, args.picture)
    napari.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
