"""Files that hold several pictures, depths, channels or a colour profile, and slides in folders."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image, ImageCms

from pathotune.cli import main
from pathotune.events import PathotuneError
from pathotune.slides.icc import to_srgb
from pathotune.slides.slide import is_slide, open_slide
from pathotune.slides.view import View


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("PATHOTUNE_HOME", str(tmp_path / "home"))


def picture(height=300, width=400, seed=0):
    random = np.random.default_rng(seed)
    coarse = random.integers(60, 240, (height // 20, width // 20, 3), np.uint8)
    return coarse.repeat(20, 0).repeat(20, 1)


def write_zarr(folder, planes, version, axes="cyx", *, omero=None, scale=0.5, name="tissue"):
    """Write an OME-Zarr of two levels as the specification says; the second halves."""
    group = zarr.open_group(str(folder), mode="w", zarr_format=version)
    datasets = []
    for i in range(2):
        step = 2**i
        level = planes[..., ::step, ::step]
        chunks = (1,) * (planes.ndim - 2) + (128, 128)
        array = group.create_array(str(i), shape=level.shape, chunks=chunks, dtype=level.dtype)
        array[...] = level
        factors = [1.0] * (planes.ndim - 2) + [scale * step] * 2
        datasets.append(
            {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": factors}]}
        )
    kinds = {"c": "channel", "t": "time"}
    named = [
        {"name": a, "type": kinds.get(a, "space")} | ({"unit": "micrometer"} if a in "zyx" else {})
        for a in axes
    ]
    says = {"multiscales": [{"name": name, "axes": named, "datasets": datasets}]}
    if omero:
        says["omero"] = {"channels": omero}
    if version == 2:
        says["multiscales"][0]["version"] = "0.4"
        group.attrs.update(says)
    else:
        group.attrs["ome"] = says | {"version": "0.5"}
    return folder


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr_opens_with_levels_and_scale(tmp_path, version):
    rgb = picture()
    folder = write_zarr(tmp_path / "a.ome.zarr", rgb.transpose(2, 0, 1), version)
    assert is_slide(folder)
    with open_slide(folder) as slide:
        assert (slide.width, slide.height, slide.mpp) == (400, 300, 0.5)
        assert [(v.width, v.height) for v in slide.levels] == [(400, 300), (200, 150)]
        assert np.array_equal(slide.read_level(0, 0, 0, 400, 300), rgb)
        assert np.array_equal(slide.read_level(1, 90, 30, 70, 60), rgb[::2, ::2][30:90, 90:160])
        first = slide.fingerprint
    shutil.copytree(folder, tmp_path / "b.zarr")
    with open_slide(tmp_path / "b.zarr") as copy:
        assert copy.fingerprint == first
    other = write_zarr(tmp_path / "c.zarr", picture(seed=1).transpose(2, 0, 1), version)
    with open_slide(other) as slide:
        assert slide.fingerprint != first


def test_planes_and_channels_of_a_zarr_are_chosen_by_number(tmp_path):
    planes = np.zeros((2, 3, 64, 64), np.uint16)
    for c in range(2):
        for z in range(3):
            planes[c, z] = 1000 * (c + 1) + 100 * z
    omero = [{"label": n, "window": {"start": 0, "end": 2550}} for n in ("DAPI", "CD3")]
    folder = write_zarr(tmp_path / "f.zarr", planes, 3, "czyx", omero=omero)
    stamps = set()
    for view, expected in ((View(), (100, 200, 0)), (View(z=3, channel=2), (220, 220, 220))):
        with open_slide(folder, view=view) as slide:
            assert slide.channels == ("DAPI", "CD3") and slide.depth == 3
            assert tuple(slide.read_level(0, 0, 0, 64, 64)[5, 5]) == expected
            stamps.add(slide.stamp)
            print_ = slide.fingerprint
    assert len(stamps) == 2
    with open_slide(folder) as slide:
        assert slide.fingerprint == print_, "marks lie on every depth and channel alike"
    for wrong in (View(z=4), View(channel=3), View(scene=2), View(z=0)):
        with pytest.raises(PathotuneError, match="There is no"):
            open_slide(folder, view=wrong)


def test_the_largest_image_of_a_zarr_opens_and_the_choice_is_remembered(tmp_path):
    folder = tmp_path / "many.zarr"
    zarr.open_group(str(folder), mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    write_zarr(folder / "0", picture(100, 100, 1).transpose(2, 0, 1), 2, name="label")
    write_zarr(folder / "1", picture(seed=2).transpose(2, 0, 1), 2, name="section")
    with open_slide(folder) as slide:
        assert [s.name for s in slide.scenes] == ["label", "section"]
        assert slide.view.scene == 2 and slide.width == 400
        second = slide.fingerprint
        slide.keep_view(View(scene=1))
    with open_slide(folder) as slide:
        assert slide.view.scene == 1 and slide.width == 100 and slide.fingerprint != second
    with open_slide(folder, view=View(scene=2)) as slide:
        assert slide.fingerprint == second


def broken_zarrs(tmp_path):
    empty = tmp_path / "empty.zarr"
    empty.mkdir()
    bare = tmp_path / "bare.zarr"
    zarr.open_group(str(bare), mode="w")
    lacking = write_zarr(tmp_path / "lacking.zarr", picture().transpose(2, 0, 1), 3)
    shutil.rmtree(lacking / "1")
    outside = write_zarr(tmp_path / "outside.zarr", picture().transpose(2, 0, 1), 3)
    text = (outside / "zarr.json").read_text()
    (outside / "zarr.json").write_text(text.replace('"path": "1"', '"path": "../bare.zarr"'))
    half = write_zarr(tmp_path / "half.zarr", picture().transpose(2, 0, 1), 2)
    (half / ".zattrs").write_text((half / ".zattrs").read_text()[:100])
    return empty, bare, lacking, outside, half


def test_zarrs_that_are_no_pictures_say_so(tmp_path):
    for folder in broken_zarrs(tmp_path):
        with pytest.raises(PathotuneError, match=r"without a picture|damaged or incomplete"):
            open_slide(folder)


def test_a_truncated_chunk_is_told_where_it_is_read(tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", picture().transpose(2, 0, 1), 3)
    chunk = folder / "0" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with open_slide(folder) as slide:
        with pytest.raises(PathotuneError, match="damaged"):
            slide.read_level(0, 0, 0, 50, 50)
        assert slide.read_level(0, 200, 200, 50, 50).shape == (50, 50, 3)


def test_a_folder_of_other_things_is_declined_fast(tmp_path):
    folder = tmp_path / "holiday"
    folder.mkdir()
    for i in range(600):
        (folder / f"{i}.dcm").write_bytes(b"not a slide")
    started = time.perf_counter()
    assert not is_slide(folder)
    assert time.perf_counter() - started < 2
    with pytest.raises(PathotuneError, match="folder without a slide"):
        open_slide(folder)
    assert not is_slide(tmp_path / "missing")


def test_the_data_folder_of_an_mrxs_leads_to_its_file(tmp_path):
    (tmp_path / "case").mkdir()
    (tmp_path / "case.mrxs").write_bytes(b"no real index")
    with pytest.raises(PathotuneError, match=r"case\.mrxs"):
        open_slide(tmp_path / "case")


def test_dicom_folders_open_and_offer_their_slides(shared, tmp_path):
    small = shared / "data/wsi_cmu1_small_region/CMU-1-Small-Region.dcm"
    overview = shared / "data/wsi_camelyon_dicom/camelyon_overview_multiframe_jp2k.dcm"
    folder = tmp_path / "case"
    folder.mkdir()
    shutil.copy(small, folder / "IM1.dcm")
    with open_slide(folder) as slide, open_slide(small) as alone:
        assert not slide.scenes and slide.name == "IM1.dcm"
        assert np.array_equal(slide.thumbnail(300), alone.thumbnail(300))
    shutil.copy(overview, folder / "IM2.dcm")
    with open_slide(folder) as slide:
        assert len(slide.scenes) == 2
        sizes = {s.number: (s.width, s.height) for s in slide.scenes}
        first, width = slide.view.scene, slide.width
    assert sizes[first][0] == width == max(w for w, _ in sizes.values())
    with open_slide(folder, view=View(scene=3 - first)) as slide:
        assert (slide.width, slide.height) == sizes[3 - first]
        assert slide.view.scene == 3 - first


def write_ome(path):
    stack = np.zeros((3, 2, 64, 96), np.uint8)
    for z in range(3):
        for c in range(2):
            stack[z, c] = 50 * z + 20 * (c + 1)
    with tifffile.TiffWriter(path, ome=True) as out:
        scale = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        channels = {"Channel": {"Name": ["DAPI", "CD3"]}}
        out.write(stack, metadata={"axes": "ZCYX", "Name": "stack", **scale, **channels})
        colour = picture(40, 60)
        half = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        meta = {"axes": "YXS", "Name": "colour", **half}
        out.write(colour, photometric="rgb", metadata=meta)
    return path, colour


def test_scenes_depths_and_channels_of_an_ome_tiff(tmp_path):
    path, colour = write_ome(tmp_path / "a.ome.tif")
    with open_slide(path, view=View(scene=2)) as slide:
        assert slide.mpp == 0.5 and not slide.channels
        assert np.array_equal(slide.read_level(0, 0, 0, 60, 40), colour)
    with open_slide(path) as slide:
        assert [s.name for s in slide.scenes] == ["stack", "colour"] and slide.mpp == 0.25
        assert slide.channels == ("DAPI", "CD3") and slide.depth == 3
        assert tuple(slide.read_level(0, 0, 0, 9, 9)[0, 0]) == (20, 40, 0)
    with open_slide(path, view=View(z=3, channel=2)) as slide:
        assert tuple(slide.read_level(0, 0, 0, 9, 9)[0, 0]) == (140, 140, 140)


def test_info_tells_and_takes_the_choice(tmp_path, capsys):
    path, _ = write_ome(tmp_path / "a.ome.tif")
    assert main(["info", str(path), "--json", "--z", "2", "--channel", "1"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["scene"], said["z"], said["depth"], said["channel"]) == (1, 2, 3, 1)
    assert said["channels"] == ["DAPI", "CD3"] and said["scenes"][1]["name"] == "colour"
    assert said["icc"] is False and said["has_icc"] is False
    assert main(["info", str(path), "--scene", "9"]) == 2
    assert "There is no scene 9" in capsys.readouterr().err
    assert main(["info", str(path), "--icc", "on"]) == 2
    assert "no colour profile" in capsys.readouterr().err


def test_a_rotation_tag_moves_neither_pixels_nor_marks(tmp_path):
    rgb = picture()
    for orientation in (1, 2, 3, 6, 8):
        path = tmp_path / f"{orientation}.tif"
        extra = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(path, rgb, photometric="rgb", tile=(128, 128), extratags=extra)
        with open_slide(path) as slide:
            assert np.array_equal(slide.read_level(0, 0, 0, 400, 300), rgb)


def other_rgb():
    """Return a profile whose red and blue are not sRGB's: a built sRGB with its tags exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.index(b"rXYZ"), data.index(b"bXYZ")
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def test_colour_profiles_are_applied_when_asked_and_change_the_stamp(tmp_path):
    rgb = picture()
    path = tmp_path / "a.png"
    Image.fromarray(rgb).save(path, icc_profile=other_rgb())
    with open_slide(path) as slide:
        assert slide.has_icc and not slide.view.icc, "networks see what the scanner wrote"
        assert np.array_equal(slide.read_level(0, 0, 0, 400, 300), rgb)
        plain, where = slide.stamp, slide.fingerprint
    with open_slide(path, view=View(icc=True)) as slide:
        pixels = slide.read_level(0, 0, 0, 400, 300)
        assert np.abs(pixels[..., ::-1].astype(int) - rgb).max() <= 2, "red and blue exchanged"
        assert np.array_equal(slide.pyramid()[0][0:9, 0:9], pixels[0:9, 0:9])
        assert slide.stamp != plain and slide.fingerprint == where
        slide.keep_view(slide.view)
    with open_slide(path) as slide:
        assert slide.view.icc, "remembered"
    assert to_srgb(b"rubbish") is None and to_srgb(b"") is None


def test_a_file_of_choices_that_makes_no_sense_is_passed_over(tmp_path):
    path, _ = write_ome(tmp_path / "a.ome.tif")
    with open_slide(path) as slide:
        key = slide.view_key
    kept = tmp_path / "home" / "data" / "views.json"
    for text in ("{", "[]", json.dumps({key: {"scene": "x", "z": -1, "icc": 3}})):
        kept.write_text(text)
        with open_slide(path) as slide:
            assert slide.view.scene == 1 and slide.view.z == 1 and slide.view.icc is False
