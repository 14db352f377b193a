"""The work of the engine lane: features for the fast model, or the map of a finished one.

Both are jobs that resume: what is in the store or on the map stays when they
are interrupted. torch is imported here, in the lane, through the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_pathotune._painting import empty_map
from pathotune.events import TilesDone

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_pathotune._painting import Plan
    from pathotune.events import Job
    from pathotune.maps.classmap import ClassMap
    from pathotune.slides.slide import Region, Slide


@dataclass(frozen=True, slots=True)
class DeviceFound:
    """What computes, for people: "CPU (OpenVINO, bf16), 2 cores"."""

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


def features(work: Work) -> Generator[Any, None, None]:
    """Compute what the store lacks, the screen first."""
    from pathotune.models.features import compute_features

    plan = work.plan
    job = compute_features(
        work.slide,
        plan.card,
        plan.grid,
        plan.store,
        plan.cells,
        device=work.device,
        focus=work.focus,
        allow_download=work.allow_download,
    )
    yield from _telling(job, lambda: _device(work, plan.card))


def draw(work: Work, bundle: Any, into: ClassMap | None) -> Generator[Any, None, Any]:
    """Draw the map with a finished model, the screen first."""
    from pathotune.maps.predict import predict

    if not hasattr(bundle, "card_id"):  # a network with a map of its own
        dense = bundle.predict(
            work.slide, tissue=work.tissue, device=work.device, focus=work.focus, into=into
        )
        return (yield from _telling(dense, lambda: _device(work, None)))
    from pathotune.models.tuned import card_of

    card = card_of(bundle)
    job = predict(
        work.slide,
        bundle,
        tissue=work.tissue,
        device=work.device,
        store=work.plan.store,
        focus=work.focus,
        into=into,
    )
    return (yield from _telling(job, lambda: _device(work, card)))


def _telling(job: Job[Any], device: Callable[[], DeviceFound | None]) -> Generator[Any, None, Any]:
    """Hand a job's events on, and what computes as soon as that is known."""
    told = False
    try:
        while True:
            event = next(job)
            yield event
            if not told and isinstance(event, TilesDone):
                found = device()
                told = found is not None
                if found is not None:
                    yield found
    except StopIteration as stop:
        return stop.value
    finally:
        job.close()


def _device(work: Work, card: Any) -> DeviceFound | None:
    """Return what runs a card; None while it is not loaded. Other networks run in torch."""
    from pathotune.models.extract import what_runs
    from pathotune.models.runtime import devices, pick_device, split

    if card is not None:
        name = what_runs(card, work.device)
        return None if name is None else DeviceFound(name)
    key = split(pick_device(work.device))[0]
    name = next((d.name for d in devices() if d.key == key), key)
    return DeviceFound("CPU" if key == "cpu" else name)


def finished_map(slide: Slide, plan: Plan, bundle: Any) -> ClassMap:
    """Return an empty map for a finished model, shown while it fills."""
    if not hasattr(bundle, "card_id"):
        own: ClassMap = bundle.empty(slide)
        return own
    return empty_map(plan, bundle.classes, bundle.colours)
