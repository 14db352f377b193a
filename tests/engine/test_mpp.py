"""Which pixel sizes are taken, and that answers are kept safely."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import tifffile
from PIL import Image

from pathotune import places
from pathotune.events import PathotuneError
from pathotune.slides import mpp as rules
from pathotune.slides.slide import open_slide

PIXELS = np.full((40, 50, 3), 190, np.uint8)


@pytest.mark.parametrize("dpi", rules.PRINT_DPI)
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "tif-cm"])
def test_print_resolutions_are_missing_however_they_are_written(tmp_path, dpi, kind):
    path = tmp_path / f"x.{kind[:3]}"
    if kind.startswith("tif"):
        per = dpi / 2.54 if kind == "tif-cm" else dpi
        unit = "CENTIMETER" if kind == "tif-cm" else "INCH"
        tifffile.imwrite(
            path, PIXELS, photometric="rgb", resolution=(per, per), resolutionunit=unit
        )
    else:
        Image.fromarray(PIXELS).save(path, dpi=(dpi, dpi))
    with open_slide(path) as slide:
        assert slide.mpp is None and slide.mpp_source == "missing"
        assert f"{dpi} dpi" in (slide.mpp_problem or "")


@pytest.mark.parametrize("dpi", [73, 110, 250, 876.8, 25400, 50800, 101600])
def test_other_resolutions_are_taken(tmp_path, dpi):
    tifffile.imwrite(
        tmp_path / "x.tif", PIXELS, photometric="rgb", resolution=(dpi, dpi), resolutionunit="INCH"
    )
    with open_slide(tmp_path / "x.tif") as slide:
        assert slide.mpp == pytest.approx(25400 / dpi, rel=1e-3)
        assert slide.mpp_problem is None and slide.mpp_source == "file"


def test_one_dpi_means_that_the_file_does_not_know():
    assert rules.believable(25400, 25400)
    assert rules.believable(0.25, None)


def test_a_corrupt_memory_is_no_memory_and_is_mended(tmp_path):
    file = places.data_dir() / "mpp.json"
    for content in ("{", "[]", '{"k": "x", "g": -4, "b": 900}', "\0\0", ""):
        file.write_text(content)
        assert rules.remembered("k") is None and rules.remembered("g") is None
        rules.remember("k", 0.25)
        assert rules.remembered("k") == 0.25
        assert json.loads(file.read_text())["k"] == 0.25
    assert [p.name for p in file.parent.iterdir()] == ["mpp.json"]


def test_answers_given_at_once_are_all_kept():
    threads = [
        threading.Thread(target=rules.remember, args=(f"slide{i}", 0.2 + i / 100))
        for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(rules.remembered(f"slide{i}") == pytest.approx(0.2 + i / 100) for i in range(12))


def test_a_disk_that_is_full_costs_only_the_memory(tmp_path, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with open_slide(tmp_path / "a.png") as slide:
        monkeypatch.setattr(json, "dump", full)
        slide.with_mpp(0.3)
        assert slide.mpp == 0.3 and slide.mpp_source == "user"
    assert not list(places.data_dir().glob("*.tmp"))


def test_a_value_given_for_one_opening_is_not_remembered(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png", mpp=0.4) as slide:
        assert slide.mpp == 0.4
    with open_slide(tmp_path / "a.png") as slide:
        assert slide.mpp is None
    with pytest.raises(PathotuneError, match="cannot be the pixel size"):
        open_slide(tmp_path / "a.png", mpp=-1)
