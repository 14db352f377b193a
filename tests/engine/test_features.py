"""The store of token features: what goes in comes out, whatever happens in between."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from pathotune.events import PathotuneError
from pathotune.models import _blockfile
from pathotune.models.features import FeatureStore, box_mean

CORE, DIMS = 6, 48


@dataclass(frozen=True)
class Lattice:
    x0: float = 0.0
    y0: float = 0.0
    step: float = 8.0
    rows: int = 40
    cols: int = 50


@dataclass(frozen=True)
class Grid:
    """As much of a tile grid as a store looks at."""

    lattice: Lattice = Lattice()
    core: int = CORE
    halo: int = 1
    token_px: int = 8

    @property
    def tile_rows(self) -> int:
        return -(-self.lattice.rows // self.core)

    @property
    def tile_cols(self) -> int:
        return -(-self.lattice.cols // self.core)


def tokens(i: int, j: int):
    rng = np.random.default_rng(100 * i + j)
    return rng.normal(scale=1 + i, size=(CORE, CORE, DIMS)).astype(np.float32)


def filled(store: FeatureStore, cells) -> None:
    for cell in cells:
        store.put(cell, tokens(*cell))


ALL = [(i, j) for i in range(7) for j in range(9)]


def truth(cells):
    full = np.zeros((42, 54, DIMS), dtype=np.float32)
    valid = np.zeros((42, 54), dtype=bool)
    for i, j in cells:
        box = np.s_[i * CORE : (i + 1) * CORE, j * CORE : (j + 1) * CORE]
        full[box], valid[box] = tokens(i, j), True
    return full[:40, :50], valid[:40, :50]


@pytest.fixture
def store(tiny_card, tmp_path):
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path / "features") as store:
        yield store


def test_what_goes_in_comes_out_within_a_quantum(store):
    filled(store, ALL)
    full, valid = truth(ALL)
    got, ok = store.window(0, 0, 40, 50)
    assert ok.all() and valid.all()
    quantum = np.abs(full).max(-1, keepdims=True) / 127
    assert (np.abs(got - full) <= quantum * 0.51).all()
    assert store.nbytes / (len(ALL) * CORE**2) <= DIMS + 5


def test_size_on_disk_is_within_the_budget_of_a_real_card():
    per_token = 256 + 4 + 16 / 144
    assert per_token * 1e6 / 7.0**2 <= 6e6


def test_windows_may_reach_out_and_holes_are_told(store):
    some = [(0, 0), (2, 3), (6, 8)]
    filled(store, some)
    full, valid = truth(some)
    got, ok = store.window(-5, -7, 45, 60)
    np.testing.assert_array_equal(ok[5:45, 7:57], valid)
    assert ok.sum() == valid.sum() == 36 + 36 + 4 * 2
    np.testing.assert_allclose(got[5:45, 7:57][valid], full[valid], atol=0.2)
    assert not got[~ok].any()
    assert store.window(3, 3, 3, 3)[0].shape == (0, 0, DIMS)
    assert not store.window(100, 100, 105, 105)[1].any()


def slow_mean(full, valid, k):
    out = np.zeros_like(full)
    h, w = valid.shape
    for r in range(h):
        for c in range(w):
            box = np.s_[max(r - k // 2, 0) : r + k // 2 + 1, max(c - k // 2, 0) : c + k // 2 + 1]
            if valid[box].any():
                out[r, c] = full[box][valid[box]].mean(0)
    return out


@pytest.mark.parametrize("k", [1, 3, 5])
def test_neighbour_means_agree_with_the_plain_way(store, k):
    some = [c for c in ALL if (c[0] + c[1]) % 3]
    filled(store, some)
    raw, valid = store.window(0, 0, 40, 50)
    expected = slow_mean(raw, valid, k)
    expected[~valid] = 0
    got, ok = store.window(0, 0, 40, 50, k)
    np.testing.assert_array_equal(ok, valid)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    part, _ = store.window(7, 11, 25, 31, k)
    np.testing.assert_array_equal(part, got[7:25, 11:31])
    rng = np.random.default_rng(0)
    rows, cols = rng.integers(0, 40, 300), rng.integers(0, 50, 300)
    gathered, ok = store.gather(rows, cols, k)
    np.testing.assert_array_equal(ok, valid[rows, cols])
    np.testing.assert_allclose(gathered, expected[rows, cols], atol=1e-5)


def test_only_allowed_tokens_count(store):
    filled(store, ALL)
    allowed = np.zeros((40, 50), dtype=bool)
    allowed[10:20, 10:25] = True
    raw, _ = store.window(0, 0, 40, 50)
    expected = slow_mean(raw, allowed, 5)
    expected[~allowed] = 0
    got, ok = store.window(0, 0, 40, 50, 5, allowed)
    np.testing.assert_array_equal(ok, allowed)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    rows, cols = np.array([10, 5, 19]), np.array([10, 5, 24])
    gathered, ok = store.gather(rows, cols, 5, allowed)
    assert ok.tolist() == [True, False, True]
    np.testing.assert_allclose(gathered, expected[rows, cols], atol=1e-5)


def test_a_linear_head_and_a_box_mean_change_places(store):
    filled(store, ALL)
    weight = np.random.default_rng(2).normal(size=(DIMS, 4)).astype(np.float32)
    raw, valid = store.window(0, 0, 40, 50)
    mean, _ = store.window(2, 2, 38, 48, 5)
    np.testing.assert_allclose(
        box_mean(raw @ weight, valid, 5)[2:38, 2:48], mean @ weight, atol=1e-3
    )


def test_many_scattered_tokens_come_in_the_callers_order(store):
    filled(store, ALL)
    rows, cols = np.divmod(np.random.default_rng(0).permutation(2000).repeat(3), 50)
    got, ok = store.gather(rows, cols)
    full, _ = store.window(0, 0, 40, 50)
    assert ok.all()
    np.testing.assert_allclose(got, full[rows, cols], atol=1e-6)
    nothing, none = store.gather(np.array([], int), np.array([], int), 5)
    assert nothing.shape == (0, DIMS) and none.shape == (0,)


def test_the_order_of_computing_leaves_no_trace(tiny_card, tmp_path):
    windows = []
    for name, cells in (("a", ALL), ("b", ALL[::-1])):
        with FeatureStore.open("slide", tiny_card, Grid(), tmp_path / name) as store:
            filled(store, cells)
            windows.append(store.window(0, 0, 40, 50, 5)[0])
    np.testing.assert_array_equal(*windows)


def test_a_store_is_found_again_and_only_by_its_own_key(tiny_card, tmp_path):
    def open_(stamp="slide", card=tiny_card, grid=Grid()):
        return FeatureStore.open(stamp, card, grid, tmp_path)

    with open_() as store:
        filled(store, ALL[:5])
        before = store.window(0, 0, 6, 30)[0]
    with open_() as store:
        assert store.has((0, 4)) and not store.has((0, 5))
        np.testing.assert_array_equal(store.window(0, 0, 6, 30)[0], before)
        assert [tuple(c) for c in store.missing(np.array(ALL[:7]))] == ALL[5:7]
        filled(store, ALL[5:6])
    with open_() as store:
        assert store.has((0, 5))
    for other in (
        {"stamp": "slide saved again"},
        {"card": replace(tiny_card, mpp=0.25)},
        {"grid": Grid(Lattice(x0=3.0))},
    ):
        with open_(**other) as store:
            assert not store.has((0, 0))


def test_opened_twice_is_one_store_until_both_have_closed(tiny_card, tmp_path):
    one = FeatureStore.open("slide", tiny_card, Grid(), tmp_path)
    two = FeatureStore.open("slide", tiny_card, Grid(), tmp_path)
    assert one is two
    one.close()
    filled(two, ALL[:1])
    assert two.has((0, 0)) and two.problem is None
    two.close()


def _only(folder: Path, name: str) -> Path:
    (found,) = folder.rglob(name)
    return found


def test_damage_is_noticed_and_computed_again(tiny_card, tmp_path):
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path) as store:
        filled(store, ALL[:4])
    data = _only(tmp_path, "blocks.bin")
    raw = bytearray(data.read_bytes())
    raw[len(raw) // 4 + 200] ^= 255  # in the second block
    data.write_bytes(raw)
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path) as store:
        assert [store.has(c) for c in ALL[:4]] == [True, False, True, True]
        assert not store.window(0, 6, 6, 12)[1].any()
        filled(store, ALL[1:2])
        assert store.has((0, 1))
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path) as store:
        assert not len(store.missing(np.array(ALL[:4])))


@pytest.mark.parametrize("cut", [1, 7, 16, 40])
def test_a_torn_index_loses_only_its_end(tiny_card, tmp_path, cut):
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path) as store:
        filled(store, ALL[:4])
    index = _only(tmp_path, "blocks.idx")
    index.write_bytes(index.read_bytes()[:-cut])
    lost = -(-cut // 16)
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path) as store:
        assert [store.has(c) for c in ALL[:4]] == [True] * (4 - lost) + [False] * lost
        filled(store, ALL[4 - lost : 4])
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path) as store:
        got, ok = store.window(0, 0, 6, 24)
        assert ok.all()
        np.testing.assert_allclose(got, truth(ALL[:4])[0][:6, :24], atol=0.2)


def test_data_cut_short_loses_only_its_end(tiny_card, tmp_path):
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path) as store:
        filled(store, ALL[:4])
    data = _only(tmp_path, "blocks.bin")
    data.write_bytes(data.read_bytes()[:-10])
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path) as store:
        assert [store.has(c) for c in ALL[:4]] == [True, True, True, False]


def test_a_process_killed_while_writing_loses_nothing_finished(tiny_folder, tiny_card, tmp_path):
    code = f"""
    import sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from pathlib import Path
    from test_features import ALL, FeatureStore, Grid, tokens
    from pathotune.models.cards import read_card
    store = FeatureStore.open("slide", read_card(Path({str(tiny_folder / "tiny.toml")!r})),
                              Grid(), Path({str(tmp_path)!r}))
    print("go", flush=True)
    while True:
        for cell in ALL:
            store.put(cell, tokens(*cell))
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "go\n"
    time.sleep(0.15)
    with FeatureStore.open("other", tiny_card, Grid(), tmp_path) as store:
        assert store.problem is None
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path) as store:
        assert store.problem is not None and "Another program" in store.problem
        filled(store, ALL[:1])
        assert store.has((0, 0))
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path) as store:
        assert store.problem is None
        there = [c for c in ALL if store.has(c)]
        assert there
        full, valid = truth(there)
        got, ok = store.window(0, 0, 40, 50)
        np.testing.assert_array_equal(ok, valid)
        assert np.abs(got - full).max() < 0.2
        filled(store, ALL)
        assert not len(store.missing(np.array(ALL)))


