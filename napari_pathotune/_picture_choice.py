"""Which picture of a file is shown: scene, depth, channel and colours, where there is a choice.

Most slides hold one picture, so each row stands only where it has something to
choose. A choice opens the file again that way and is kept for it; marks stay
where they are, except that another scene is other tissue with marks of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QSpinBox, QWidget

from pathotune.slides.view import View

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_pathotune._session import Session
    from pathotune.slides.slide import Slide

THUMBNAIL = 96


class PictureChoice(QWidget):
    """Rows for scene, depth, channel and colour profile; hidden where there is no choice."""

    chosen = Signal(object)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._slide: Slide | None = None
        self.scene = QComboBox()
        self.scene.setIconSize(QSize(40, 32))
        self.scene.setToolTip("The file holds several pictures; each has marks of its own")
        self.depth = QSpinBox()
        self.depth.setToolTip("Depth of focus; map and models see the one that is shown")
        self.depth.setKeyboardTracking(False)
        self.channel = QComboBox()
        for box in (self.scene, self.channel):  # long names must not widen the dock
            box.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            box.setMinimumContentsLength(12)
        self.channel.setToolTip("Map and models see what is shown")
        self.icc = QCheckBox("Correct colours by the file's profile")
        self.icc.setToolTip(
            "Off: as the scanner wrote them, which is what the networks learnt from. "
            "The map sees what is shown and is computed anew."
        )
        self.rows = QFormLayout(self)
        self.rows.setContentsMargins(0, 0, 0, 0)
        self.rows.addRow("Picture", self.scene)
        self.rows.addRow("Depth", self.depth)
        self.rows.addRow("Channel", self.channel)
        self.rows.addRow(self.icc)
        self.scene.activated.connect(lambda i: self._choose(scene=self.scene.itemData(i)))
        self.depth.valueChanged.connect(lambda z: self._choose(z=z))
        self.channel.activated.connect(lambda i: self._choose(channel=self.channel.itemData(i)))
        self.icc.toggled.connect(lambda on: self._choose(icc=on))

    def show_slide(self, slide: Slide) -> None:
        """Offer what a slide has."""
        if slide is self._slide:
            return
        self._slide = None  # what follows is not the user's choice
        self.scene.clear()
        for i, s in enumerate(slide.scenes):
            self.scene.addItem(f"{s.number}  {s.name}", s.number)
            size = f"{s.width:,} x {s.height:,} px"
            self.scene.setItemData(i, f"{s.name}, {size}", Qt.ItemDataRole.ToolTipRole)
        self.scene.setCurrentIndex(self.scene.findData(slide.view.scene))
        self.depth.setRange(1, slide.depth)
        self.depth.setValue(slide.view.z or 1)
        self.depth.setSuffix(f" of {slide.depth}")
        self.channel.clear()
        names = slide.channels
        if names:
            self.channel.addItem("Together: " + ", ".join(names[:3]), None)
            shown = zip(("Red", "green", "blue"), names, strict=False)
            tip = ", ".join(f"{colour}: {name}" for colour, name in shown)
            self.channel.setItemData(0, tip, Qt.ItemDataRole.ToolTipRole)
        for i, name in enumerate(names, start=1):
            self.channel.addItem(name, i)
        self.channel.setCurrentIndex(slide.view.channel or 0)
        self.icc.setChecked(bool(slide.view.icc))
        there = (bool(slide.scenes), slide.depth > 1, bool(names), slide.has_icc)
        for widget, show in zip(
            (self.scene, self.depth, self.channel, self.icc), there, strict=True
        ):
            self.rows.setRowVisible(widget, show)
        self.setVisible(any(there))
        self._slide = slide
        if slide.scenes:
            self._fetch(slide)

    def _choose(self, **what: Any) -> None:
        slide = self._slide
        if slide is None:
            return
        view = replace(slide.view, **what)
        if "scene" in what:  # another picture has depths and channels of its own
            view = View(scene=view.scene, icc=view.icc)
        if view != slide.view:
            self.chosen.emit(view)

    def _fetch(self, slide: Slide) -> None:
        """Make small pictures of the scenes in the background."""
        source, numbers = slide.source, [s.number for s in slide.scenes]

        def work() -> list[tuple[int, NDArray[np.uint8]]]:
            from pathotune.slides.slide import open_slide

            found = []
            for n in numbers[:50]:
                with open_slide(source, view=View(scene=n, z=1)) as other:
                    found.append((n, other.thumbnail(THUMBNAIL)))
            return found

        def show(found: list[tuple[int, NDArray[np.uint8]]]) -> None:
            if self._slide is not slide:
                return
            for n, pixels in found:
                height, width = pixels.shape[:2]
                image = QImage(
                    pixels.tobytes(), width, height, width * 3, QImage.Format.Format_RGB888
                )
                icon = QIcon(QPixmap.fromImage(image))
                self.scene.setItemIcon(self.scene.findData(n), icon)

        self._session.run(
            "files",
            work,
            what="Looking at the pictures",
            where="slide",
            key="scenes",
            replace=True,
            quiet=True,
            on_done=show,
        )
