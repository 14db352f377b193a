"""The check-up tells everything in sentences, and one broken part hides no other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import types
from dataclasses import asdict

import pytest
import torch

from pathotune.models import _torchvision, cards, doctor, quiet, runtime, weights
from pathotune.models.engines import compiled, openvino


def by_name(findings, name):
    return [f for f in findings if f.name == name]


def test_a_checkup_is_sentences_and_plain_json():
    findings = doctor.checkup()
    names = {f.name for f in findings}
    assert {"program", "torch", "device", "driver", "reader", "model", "disk", "network"} <= names
    for finding in findings:
        assert finding.text.rstrip().endswith((".", ")")), finding
        assert finding.ok or finding.hint, finding
    json.dumps([asdict(f) for f in findings])
    assert any("processor" in f.text or "CUDA" in f.text for f in findings)


def test_damaged_and_missing_weights_are_found(tiny_folder):
    text = (tiny_folder / "tiny.toml").read_text()
    (cards.user_folder() / "tiny.toml").write_text(text)
    (tiny,) = [f for f in doctor._models() if f.text.startswith("Tiny")]
    assert not tiny.ok and "not where the model card says" in tiny.text
    (cards.user_folder() / "tiny.safetensors").write_bytes(b"damaged")
    (tiny,) = [f for f in doctor._models() if f.text.startswith("Tiny")]
    assert not tiny.ok and "sha256" in tiny.text
    shutil.copy(tiny_folder / "tiny.safetensors", cards.user_folder())
    (tiny,) = [f for f in doctor._models() if f.text.startswith("Tiny")]
    assert tiny.ok and "whole" in tiny.text


def test_networks_that_nobody_has_to_have_are_one_line():
    findings = doctor._models()
    assert all(f.ok for f in findings)
    (more,) = [f for f in findings if "more networks" in f.text]
    assert int(more.text.split()[0]) > 30
    assert not [f for f in findings if "PathoDuet" in f.text or "UNI" in f.text]


def test_a_card_that_is_wrong_is_a_finding_not_a_crash():
    (cards.user_folder() / "bad.toml").write_text("name = ")
    findings = doctor.checkup()
    (bad,) = [f for f in by_name(findings, "models") if not f.ok]
    assert "bad.toml" in bad.text and bad.hint
    assert by_name(findings, "disk")


def test_a_reader_that_does_not_load_names_what_cannot_be_opened(monkeypatch):
    real = doctor.importlib.import_module

    def no_openslide(name, *rest):
        if name == "openslide":
            raise OSError("libopenslide.so.1 not found")
        return real(name, *rest)

    monkeypatch.setattr(doctor.importlib, "import_module", no_openslide)
    (bad,) = [f for f in doctor._readers() if not f.ok]
    assert "SVS" in bad.text and "openslide-bin" in bad.hint


@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_a_card_that_torch_cannot_use_is_told(monkeypatch, cuda):
    monkeypatch.setattr(doctor, "_nvidia_driver", lambda: "RTX 4000 with driver 470.1")
    monkeypatch.setattr(runtime, "devices", lambda: [runtime.Device("cpu", "CPU, 4 cores")])
    monkeypatch.setattr(torch.version, "cuda", cuda)
    (bad,) = [f for f in doctor._device() if not f.ok]
    assert "RTX 4000" in bad.text
    assert ("driver" in bad.hint) if cuda else ("CUDA" in bad.hint)


def test_a_card_in_use_shows_its_memory_and_driver(monkeypatch):
    card = runtime.Device("cuda", "CUDA: RTX 4000", 8 << 30)
    monkeypatch.setattr(doctor, "_nvidia_driver", lambda: "RTX 4000 with driver 570.1")
    monkeypatch.setattr(runtime, "devices", lambda: [card])
    findings = doctor._device()
    assert all(f.ok for f in findings)
    assert "8 GB" in findings[0].text and "570.1" in findings[1].text


def test_what_computes_on_the_processor_is_told(monkeypatch, tiny_folder):
    found = doctor._engine()
    assert all(f.ok for f in found) and "computes on the processor" in found[0].text
    monkeypatch.setattr(openvino, "available", lambda: False)
    (absent,) = doctor._engine()
    assert absent.ok and "not installed" in absent.text and "pip install" in absent.hint
    monkeypatch.undo()

    def broken():
        raise ImportError("libopenvino.so not found")

    monkeypatch.setattr(openvino, "available", lambda: True)
    monkeypatch.setattr(quiet, "import_openvino", broken)
    (bad,) = doctor._engine()
    assert not bad.ok and "does not load" in bad.text


def test_the_verdict_on_the_default_network_is_told(monkeypatch, tmp_path):
    if not openvino.available():
        pytest.skip("OpenVINO is not installed")
    monkeypatch.setenv("PATHOTUNE_COMPILED", str(tmp_path))
    assert compiled.keep(
        compiled.folder(cards.card(cards.DEFAULT_ID).hash(), runtime.has_bf16()),
        [],
        {"why_not": "it is slower here"},
    )
    assert "it is slower here" in doctor._engine()[-1].text


def test_the_driver_tool_may_be_absent_silent_or_slow(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    assert doctor._nvidia_driver() == ""
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    answer = types.SimpleNamespace(stdout="RTX 4000, 570.1\n")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *a, **k: answer)
    assert doctor._nvidia_driver() == "RTX 4000 with driver 570.1"

    def slow(*_args, **_kwargs):
        raise subprocess.TimeoutExpired("nvidia-smi", 10)

    monkeypatch.setattr(doctor.subprocess, "run", slow)
    assert "does not answer" in doctor._nvidia_driver()


def test_little_disk_and_offline_are_told(monkeypatch):
    usage = types.SimpleNamespace(free=1 << 30)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    (disk,) = doctor._disk()
    assert not disk.ok and "preferences" in disk.hint
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert "agree" in doctor._network()[0].text
    weights.set_offline(True)
    try:
        assert "Offline" in doctor._network()[0].text
    finally:
        weights.set_offline(False)


SHIM = """
import sys
from pathotune.models._torchvision import import_timm, mend
timm = import_timm()
assert timm.create_model("test_vit", pretrained=False) is not None
import torchvision
print(mend())
"""


def test_timm_is_imported_and_works_beside_any_torchvision():
    done = subprocess.run(
        [sys.executable, "-c", SHIM], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() in {"fine", "mended"}


def test_no_torchvision_is_fine_and_other_errors_are_not_hidden(monkeypatch):
    def gone(_name):
        raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")

    monkeypatch.setattr(_torchvision.importlib, "import_module", gone)
    assert _torchvision.mend() == "absent"

    def other(_name):
        raise RuntimeError("something else")

    monkeypatch.setattr(_torchvision.importlib, "import_module", other)
    with pytest.raises(RuntimeError, match="something else"):
        _torchvision.mend()