def _full_disk(monkeypatch, after: int):
    """Let the disk take `after` bytes, the last write in part."""
    room = [after]
    real = _blockfile._write

    def write(file, data):
        real(file, data[: room[0]])
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_blockfile, "_write", write)


def test_a_full_disk_costs_the_keeping_not_the_work(tiny_card, tmp_path, monkeypatch):
    block = CORE * CORE * (DIMS + 4)
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path) as store:
        _full_disk(monkeypatch, 2 * (block + 16) + block // 2)
        filled(store, ALL)
        assert store.problem is not None and "disk is full" in store.problem
        full, _ = truth(ALL)
        got, ok = store.window(0, 0, 40, 50, 1)
        assert ok.all() and np.abs(got - full).max() < 0.2
        gathered, ok = store.gather(np.array([0, 39]), np.array([0, 49]))
        np.testing.assert_array_equal(gathered, got[[0, 39], [0, 49]])
    monkeypatch.undo()
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path) as store:
        assert [c for c in ALL if store.has(c)] == ALL[:2]


def test_full_disk_and_full_memory_stop_with_words(tiny_card, tmp_path, monkeypatch):
    from pathotune.models import features

    monkeypatch.setattr(features, "_MEMORY_BYTES", 3 * CORE * CORE * (DIMS + 4))
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path) as store:
        _full_disk(monkeypatch, 0)
        filled(store, ALL[:3])
        with pytest.raises(PathotuneError, match="The map so far stays"):
            filled(store, ALL[3:4])
        assert store.has((0, 2))


