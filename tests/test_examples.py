"""The examples run as they stand, on a piece of the sample so that it is quick."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_example_runs(example, tmp_path, small_case):
    slide, marks = small_case
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(example), str(slide), str(marks), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "mm2" in done.stdout
    assert list((tmp_path / "out").iterdir())


@pytest.fixture
def small_case(tmp_path):
    """Return a cut of the sample with one region each of two classes, and its marks."""
    import json

    import tifffile

    with tifffile.TiffFile(ROOT / "resources" / "sample" / "bowel_wall.ome.tif") as tiff:
        cut = tiff.pages[0].asarray()[700:1400, 1700:2700]
    slide = tmp_path / "cut.tif"
    tifffile.imwrite(slide, cut, resolution=(20000, 20000), resolutionunit="CENTIMETER")
    boxes = {"Left": (100, 250, 250, 400), "Right": (750, 250, 900, 400)}
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]],
            },
            "properties": {"objectType": "annotation", "classification": {"name": name}},
        }
        for name, (x0, y0, x1, y1) in boxes.items()
    ]
    marks = tmp_path / "cut.geojson"
    marks.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return slide, marks
