"""JPEG tiles decoded directly give OpenSlide's pixels, at every size, once, and fail in words."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import simplejpeg
import tifffile

from pathotune.events import PathotuneError
from pathotune.slides.geometry import Region
from pathotune.slides.readers import _svs_tiles
from pathotune.slides.readers._jpeg_tiles import jpeg_level
from pathotune.slides.readers._pread import PlacedFile
from pathotune.slides.readers._svs_tiles import svs_tiles
from pathotune.slides.readers._tiff_pages import tiff_pages
from pathotune.slides.readers.tiff import TiffReader
from pathotune.slides.resample import area
from pathotune.slides.sample import skin_slide
from pathotune.slides.shrink import shrink
from pathotune.slides.slide import open_slide
from pathotune.slides.tile_cache import TILES, TileCache
from pathotune.slides.view import View

APERIO = "Aperio Image Library v12.0.15 \n900x700 [0,0 900x700] (256x256) |AppMag = 40|MPP = 0.2500"
SHARED_SLIDES = (
    "wsi_cmu1_small_region/CMU-1-Small-Region.svs",
    "wsi_her2st_sections/C2_pyramid.ome.tif",
    "img_os1_he_crop/OS-1-detail.ome.tif",
    "img_instanseg_he/HE_example.tif",
)


def through_openslide(path: Path, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
    with openslide.OpenSlide(str(path)) as slide:
        scale = slide.level_downsamples[level]
        pixels = np.asarray(slide.read_region((round(x * scale), round(y * scale)), level, (w, h)))
    out = np.full((h, w, 3), 255, np.uint8)
    out[pixels[..., 3] > 0] = pixels[pixels[..., 3] > 0][:, :3]
    return out


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    with openslide.OpenSlide(str(skin_slide())) as slide:
        return np.ascontiguousarray(slide.read_region((700, 1100), 0, (900, 700)))[..., :3]


def streams(pixels: np.ndarray, coding: str) -> list[bytes]:
    """Return 256 px tiles as JPEG, filled up beyond the border as scanners do."""
    h, w = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -h % 256), (0, -w % 256), (0, 0)), "edge")
    padded[h:], padded[:, w:] = 40, 90  # what must never be seen
    found = []
    for y in range(0, h, 256):
        for x in range(0, w, 256):
            tile = np.ascontiguousarray(padded[y : y + 256, x : x + 256])
            if coding == "rgb":
                data = imagecodecs.jpeg8_encode(tile, 90, colorspace="rgb", outcolorspace="rgb")
            else:
                data = simplejpeg.encode_jpeg(tile, 90, colorsubsampling=coding)
            while data[2:4] in {b"\xff\xe0", b"\xff\xee"}:  # colours are told by the TIFF alone
                data = data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]
            found.append(data)
    return found


def write_tiles(path: Path, levels: list[np.ndarray], coding: str, bigtiff: bool = False) -> Path:
    how = {"photometric": "rgb", "compressionargs": {"outcolorspace": "rgb"}}
    if coding != "rgb":
        sampling = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}[coding]
        how = {"photometric": "ycbcr", "subsampling": sampling}
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as out:
        for level in levels:
            out.write(
                iter(streams(level, coding)), shape=level.shape, dtype=np.uint8, tile=(256, 256),
                compression="jpeg", metadata=None,
                description=APERIO if path.suffix == ".svs" else None, **how,
            )  # fmt: skip
    return path


def write_svs(path: Path, pixels: np.ndarray, coding: str = "420", bigtiff: bool = False) -> Path:
    quarter = area(pixels, 0, 0, 4, 4, 225, 175)
    return write_tiles(path, [pixels, quarter], coding, bigtiff)


@pytest.mark.parametrize("coding", ["420", "422", "444", "rgb"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_scanners_files_give_openslides_pixels(tmp_path, tissue, coding, bigtiff):
    path = write_svs(tmp_path / "x.svs", tissue, coding, bigtiff)
    with open_slide(path) as slide:
        assert (slide.reader, slide.vendor, len(slide.levels)) == ("openslide", "aperio", 2)
        for level, box in ((0, (0, 0, 900, 700)), (0, (131, 77, 400, 500)), (1, (0, 0, 225, 175))):
            assert slide.reductions(level) == (1, 2, 4, 8)
            want = through_openslide(path, level, *box)
            assert np.abs(slide.read_level(level, *box).astype(int) - want).max() <= 1


def test_the_sample_with_shared_tables_and_rgb_streams(monkeypatch):
    path = skin_slide()
    with open_slide(path) as slide:
        assert slide.reductions(0) == (1, 2, 4, 8)  # 240 px tiles
        box = (480, 700, 1500, 1700)
        monkeypatch.setattr(type(slide._reader), "_region", None)  # not by way of OpenSlide
        assert np.array_equal(slide.read_level(0, *box), through_openslide(path, 0, *box))


@pytest.mark.parametrize("name", SHARED_SLIDES)
@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_smaller_decoding_is_the_mean_of_blocks(shared, name, reduction):
    with open_slide(shared / "data" / name) as slide:
        n = min(1024, slide.width // 16 * 8, slide.height // 16 * 8)
        x, y = (slide.width - n) // 16 * 8, (slide.height - n) // 16 * 8
        whole = slide.read_level(0, x, y, n, n)
        small = n // reduction
        want = area(whole, 0, 0, reduction, reduction, small, small).astype(int)
        got = slide.read_reduced(0, reduction, x // reduction, y // reduction, small, small)
        assert whole.std() > 10  # tissue
        assert np.abs(got - want).mean() <= 1
        assert abs((got - want).mean()) <= 0.3


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_borders_of_the_slide_do_not_take_in_the_filling(tmp_path, tissue, reduction):
    odd = np.ascontiguousarray(tissue[:683, :877])
    path = tmp_path / "odd.tif"
    write_tiles(path, [odd], "444")
    with open_slide(path, mpp=0.5) as slide:
        whole = np.full((688, 880, 3), 255, np.uint8)
        whole[:683, :877] = slide.read_level(0, 0, 0, 877, 683)
        w, h = 880 // reduction, 688 // reduction
        want = area(whole, 0, 0, reduction, reduction, w, h).astype(int)
        got = slide.read_reduced(0, reduction, 0, 0, w, h)
        # blocks in part beyond the border are averaged with white, exactly
        assert np.abs(got - want)[:, -1].max() <= 1 and np.abs(got - want)[-1].max() <= 1
        assert np.abs(got - want).mean() <= 1


def test_scaled_reading_uses_small_tiles_only_where_they_can_stand_for_pixels(monkeypatch):
    with open_slide(skin_slide(), mpp=0.25) as slide:  # 240 px tiles, no other level
        used: list[int] = []
        read = slide.read_reduced

        def watched(level, reduction, *box, exact):
            used.append(reduction)
            return read(level, reduction, *box, exact=exact)

        monkeypatch.setattr(slide, "read_reduced", watched)
        whole = read(0, 1, 0, 0, 2220, 2967)
        for x, downsample, wanted in (
            (400, 2, 2), (401, 2, 1), (400.5, 2, 1), (400, 2.2, 1), (400, 1.999995, 2), (400, 4, 4),
            (404, 4, 4), (402, 4, 2), (400.3, 9.1, 2), (400.3, 17.3, 4), (400, 24, 8),
        ):  # fmt: skip
            n = int(1000 / downsample)
            used.clear()
            got = slide.read_downsampled(x, 960, downsample, n, n)
            assert used == [wanted], (x, downsample)
            want = area(whole, x, 960, downsample, downsample, n, n).astype(int)
            assert np.abs(got - want).mean() <= 1, (x, downsample)


@pytest.mark.parametrize("coding", ["420", "422", "444"])
@pytest.mark.parametrize("order", ["model first", "window first", "level 0 first"])
def test_a_model_gets_the_mean_of_whole_tiles_whatever_the_window_has_read(
    tmp_path, tissue, coding, order
):
    path = tmp_path / "x.tif"
    write_tiles(path, [np.ascontiguousarray(tissue[:683, :877])], coding)
    with open_slide(path, mpp=0.25) as slide:
        whole = np.full((684, 878, 3), 255, np.uint8)
        whole[:683, :877] = slide.read_level(0, 0, 0, 877, 683)
        want = area(whole, 0, 0, 2, 2, 439, 342)
        if order != "level 0 first":
            TILES.forget(slide._reader._tiles._owner)
        if order == "window first":
            slide.read_reduced(0, 2, 0, 0, 439, 342)
        assert np.array_equal(slide.read_scaled(0, 0, 0.5, 439, 342), want)
        shown = slide.read_reduced(0, 2, 0, 0, 439, 342)
        # colours that are halved across only are shrunk twice by the decoder
        assert np.abs(shown.astype(int) - want).mean() <= (2 if coding == "422" else 1)
        if order == "model first":
            assert np.array_equal(shown, want)  # the window is given what the model had decoded


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_blocks_are_averaged_exactly(factor):
    rng = np.random.default_rng(factor)
    for h, w in ((64, 128), (240, 80), (8, 8)):
        pixels = rng.integers(0, 256, (h, w, 4), np.uint8)
        pixels[:16, :16] = 255
        out = np.zeros((h // factor, w // factor, 3), np.uint8)
        shrink(pixels, factor, out)
        blocks = pixels[..., :3].reshape(h // factor, factor, w // factor, factor, 3)
        assert np.array_equal(out, np.floor(blocks.astype(float).mean((1, 3)) + 0.5))
    with pytest.raises(ValueError, match="shrink"):
        shrink(pixels, factor, np.zeros((3, 3, 3), np.uint8))


def test_sharp_colours_halved_both_ways_stay_within_a_grey_level(shared):
    with open_slide(shared / "data/regions_crc_mosaic/crc_mosaic_dev.ome.tif") as slide:
        w, h = slide.width // 2, slide.height // 2
        want = slide.read_reduced(0, 2, 0, 0, w, h, exact=True)
        TILES.forget(slide._reader._tiles._owner)
        got = slide.read_reduced(0, 2, 0, 0, w, h)
        assert np.abs(got.astype(int) - want).mean() <= 0.1


def test_an_absent_tile_is_what_openslide_shows(tmp_path, tissue):
    path = write_svs(tmp_path / "x.svs", tissue)
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].tags["TileByteCounts"]
        at, size = tag.valueoffset, 2 if tag.dtype.name == "SHORT" else 4
    with path.open("r+b") as file:
        file.seek(at + 5 * size)
        file.write(b"\0" * size)
    with open_slide(path) as slide:
        want = through_openslide(path, 0, 0, 0, 900, 700)
        assert np.abs(slide.read_level(0, 0, 0, 900, 700).astype(int) - want).max() <= 1
        assert (slide.read_level(0, 256, 256, 256, 256) == 255).all()
        assert (slide.read_reduced(0, 2, 128, 128, 128, 128) == 255).all()


@pytest.mark.parametrize("name", ["x.svs", "x.tif"])
def test_a_damaged_tile_is_told_in_words_and_the_others_are_read(tmp_path, tissue, name):
    path = write_svs(tmp_path / "x.svs", tissue)
    if name == "x.tif":
        path = tmp_path / name
        write_tiles(path, [tissue], "420")
    with open_slide(path, mpp=0.25) as slide:
        want = slide.read_level(0, 0, 0, 256, 256)
    with tifffile.TiffFile(path) as file:
        offsets = list(file.pages[0].dataoffsets)
    with path.open("r+b") as file:
        file.seek(offsets[5])
        file.write(b"\xab" * 700)
    with open_slide(path, mpp=0.25) as slide:
        assert np.array_equal(slide.read_level(0, 0, 0, 256, 256), want)
        for reduction in (1, 2):
            n = 256 // reduction
            for _ in range(2):
                with pytest.raises(PathotuneError, match="damaged") as caught:
                    slide.read_reduced(0, reduction, n, n, n, n)
                assert caught.value.hint
        assert np.array_equal(slide.read_level(0, 0, 0, 256, 256), want)


def test_streams_that_are_not_as_the_file_says_are_left_to_the_slow_way(tmp_path, tissue):
    """Tiles of another size than their place are not taken as they are."""
    path = tmp_path / "x.tif"
    found = streams(np.ascontiguousarray(tissue[:512, :512]), "444")
    small = np.ascontiguousarray(tissue[:128, :128])
    found[1] = simplejpeg.encode_jpeg(small, 90, colorsubsampling="444")
    found[2] = simplejpeg.encode_jpeg(tissue[:512, :512].copy(), 90, colorsubsampling="444")
    tifffile.imwrite(
        path, iter(found), shape=(512, 512, 3), dtype=np.uint8, tile=(256, 256),
        compression="jpeg", photometric="ycbcr", subsampling=(1, 1),
    )  # fmt: skip
    reader = TiffReader(path, View())
    try:
        tiles_read = reader._tiles
        assert tiles_read is not None
        assert tiles_read._stream(tiles_read.levels[0], 1, 0) is not None
        for wrong in (1, 2):
            assert tiles_read._stream(tiles_read.levels[0], 1, wrong) is None
            assert tiles_read._stream(tiles_read.levels[0], 2, wrong) is None
        assert reader.read(0, 0, 0, 256, 256).shape == (256, 256, 3)
    finally:
        reader.close()


def test_pages_are_read_as_tifffile_reads_them(tmp_path, tissue, shared):
    """Without its import, which would double the time until a slide is seen."""
    for path in (
        write_svs(tmp_path / "a.svs", tissue, "422"),
        write_svs(tmp_path / "b.svs", tissue, "rgb", bigtiff=True),
        skin_slide(),
        shared / "data" / "wsi_tcga_cr7395/TCGA-CR-7395-01A-01-TS1.svs",
        shared / "data" / "wsi_her2st_sections/C2_pyramid.ome.tif",
    ):
        ours = tiff_pages(path)
        with tifffile.TiffFile(path) as file:
            assert len(ours) == len(file.pages)
            for mine, page in zip(ours, file.pages, strict=True):
                assert mine.is_tiled == page.is_tiled
                for name in (
                    "imagewidth", "imagelength", "tilewidth", "tilelength", "bitspersample",
                    "compression", "photometric", "samplesperpixel", "planarconfig", "imagedepth",
                    "tiledepth", "jpegtables",
                ):  # fmt: skip
                    assert getattr(mine, name) == getattr(page, name), (path.name, name)
                if page.is_tiled:
                    assert mine.dataoffsets.tolist() == list(page.dataoffsets)
                    assert mine.databytecounts.tolist() == list(page.databytecounts)


def test_a_tiff_that_is_none_or_cut_short_is_refused(tmp_path, tissue):
    whole = write_svs(tmp_path / "a.svs", tissue).read_bytes()
    path = tmp_path / "b.svs"
    with_loop = whole[:4] + struct.pack("<I", 4) + whole[8:]
    for data in (b"", b"II", b"MM\0*\0\0\0\x08", b"II*\0\xff\xff\xff\xff", with_loop):
        path.write_bytes(data)
        try:
            assert all(jpeg_level(page, as_tagged=True) is None for page in tiff_pages(path))
        except (ValueError, struct.error):
            pass
        assert svs_tiles(path, ((900, 700),), None) is None


def test_a_slide_is_opened_and_shown_without_tifffile(tmp_path, tissue):
    path = write_svs(tmp_path / "a.svs", tissue)
    code = (
        "import sys; from pathlib import Path; from pathotune.slides.slide import open_slide\n"
        f"slide = open_slide(Path({str(path)!r})); slide.pyramid()[0][:9, :9]\n"
        "print(slide.reductions(0), 'tifffile' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False" and "8)" in done.stdout


def test_a_level_that_disagrees_with_openslide_is_read_through_it(tmp_path, tissue, monkeypatch):
    path = write_svs(tmp_path / "x.svs", tissue)
    level = _svs_tiles.jpeg_level

    def taken_for_rgb(page, *, as_tagged):
        found = level(page, as_tagged=as_tagged)
        return None if found is None else replace(found, start=found.start[:-1] + b"\0")

    monkeypatch.setattr(_svs_tiles, "jpeg_level", taken_for_rgb)
    with open_slide(path) as slide:
        want = through_openslide(path, 0, 0, 0, 900, 700)
        halved = slide.pyramid()[1]  # offered before the level was found to disagree
        assert slide.reductions(0) == (1,)
        assert np.abs(slide.read_level(0, 0, 0, 900, 700).astype(int) - want).max() <= 1
        half = area(want, 0, 0, 2, 2, 450, 350).astype(int)
        assert np.abs(halved[:100, :150] - half[:100, :150]).mean() <= 1


def test_a_tile_wanted_by_many_threads_is_decoded_once():
    cache = TileCache(10_000_000)
    began, made = threading.Barrier(6), []

    def make(_key) -> np.ndarray:
        made.append(threading.get_ident())
        threading.Event().wait(0.05)
        return np.zeros((10, 10, 3), np.uint8)

    def work() -> None:
        began.wait()
        found.append(cache.get(("a", 1), make))

    found: list[np.ndarray] = []
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(found) == 6
    assert all(tile is found[0] for tile in found)
    with pytest.raises(ValueError, match="read-only"):
        found[0][0, 0] = 1


def test_the_cache_keeps_the_newest_within_its_bytes_and_forgets_an_owner():
    cache = TileCache(5 * 300)
    tile = lambda _: np.zeros((10, 10, 3), np.uint8)  # noqa: E731
    for i in range(9):
        cache.get(("a", i), tile)
        cache.get(("a", 0), lambda _: pytest.fail("used all the time, yet given up"))
    assert cache.nbytes == 5 * 300
    cache.get(("b", 0), tile)
    cache.forget("a")
    assert cache.nbytes == 300
    cache.get(("b", 0), lambda _: pytest.fail("another owner's tile"))
    calls = []
    cache.get(("c", 0), lambda _: calls.append(1))
    cache.get(("c", 0), lambda _: calls.append(1))
    assert calls == [1]  # that a tile is absent is remembered too


def test_what_is_larger_than_the_cache_is_decoded_once_all_the_same():
    cache, made = TileCache(1000), []
    for _ in range(3):
        cache.get(("whole", 0), lambda key: made.append(key) or np.zeros(5000, np.uint8))
    assert len(made) == 1
    cache.get(("small", 0), lambda _: np.zeros(10, np.uint8))
    assert cache.nbytes == 10


def test_an_error_reaches_everybody_who_waits_and_is_not_kept():
    cache = TileCache()
    came = threading.Event()

    def fail(_key) -> np.ndarray:
        came.wait(1)
        raise PathotuneError("broken", "hint")

    errors: list[BaseException] = []

    def work() -> None:
        try:
            cache.get(("a",), fail)
        except PathotuneError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    came.set()
    for thread in threads:
        thread.join()
    assert len(errors) == 3
    assert cache.get(("a",), lambda _: np.ones(3, np.uint8)) is not None

    def some(key):
        if key[1] == 17:
            raise PathotuneError("broken", "hint")
        return np.zeros(3, np.uint8)

    with pytest.raises(PathotuneError):
        cache.each([("e", i) for i in range(40)], some, lambda key, tile: None)


def test_many_readers_at_once_agree_and_leave_nothing_behind(tissue, tmp_path):
    path = write_svs(tmp_path / "x.svs", tissue)
    before = TILES.nbytes
    with open_slide(path) as slide:
        boxes = [(31 * i, 17 * i, 380, 300) for i in range(12)]
        want = [through_openslide(path, 0, *box) for box in boxes]
        TILES.forget(slide._reader._tiles._owner)
        wrong: list[int] = []

        def work(shift: int) -> None:
            for i in range(len(boxes)):
                k = (i + shift) % len(boxes)
                if np.abs(slide.read_level(0, *boxes[k]).astype(int) - want[k]).max() > 1:
                    wrong.append(k)

        threads = [threading.Thread(target=work, args=(2 * t,)) for t in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert TILES.nbytes > before
    assert TILES.nbytes <= before


def test_the_viewer_gets_the_levels_between(tmp_path, tissue):
    path = write_svs(tmp_path / "x.svs", tissue, "444")
    with open_slide(path) as slide:
        arrays = slide.pyramid()
        assert [a.shape[:2] for a in arrays] == [(700, 900), (351, 451), (175, 225)]
        want = area(slide.read(Region(0, 0, 900, 700)), 0, 0, 2, 2, 450, 350).astype(int)
        shown = np.asarray(arrays[1])
        # napari lays 351 pixels over 700: each is the one that lies there, to half a pixel
        rows, columns = (
            np.floor((np.arange(n) + 0.5) * (n - 1) / n).astype(int) for n in (351, 451)
        )
        assert np.abs(shown - want[rows][:, columns]).mean() <= 1
        assert np.array_equal(arrays[1][40:90, 30:400], shown[40:90, 30:400])
        # at exactly half size napari takes the first level with more pixels than the screen
        assert all(700 / a.shape[0] < 2 for a in arrays[:2])


@pytest.mark.parametrize("system_can", [True, False])
def test_reading_at_a_place_with_and_without_the_system_s_help(tmp_path, monkeypatch, system_can):
    if not system_can:
        monkeypatch.delattr("os.pread", raising=False)
    path = tmp_path / "x"
    path.write_bytes(bytes(range(200)))
    file = PlacedFile(path)
    assert file.read(150, 20) == bytes(range(150, 170))
    assert file.read(3, 2) == b"\x03\x04"
    assert file.read(190, 50) == bytes(range(190, 200))
    file.close()


def test_memory_that_is_used_again_never_shows_through():
    """Small cache, many threads: every tile seen holds its own number all over."""
    cache = TileCache(6 * 128 * 128 * 3)
    wrong: list[int] = []

    def make(key):
        out = cache.buffer((128, 128, 3) if key[1] % 3 else (64, 64, 3))
        out[...] = key[1]
        return out

    def use(key, tile):
        if not (tile == key[1]).all():
            wrong.append(key[1])

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(40):
            cache.each([("m", int(i)) for i in rng.integers(0, 40, 8)], make, use)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.nbytes <= cache.limit
    kept = cache.get(("m", 7), make)
    cache.each([("n", i) for i in range(30)], make, lambda key, tile: None)
    assert kept is not None and (kept == 7).all()  # what `get` gave stays as it is


def test_memory_goes_back_when_a_slide_is_closed(tmp_path):
    pages = Path("/proc/self/status")
    if not pages.is_file():
        pytest.skip("counts memory where the system shows it")

    def anonymous() -> float:
        lines = pages.read_text().splitlines()
        return next(int(n.split()[1]) / 1024 for n in lines if n.startswith("RssAnon"))

    cache = TileCache(60 << 20)

    def make(key):
        out = cache.buffer((256, 256, 3))
        out[...] = 1
        return out

    before = anonymous()
    cache.each([("x", i) for i in range(900)], make, lambda key, tile: None)
    assert 40 < anonymous() - before < 80
    cache.forget("x")
    assert anonymous() - before < 15


@pytest.mark.parametrize(
    "name",
    [
        "wsi_tcga_cr7395/TCGA-CR-7395-01A-01-TS1.svs",
        "wsi_ndpi_fluor/test3-DAPI-2-(387).ndpi",
        "wsi_camelyon_dicom/camelyon_overview_multiframe_jp2k.dcm",
    ],
)
def test_squares_through_openslide_are_its_pixels_and_kept(shared, name, monkeypatch):
    path = shared / "data" / name
    with open_slide(path) as slide:
        assert slide.reductions(0) == (1,)
        for number, level in enumerate(slide.levels[:4]):
            w, h = level.width * 2 // 3, level.height * 2 // 3
            box = (level.width // 5, level.height // 5, min(w, 700), min(h, 600))
            got = slide.read_level(number, *box)
            assert np.array_equal(got, through_openslide(path, number, *box)), number
        whole = slide.read_level(0, 500, 300, 600, 400)
        monkeypatch.setattr(type(slide._reader), "_region", None)  # all of it is in the cache
        assert np.array_equal(slide.read_level(0, 510, 310, 500, 300), whole[10:310, 10:510])


@pytest.mark.parametrize("name", [*SHARED_SLIDES[1:], "regions_crc_mosaic/crc_mosaic_dev.ome.tif"])
def test_tiff_tiles_are_those_that_tifffile_decodes(shared, name):
    reader = TiffReader(shared / "data" / name, View())
    try:
        for level, (width, height) in enumerate(reader.sizes):
            assert reader.reductions(level) == (1, 2, 4, 8)
            box = (width // 3, height // 3, min(600, width // 2), min(500, height // 2))
            direct, slow = reader.read(level, *box), reader._decoded(level, *box)
            assert np.abs(direct.astype(int) - slow).max() <= 1
    finally:
        reader.close()