def test_a_place_that_cannot_be_written_is_no_error(tiny_card, tmp_path):
    (tmp_path / "file").write_text("")
    with FeatureStore.open("slide", tiny_card, Grid(), tmp_path / "file") as store:
        assert store.problem is not None and "computed again" in store.problem
        filled(store, ALL[:2])
        assert store.window(0, 0, 6, 12)[1].all()


def test_readers_see_whole_blocks_while_one_writes(store):
    wrong: list[str] = []
    done = threading.Event()

    def read():
        full, _ = truth(ALL)
        while not done.is_set():
            got, ok = store.window(0, 0, 40, 50)
            if np.abs(got - full)[ok].max(initial=0) > 0.2:
                wrong.append("torn")

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        filled(store, ALL)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong and store.has((6, 8))


def test_the_longest_unused_goes_first_and_what_is_open_stays(tiny_card, tmp_path, monkeypatch):
    monkeypatch.setattr(FeatureStore, "limit_bytes", 10**9)
    for n, name in enumerate(("old", "middle", "new")):
        with FeatureStore.open(name, tiny_card, Grid(), tmp_path) as store:
            filled(store, ALL[:10])
            about = store.folder / "about.json"
        os.utime(about, (n, n))
    total = FeatureStore.usage(tmp_path)
    opened = FeatureStore.open("old", tiny_card, Grid(), tmp_path)
    os.utime(opened.folder / "about.json", (0, 0))
    freed = FeatureStore.evict(total - 1, tmp_path)
    assert 0 < freed <= total // 2
    assert opened.has((1, 0))
    left = {p.parent for p in tmp_path.rglob("about.json")}
    assert opened.folder in left and len(left) == 2
    FeatureStore.evict(0, tmp_path)
    assert [p.parent for p in tmp_path.rglob("about.json")] == [opened.folder]
    opened.close()
    with FeatureStore.open("middle", tiny_card, Grid(), tmp_path) as store:
        assert not store.has((0, 0))


