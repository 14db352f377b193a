"""What the Slide dock says of the device is what really runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from napari_pathotune import _working
from pathotune.events import Progress, TilesDone
from pathotune.models import extract, runtime
from pathotune.models.cards import DEFAULT_ID, card


@pytest.fixture
def loaded(monkeypatch):
    """Return a function that puts an engine in the place of the loaded network."""
    kept = {}
    monkeypatch.setattr(extract, "_loaded", kept)
    monkeypatch.setattr(
        runtime, "pick_device", lambda wanted: "cpu" if wanted == "auto" else wanted
    )

    def load(name, device="cpu"):
        found = SimpleNamespace(engine=SimpleNamespace(name=name))
        kept[card(DEFAULT_ID).hash(), device] = found

    return load


@pytest.mark.parametrize("engine", ["OpenVINO, bf16", "OpenVINO, f32", "torch, f32"])
def test_the_engine_that_runs_is_named(loaded, engine):
    assert extract.what_runs(card(DEFAULT_ID)) is None, "nothing is known before it is loaded"
    loaded(engine)
    said = extract.what_runs(card(DEFAULT_ID))
    assert said.startswith(f"CPU ({engine}), ") and "core" in said
    assert extract.what_runs(card(DEFAULT_ID), "cpu-f32") is None, "another device's verdict"


def test_it_is_told_once_with_the_first_tile_and_the_result_is_handed_on(loaded):
    work = SimpleNamespace(device="auto")

    def job():
        yield TilesDone(0, 0, 1, 1)  # from the store, before the network is loaded
        yield Progress(0, 2, "Reading")
        loaded("OpenVINO, f32")
        yield TilesDone(0, 1, 1, 2)
        yield TilesDone(0, 2, 1, 3)
        return "done"

    telling = _working._telling(job(), lambda: _working._device(work, card(DEFAULT_ID)))
    events = []
    while True:
        try:
            events.append(next(telling))
        except StopIteration as stop:
            assert stop.value == "done"
            break
    names = [e.name for e in events if isinstance(e, _working.DeviceFound)]
    assert len(names) == 1 and names[0].startswith("CPU (OpenVINO, f32), ")
    assert isinstance(events[3], _working.DeviceFound) and len(events) == 5


def test_closing_it_closes_the_job():
    closed = []

    def job():
        try:
            yield Progress(0, 1, "Reading")
            yield Progress(1, 1, "Reading")
        finally:
            closed.append(True)

    telling = _working._telling(job(), lambda: None)
    next(telling)
    telling.close()
    assert closed == [True]
