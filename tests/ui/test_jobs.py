"""The lanes: events are coalesced, cancel is at once, errors never get lost."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time

import pytest

from napari_pathotune._jobs import JobRunner, Task, coalesce
from pathotune.events import EpochDone, Note, PathotuneError, Progress, TilesDone


@pytest.fixture
def runner(qtbot):
    runner = JobRunner()
    yield runner
    runner.close()
    assert runner.closed


def test_coalesce_keeps_what_matters():
    epochs = [EpochDone(i, 3, 1.0, None, None) for i in range(3)]
    events = [
        Progress(1, 9, "a"),
        TilesDone(0, 0, 4, 4),
        epochs[0],
        TilesDone(0, 4, 4, 8),
        Progress(2, 9, "a"),
        epochs[1],
        TilesDone(500, 500, 504, 504),
        Note("slow disk"),
        epochs[2],
    ]
    kept = coalesce(events)
    assert [e for e in kept if isinstance(e, EpochDone)] == epochs
    assert [e for e in kept if isinstance(e, Progress)] == [Progress(2, 9, "a")]
    boxes = [e for e in kept if isinstance(e, TilesDone)]
    assert boxes == [TilesDone(0, 0, 4, 8), TilesDone(500, 500, 504, 504)]
    assert Note("slow disk") in kept


def test_a_job_returns_its_result_and_its_events_come_in_the_gui_thread(runner, wait_until):
    got, threads = [], set()

    def job():
        threads.add(threading.get_ident())
        for i in range(3):
            yield EpochDone(i, 3, 0.0, None, None)
        return "model"

    def on_event(event):
        assert threading.current_thread() is threading.main_thread()
        got.append(event.epoch)

    results = []
    task = runner.submit("engine", Task(job, on_event=on_event, on_done=results.append))
    wait_until(lambda: results)
    assert results == ["model"] and got == [0, 1, 2] and task.state == "done"
    assert threads and threading.get_ident() not in threads


def test_a_plain_function_is_a_job_too(runner, wait_until):
    results = []
    runner.submit("files", Task(lambda: 42, on_done=results.append))
    wait_until(lambda: results)
    assert results == [42]


def test_events_come_at_most_ten_times_a_second(runner, wait_until):
    times, results = [], []

    def job():
        for i in range(100):
            time.sleep(0.004)
            yield Progress(i + 1, 100, "x")

    runner.submit(
        "engine",
        Task(
            job, on_event=lambda e: times.append((time.monotonic(), e.done)), on_done=results.append
        ),
    )
    wait_until(lambda: results)
    assert 2 <= len(times) <= 15
    assert times[-1][1] == 100  # the last word is always heard
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(times[:-1])]
    assert all(g > 0.08 for g in gaps)


def test_cancel_is_shown_at_once_and_closes_the_job(runner, wait_until):
    closed, heard, cancelled = [], [], []

    def job():
        try:
            while True:
                time.sleep(0.01)
                yield Progress(0, 0, "x")
        finally:
            closed.append(True)

    task = runner.submit(
        "engine", Task(job, on_event=heard.append, on_cancelled=lambda: cancelled.append(True))
    )
    wait_until(lambda: heard)
    task.cancel()
    assert cancelled == [True] and task.state == "cancelled"
    n, began = len(heard), time.monotonic()
    wait_until(lambda: closed and runner.idle)
    assert time.monotonic() - began < 0.5
    assert len(heard) == n


def test_expected_errors_go_to_the_dock_and_others_to_napari_as_well(runner, wait_until):
    from napari.utils.notifications import notification_manager

    def expected():
        yield Progress(0, 1, "x")
        raise PathotuneError("The slide is gone.", "Plug the disk in again.")

    def ours():
        yield Progress(0, 1, "x")
        raise RuntimeError("CUDA out of memory")  # what napari's own worker swallows

    errors, seen = [], []
    notification_manager.notification_ready.connect(seen.append)
    try:
        runner.submit("engine", Task(expected, on_error=errors.append))
        runner.submit("engine", Task(ours, what="Training", on_error=errors.append))
        wait_until(lambda: len(errors) == 2)
    finally:
        notification_manager.notification_ready.disconnect(seen.append)
    assert errors[0].message == "The slide is gone."
    assert errors[1].message.startswith("Training stopped")
    assert len(seen) == 1 and "out of memory" in str(seen[0])
    assert runner.idle


def test_one_lane_runs_one_job_at_a_time_and_lanes_run_side_by_side(runner, wait_until):
    inside, most, done = [0], [0], []
    lock = threading.Lock()

    def job():
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        for _ in range(3):
            time.sleep(0.02)
            yield Progress(0, 0, "x")
        with lock:
            inside[0] -= 1

    for _ in range(3):
        runner.submit("engine", Task(job, on_done=done.append))
    wait_until(lambda: len(done) == 3)
    assert most[0] == 1

    gate = threading.Event()
    slow = runner.submit("engine", Task(lambda: gate.wait(10)))
    quick = []
    runner.submit("fast", Task(lambda: 1, on_done=quick.append))
    wait_until(lambda: quick)
    assert slow.state == "running"
    gate.set()


def test_a_newer_task_of_the_same_key_replaces(runner, wait_until):
    ran, gate = [], threading.Event()

    def slow():
        while not gate.wait(0.01):
            yield Progress(0, 0, "x")
        ran.append("slow")

    first = runner.submit("fast", Task(slow, key="paint", replace=True))
    second = runner.submit("fast", Task(lambda: ran.append("second"), key="paint", replace=True))
    third = runner.submit("fast", Task(lambda: ran.append("third"), key="paint", replace=True))
    wait_until(lambda: third.state == "done")
    assert (first.state, second.state) == ("cancelled", "cancelled")
    assert ran == ["third"]
    gate.set()


def test_background_work_makes_room_and_goes_on(runner, wait_until):
    todo, order = list(range(30)), []

    def features():
        while todo:
            time.sleep(0.01)
            todo.pop()
            yield Progress(30 - len(todo), 30, "features")
        order.append("features")

    task = runner.submit("engine", Task(features, background=True))
    wait_until(lambda: len(todo) < 28)
    runner.submit("engine", Task(lambda: order.append("training")))
    wait_until(lambda: task.state == "done")
    assert order == ["training", "features"] and not todo


def test_closing_stops_everything(qtbot):
    runner = JobRunner()
    closed = threading.Event()

    def job():
        try:
            while True:
                time.sleep(0.01)
                yield Progress(0, 0, "x")
        finally:
            closed.set()

    tasks = [runner.submit("engine", Task(job)) for _ in range(2)]
    qtbot.wait(50)
    runner.close()
    assert closed.is_set() and all(t.state == "cancelled" for t in tasks)
    late = runner.submit("fast", Task(lambda: 1))
    assert late.state == "cancelled"


@pytest.mark.skipif(sys.platform != "linux", reason="niceness of a thread is Linux's")
def test_only_the_engine_lane_gives_way_to_the_window(runner, wait_until):
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    ours, got = niceness(), {}
    for lane in ("engine", "fast"):
        runner.submit(lane, Task(niceness, on_done=lambda n, lane=lane: got.update({lane: n})))
    wait_until(lambda: len(got) == 2)
    assert got == {"engine": 10, "fast": ours} and niceness() == ours
