"""Slides open, keep their landmarks in place at every scale, and say what is wrong."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.registration import phase_cross_correlation

from pathotune.events import PathotuneError
from pathotune.slides.geometry import Region
from pathotune.slides.mpp import believable
from pathotune.slides.placing import place_levels
from pathotune.slides.resample import area
from pathotune.slides.slide import is_slide, open_slide


def spot(height: int, width: int, y: float, x: float, sigma: float = 6.0) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width] + 0.5
    dark = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
    return np.repeat((255 - 220 * dark)[..., None], 3, axis=2).astype(np.uint8)


def centre(pixels: np.ndarray) -> tuple[float, float]:
    weight = 255.0 - pixels.mean(axis=2)
    weight[weight < 20] = 0
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]] + 0.5
    return (
        float((rows * weight).sum() / weight.sum()),
        float((columns * weight).sum() / weight.sum()),
    )


def write_pyramid(path: Path, levels: list[np.ndarray], **extra) -> None:
    with tifffile.TiffWriter(path, ome=False) as out:
        out.write(levels[0], tile=(128, 128), photometric="rgb", subifds=len(levels) - 1, **extra)
        for level in levels[1:]:
            out.write(level, tile=(128, 128), photometric="rgb", subfiletype=1)


def shrink(full: np.ndarray, width: int, height: int) -> np.ndarray:
    ratio_x, ratio_y = full.shape[1] / width, full.shape[0] / height
    return area(full, 0, 0, ratio_x, ratio_y, width, height)


@given(
    st.floats(1.0, 5.0),
    st.floats(0, 3.0),
    st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
def test_area_average_equals_brute_force(step, start, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    count = int((40 - start) / step)
    got = area(pixels, start, start, step, step, count, count)
    fine = np.repeat(np.repeat(pixels, 64, 0), 64, 1).astype(float)
    edges = np.round((start + step * np.arange(count + 1)) * 64).astype(int)
    i = count // 2
    want = fine[edges[i] : edges[i + 1], edges[i] : edges[i + 1]].mean(axis=(0, 1))
    assert np.abs(got[i, i] - want).max() <= 4.5  # edges are rounded to 1/64 px above


@pytest.mark.parametrize("step", [1.0, 2.0, 3.0])
def test_whole_steps_are_exact(step):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    got = area(pixels, 6, 12, step, step, 10, 10).astype(float)
    k = int(step)
    block = pixels[12 : 12 + 10 * k, 6 : 6 + 10 * k].reshape(10, k, 10, k, 3)
    assert np.abs(got - block.mean(axis=(1, 3))).max() <= 0.5 + 1e-6


def test_a_scanner_s_levels_are_whole_reductions_and_others_follow_their_sizes():
    sizes = ((1001, 803), (250, 200), (62, 50))
    assert [level.downsample_x for level in place_levels(sizes, scanner=True)] == [1, 4, 16]
    assert place_levels(sizes)[1].downsample_x == pytest.approx(1001 / 250)
    odd = place_levels(((1000, 700), (303, 212)), scanner=True)[1]
    assert odd.downsample_x == pytest.approx(1000 / 303)
    assert odd.downsample_y == pytest.approx(700 / 212)


@pytest.mark.parametrize("sizes", [[(303, 212)], [(500, 350), (187, 131)]])
def test_a_landmark_stays_within_half_a_pixel_on_every_level(tmp_path, sizes):
    full = spot(700, 1000, 521.3, 777.7, sigma=14)
    levels = [full, *[shrink(full, w, h) for w, h in sizes]]
    path = tmp_path / "odd.tif"
    write_pyramid(path, levels)
    with open_slide(path, mpp=0.5) as slide:
        assert len(slide.levels) == len(levels)
        for number, level in enumerate(slide.levels):
            y, x = centre(np.asarray(slide.level_array(number)))
            assert abs(x - 777.7 / (1000 / level.width)) < 0.5
            assert abs(y - 521.3 / (700 / level.height)) < 0.5
        for mpp in (0.5, 0.77, 1.0, 1.9, 4.1):
            scale = mpp / 0.5
            got = slide.read_scaled(600.4, 400.2, mpp, int(380 / scale), int(280 / scale))
            y, x = centre(got)
            assert abs(x - (777.7 - 600.4) / scale) < 0.5
            assert abs(y - (521.3 - 400.2) / scale) < 0.5


def test_pixels_decide_whether_levels_were_cut_or_stretched(tmp_path):
    coarse = np.random.default_rng(0).integers(30, 225, (120, 120, 3), dtype=np.uint8)
    full = np.asarray(Image.fromarray(coarse).resize((1003, 1003), Image.Resampling.BICUBIC))
    cut = area(full, 0, 0, 4, 4, 250, 250)
    stretched = shrink(full, 250, 250)
    for name, level, factor in (("cut", cut, 4), ("stretched", stretched, 1003 / 250)):
        path = tmp_path / f"{name}.tif"
        write_pyramid(path, [full, level])
        with open_slide(path) as slide:
            assert slide.levels[1].downsample_x == pytest.approx(factor), name
            shown = np.asarray(slide.level_array(1)).astype(float)
            # napari stretches every level over level 0
            ideal = stretched.astype(float)[150:, 150:].mean(axis=2)
            shift = phase_cross_correlation(
                ideal, shown[150:, 150:].mean(axis=2), upsample_factor=20
            )[0]
            assert np.abs(shift).max() <= 0.5, name


def test_real_svs_and_dicom_hold_the_same_picture(shared):
    folder = shared / "data" / "wsi_cmu1_small_region"
    with (
        open_slide(folder / "CMU-1-Small-Region.svs") as svs,
        open_slide(folder / "CMU-1-Small-Region.dcm") as dicom,
    ):
        assert svs.mpp == pytest.approx(0.499)
        assert (svs.width, svs.height) == (dicom.width, dicom.height) == (2220, 2967)
        a = svs.read_scaled(801.3, 1200.7, 1.0, 200, 200).astype(int)
        b = dicom.read_scaled(801.3, 1200.7, 1.0, 200, 200).astype(int)
        assert np.abs(a - b).mean() < 5  # compressed twice
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99
        assert set(svs.associated()) >= {"label", "macro"}


def test_real_levels_hold_landmarks_within_half_a_pixel(shared):
    data = shared / "data"
    places = {
        "wsi_her2st_sections/C2_pyramid.ome.tif": (4000, 4800),
        "wsi_tcga_cr7395/TCGA-CR-7395-01A-01-TS1.svs": (3500, 2800),
        "regions_crc_mosaic/crc_mosaic_dev.ome.tif": (800, 1500),
        "wsi_ndpi_fluor/test3-DAPI-2-(387).ndpi": (2400, 2600),
    }
    for name, (x, y) in places.items():
        with open_slide(data / name) as slide:
            for level in slide.levels[1:4]:
                n = min(96, int((slide.width - x) / level.downsample_x) - 1)
                n = min(n, int((slide.height - y) / level.downsample_y) - 1)
                if n < 48:
                    continue
                here = slide.read_downsampled(x, y, level.downsample_x, n, n)
                side = int(n * level.downsample_x) + 2
                whole = slide.read_level(0, x, y, side, side)
                want = area(whole, 0, 0, level.downsample_x, level.downsample_x, n, n)
                shift = phase_cross_correlation(
                    want.mean(axis=2), here.mean(axis=2), upsample_factor=20
                )[0]
                assert np.abs(shift).max() <= 0.5, (name, level)


@pytest.mark.parametrize("downsample", [1.3, 2.0, 2.5, 3.3])
def test_scaled_reading_agrees_with_reducing_level_0(tmp_path, downsample):
    """The stated tolerance: 1 grey level on the mean, on levels made by averaging."""
    coarse = np.random.default_rng(2).integers(60, 250, (90, 90, 3), dtype=np.uint8)
    full = np.asarray(Image.fromarray(coarse).resize((1024, 1024), Image.Resampling.BICUBIC))
    path = tmp_path / "p.tif"
    write_pyramid(path, [full, area(full, 0, 0, 2, 2, 512, 512)])
    with open_slide(path) as slide:
        got = slide.read_downsampled(101.7, 200.2, downsample, 150, 150).astype(float)
        want = area(full, 101.7, 200.2, downsample, downsample, 150, 150).astype(float)
        assert np.abs(got - want).mean() < 1


def test_every_real_slide_opens_and_tells_its_size(shared):
    data = shared / "data"
    expected = {
        "wsi_camelyon_dicom/camelyon_overview_multiframe_jp2k.dcm": (28.9685, "brightfield"),
        "wsi_ndpi_fluor/test3-DAPI-2-(387).ndpi": (0.2281, "fluorescence"),
        "wsi_tcga_cr7395/TCGA-CR-7395-01A-01-TS1.svs": (None, "brightfield"),
        "img_os1_he_crop/OS-1-detail.ome.tif": (0.2271, "brightfield"),
        "regions_crc_mosaic/crc_mosaic_dev.ome.tif": (0.5, "brightfield"),
        "img_skimage_ihc/ihc.png": (None, "brightfield"),
        "img_stardist_histo/histo.jpg": (None, "brightfield"),
    }
    for name, (mpp, kind) in expected.items():
        with open_slide(data / name) as slide:
            assert slide.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-3)), name
            assert slide.kind == kind, name
            assert (slide.mpp_problem is None) == (mpp is not None)


@pytest.mark.parametrize(
    ("x", "y", "good"),
    [
        (0.25, 0.25, True),
        (28.9685, 28.9685, True),
        (0.25, 0.262, True),
        (0.25, 0.27, False),
        (0, 0, False),
        (-1, -1, False),
        (float("nan"), 0.25, False),
        (float("inf"), float("inf"), False),
        (None, None, False),
        *[(25400 / d, 25400 / d, False) for d in (72, 96, 100, 150, 200, 300, 600, 1200)],
    ],
)
def test_which_pixel_sizes_are_believed(x, y, good):
    assert (believable(x, y) is None) == good


@pytest.mark.parametrize(("unit", "per_um"), [("INCH", 25400), ("CENTIMETER", 10000)])
def test_tiff_resolution_is_read(tmp_path, unit, per_um):
    path = tmp_path / "r.tif"
    tifffile.imwrite(
        path,
        np.full((64, 64, 3), 200, np.uint8),
        resolution=(per_um / 0.25, per_um / 0.25),
        resolutionunit=unit,
        photometric="rgb",
    )
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.25, rel=1e-4)


def test_the_answer_about_um_per_pixel_is_remembered_but_not_across_slides(tmp_path):
    for name, value in (("a.png", 10), ("b.png", 20)):
        Image.fromarray(np.full((50, 60, 3), value, np.uint8)).save(tmp_path / name)
    with open_slide(tmp_path / "a.png") as slide:
        assert slide.mpp is None and slide.mpp_source == "missing"
        with pytest.raises(PathotuneError, match="um/px"):
            slide.read_scaled(0, 0, 0.5, 10, 10)
        before = slide.stamp
        slide.with_mpp(0.25)
        assert slide.stamp != before
    (tmp_path / "a.png").rename(tmp_path / "moved.png")
    with open_slide(tmp_path / "moved.png") as slide:
        assert (slide.mpp, slide.mpp_source) == (0.25, "user")
    with open_slide(tmp_path / "b.png") as slide:
        assert slide.mpp is None
        for wrong in (0, -1, float("nan"), 4000, True and 0.001):
            with pytest.raises(PathotuneError):
                slide.with_mpp(wrong)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("tile", [None, (64, 64)])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_plain_tiff_of_any_layout(tmp_path, dtype, tile, planar):
    top = np.iinfo(dtype).max
    pixels = np.zeros((3, 150, 130), dtype)
    pixels[0, :75], pixels[1, :, 60:], pixels[2] = top, top, top // 2
    data = pixels if planar == "separate" else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, data, tile=tile, photometric="rgb", planarconfig=planar)
    with open_slide(path) as slide:
        got = slide.read(Region(50, 70, 20, 10))
        assert got.shape == (10, 20, 3)
        assert tuple(got[0, 0]) == (255, 0, got[0, 0, 2])
        assert tuple(got[-1, -1, :2]) == (0, 255)
        assert abs(int(got[0, 0, 2]) - 127) <= 1


def test_grey_and_two_channel_images_open(tmp_path):
    tifffile.imwrite(tmp_path / "g.tif", np.full((80, 90), 130, np.uint8))
    with open_slide(tmp_path / "g.tif") as slide:
        assert slide.kind == "grey"
        assert slide.read(Region(0, 0, 5, 5)).shape == (5, 5, 3)
    channels = np.random.default_rng(0).integers(0, 900, (2, 200, 220)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "f.ome.tif", channels, metadata={"axes": "CYX"})
    with open_slide(tmp_path / "f.ome.tif") as slide:
        assert slide.read(Region(0, 0, 7, 5)).shape == (5, 7, 3)


def test_beyond_the_border_is_white(tmp_path):
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "x.png")
    with open_slide(tmp_path / "x.png", mpp=0.5) as slide:
        got = slide.read(Region(-10, 30, 30, 30))
        assert (got[:10, 10:] == 0).all()
        assert (got[:, :10] == 255).all() and (got[10:] == 255).all()


def test_level_arrays_slice_like_numpy(tmp_path):
    data = np.random.default_rng(1).integers(0, 256, (90, 110, 3), dtype=np.uint8)
    Image.fromarray(data).save(tmp_path / "n.png")
    with open_slide(tmp_path / "n.png") as slide:
        array = slide.level_array(0)
        assert array.shape == data.shape and array.ndim == 3 and array.dtype == np.uint8
        for key in (
            (slice(3, 9), slice(5, 50)),
            (slice(None), slice(None), 1),
            (slice(0, 80, 7), slice(None, None, 3)),
            (4,),
            (slice(2, 5), 7),
            (Ellipsis, 0),
            (slice(5, 5), slice(None)),
            (-1, -1),
        ):
            assert np.array_equal(array[key], data[key]), key
        assert np.array_equal(np.asarray(array), data)


def bad_files(tmp_path: Path, shared: Path) -> list[Path]:
    svs = (shared / "data/wsi_cmu1_small_region/CMU-1-Small-Region.svs").read_bytes()
    ome = (shared / "data/regions_crc_mosaic/crc_mosaic_dev.ome.tif").read_bytes()
    made = {
        "empty.svs": b"",
        "text.svs": b"not a slide",
        "cut.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
        "cut.jpg": b"\xff\xd8\xff\xe0" + b"\0" * 90,
        "cut.tif": ome[:4096],
        "headless.svs": svs[:100],
        "noise.dcm": os.urandom(5000),
    }
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in made]


def test_bad_files_are_refused_in_words(tmp_path, shared):
    for path in [*bad_files(tmp_path, shared), tmp_path, tmp_path / "missing.svs"]:
        with pytest.raises(PathotuneError) as caught:
            open_slide(path)
        assert caught.value.hint, path
        assert "Traceback" not in str(caught.value)
    assert not is_slide(tmp_path / "text.svs")
    assert not is_slide(tmp_path / "missing.svs")


def test_a_slide_cut_short_says_so_where_it_is_read(tmp_path, shared):
    whole = (shared / "data/regions_crc_mosaic/crc_mosaic_dev.ome.tif").read_bytes()
    path = tmp_path / "short.ome.tif"
    path.write_bytes(whole[: len(whole) * 2 // 3] + b"\0" * (len(whole) // 3 + 1))
    try:
        with open_slide(path) as slide:
            slide.read(slide.bounds)
    except PathotuneError as error:
        assert error.hint


def test_handles_are_closed_and_reading_after_closing_is_refused(shared):
    fds = Path("/proc/self/fd")
    if not fds.is_dir():
        pytest.skip("counts handles where the system shows them")
    data = shared / "data"
    names = (
        "wsi_cmu1_small_region/CMU-1-Small-Region.svs",
        "regions_crc_mosaic/crc_mosaic_dev.ome.tif",
        "img_skimage_ihc/ihc.png",
    )
    for name in names:
        open_slide(data / name).close()
    before = len(list(fds.iterdir()))
    for name in names:
        slide = open_slide(data / name)
        slide.read(Region(0, 0, 50, 50))
        slide.close()
        slide.close()
        with pytest.raises(PathotuneError):
            slide.read(Region(0, 0, 5, 5))
    assert len(list(fds.iterdir())) <= before


@pytest.mark.parametrize(
    "name",
    ["wsi_cmu1_small_region/CMU-1-Small-Region.svs", "regions_crc_mosaic/crc_mosaic_dev.ome.tif"],
)
def test_many_threads_read_the_same_pixels(shared, name):
    with open_slide(shared / "data" / name) as slide:
        boxes = [Region(37 * i, 53 * i, 256, 256) for i in range(12)]
        want = [slide.read(box) for box in boxes]
        wrong: list[int] = []

        def work(shift: int) -> None:
            for i in range(len(boxes)):
                k = (i + shift) % len(boxes)
                if not np.array_equal(slide.read(boxes[k]), want[k]):
                    wrong.append(k)

        threads = [threading.Thread(target=work, args=(3 * t,)) for t in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
