"""Devices, batches and threads; what happens when memory runs out."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from pathotune.events import PathotuneError
from pathotune.models import runtime
from pathotune.models.backbones import load_backbone


def tiles(n: int):
    return np.random.default_rng(0).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)


def test_auto_takes_the_fastest_and_the_cpu_is_always_there():
    found = runtime.devices()
    (cpu,) = [d for d in found if d.key == "cpu"]
    assert cpu.name.startswith("CPU (") and "core" in cpu.name
    assert runtime.pick_device("auto") == found[0].key
    assert runtime.pick_device("cpu") == "cpu"


def test_a_device_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PathotuneError, match="'cuda' is not available") as caught:
        runtime.pick_device("cuda")
    assert "auto" in caught.value.hint and "cpu" in caught.value.hint


def test_a_cuda_device_is_preferred_and_its_batch_follows_free_memory(monkeypatch):
    class Facts:
        total_memory = 8 << 30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"Card {i}")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: Facts)
    assert [d.key for d in runtime.devices()][:3] == ["cuda", "cuda:1", "cpu"]
    assert runtime.pick_device("auto") == runtime.pick_device("cuda:0") == "cuda"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda d: (8 << 30, 8 << 30))
    assert 32 <= runtime.batch_size("cuda") <= 64
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda d: (1 << 20, 8 << 30))
    assert runtime.batch_size("cuda") == 1


def test_large_tiles_make_small_batches():
    assert runtime.batch_size("cpu", 224) == 4
    assert runtime.batch_size("cpu", 280) == 3
    assert runtime.batch_size("cpu", 2048) == 1


def test_a_window_keeps_a_core(monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 4)
    assert runtime.thread_limit() == 4
    seen = []
    thread = threading.Thread(target=lambda: seen.append(runtime.thread_limit()))
    thread.start()
    thread.join()
    assert seen == [3]
    runtime.leave_a_core(True)
    try:
        assert runtime.thread_limit() == 3
        monkeypatch.setattr(runtime, "cores", lambda: 1)
        assert runtime.thread_limit() == 1
    finally:
        runtime.leave_a_core(None)
    before = torch.get_num_threads()
    with runtime.limited_threads() as n:
        assert torch.get_num_threads() == n
    assert torch.get_num_threads() == before


class Hungry:
    """Runs out of memory above a number of tiles."""

    def __init__(self, backbone, limit, error):
        self.forward, self.limit, self.error, self.sizes = backbone._forward, limit, error, []

    def __call__(self, batch, crop):
        self.sizes.append(len(batch))
        if len(batch) > self.limit:
            raise self.error
        return self.forward(batch, crop)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_too_little_memory_halves_the_batch_and_says_so(tiny_card, monkeypatch, error):
    backbone = load_backbone(tiny_card)
    backbone.batch = 8
    expected = backbone.tokens(tiles(11))
    hungry = Hungry(backbone, 2, error)
    monkeypatch.setattr(backbone, "_forward", hungry)
    got = backbone.tokens(tiles(11))
    assert hungry.sizes == [8, 4, 2, 2, 2, 2, 2, 2]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    notes = backbone.notes()
    assert [n.level for n in notes] == ["warning"] * 2 and "2 tiles at a time" in notes[-1].text
    assert backbone.notes() == []


def test_not_even_one_tile_is_an_error_in_words(tiny_card, monkeypatch):
    backbone = load_backbone(tiny_card)
    monkeypatch.setattr(backbone, "_forward", Hungry(backbone, 0, MemoryError()))
    with pytest.raises(PathotuneError, match="not even one tile"):
        backbone.tokens(tiles(3))
    assert "graphics card" in runtime.too_little_memory(tiny_card, "cuda").message


def test_other_errors_pass_through(tiny_card, monkeypatch):
    backbone = load_backbone(tiny_card)
    monkeypatch.setattr(backbone, "_forward", Hungry(backbone, 0, RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        backbone.tokens(tiles(1))


def test_a_graphics_card_gets_more_readers(monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 16)
    assert runtime.readers("cuda:1") == 8 and runtime.readers("cpu") == 2
    monkeypatch.setattr(runtime, "cores", lambda: 1)
    assert runtime.readers("cuda") == 2
