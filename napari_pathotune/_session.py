"""What one viewer knows: its slide, the marks on it, the model and the map.

There is one `Session` per viewer and nothing global. Docks talk to it and never
to one another: setters go down, signals come up, always in the GUI thread.
Everything that takes time is handed to the lanes of `session.jobs`; the map
that follows every stroke lives in `session.loop`. The session owns the slide
and closes it when its layer goes or the window closes.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.QtCore import QTimer

from napari_pathotune import _layers, _settings
from napari_pathotune._activity_area import ActivityArea
from napari_pathotune._bus import Activity
from napari_pathotune._loop import MapLoop
from napari_pathotune._map_view import MapView
from napari_pathotune._marking import Marking
from napari_pathotune._opening import Opened, Seen, look, prepare
from napari_pathotune._ready import ReadyModel, load
from napari_pathotune._warming import warm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.layers import Image
    from napari.viewer import Viewer

    from pathotune.slides.slide import Slide
    from pathotune.slides.tissue import TissueMask


class Session(Marking):
    """The state behind the docks of one viewer; get it with `Session.of(viewer)`.

    Attributes
    ----------
    slide : Slide or None
        The open slide. Without um/px (`slide.mpp is None`) nothing is computed.
    tissue : TissueMask or None
        Where to look; None until it is found.
    annotations : AnnotationSet
        Always there; replaced when another slide or file is opened
        (`annotations_replaced`), edited in place otherwise (`annotations_changed`).
    recovered : int
        How many regions came back from the journal when the slide was opened.
    loop : MapLoop
        Features, the fast model and the class map: `loop.classmap`, `loop.head`,
        `loop.evaluation`, `loop.missing`, `loop.status`.
    view : MapView
        What is shown of the map, and how strongly.
    jobs : JobRunner
        The lanes; most callers use `run`.

    Signals and `run` are those of `Bus`.
    """

    _all: ClassVar[weakref.WeakKeyDictionary[Any, Session]] = weakref.WeakKeyDictionary()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.slide: Slide | None = None
        self.tissue: TissueMask | None = None
        self.bundle: Any = None
        self.card_id = _settings.backbone()
        self.device = _settings.device()
        self.device_name = ""
        self._layer: Callable[[], Image | None] = lambda: None
        self.allow_download: frozenset[str] = frozenset()
        self.loop = MapLoop(self)
        self.view = MapView(self)
        self._activity = ActivityArea(self)
        self._look = QTimer(self.jobs)
        self._look.setSingleShot(True)
        self._look.setInterval(150)
        self._look.timeout.connect(self._on_view)
        camera = viewer.scene.camera
        camera.events.center.connect(self._on_camera)
        camera.events.zoom.connect(self._on_camera)
        self.run("files", warm, what="Getting ready", where="slide", quiet=True)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)

    @classmethod
    def of(cls, viewer: Viewer) -> Session:
        """Return the session of a viewer, made on first use; a slide already open is taken over."""
        viewer = getattr(viewer, "__wrapped__", viewer)
        session = cls._all.get(viewer)
        if session is None:
            session = cls._all[viewer] = cls(viewer)
            for layer in list(viewer.layers):
                session._adopt_layer(layer)
        return session

    @classmethod
    def find(cls, viewer: Viewer | None) -> Session | None:
        """Return the session of a viewer if it has one."""
        return None if viewer is None else cls._all.get(getattr(viewer, "__wrapped__", viewer))

    @property
    def viewer(self) -> Viewer | None:
        """The viewer, or None once it is gone."""
        return self._viewer()

    @property
    def journal(self) -> Any:
        """What writes the marks to disk: `saved_at`, `problem`; None without a slide."""
        return self._journal

    @property
    def slide_layer(self) -> Image | None:
        """The layer that shows the slide."""
        return self._layer()

    # -- the slide ------------------------------------------------------------

    def open(self, path: str | Path, opening: Callable[[], Seen] | None = None) -> None:
        """Open a slide off the GUI thread; `slide_changed` or `failed` follows.

        `opening` waits for the slide where somebody has begun to open it already.
        """

        def start() -> Opened:
            from pathotune.slides.slide import open_slide

            return prepare(opening() if opening is not None else look(open_slide(path)))

        self.activity_changed.emit(Activity("Opening the slide"))
        self.run(
            "files",
            start,
            what="Opening the slide",
            where="slide",
            key="open",
            replace=True,
            on_done=self._show,
        )

    def open_sample(self) -> None:
        """Open the sample slide that ships with the program."""
        from pathotune.slides.sample import sample_slide

        self.open(sample_slide())

    def close_slide(self) -> None:
        """Close the slide and take its layers away; marks are safe in the journal."""
        layer, viewer = self._layer(), self.viewer
        if layer is not None and viewer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)  # `_on_removed` does the rest
        else:
            self._forget_slide()

    def set_mpp(self, mpp: float) -> None:
        """Answer the question for um/px; remembered for this slide.

        Raises
        ------
        PathotuneError
            The number is outside 0.05 to 40.
        """
        if self.slide is None:
            return
        self.slide.with_mpp(mpp)
        viewer = self.viewer
        if viewer is not None:
            _layers.rescale(viewer, self.slide)
        self.mpp_changed.emit(mpp)
        self.find_tissue()  # it depends on the scale; the loop starts when it is found

    def find_tissue(self) -> None:
        """Find the tissue (again); `tissue_changed` follows."""
        slide = self.slide
        if slide is None:
            return

        def start() -> TissueMask:
            from pathotune.slides.tissue import tissue_mask

            return tissue_mask(slide)

        self.run(
            "files",
            start,
            what="Finding the tissue",
            where="slide",
            key="tissue",
            replace=True,
            on_done=self.set_tissue,
        )

    def set_tissue(self, tissue: TissueMask | None) -> None:
        """Take another tissue mask; None: look everywhere."""
        if tissue is None and self.slide is not None:
            from pathotune.slides.tissue import full_mask

            tissue = full_mask(self.slide)
        self.tissue = tissue
        self.tissue_changed.emit(tissue)
        self.loop.restart()

    def _show(self, opened: Opened) -> None:
        """Put an opened slide in the viewer (GUI thread)."""
        viewer = self.viewer
        if viewer is None:
            opened.slide.close()
            return
        self.close_slide()
        self.slide = opened.slide  # ours already when its layer is inserted
        layer = _layers.add_slide(viewer, opened.slide, opened.seen)
        self._take_slide(opened, layer)

    def _take_slide(self, opened: Opened, layer: Image) -> None:
        self.slide = opened.slide
        self._layer = weakref.ref(layer)
        _layers.read_patiently(layer, opened.seen, lambda error: self.fail("slide", error))
        self.recovered = opened.recovered
        self._take_annotations(opened.annotations, opened.journal)
        self.slide_changed.emit(self.slide)
        if self.slide.mpp is None:
            self.mpp_needed.emit(self.slide)
        self.find_tissue()

    def _adopt_layer(self, layer: Any) -> None:
        """Take over a slide that napari opened through our reader."""
        slide = _layers.slide_of(layer)
        if slide is None or slide is self.slide:
            return
        self.run(
            "files",
            lambda: prepare(look(slide)),
            what="Opening the slide",
            where="slide",
            key="open",
            replace=True,
            on_done=lambda opened: self._adopted(opened, layer),
        )

    def _adopted(self, opened: Opened, layer: Image) -> None:
        viewer = self.viewer
        if viewer is None or layer not in viewer.layers:
            return
        old = self._layer()
        if old is not None and old in viewer.layers:
            viewer.layers.remove(old)
        self._take_slide(opened, layer)

    def _on_inserted(self, event: Any) -> None:
        self._adopt_layer(event.value)

    def _on_removed(self, event: Any) -> None:
        if event.value is not None and event.value is self._layer():
            _layers.stop_reading(event.value)
            self._forget_slide()

    def _forget_slide(self) -> None:
        slide, self.slide, self.tissue = self.slide, None, None
        self._layer = lambda: None
        if slide is None:
            return
        from pathotune.marks.annotations import AnnotationSet

        self.loop.clear()
        self._close_journal()
        self._take_annotations(AnnotationSet(), None)
        self.slide_changed.emit(None)
        # Jobs that still read from it end at their next event; close it after them.
        self.run("files", slide.close, what="Closing the slide", where="slide", quiet=True)

    def _follow_marks(self) -> None:
        self.loop.marks_changed()

    # -- what is on the screen ----------------------------------------------------

    def _on_camera(self, _event: Any = None) -> None:
        self._look.start()

    def _on_view(self) -> None:
        viewer, slide = self.viewer, self.slide
        if viewer is not None and slide is not None:
            self.loop.look_at(_layers.view_region(viewer, slide))

    # -- model --------------------------------------------------------------------

    def set_card(self, card_id: str, *, allow_download: bool = False) -> None:
        """Use another backbone; its features are computed in the background.

        Parameters
        ----------
        card_id : str
            Id of a card.
        allow_download : bool
            The user said yes to fetching its weights.
        """
        if allow_download:
            self.allow_download |= {card_id}
        if card_id != self.card_id:
            self.card_id = card_id
            self.bundle = None
            self.model_changed.emit()
            self.loop.restart()

    def set_device(self, device: str) -> None:
        """Compute on "auto", "cpu" or "cuda"."""
        if device != self.device:
            self.device = device
            self.know_device("")
            self.device_changed.emit(device)
            self.loop.restart()

    def know_device(self, name: str) -> None:
        """Keep the name of the device in use, for people; "" while it is not known."""
        self.device_name = name
        self.device_known.emit(name)

    def use_bundle(self, bundle: Any) -> None:
        """Draw the map with a finished model; None: with the fast model that follows the marks.

        A finished model is a `ModelBundle`, or a module of `maps.dense`.
        """
        self.bundle = bundle
        card_id = getattr(bundle, "card_id", None)
        if card_id is not None:
            self.card_id = card_id
        self.model_changed.emit()
        if not self.loop.swap(bundle):
            self.loop.restart()

    def use_ready(self, model: ReadyModel) -> None:
        """Draw the map with a model that ships with the program."""
        self.run(
            "files",
            lambda: load(model),
            what=f"Loading {model.name}",
            where="classify",
            key="ready",
            replace=True,
            on_done=self.use_bundle,
        )

    # -- the end --------------------------------------------------------------

    def close(self) -> None:
        """Stop all threads, close the slide and let go of the viewer."""
        if self.jobs.closed:
            return
        self.loop.close()
        self.jobs.close()
        viewer = self.viewer
        self._look.stop()
        if viewer is not None:
            camera = viewer.scene.camera
            camera.events.center.disconnect(self._on_camera)
            camera.events.zoom.disconnect(self._on_camera)
            viewer.layers.events.inserted.disconnect(self._on_inserted)
            viewer.layers.events.removed.disconnect(self._on_removed)
            type(self)._all.pop(viewer, None)
        self._unsubscribe()
        self._close_journal()
        _layers.stop_reading(self._layer())
        if self.slide is not None:
            self.slide.close()
        self.closed.emit()
