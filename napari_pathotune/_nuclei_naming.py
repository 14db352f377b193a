"""Naming nuclei: a list of classes, and a digit for the nuclei that are chosen.

The same list and the same keys as for regions. A name given by hand is certain and
goes to the journal of corrections; a class without nuclei costs nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_pathotune import _forms as forms
from napari_pathotune._class_list import ClassList
from napari_pathotune._nuclei_classing import NucleiClassing, verdict

if TYPE_CHECKING:
    from napari_pathotune._nuclei_hand import NucleiHand

MOST = 24


class NameNuclei(QWidget):
    """The classes of a `NucleiHand`'s nuclei."""

    def __init__(self, hand: NucleiHand) -> None:
        from pathotune.marks.classes import palette

        super().__init__()
        self._hand, self._desk = hand, hand.desk
        self.active: str | None = None
        self.classes = ClassList(palette(), units=("named", "named"))
        self.add = forms.small("+", "Add a class of nuclei", self.add_class)
        self.name = forms.button(
            "Name the chosen", "Give the chosen nuclei this class (1-9)", self._name_chosen
        )
        self.name.setMinimumWidth(60)  # a long name of a class never widens the dock
        self.classing = NucleiClassing.of(hand)
        self.verdict = forms.line()
        self.next = forms.button(
            "Next uncertain",
            "Show the nucleus whose class is least certain, and choose it (N)",
            self.classing.next_uncertain,
        )
        row = QHBoxLayout()
        row.addWidget(self.name, 1)
        row.addWidget(self.add)
        self.said = forms.line()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.classes)
        outer.addLayout(row)
        outer.addWidget(self.said)
        outer.addWidget(self.verdict)
        outer.addWidget(self.next)
        self.classes.chosen.connect(self._on_chosen)
        self.classes.renamed.connect(self._rename)
        self.classes.recoloured.connect(self._recolour)
        self.classes.deleted.connect(self._delete)
        forms.listen(
            self,
            (hand.class_asked, self._by_digit),
            (hand.edited, self.refresh),
            (self.classing.changed, self.refresh),
            (hand.chosen_changed, self.refresh),
            (self._desk.classes_changed, self.refresh),
            (self._desk.replaced, self.refresh),
            (self._desk.state_changed, self.refresh),
        )
        self.refresh()

    def add_class(self, name: str = "") -> None:
        """Add a class, and put the cursor into its name."""
        from pathotune.marks.classes import AnnotationClass, next_colour

        there = self._desk.classes
        used = {c.name for c in there}
        if len(there) >= MOST:
            return
        name = name or next(n for n in (f"Class {i}" for i in range(1, 99)) if n not in used)
        if name in used:
            return
        self.active = name
        new = AnnotationClass(name, next_colour(c.colour for c in there))
        self._desk.set_classes((*there, new))
        if self.isVisible():
            self.classes.begin_rename(name)

    def _on_chosen(self, name: str) -> None:
        self.active = name
        self.refresh()

    def _by_digit(self, digit: int) -> None:
        there = self._desk.classes
        if digit > len(there):
            self._hand.said.emit(f"There is no class {digit} of nuclei yet. Add one with +.")
            return
        self.active = there[digit - 1].name
        self._name_chosen()

    def _name_chosen(self) -> None:
        if self.active is None:
            self._hand.said.emit("Add a class with + first.")
        else:
            self._hand.name(self.active)
        self.refresh()

    def _rename(self, old: str, new: str) -> None:
        if any(c.name == new for c in self._desk.classes):
            self._hand.said.emit(f"There is a class {new} already.")
            return
        named = [row for row, name in self._named().items() if name == old]
        self.active = new if self.active == old else self.active
        self._desk.set_classes(
            tuple(replace(c, name=new) if c.name == old else c for c in self._desk.classes)
        )
        if named:
            self._hand.name_rows(tuple(named), new)

    def _recolour(self, name: str, colour: tuple[int, int, int]) -> None:
        there = self._desk.classes
        self._desk.set_classes(
            tuple(replace(c, colour=colour) if c.name == name else c for c in there)
        )

    def _delete(self, name: str) -> None:
        if name in self._named().values():
            self._hand.said.emit(f"Nuclei are named {name}. Name them otherwise first.")
            return
        self.active = None if self.active == name else self.active
        self._desk.set_classes(tuple(c for c in self._desk.classes if c.name != name))

    def _named(self) -> dict[int, str]:
        edits = self._desk.edits
        return {} if edits is None else edits.named

    def refresh(self, *_: object) -> None:
        """Show the classes and how many nuclei were named."""
        there, counts = self._desk.classes, Counter(self._named().values())
        names = [c.name for c in there]
        if self.active not in names:
            self.active = names[0] if names else None
        self.classes.show_classes(there, dict(counts), self.active)
        self.classes.setVisible(bool(there))
        can = bool(self._hand.chosen) and self.active is not None and self._desk.edits is not None
        self.name.setEnabled(can)
        self.name.setText(f"Name them {self.active}" if can else "Name the chosen")
        self.said.setText(next_step(names, counts))
        self.said.setVisible(bool(self.said.text()))
        told, learning = self.classing.told, self.classing.learning
        text = "" if told is None else verdict(told)
        self.verdict.setText("Learning from the named nuclei..." if learning else text)
        self.verdict.setVisible(bool(self.verdict.text()))
        self.next.setVisible(told is not None)


def next_step(names: list[str], counts: Counter[str]) -> str:
    """Return what to do next on the way to a class for every nucleus."""
    if len(names) < 2:
        return "Add two classes or more with +, for instance Tumour cell and Lymphocyte."
    short = [n for n in names if counts[n] < 3]
    if short:
        return (
            "Click a nucleus (S), then press its number. "
            f"Name at least three of {' and of '.join(short[:2])}."
        )
    return ""
