"""The one thing to do next, from what is marked so far.

Both docks that lead through the work ask here, so that they never disagree. The order
is the order of the work: a slide, its um/px, two classes, a region in each, a second
region in each so that the model can be judged, and then corrections for as long as the
user likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Action = Literal["open", "mpp", "follow", "add_class", "mark", "give_class"]


@dataclass(frozen=True, slots=True)
class Step:
    """A sentence on what is missing, the verb on the button, and what the button does."""

    text: str
    button: str
    action: Action
    class_name: str | None = None
    enough: bool = False


def next_step(
    *,
    has_slide: bool,
    has_mpp: bool,
    classes: Sequence[str],
    counts: Mapping[str, int],
    unclassified: int = 0,
    active: str | None = None,
    loaded: bool = False,
) -> Step:
    """Return what to do next.

    Parameters
    ----------
    classes : sequence of str
        Names of the classes in their order.
    counts : mapping
        Regions in each class.
    unclassified : int
        Regions without a class.
    active : str, optional
        The chosen class, preferred where several lack the same.
    loaded : bool
        A model from a file draws the map, which does not learn from marks.
    """
    if not has_slide:
        return Step("Open a slide first, or try the sample.", "Open a slide", "open")
    if not has_mpp:
        return Step(
            "The slide does not say how large a pixel is. Type µm/px in the Slide dock.",
            "Enter µm/px",
            "mpp",
        )
    if loaded:
        return Step(
            "A loaded model draws the map; it does not learn from your marks.",
            "Follow my marks",
            "follow",
        )
    if not classes:
        return Step("What do you want to tell apart? Add two classes.", "Add a class", "add_class")
    if len(classes) == 1:
        return Step(
            f"Add a second class to compare {classes[0]} with.", "Add a second class", "add_class"
        )
    ordered = sorted(classes, key=lambda name: name != active)
    if empty := [name for name in ordered if not counts.get(name)]:
        # In the order of the list, so that the button does not jump while a class is chosen.
        name = next(c for c in classes if c in empty)
        others = _and([c for c in classes if c in empty])
        text = (
            f"Mark at least one {name} region."
            if len(empty) == 1
            else f"Mark at least one region each of {others}."
        )
        return Step(text, f"Mark {name}", "mark", name)
    if unclassified:
        some = "One region has" if unclassified == 1 else f"{unclassified} regions have"
        return Step(
            f"{some} no class, and the model leaves it out. Select it and press a class's number.",
            "Select it" if unclassified == 1 else "Select them",
            "give_class",
            enough=True,
        )
    if single := [c for c in classes if counts.get(c, 0) < 2]:
        name = single[0]
        return Step(
            f"Mark a second {_and(single)} region, so that the model can be judged.",
            f"Mark a second {name} region",
            "mark",
            name,
        )
    name = active if active is not None and active in classes else classes[0]
    return Step(
        "The map follows every stroke. Where it is wrong, mark that place with the right class.",
        f"Mark more {name}",
        "mark",
        name,
        enough=True,
    )


def _and(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    if len(names) > 3:
        return f"{names[0]}, {names[1]} and {len(names) - 2} more"
    return f"{', '.join(names[:-1])} and {names[-1]}"
