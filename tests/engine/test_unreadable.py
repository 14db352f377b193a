"""What cannot be read is named, with what to do; plates, times, turned stages are shown."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import zarr

from pathotune.events import PathotuneError
from pathotune.slides.slide import open_slide
from pathotune.slides.view import View


@pytest.mark.parametrize(
    "name, head, what, how",
    [
        ("a.czi", b"ZISRAWFILE" + bytes(20), "Zeiss CZI", "OME-TIFF"),
        ("named otherwise.tif", b"ZISRAWFILE" + bytes(20), "Zeiss CZI", "ZEN"),
        ("a.VSI", b"whatever", "VSI", "QuPath"),
        ("a.lif", b"\x70\x00\x00\x00", "Leica LIF", "bioformats2raw"),
        ("a.nd2", b"\xda\xce\xbe\x0a" + bytes(9), "Nikon ND2", "NIS-Elements"),
        ("a.isyntax", b"<DataObject", "Philips iSyntax", "DICOM"),
        ("a.sdpc", b"SQ", "SDPC", "scanner's program"),
        ("slides.zip", b"PK\x03\x04" + bytes(9), "packed archive", "Unpack"),
        ("a.j2k", b"\xff\x4f\xff\x51", "JPEG 2000", "TIFF"),
        ("notes.txt", b"Dear colleague", "not a slide", "OME-TIFF"),
        ("empty.svs", b"", "is empty", "Copy it again"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(tmp_path, name, head, what, how):
    path = tmp_path / name
    path.write_bytes(head)
    with pytest.raises(PathotuneError) as told:
        open_slide(path)
    assert name in told.value.message and what in told.value.message
    assert how in told.value.hint


def _image(folder, pixels):
    zarr.open_group(str(folder), mode="w", zarr_format=2)
    zarr.create_array(store=str(folder / "0"), data=pixels, chunks=(3, 64, 64), zarr_format=2)
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    says = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": levels}]}
    (folder / ".zattrs").write_text(json.dumps(says))


@pytest.fixture
def plate(tmp_path):
    """Return a plate of two wells, the second with two fields."""
    folder = tmp_path / "plate.zarr"
    zarr.open_group(str(folder), mode="w", zarr_format=2)
    says = {"plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}, {"path": "B/9"}]}}
    (folder / ".zattrs").write_text(json.dumps(says))
    for i, (well, fields) in enumerate((("A/1", "0"), ("B/2", "01"))):
        zarr.open_group(str(folder / well), mode="w", zarr_format=2)
        listed = {"well": {"images": [{"path": f} for f in fields]}}
        (folder / well / ".zattrs").write_text(json.dumps(listed))
        for n, field in enumerate(fields):
            pixels = np.full((3, 80 + 20 * i + n, 100), 50 * (1 + i + n), np.uint8)
            _image(folder / well / field, pixels)
    return folder


def test_the_wells_of_a_plate_are_scenes(plate):
    with open_slide(plate) as slide:
        names = [s.name for s in slide.scenes]
        assert names == ["Well A1", "Well B2, field 1", "Well B2, field 2"]
        assert slide.view.scene == 3, "the largest"
        assert slide.mpp == 0.5
    with open_slide(plate, view=View(scene=1)) as slide:
        assert (slide.width, slide.height) == (100, 80)
        assert (slide.read_level(0, 0, 0, 4, 4) == 50).all()


def test_a_plate_without_pictures_says_so(tmp_path):
    folder = tmp_path / "empty.zarr"
    zarr.open_group(str(folder), mode="w", zarr_format=2)
    (folder / ".zattrs").write_text(json.dumps({"plate": {"wells": [{"path": "../secret"}]}}))
    with pytest.raises(PathotuneError, match="plate whose wells hold no picture"):
        open_slide(folder)


@pytest.mark.parametrize("wells", ["A", {"path": "A"}, [3], [{"path": 7}], None])
def test_a_plate_of_nonsense_is_refused_in_words(tmp_path, wells):
    folder = tmp_path / "odd.zarr"
    zarr.open_group(str(folder), mode="w", zarr_format=2)
    (folder / ".zattrs").write_text(json.dumps({"plate": {"wells": wells}}))
    with pytest.raises(PathotuneError):
        open_slide(folder)


def test_of_several_times_the_first_is_shown_and_their_number_known(tmp_path):
    path = tmp_path / "times.ome.tif"
    stack = np.stack([np.full((60, 80, 3), v, np.uint8) for v in (40, 120, 200)])
    tifffile.imwrite(path, stack, ome=True, photometric="rgb", metadata={"axes": "TYXS"})
    with open_slide(path) as slide:
        assert slide.times == 3
        assert (slide.read_level(0, 0, 0, 5, 5) == 40).all()


@pytest.mark.parametrize("turned", [True, False])
def test_a_turned_or_mirrored_stage_leaves_pixels_in_stored_order(tmp_path, turned):
    path = tmp_path / "turned.ome.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    if turned:
        where = {"Plane": {"PositionX": [-120.0], "PositionY": [35.0]}}
        size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        meta = {"axes": "YXS", **size, **where}
        tifffile.imwrite(path, pixels, ome=True, photometric="rgb", metadata=meta)
    else:  # orientation 3: to be shown upside down and mirrored
        mirrored = [(274, 3, 1, 3)]
        tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, extratags=mirrored)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 80, 60), pixels)
