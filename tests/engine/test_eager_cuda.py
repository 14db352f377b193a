"""The graphics card's path, with the card's own calls stood in for: what a processor can test."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from pathotune.models import runtime
from pathotune.models.backbones import Backbone, load_backbone, load_networks
from pathotune.models.engines import compiling, eager
from pathotune.models.engines.eager import EagerEngine


def tiles(n: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


class Stream:
    """Counts who waits for it; two batches in one stream at a time would mix."""

    made = 0

    def __init__(self) -> None:
        Stream.made += 1
        self.busy = threading.Lock()

    def __enter__(self):
        assert self.busy.acquire(blocking=False)

    def __exit__(self, *_):
        self.busy.release()

    def synchronize(self):
        pass


@pytest.fixture
def card_engine(tiny_card, monkeypatch):
    """Return an engine that takes the processor for a graphics card."""
    settled = []
    monkeypatch.setattr(Stream, "made", 0)
    monkeypatch.setattr(eager, "_stream", lambda _: Stream())
    monkeypatch.setattr(eager, "_within", lambda stream: stream)
    monkeypatch.setattr(eager, "_pinned", lambda shape, kind: torch.empty(shape, dtype=kind))
    monkeypatch.setattr(eager, "_has_bfloat16", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", settled.append)
    engine = EagerEngine(tiny_card, "cpu", *load_networks(tiny_card, "cpu"))
    engine.cuda, engine.lanes, engine.settled = True, 2, settled
    return engine


def test_batches_in_streams_of_their_own_give_the_processors_tokens(tiny_card, card_engine):
    expected = load_backbone(tiny_card)
    turned = tiles(8)[:, :, ::-1]  # not contiguous, as a view of a larger array may be
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            batches = [tiles(2), turned[:2], tiles(3), turned[3:6], tiles(2)]
            done = list(pool.map(lambda b: card_engine.run(b, 1), batches))
            for batch, found in zip(batches, done, strict=True):
                np.testing.assert_allclose(
                    found, expected.engine.run(np.ascontiguousarray(batch), 1), atol=1e-5
                )
                assert found.base is None  # a copy: the next batch comes into the same memory
    assert Stream.made <= 2 and card_engine.settled  # kept, and used only once weights are there


def test_streams_outlive_the_threads_of_a_job(tiny_card, card_engine):
    backbone = Backbone(tiny_card, "cpu", [], None, card_engine)
    for _ in range(4):
        with backbone.ahead() as begin:
            assert [w.result().shape[0] for w in [begin(tiles(2)), begin(tiles(1))]] == [2, 1]
    assert Stream.made <= 2


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "GET was unable to find an engine to execute this computation",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_memory_that_runs_out_on_a_card_halves_the_batch(tiny_card, card_engine, text):
    run = card_engine._tokens

    def hungry(batch, *rest):
        if len(batch) > 2:
            raise RuntimeError(text)
        return run(batch, *rest)

    card_engine._tokens = hungry
    backbone = Backbone(tiny_card, "cpu", [], None, card_engine)
    backbone.batch = 8
    np.testing.assert_allclose(
        backbone.tokens(tiles(5)), load_backbone(tiny_card).tokens(tiles(5)), atol=1e-5
    )
    assert backbone.batch == 2 and len(backbone.notes()) == 2
    assert all(not way.stream.busy.locked() for way in card_engine._ways)


def test_other_errors_are_not_taken_for_lack_of_memory():
    assert not runtime.is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not runtime.is_out_of_memory(ValueError("out of memory"))


def test_cards_that_only_imitate_bfloat16_are_not_given_it(tiny_card, card_engine, monkeypatch):
    asked = []
    monkeypatch.setattr(eager, "_has_bfloat16", lambda: False)
    monkeypatch.setattr(eager.trust, "LIMIT", -1.0)  # nothing passes
    part = card_engine._part
    monkeypatch.setattr(card_engine, "_part", lambda g, k, t: asked.append(k) or part(g, k, t))
    card_engine.half = True
    card_engine.run(tiles(1), 1)
    assert torch.bfloat16 not in asked and torch.float16 in asked
    assert card_engine._types == [None] * len(card_engine._types)


def doubled(calls, factor=1.0):
    def compile_(graph, **_):
        def fast(x):
            calls.append(len(x))
            return graph(x) * factor

        return fast

    return compile_


def test_a_compiled_network_is_used_for_its_batch_alone(card_engine, monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(torch, "compile", doubled(calls))
    assert card_engine.compile(4) and card_engine.name.endswith("compiled")
    calls.clear()
    expected = card_engine.run(tiles(3), 1)
    assert not calls  # halved after memory ran out: not compiled anew in the midst of a job
    np.testing.assert_allclose(card_engine.run(tiles(4), 1).shape[1:], expected.shape[1:])
    assert calls and set(calls) == {4} and not card_engine.notes


@pytest.mark.parametrize("trouble", ["no compiler", "when it runs", "other features"])
def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(
    tiny_card, card_engine, monkeypatch, trouble
):
    def late(graph, **_):
        def fast(_):
            raise RuntimeError("Failed to find C compiler. Please specify via CC")

        return fast

    def never(graph, **_):
        raise ImportError("cannot import triton")

    ways = {"no compiler": never, "when it runs": late, "other features": doubled([], 1.5)}
    expected = card_engine.run(tiles(2), 1)
    monkeypatch.setattr(torch, "compile", ways[trouble])
    backbone = Backbone(tiny_card, "cpu", [], None, card_engine)
    assert not card_engine.compile(2)
    (note,) = backbone.notes()
    assert "could not compile" in note.text and not backbone.notes()
    np.testing.assert_array_equal(card_engine.run(tiles(2), 1), expected)
    assert not card_engine.name.endswith("compiled")


def test_compiling_is_switched_by_hand_or_by_what_was_measured(tiny_card, tmp_path, monkeypatch):
    monkeypatch.setenv("PATHOTUNE_COMPILED", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "A card")
    assert not compiling.wanted(tiny_card, "cuda")  # nobody has measured it
    compiling.remember(tiny_card, "cuda", 1.05)
    assert not compiling.wanted(tiny_card, "cuda")
    compiling.remember(tiny_card, "cuda", 1.4)
    assert compiling.wanted(tiny_card, "cuda")
    assert not compiling.wanted(tiny_card, "cuda-f32") and not compiling.wanted(tiny_card, "cpu")
    with ThreadPoolExecutor(1) as pool:  # beside a window the first map would wait for it
        assert not pool.submit(compiling.wanted, tiny_card, "cuda").result()
    monkeypatch.setenv("PATHOTUNE_COMPILE", "0")
    assert not compiling.wanted(tiny_card, "cuda")
    monkeypatch.setenv("PATHOTUNE_COMPILE", "1")
    assert compiling.wanted(tiny_card, "cpu")


def test_loading_compiles_where_it_is_wanted(tiny_card, card_engine, monkeypatch):
    from pathotune.models.engines import choice

    monkeypatch.setattr(choice, "choose", lambda *_: (card_engine, []))
    monkeypatch.setattr(torch, "compile", doubled([]))
    monkeypatch.setenv("PATHOTUNE_COMPILE", "1")
    backbone = load_backbone(tiny_card, "cpu", fast=True)
    assert backbone.engine.name.endswith("compiled")
    monkeypatch.setenv("PATHOTUNE_COMPILE", "0")
    card_engine._fast = []
    assert not load_backbone(tiny_card, "cpu", fast=True).engine.name.endswith("compiled")
