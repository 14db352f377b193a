"""A slide on a slow drive does not hold the window up, and what is drawn becomes sharp."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_pathotune import _contributions, _drive
from napari_pathotune._patience import Patience, patience_of
from napari_pathotune._slow_reads import NAME, SlowReads
from pathotune.events import PathotuneError
from pathotune.slides.slide import Slide, open_slide

DELAY_S = 0.3
SIDE = 4096


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return a made slide of three levels whose pixels all differ from those around."""
    path = tmp_path_factory.mktemp("slow") / "large.tif"
    rng = np.random.default_rng(0)
    small = rng.integers(60, 200, (SIDE // 16, SIDE // 16, 3), np.uint8)
    pixels = small.repeat(16, 0).repeat(16, 1) + rng.integers(0, 9, (SIDE, SIDE, 1), np.uint8)
    with tifffile.TiffWriter(path) as out:
        for step in (1, 4, 16):
            out.write(
                pixels[::step, ::step],
                photometric="rgb",
                tile=(256, 256),
                compression="zlib",
                subfiletype=int(step > 1),
                resolution=(20000 / step, 20000 / step),
                resolutionunit="CENTIMETER",
            )
    return path


class Drive:
    """A drive that takes its time, and knows who waited for it."""

    def __init__(self, monkeypatch):
        self.direct = Slide.read_reduced
        self.delay, self.broken = DELAY_S, False
        self.window = 0
        self.reads = []
        monkeypatch.setattr(Slide, "read_reduced", self._read())

    def _read(self):
        drive = self

        def read(slide, *box, **how):
            if threading.current_thread() is threading.main_thread():
                drive.window += 1
            drive.reads.append(box)
            time.sleep(drive.delay)
            if drive.broken:
                raise OSError(5, "Input/output error")
            return drive.direct(slide, *box, **how)

        return read


@pytest.fixture
def drive(monkeypatch):
    return Drive(monkeypatch)


def readers():
    return [t for t in threading.enumerate() if t.name == NAME]


def test_the_window_never_reads_and_sharp_pixels_arrive(
    quick, make_napari_viewer, large, drive, wait_until, qtbot
):
    from napari_pathotune._session import Session

    viewer = make_napari_viewer(show=True)
    session = Session.of(viewer)
    session.open(large)
    wait_until(lambda: session.slide is not None, 60)
    layer = session.slide_layer
    assert patience_of(layer).waits
    session.jobs.cancel("tissue")
    viewer.scene.camera.zoom = 2
    slices = []
    ask = layer.set_view_slice

    def timed():
        start = time.thread_time()  # other load on the computer is not the window's work
        ask()
        slices.append(time.thread_time() - start)

    layer.set_view_slice = timed
    for place in ((500, 500), (1200, 700), (900, 1300)):
        viewer.scene.camera.center = (0, *place)
        qtbot.wait(150)
    wait_until(lambda: patience_of(layer).idle, 60, "the drive's answers")
    qtbot.wait(400)
    shown = np.asarray(layer._slice.image.view)
    top, left = layer.corner_pixels[0].astype(int)
    assert layer.data_level == 0
    want = drive.direct(session.slide, 0, 1, left, top, shown.shape[1], shown.shape[0])
    np.testing.assert_array_equal(shown, want)
    assert drive.window == 0, "the window waited for the drive"
    assert sorted(slices)[len(slices) // 2] < 0.05 and max(slices) < DELAY_S / 2
    viewer.scene.camera.center = (0, 300, 1500)
    qtbot.wait(50)
    viewer.layers.remove(layer)
    wait_until(lambda: not readers(), 5, "the end of the threads")
    wait_until(lambda: session.jobs.idle, 20)
    session.close()
    assert not readers()


def test_what_the_view_has_left_is_not_read():
    read = []
    gate = threading.Event()

    def slow(piece):
        gate.wait(5)
        read.append(piece)
        return np.zeros((2, 2, 3), np.uint8)

    reads = SlowReads(slow, lambda: None, lambda _: None)
    reads.want([(0, 0, i) for i in range(20)])
    reads.want([(0, 9, i) for i in range(3)])
    gate.set()
    while not reads.idle:
        time.sleep(0.01)
    begun = [p for p in read if p[1] == 0]
    assert len(begun) <= 4 and sorted(p for p in read if p[1] == 9) == [(0, 9, i) for i in range(3)]
    assert reads.get((0, 9, 0)) is not None and reads.get((0, 0, 19)) is None
    reads.stop()
    reads.want([(0, 0, 0)])
    assert reads.idle and reads.get((0, 9, 0)) is None


def test_what_is_kept_is_bounded():
    reads = SlowReads(
        lambda p: np.full((10, 10, 3), p[2], np.uint8), lambda: None, lambda _: None, limit=900
    )
    for i in range(6):
        reads.want([(0, 0, i)])
        reads.wait([(0, 0, i)], 5)
    assert [reads.get((0, 0, i)) is not None for i in range(6)] == [False] * 3 + [True] * 3


def test_a_coarser_level_stands_in_at_its_place(large, drive, wait_until):
    drive.delay = 0.0
    with open_slide(large) as slide:
        patience = Patience(slide.pyramid())
        patience.know(np.asarray(slide.pyramid()[-1]))
        patience.begin()
        drive.delay = DELAY_S
        box = (slice(1000, 1400), slice(2100, 2500))
        first = patience.take(0, box)
        exact = drive.direct(slide, 0, 1, 2100, 1000, 400, 400)
        assert first.shape == exact.shape
        off = np.abs(first.astype(int) - exact).mean()
        moved = np.abs(np.roll(first, 32, 0).astype(int) - exact).mean()
        assert off < 0.5 * moved, "the stand-in lies elsewhere"
        wait_until(lambda: np.array_equal(patience.take(0, box), exact), what="sharp pixels")
        patience.stop()
        wait_until(lambda: patience.idle)


def test_a_script_gets_the_true_pixels(window, large, drive, wait_until, quick):
    _viewer, session = window
    session.open(large)
    wait_until(lambda: session.slide is not None, 60)
    session.jobs.cancel("tissue")
    level = session.slide_layer.data[0]
    right = drive.direct(session.slide, 0, 1, 2000, 3000, 100, 50)
    np.testing.assert_array_equal(level[3000:3050, 2000:2100], right)


def test_a_drive_that_goes_away_is_told_once_and_asked_again(
    window, large, drive, wait_until, quick, monkeypatch
):
    from napari_pathotune import _patience, _slow_reads

    monkeypatch.setattr(_slow_reads, "_AGAIN_S", 0.1)
    monkeypatch.setattr(_patience, "_AGAIN_MS", 200)
    _viewer, session = window
    told = []
    session.failed.connect(told.append)
    session.open(large)
    wait_until(lambda: session.slide is not None, 60)
    session.jobs.cancel("tissue")
    wait_until(lambda: session.jobs.idle, 60)
    told.clear()
    drive.broken, drive.delay = True, 0.05
    patience = patience_of(session.slide_layer)
    box = (slice(0, 400), slice(0, 400))
    patience.take(0, box)
    wait_until(lambda: told and patience.idle)
    patience.take(0, box)
    wait_until(lambda: patience.idle)
    assert len(told) == 1
    assert told[0].where == "slide" and "did not answer" in told[0].message and told[0].hint
    drive.broken = False
    right = drive.direct(session.slide, 0, 1, 0, 0, 400, 400)
    wait_until(lambda: np.array_equal(patience.take(0, box), right), what="the drive's return")


def test_a_fast_drive_is_read_directly_until_it_makes_the_window_wait(large, drive, wait_until):
    drive.delay = 0.0
    with open_slide(large) as slide:
        assert not _drive.is_slow(slide)
        patience = Patience(slide.pyramid(), lambda: _drive.is_slow(slide))
        patience.know(np.asarray(slide.pyramid()[-1]))
        for i in range(3):
            patience.take(0, (slice(0, 300), slice(300 * i, 300 * i + 300)))
        assert not patience.waits
        drive.delay = DELAY_S
        for i in range(2):
            patience.take(0, (slice(900, 1200), slice(300 * i, 300 * i + 300)))
        wait_until(lambda: patience.waits)
        patience.stop()


def test_a_busy_processor_is_not_taken_for_a_slow_drive(large, drive, qtbot):
    asked = []
    with open_slide(large) as slide:
        patience = Patience(slide.pyramid(), lambda: bool(asked.append(True)))
        patience.know(np.asarray(slide.pyramid()[-1]))
        for i in range(5):
            patience.take(0, (slice(900, 1200), slice(300 * i, 300 * i + 300)))
        qtbot.wait(50)
        assert asked == [True], "asked once, not at every wait"
        assert not patience.waits and not readers()


@pytest.mark.parametrize(
    "path, slow",
    [
        ("/home/a/x.svs", False),
        ("/data/slides/x.svs", True),
        ("/data/slides local/x.svs", False),
        ("/mnt/share/deep/x.svs", True),
        ("/mnt/cloud/x.svs", True),
    ],
)
def test_network_drives_are_known_by_the_system(path, slow):
    mounts = (
        "/dev/sda1 / ext4 rw 0 0\nserver:/slides /data/slides nfs4 rw 0 0\n"
        "/dev/sdb1 /data/slides\\040local xfs rw 0 0\n//nas/share /mnt/share cifs rw 0 0\n"
        "remote: /mnt/cloud fuse.rclone rw 0 0\ngvfsd /run/user fuse.portal rw 0 0\n"
    )
    assert _drive._is_network(_drive._kind(Path(path), mounts)) is slow


def test_a_slow_slide_from_the_file_menu_is_opened_in_the_background(
    window, large, drive, wait_until, quick, monkeypatch, qtbot
):
    import napari
    from qtpy.QtCore import QTimer

    viewer, session = window
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    said = []

    def from_the_menu():
        read = _contributions.slide_reader(str(large))
        said.append(read(str(large)))

    QTimer.singleShot(0, from_the_menu)
    wait_until(lambda: session.slide is not None, 60)
    assert said == [_contributions.NO_LAYER] and drive.window == 0
    assert patience_of(session.slide_layer).waits
    session.jobs.cancel("tissue")
    drive.delay = 0.0


def test_without_a_window_the_reader_waits_and_gives_layers(large, drive):
    read = _contributions.slide_reader(str(large))
    (_data, kwargs, _kind) = read(str(large))[0]
    kwargs["metadata"]["napari-pathotune"]["slide"].close()


def test_a_share_is_known_by_its_name():
    assert _drive.on_network(Path(r"\\hospital\slides\x.svs"))


def test_an_error_of_ours_keeps_its_words(wait_until):
    def read(_piece):
        raise PathotuneError("This slide is broken here.", "Copy it again.")

    told = []
    reads = SlowReads(read, lambda: None, told.append)
    reads.want([(0, 0, 0)])
    wait_until(lambda: told and reads.idle)
    assert told[0].message == "This slide is broken here." and reads.trouble
