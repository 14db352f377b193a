"""The wheel as a stranger gets it: its contents, its manifest, and the reader opened from it.

The clean environment is a new one that holds the wheel and, of this computer's
packages, only those that the wheel's own metadata asks for. So a forgotten
dependency or a resource left out of the wheel fails here, without a download.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LIMIT_MB = 90


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(requirements: list[str]) -> dict[str, Distribution]:
    """Return the distributions that requirements ask for, with all that those ask for."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()

    def visit(text: str, extras: set[str]) -> None:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": e}) for e in extras | {""}):
            return
        name = canonical(requirement.name)
        for extra in requirement.extras | {""}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                found[name] = distribution(requirement.name)
                for inner in found[name].requires or []:
                    visit(inner, {extra})

    for text in requirements:
        visit(text, set())
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """Build both distributions from the files that git knows, as a release would."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return {"wheel": next(out.glob("*.whl")), "sdist": next(out.glob("*.tar.gz"))}


@pytest.fixture(scope="module")
def clean(built, tmp_path_factory) -> Path:
    """Return the Python of an environment with the wheel and what it asks for, no more."""
    home = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout.strip())
    with zipfile.ZipFile(built["wheel"]) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        asked = message_from_bytes(wheel.read(name)).get_all("Requires-Dist") or []
    here = [t for t in asked if "extra ==" not in t] + ["napari[pyqt6]", "npe2", "packaging"]
    for found in needed(here).values():
        for file in found.files or ():
            if ".." in file.parts or file.suffix == ".pyc":
                continue
            target = site / str(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            source = Path(str(file.locate()))
            if source.is_file() and not target.exists():
                try:
                    os.link(source, target)
                except OSError:
                    target.symlink_to(source)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    install = [*pip, "install", "--no-deps", "--no-index", "--quiet", str(built["wheel"])]
    subprocess.run(install, check=True, timeout=120)
    checked = subprocess.run([*pip, "check"], capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0, checked.stdout
    return python


def run(python: Path, code: str, tmp_path: Path) -> str:
    """Run code away from the checkout, with nothing of it on the path."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env["PATHOTUNE_HOME"] = str(tmp_path / "home")
    command = [str(python), "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=180
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_the_wheel_holds_what_the_program_needs_and_no_more(built):
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = wheel.namelist()
    assert built["wheel"].stat().st_size < LIMIT_MB * 1e6
    tops = {n.split("/")[0] for n in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"napari_pathotune", "pathotune"}
    for wanted in (
        "napari_pathotune/napari.yaml",
        "pathotune/py.typed",
        "pathotune/resources/NOTICES.md",
        "pathotune/resources/palettes/okabe_ito.toml",
        "pathotune/resources/sample/bowel_wall.ome.tif",
        "pathotune/resources/sample/bowel_wall.geojson",
        "pathotune/resources/report.html.jinja",
    ):
        assert wanted in names, wanted
    assert [n for n in names if n.startswith("pathotune/resources/models/")]
    assert [n for n in names if re.search(r"dist-info/licenses/LICENSE$", n)]
    assert [n for n in names if re.search(r"dist-info/licenses/resources/NOTICES.md$", n)]
    assert not [n for n in names if "__pycache__" in n or ".venv" in n or "tests/" in n]


def test_the_source_distribution_holds_the_source_and_no_environment(built):
    with tarfile.open(built["sdist"]) as sdist:
        names = [n.split("/", 1)[-1] for n in sdist.getnames()]
    for wanted in ("pyproject.toml", "src/pathotune/cli.py", "napari_pathotune/napari.yaml"):
        assert wanted in names
    assert not [n for n in names if n.startswith((".venv", "demo-output", "dist/", ".git/"))]


def test_no_qt_binding_is_forced_on_anybody(built):
    with zipfile.ZipFile(built["wheel"]) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        asked = message_from_bytes(wheel.read(name)).get_all("Requires-Dist") or []
    hard = [Requirement(t) for t in asked if "extra ==" not in t]
    assert not [r for r in hard if r.name.lower().startswith(("pyqt", "pyside"))]
    assert not [r for r in hard if r.name == "napari" and r.extras]


def test_the_manifest_is_valid_where_the_wheel_is_installed(clean, tmp_path):
    code = (
        "import sys; from npe2.cli import main; "
        "sys.argv = ['npe2', 'validate', 'napari-pathotune']; main()"
    )
    assert "valid" in run(clean, code, tmp_path).lower()


def test_the_reader_opens_the_sample_from_the_wheel(clean, tmp_path):
    code = """
import json, sys
import npe2
from pathotune.places import resources
manager = npe2.PluginManager.instance()
manager.discover()
path = str(resources() / "sample" / "bowel_wall.ome.tif")
layers, reader = npe2.io_utils.read_get_reader([path], plugin_name="napari-pathotune", stack=False)
data, options, kind = layers[0]
print(json.dumps({"where": path, "shapes": [list(d.shape) for d in data], "kind": kind,
                  "scale": list(map(float, options["scale"])), "plugin": reader.plugin_name,
                  "torch": "torch" in sys.modules}))
"""
    told = json.loads(run(clean, code, tmp_path).splitlines()[-1])
    assert str(ROOT) not in told["where"]
    assert told["shapes"][0] == [3840, 5120, 3] and len(told["shapes"]) == 4
    assert told["kind"] == "image" and told["plugin"] == "napari-pathotune"
    assert told["scale"] == pytest.approx([0.5, 0.5]) and not told["torch"]


def test_the_command_line_starts_from_the_wheel(clean, tmp_path):
    code = "import sys; from pathotune.cli import main; sys.exit(main(['models', '--json']))"
    models = json.loads(run(clean, code, tmp_path))
    assert models
