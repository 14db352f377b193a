"""The work of the engine lane: features for the fast model, or the map of a finished one.

Both are jobs that resume: what is in the store or on the map stays when they
are interrupted. torch is imported here, in the lane, through the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_pathotune._painting import empty_map

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from napari_pathotune._painting import Plan
    from pathotune.maps.classmap import ClassMap
    from pathotune.slides.slide import Region, Slide


@dataclass(frozen=True, slots=True)
class DeviceFound:
    """Where it is computed, for people: "CPU (bf16), 2 cores"."""

    name: str


@dataclass(frozen=True, slots=True)
class Work:
    """What a job of the engine lane needs."""

    slide: Slide
    tissue: Any
    plan: Plan
    device: str
    focus: Callable[[], Region | None]
    allow_download: bool


def features(work: Work) -> Iterator[Any]:
    """Compute what the store lacks, the screen first."""
    from pathotune.models.features import compute_features

    plan = work.plan
    if len(plan.store.missing(plan.cells)):
        yield _device(work)
    yield from compute_features(
        work.slide,
        plan.card,
        plan.grid,
        plan.store,
        plan.cells,
        device=work.device,
        focus=work.focus,
        allow_download=work.allow_download,
    )


def draw(work: Work, bundle: Any, into: ClassMap | None) -> Generator[Any, None, Any]:
    """Draw the map with a finished model, the screen first."""
    from pathotune.maps.predict import predict

    yield _device(work)
    if not hasattr(bundle, "card_id"):  # a network with a map of its own
        dense = bundle.predict(
            work.slide, tissue=work.tissue, device=work.device, focus=work.focus, into=into
        )
        return (yield from dense)
    return (
        yield from predict(
            work.slide,
            bundle,
            tissue=work.tissue,
            device=work.device,
            store=work.plan.store,
            focus=work.focus,
            into=into,
        )
    )


def _device(work: Work) -> DeviceFound:
    from pathotune.models.runtime import devices, pick_device

    key = pick_device(work.device)
    return DeviceFound(next((d.name for d in devices() if d.key == key), key))


def finished_map(slide: Slide, plan: Plan, bundle: Any) -> ClassMap:
    """Return an empty map for a finished model, shown while it fills."""
    if not hasattr(bundle, "card_id"):
        own: ClassMap = bundle.empty(slide)
        return own
    return empty_map(plan, bundle.classes, bundle.colours)