def test_a_new_store_makes_room_for_itself(tiny_card, tmp_path, monkeypatch):
    monkeypatch.setattr(FeatureStore, "limit_bytes", 1)
    with FeatureStore.open("one", tiny_card, Grid(), tmp_path) as store:
        filled(store, ALL[:3])
    FeatureStore.open("two", tiny_card, Grid(), tmp_path).close()
    assert len(list(tmp_path.rglob("about.json"))) == 1


def test_nonsense_is_kept_out(store):
    bad = tokens(0, 0)
    bad[0, 0] = np.nan
    bad[0, 1] = np.inf
    bad[0, 2] = 0
    store.put((0, 0), bad)
    got, ok = store.window(0, 0, 6, 6)
    assert ok.all() and np.isfinite(got).all() and not got[0, :3].any()
    with pytest.raises(ValueError, match="expected"):
        store.put((0, 0), bad[:, :3])


def test_reading_needs_no_torch():
    code = "import sys; import pathotune.models.features, pathotune.models.bundle; "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_warm_window_and_a_gather_are_fast(tmp_path, tiny_card):
    """Allows several times what a quiet core needs (2 and 4 ms): a guard, not a benchmark."""
    grid = Grid(Lattice(rows=144, cols=144), core=12, halo=2)
    with FeatureStore.open("slide", replace(tiny_card, dims=256), grid, tmp_path) as store:
        block = np.random.default_rng(0).normal(size=(12, 12, 256)).astype(np.float32)
        for i in range(12):
            for j in range(12):
                store.put((i, j), block)
        rows, cols = np.divmod(np.arange(2000), 50)

        def best(call, runs=5):
            times = []
            for _ in range(runs):
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
            return min(times)

        assert best(lambda: store.window(5, 5, 105, 135)) < 0.015
        assert best(lambda: store.gather(rows, cols, 5)) < 0.05


def test_a_store_that_grows_past_the_limit_makes_room_then_says_so(
    tiny_card, tmp_path, monkeypatch
):
    from pathotune.models import features

    monkeypatch.setattr(features, "_LOOK", 4)
    monkeypatch.setattr(FeatureStore, "limit_bytes", 10**9)
    with FeatureStore.open("old", tiny_card, Grid(), tmp_path) as old:
        filled(old, ALL[:12])
    size = FeatureStore.usage(tmp_path)
    FeatureStore.evict(round(1.5 * size), tmp_path)
    with FeatureStore.open("new", tiny_card, Grid(), tmp_path) as new:
        filled(new, ALL[:32])
        assert not (old.folder / "about.json").exists()  # the other slide made room first
        assert new.problem is not None and "preferences" in new.problem
        assert all(new.has(cell) for cell in ALL[:32])  # what no longer fits is kept in memory
        assert FeatureStore.usage(tmp_path) < 2.2 * size
