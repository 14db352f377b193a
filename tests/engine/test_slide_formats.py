"""TIFF in every common layout, PNG and JPEG give the same pixels; damage is told in words."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pathotune.events import PathotuneError
from pathotune.slides import fingerprint as fingerprints
from pathotune.slides.geometry import Region
from pathotune.slides.readers import raster, tiff
from pathotune.slides.readers._tiff_scale import ome_mpp
from pathotune.slides.slide import is_slide, open_slide
from pathotune.slides.tile_cache import TILES

RNG = np.random.default_rng(5)
RGB = RNG.integers(0, 256, (210, 190, 3), dtype=np.uint8)
BOX = Region(33, 47, 120, 90)
WANT = RGB[47:137, 33:153]


@pytest.mark.parametrize("tile", [None, (64, 80)])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("how", [{}, {"compression": "deflate", "predictor": True}])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_layout_gives_the_same_pixels(tmp_path, tile, planar, how, order):
    data = np.ascontiguousarray(RGB.transpose(2, 0, 1)) if planar == "separate" else RGB
    path = tmp_path / "x.tif"
    tifffile.imwrite(
        path, data, tile=tile, photometric="rgb", planarconfig=planar, byteorder=order,
        rowsperstrip=None if tile else 50, **how,
    )  # fmt: skip
    with open_slide(path) as slide:
        assert np.array_equal(slide.read(BOX), WANT)


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_in_either_byte_order_keep_their_colours(tmp_path, order):
    twelve = (RGB.astype(np.uint32) * 4095 // 255).astype(np.uint16)
    twelve[0, 0] = 4095
    tifffile.imwrite(tmp_path / "x.tif", twelve, photometric="rgb", byteorder=order)
    with open_slide(tmp_path / "x.tif") as slide:
        assert np.abs(slide.read(BOX).astype(int) - WANT).max() <= 1


def test_odd_kinds_of_pixels(tmp_path):
    grey = RGB[..., 0]
    made = {
        "inverted": (255 - grey, {"photometric": "miniswhite"}, grey),
        "grey-alpha": (
            np.dstack([grey, np.full_like(grey, 255)]),
            {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "contig"},
            grey,
        ),
        "two-levels": ((grey > 128), {"photometric": "minisblack"}, (grey > 128) * 255),
    }
    for name, (data, how, want) in made.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", data, metadata=None, **how)
        with open_slide(tmp_path / f"{name}.tif") as slide:
            got = slide.read(slide.bounds)
            assert got.shape == (210, 190, 3), name
            assert np.array_equal(got[..., 1], want), name
    Image.fromarray(RGB).quantize(200).save(tmp_path / "palette.tif")
    with open_slide(tmp_path / "palette.tif") as slide:
        want = np.asarray(Image.open(tmp_path / "palette.tif").convert("RGB"))
        assert np.abs(slide.read(slide.bounds).astype(int) - want).max() <= 1
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "cmyk.tif")
    with open_slide(tmp_path / "cmyk.tif") as slide:
        assert np.abs(slide.read(BOX).astype(int) - WANT).max() <= 2


def test_transparent_parts_are_white(tmp_path):
    alpha = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    alpha[:20, :, 3] = 0
    tifffile.imwrite(tmp_path / "a.tif", alpha, photometric="rgb", extrasamples=["unassalpha"])
    Image.fromarray(alpha).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        with open_slide(tmp_path / name) as slide:
            got = slide.read(slide.bounds)
        assert (got[:20] == 255).all() and np.array_equal(got[20:], RGB[20:]), name


def test_channels_of_a_stack_are_taken_at_the_first_depth(tmp_path):
    stack = np.zeros((3, 4, 60, 70), np.uint8)  # C, Z
    for channel, value in enumerate((50, 100, 150)):
        stack[channel] = value
        stack[channel, 1:] = 7
    tifffile.imwrite(tmp_path / "z.ome.tif", stack, metadata={"axes": "CZYX"})
    with open_slide(tmp_path / "z.ome.tif") as slide:
        assert slide.read(Region(3, 3, 1, 1)).ravel().tolist() == [50, 100, 150]


@pytest.mark.parametrize(
    ("unit", "size"), [("µm", 0.25), ("nm", 250), ("mm", 0.00025), ("cm", 0.000025), ("pm", 250000)]
)
def test_ome_pixel_sizes_in_any_unit(tmp_path, unit, size):
    meta = {
        "axes": "YXS",
        "PhysicalSizeX": size,
        "PhysicalSizeXUnit": unit,
        "PhysicalSizeY": size,
        "PhysicalSizeYUnit": unit,
    }
    tifffile.imwrite(tmp_path / "u.ome.tif", RGB, metadata=meta, photometric="rgb")
    with open_slide(tmp_path / "u.ome.tif") as slide:
        assert slide.mpp == pytest.approx(0.25)
        assert slide.vendor == "ome"


def test_ome_without_a_size_or_in_a_unit_of_nothing_is_missing():
    for attributes in ("", 'PhysicalSizeX="x" PhysicalSizeY="1"', 'PhysicalSizeX="-3"'):
        x, y = ome_mpp(f"<OME><Image><Pixels {attributes}/></Image></OME>")
        assert x is None or y is None or x < 0
    pixels = '<Pixels PhysicalSizeX="1" PhysicalSizeXUnit="pixel"/>'
    assert ome_mpp(f"<OME>{pixels}</OME>") == (None, None)
    assert ome_mpp("<OME") == (None, None)


def test_a_file_saved_in_one_piece_is_read_in_place_or_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "LARGEST_SEGMENT", 10_000)
    tifffile.imwrite(tmp_path / "plain.tif", RGB, photometric="rgb")
    with open_slide(tmp_path / "plain.tif") as slide:
        assert np.array_equal(slide.read(BOX), WANT)
    tifffile.imwrite(tmp_path / "one.tif", RGB, photometric="rgb", compression="deflate")
    with pytest.raises(PathotuneError, match="one piece") as caught:
        open_slide(tmp_path / "one.tif")
    assert "tiled" in (caught.value.hint or "")


def test_the_cache_of_tiles_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(TILES, "limit", 100_000)
    tifffile.imwrite(
        tmp_path / "t.tif", np.tile(RGB, (5, 5, 1)), tile=(64, 64), photometric="rgb",
        compression="deflate",
    )  # fmt: skip
    with open_slide(tmp_path / "t.tif") as slide:
        assert np.array_equal(slide.read(slide.bounds), np.tile(RGB, (5, 5, 1)))
        assert 0 < TILES.nbytes <= 100_000


def test_png_and_jpeg_of_every_mode(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "l.png")
    Image.fromarray(RGB[..., 0].astype(np.uint16) * 257).save(tmp_path / "i16.png")
    Image.fromarray(RGB).quantize(256).save(tmp_path / "p.png")
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    for name in ("l.png", "i16.png"):
        with open_slide(tmp_path / name) as slide:
            assert np.array_equal(slide.read(BOX)[..., 2], WANT[..., 0]), name
    for name in ("p.png", "cmyk.jpg"):
        with open_slide(tmp_path / name) as slide:
            assert slide.read(BOX).shape == (90, 120, 3)
            assert len(slide.levels) == 1


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch, recwarn):
    Image.fromarray(RGB).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)  # 39,900 pixels: only a warning
    open_slide(tmp_path / "big.png").close()
    assert not [w for w in recwarn if issubclass(w.category, Image.DecompressionBombWarning)]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(PathotuneError, match="too many pixels"):
        open_slide(tmp_path / "big.png")
    monkeypatch.setattr(raster, "LARGEST_PIXELS", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(PathotuneError, match="too many pixels"):
        open_slide(tmp_path / "big.png")


def test_content_decides_not_the_suffix(tmp_path, shared):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "picture.SVS")
    with open_slide(tmp_path / "picture.SVS") as slide:
        assert slide.reader == "raster" and np.array_equal(slide.read(BOX), WANT)
    real = shared / "data/wsi_cmu1_small_region/CMU-1-Small-Region.svs"
    (tmp_path / "slide.png").write_bytes(real.read_bytes())
    with open_slide(tmp_path / "slide.png") as slide, open_slide(real) as original:
        assert slide.reader == "openslide" and slide.vendor == "aperio"
        assert slide.fingerprint == original.fingerprint


def test_a_damaged_tile_is_told_and_the_rest_still_read(tmp_path, shared):
    real = shared / "data/wsi_cmu1_small_region/CMU-1-Small-Region.svs"
    whole = bytearray(real.read_bytes())
    with tifffile.TiffFile(real) as file:
        page = file.pages[0]
        across = -(-page.imagewidth // page.tilewidth)
        offset, count = page.dataoffsets[across + 1], page.databytecounts[across + 1]
        side = page.tilewidth
    whole[offset : offset + count] = b"\0" * count
    (tmp_path / "hurt.svs").write_bytes(whole)
    with open_slide(tmp_path / "hurt.svs") as slide, open_slide(real) as sound:
        for _ in range(2):
            with pytest.raises(PathotuneError, match="damaged") as caught:
                slide.read(Region(side + 10, side + 10, 40, 40))
            assert "again" in (caught.value.hint or "")
            elsewhere = Region(5 * side, 5 * side, 60, 60)
            assert np.array_equal(slide.read(elsewhere), sound.read(elsewhere))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize(
    "name",
    [
        "wsi_cmu1_small_region/CMU-1-Small-Region.svs",
        "wsi_cmu1_small_region/CMU-1-Small-Region.dcm",
        "wsi_tcga_cr7395/TCGA-CR-7395-01A-01-TS1.svs",
        "regions_crc_mosaic/crc_mosaic_dev.ome.tif",
        "img_skimage_ihc/ihc.png",
        "img_stardist_histo/histo.jpg",
    ],
)
def test_a_file_cut_short_never_gives_wrong_pixels_quietly(tmp_path, shared, name, share):
    whole = (shared / "data" / name).read_bytes()
    path = tmp_path / Path(name).name
    path.write_bytes(whole[: int(len(whole) * share)])
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    try:
        with open_slide(path) as slide, open_slide(shared / "data" / name) as sound:
            corner = Region(slide.width - 300, slide.height - 300, 256, 256)
            assert np.array_equal(slide.read(corner), sound.read(corner))
    except PathotuneError as error:
        assert error.hint and "Errno" not in str(error)
    if before:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # tifffile's, on absurd tags
@pytest.mark.parametrize(
    "name",
    [
        "wsi_cmu1_small_region/CMU-1-Small-Region.svs",
        "wsi_cmu1_small_region/CMU-1-Small-Region.dcm",
        "img_os1_he_crop/OS-1-detail.ome.tif",
        "wsi_ndpi_fluor/test3-DAPI-2-(387).ndpi",
        "img_skimage_ihc/ihc.png",
    ],
)
def test_random_damage_is_survived_or_told(tmp_path, shared, name):
    whole = (shared / "data" / name).read_bytes()
    rng = np.random.default_rng(8)
    path = tmp_path / Path(name).name
    for case in range(5):
        hurt = np.frombuffer(whole, np.uint8).copy()
        span = min(len(hurt), 2000)
        where = [rng.integers(0, span, 12), len(hurt) - 1 - rng.integers(0, span, 40)][case % 2]
        hurt[where] = rng.integers(0, 256, len(where))
        path.write_bytes(hurt.tobytes())
        try:
            with open_slide(path) as slide:
                assert slide.kind and slide.read(Region(200, 200, 64, 64)).shape == (64, 64, 3)
        except PathotuneError as error:
            assert error.hint


def test_a_picture_that_says_it_is_larger_than_it_is(tmp_path):
    path = tmp_path / "tall.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", rowsperstrip=50, compression="deflate")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(2_000_000)
    with pytest.raises(PathotuneError, match="damaged"):
        open_slide(path)


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "mine.png")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert not is_slide(tmp_path / "mine.png")
    with pytest.raises(PathotuneError, match="cannot be opened") as caught:
        open_slide(tmp_path / "mine.png")
    assert "may read it" in (caught.value.hint or "")


def test_closing_waits_for_readers_and_turns_later_ones_away(shared):
    real = shared / "data/wsi_cmu1_small_region/CMU-1-Small-Region.svs"
    for _ in range(5):
        slide = open_slide(real)
        outcomes: list[object] = []

        def work(slide=slide, outcomes=outcomes) -> None:
            for i in range(200):
                try:
                    slide.read(Region(7 * i, 9 * i, 300, 300))
                except PathotuneError as error:
                    outcomes.append(str(error))
                    return

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        slide.read(Region(0, 0, 64, 64))
        slide.close()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert outcomes and all("closed" in str(o) for o in outcomes)


def test_slides_of_many_files_are_told_apart(tmp_path):
    (tmp_path / "index.mrxs").write_bytes(b"same index")
    one, two = (fingerprints.fingerprint(tmp_path / "index.mrxs", h) for h in ("aa", "bb"))
    assert one != two and len(one) == 32
