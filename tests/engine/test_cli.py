"""What scripts rely on: JSON alone on standard output, progress beside it, and the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pathotune import cli
from pathotune.slides.sample import sample_slide, skin_slide

ROOT = Path(__file__).parents[2]


def call(capsys, *words: str) -> tuple[int, str, str]:
    try:
        code = cli.main([str(w) for w in words])
    except SystemExit as end:
        code = int(end.code or 0)
    told = capsys.readouterr()
    return code, told.out, told.err


def test_info_tells_the_slide(capsys):
    code, out, _ = call(capsys, "info", sample_slide(), "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["width"], told["height"], told["mpp"]) == (5120, 3840, 0.5)
    assert len(told["levels"]) == 4 and told["kind"] == "brightfield"
    assert {"mpp_x", "mpp_y", "vendor"} <= set(told)


def test_info_reads_well_without_json(capsys):
    code, out, _ = call(capsys, "info", skin_slide())
    assert code == 0 and "aperio" in out.lower() and "{" not in out


def test_mpp_can_be_given_and_is_null_when_missing(capsys, tmp_path):
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, np.full((64, 64, 3), 200, np.uint8))
    _, out, _ = call(capsys, "info", path, "--json")
    assert json.loads(out)["mpp"] is None
    _, out, _ = call(capsys, "info", path, "--mpp", "0.25", "--json")
    assert json.loads(out)["mpp"] == 0.25


def test_tissue_writes_geojson(capsys, tmp_path):
    out = tmp_path / "tissue.geojson"
    code, told, _ = call(capsys, "tissue", sample_slide(), "--out", out, "--json")
    collection = json.loads(out.read_text())
    assert code == 0 and len(collection["features"]) == json.loads(told)["regions"] >= 1
    assert 1.5 < json.loads(told)["area_mm2"] < 3.5


@pytest.mark.parametrize(
    "words",
    [
        ("info", "nowhere.svs"),
        ("info", __file__),
        ("info",),
        ("predict", "--bundle", "x.safetensors", "--out", "y.ome.tif"),
        ("predict", "a.svs", "--bundle", "nowhere.safetensors", "--out", "y.ome.tif"),
        ("train", "a.svs", "b.svs", "--annotations", "a.geojson", "--out", "b.safetensors"),
        ("train", "--tiles", "nowhere", "--out", "b.safetensors"),
        ("dance",),
    ],
)
def test_the_users_turn_is_code_2_and_one_line(capsys, words):
    code, out, err = call(capsys, *words)
    assert code == 2 and out == ""
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in err


def test_our_fault_is_code_1_with_the_traceback(capsys, monkeypatch):
    monkeypatch.setattr("pathotune.commands.info.opened", lambda *a: 1 / 0)
    code, out, err = call(capsys, "info", "x.svs", "--json")
    assert code == 1 and out == "" and "ZeroDivisionError" in err


def test_models_lists_the_backbones_with_licence_and_gate(capsys):
    _, out, _ = call(capsys, "models", "--json")
    models = json.loads(out)["models"]
    ready = {m["id"]: m["made_for"] for m in json.loads(out)["ready"]}
    assert "colorectal" in ready["crc_nine"] and "prostate" in ready["shell"]
    assert models and all({"id", "licence", "gated", "here"} <= set(m) for m in models)


def test_doctor_answers(capsys):
    code, out, _ = call(capsys, "doctor", "--json")
    told = json.loads(out)
    assert code == 0 and told["findings"] and isinstance(told["ok"], bool)


def test_help_and_info_cost_no_torch():
    code = (
        "import sys, contextlib; from pathotune.cli import main\n"
        f"main(['info', {str(sample_slide())!r}, '--json'])\n"
        "assert 'torch' not in sys.modules and 'napari' not in sys.modules"
    )
    env = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=60)
