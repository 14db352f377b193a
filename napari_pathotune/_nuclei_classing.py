"""A class for every nucleus as soon as a few are named, and whom to ask about next.

It follows the hand: a name given or taken back teaches anew, in a lane, and the
colours on the slide follow. There is no button for it, as there is none for the map.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QObject

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_pathotune._nuclei_hand import NucleiHand
    from pathotune.events import PathotuneError
    from pathotune.nuclei.classes import Classified
    from pathotune.nuclei.query import Nuclei

KEY = "nuclei-classes"


class NucleiClassing(QObject):
    """Learns from named nuclei; get it with `NucleiClassing.of(hand)`.

    Signals
    -------
    changed()
        Another verdict, or none.

    Attributes
    ----------
    told : Classified or None
    learning : bool
    """

    changed = Signal()

    def __init__(self, hand: NucleiHand) -> None:
        super().__init__(hand)
        self.hand, self.desk = hand, hand.desk
        self.told: Classified | None = None
        self.learning = False
        self._named: dict[int, str] = {}
        self._queue: list[int] = []
        hand.edited.connect(self.follow)
        hand.next_asked.connect(self.next_uncertain)
        self.desk.replaced.connect(self._on_replaced)
        self.desk.grown.connect(self._on_grown)
        self._on_replaced()

    @classmethod
    def of(cls, hand: NucleiHand) -> NucleiClassing:
        """Return the one of a hand, made on first use."""
        found = hand.findChild(cls)
        return cls(hand) if found is None else found

    def _on_replaced(self) -> None:
        self.told, self._queue, self._named = None, [], {}
        self.changed.emit()
        self.follow()

    def _on_grown(self) -> None:
        if self.told is None:  # corrections joined a stopped run
            self.follow()

    def follow(self) -> None:
        """Learn anew if other nuclei are named than before."""
        from pathotune.nuclei.classes import LEAST

        nuclei, edits = self.desk.nuclei, self.desk.edits
        if nuclei is None or edits is None:
            return
        named = edits.named
        counts = Counter(named.values())
        if named == self._named or len(counts) < 2 or min(counts.values()) < LEAST:
            return
        self._named = named
        tokens = self._tokens()
        self.learning = True
        self.changed.emit()
        self.desk.session.run(
            "engine",
            lambda: learn(nuclei, named, tokens),
            what="Naming nuclei",
            where="nuclei",
            key=KEY,
            replace=True,
            quiet=True,
            on_done=self._learnt,
            on_error=self._failed,
            on_cancelled=self._stopped,
        )

    def _tokens(self) -> Any:
        """Return what the map's network saw around nuclei, once it has read all the tissue."""
        loop = self.desk.session.loop
        status, plan = loop.status, loop.plan
        if plan is None or not status.total or status.done < status.total:
            return None
        from pathotune.nuclei.around import tokens_of

        return tokens_of(plan.store, plan.grid)

    def _learnt(self, told: Classified) -> None:
        self.learning = False
        nuclei = self.desk.nuclei
        if nuclei is None:
            return
        self.told = told
        self._queue = [int(r) for r in told.uncertain(nuclei)]
        self.desk.grown.emit()
        self.changed.emit()

    def _failed(self, error: PathotuneError) -> None:
        self._stopped()
        self.desk.session.fail("nuclei", error)

    def _stopped(self) -> None:
        self.learning = False
        self._named = {}
        self.changed.emit()

    def next_uncertain(self) -> None:
        """Show the next of the least certain nuclei and choose it."""
        nuclei, slide = self.desk.nuclei, self.desk.session.slide
        viewer = self.desk.session.viewer
        named = {} if self.desk.edits is None else self.desk.edits.named
        while self._queue and nuclei is not None and viewer is not None and slide is not None:
            row = self._queue.pop(0)
            if row in named or not nuclei.alive[row]:
                continue
            from napari_pathotune import _layers

            sy, sx = _layers.pixel_scale(slide)
            x, y = (float(v) for v in nuclei.xy[row])
            camera = viewer.scene.camera
            camera.center = ((y - 0.5) * sy, (x - 0.5) * sx)
            camera.zoom = max(camera.zoom, 8.0)  # a nucleus is then 60 pixels wide or more
            self.hand.take("choose")
            self.hand.choose((row,))
            self.hand.said.emit("Press the number of its class, or N for the next one.")
            return
        self.hand.said.emit("No more nuclei to ask about now; name another or look over the slide.")


def learn(nuclei: Nuclei, named: dict[int, str], tokens: Any) -> Generator[Any, None, Classified]:
    """Learn, and give the nuclei their classes (in a lane)."""
    from pathotune.nuclei.classes import classify, take_over

    told = yield from classify(nuclei, named, tokens)
    take_over(nuclei, told)
    return told


def verdict(told: Classified) -> str:
    """Return how well it does, with what that is worth."""
    judged = told.judged
    seen = "shape, colour, texture" + (" and the tissue around" if told.tokens else "")
    if judged.macro is None:
        return f"Every nucleus has a class, from {seen}. {judged.why or ''}".strip()
    each = ", ".join(f"{n} {f:.2f} ({judged.nuclei.get(n, 0)})" for n, f in judged.f1.items())
    return (
        f"F1 {judged.macro:.2f} on named nuclei of places left out: {each}; "
        f"{judged.places} places, this slide only. From {seen}."
    )
