"""Bad input ends with code 2 and one line that says what to do, before anything is computed."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from pathotune import cli
from pathotune.marks.annotations import Annotation, AnnotationSet, new_id
from pathotune.marks.geojson import write_geojson
from pathotune.slides.sample import skin_slide

ROOT = Path(__file__).parents[2]
READY = "crc_nine"


def save_slide(path: Path, mpp: float | None = 0.5) -> Path:
    rng = np.random.default_rng(1)
    image = np.full((400, 500, 3), 240, np.uint8)
    image[50:350, 50:450] = rng.integers(60, 200, (300, 400, 3))
    where = {"resolution": (1e4 / mpp,) * 2, "resolutionunit": "CENTIMETER"} if mpp else {}
    tifffile.imwrite(path, image, tile=(128, 128), **where)
    return path


def save_marks(path: Path, *names: str) -> Path:
    marks = AnnotationSet()
    for i, name in enumerate(names):
        box = shapely.box(60 + 100 * i, 60, 120 + 100 * i, 120)
        marks.add(Annotation(new_id(), name, "rectangle", box))
    write_geojson(path, marks)
    return path


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Return a folder with good and bad files; commands run in it."""
    monkeypatch.chdir(tmp_path)
    good = save_slide(Path("good.tif"))
    save_slide(Path("nompp.tif"), mpp=None)
    Path("cut.tif").write_bytes(good.read_bytes()[:9000])
    Path("cut.svs").write_bytes(skin_slide().read_bytes()[:90_000])
    Path("empty.svs").write_bytes(b"")
    Path("words.txt").write_text("words")
    Path("folder").mkdir()
    save_marks(Path("two.geojson"), "Fat", "Skin")
    save_marks(Path("one.geojson"), "Fat")
    save_marks(Path("none.geojson"))
    Path("cut.geojson").write_bytes(Path("two.geojson").read_bytes()[:300])
    Path("tiles/a").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("tiles/a/1.png")
    return tmp_path


def run(capsys, line: str) -> tuple[int, str, str]:
    try:
        code = cli.main([*line.split(), "--device", "cpu", "--json"])
    except SystemExit as end:
        code = int(end.code or 0)
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("info cut.tif", "damaged"),
        ("info cut.svs", "damaged"),
        ("info empty.svs", "empty"),
        ("info folder", "folder"),
        ("info nowhere.svs", "nowhere.svs"),
        ("info words.txt", "not a slide"),
        ("info good.tif --mpp nan", "nan um/px"),
        ("info good.tif --mpp 0", "0.25 for a 40x"),
        ("info good.tif --mpp fish", "fish"),
        ("tissue good.tif --out nowhere/t.geojson", "no folder nowhere"),
        ("tissue good.tif --out good.tif", "overwrite"),
        ("train nompp.tif --annotations two.geojson --out b", "--mpp"),
        ("train good.tif --annotations one.geojson --out b", "Only Fat is marked"),
        ("train good.tif --annotations none.geojson --out b", "No region with a class"),
        ("train good.tif --annotations cut.geojson --out b", "complete"),
        ("train good.tif --annotations nowhere.geojson --out b", "no file"),
        ("train good.tif --annotations words.txt --out b", "GeoJSON"),
        ("train good.tif --annotations two.geojson --classes Fat,Hair --out b", "as Hair"),
        ("train good.tif --annotations two.geojson --classes Fat, --out b", "Only Fat is asked"),
        ("train good.tif --annotations two.geojson --classes , --out b", "No class was named"),
        ("train good.tif --annotations two.geojson --out folder", "is a folder"),
        ("train good.tif --annotations two.geojson --out words.txt/b", "no folder words.txt"),
        ("train good.tif --annotations two.geojson --out two.geojson", "overwrite"),
        ("train good.tif --annotations two.geojson --model fish --out b", "fish"),
        ("train good.tif --annotations two.geojson --method fish --out b", "fish"),
        ("train good.tif --out b", "annotation"),
        ("train --out b", "annotation"),
        ("train good.tif --annotations two.geojson --seed -1 --out b", "--seed"),
        ("train good.tif --annotations two.geojson --mpp 12 --out b", "nothing but blur"),
        (f"predict good.tif --bundle {READY} --mpp 12 --out m.tif", "nothing but blur"),
        (f"predict --tiles tiles --mpp 12 --bundle {READY} --out m.tif", "nothing but blur"),
        ("train good.tif --annotations two.geojson --tiles tiles --out b", "not both"),
        ("train --tiles tiles --out b", "two classes"),
        ("train --tiles folder --out b", "no tiles"),
        (f"predict nompp.tif --bundle {READY} --out m.tif", "--mpp"),
        (f"predict good.tif --bundle {READY} --out m.tif --region nan,0,9,9", "not a region"),
        (f"predict good.tif --bundle {READY} --out m.tif --region 0,0,9", "not a region"),
        (f"predict good.tif --bundle {READY} --out m.tif --region 0,0,9,0", "empty"),
        (f"predict good.tif --bundle {READY} --out m.tif --region 9000,0,9,9", "outside"),
        (f"predict good.tif --bundle {READY} --out m.tif --region -90,-90,9,9", "outside"),
        (f"predict good.tif --bundle {READY} --out m.tif --tissue none.geojson", "no outline"),
        (f"predict good.tif --bundle {READY} --out m.tif --tissue fish", "fish"),
        (f"predict good.tif --bundle {READY} --out good.tif", "overwrite"),
        (f"predict good.tif --bundle {READY} --out m.tif --csv nowhere/a.csv", "no folder"),
        (f"predict good.tif --tiles tiles --bundle {READY} --out m.tif", "too much"),
        (f"predict --tiles folder --bundle {READY} --out p.csv", "no tiles"),
        ("predict nompp.tif --bundle shell --out m.tif", "--mpp"),
        ("predict good.tif --bundle shell --out m.tif --region 9000,0,9,9", "outside"),
        ("predict good.tif --bundle words.txt --out m.tif", "not a model"),
        ("predict good.tif --bundle nowhere --out m.tif", "no file"),
        ("predict --tiles tiles --bundle shell --out p.csv", "slides only"),
        (f"predict --tiles tiles --bundle {READY} --out p.csv --region 0,0,9,9", "--region cannot"),
        (f"predict --tiles tiles --bundle {READY} --out p.csv --csv q.csv", "--csv cannot"),
        (f"predict --tiles tiles --bundle {READY} --out p.csv --tissue off", "--tissue cannot"),
        (f"predict --tiles tiles --bundle {READY} --out tiles/a/1.png", "among the tiles"),
        ("train --tiles tiles --out tiles/a/b.png", "among the tiles"),
        (f"predict good.tif --bundle {READY} --out m.tif --csv ./m.tif", "the same file"),
        ("predict good.tif --bundle shell --tissue two.geojson --out two.geojson", "overwrite"),
    ],
)
def test_bad_input_is_told_in_one_line(bench, capsys, line, says):
    code, out, err = run(capsys, line)
    assert code == 2 and out == ""
    assert len(err.strip().splitlines()) == 1 and says in err and "Traceback" not in err
    assert not Path("b").exists() and not Path("m.tif").exists()


def test_a_bundle_of_another_backbone_or_a_foreign_file_is_refused(bench, capsys):
    from safetensors.numpy import save_file

    from pathotune.models.bundle import ModelBundle
    from pathotune.places import resources

    save_file({"weight": np.zeros((2, 2), np.float32)}, "foreign.safetensors")
    code, _, err = run(capsys, "predict good.tif --bundle foreign.safetensors --out m.tif")
    assert code == 2 and "not a model saved by this program" in err
    ready = ModelBundle.load(resources() / "bundles" / f"{READY}.safetensors")
    fields = (ready.method, ready.classes, ready.colours, ready.arrays, ready.meta)
    ModelBundle(ready.card_id, "0" * 64, *fields).save("other.safetensors")
    code, _, err = run(capsys, "predict good.tif --bundle other.safetensors --out m.tif")
    assert code == 2 and "another version of the backbone" in err
    ModelBundle("unheard-of", "0" * 64, *fields).save("none.safetensors")
    code, _, err = run(capsys, "predict good.tif --bundle none.safetensors --out m.tif")
    assert code == 2 and "not known on this computer" in err


def test_a_slide_without_tissue_gives_an_empty_map_and_a_warning(bench, capsys):
    glass = np.full((300, 300, 3), 244, np.uint8)
    tifffile.imwrite("glass.tif", glass, resolution=(20000,) * 2, resolutionunit="CENTIMETER")
    code, out, _ = run(capsys, f"predict glass.tif --bundle {READY} --out m.ome.tif")
    told = json.loads(out)
    assert code == 0 and sum(told["areas_mm2"].values()) == 0
    assert any("No tissue" in w for w in told["warnings"])
    assert tifffile.imread("m.ome.tif").max() == 0


@pytest.mark.parametrize(
    ("line", "code"), [("info good.tif --json", 0), ("info cut.tif --json", 2)]
)
def test_the_contract_holds_in_a_process_of_its_own(bench, line, code):
    env = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin", "HOME": str(bench)}
    words = [sys.executable, "-m", "pathotune.cli", *line.split()]
    done = subprocess.run(words, env=env, cwd=bench, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    if code:
        assert done.stdout == "" and len(done.stderr.strip().splitlines()) == 1
    else:
        assert json.loads(done.stdout)["width"] == 500 and done.stderr == ""


def test_a_reader_that_leaves_is_no_fault(bench):
    env = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin", "HOME": str(bench)}
    line = f"{sys.executable} -m pathotune.cli models --json | true; echo ${{PIPESTATUS[0]}}"
    words = ["bash", "-c", line]
    done = subprocess.run(words, env=env, cwd=bench, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "0" and done.stderr == ""


def test_a_full_disk_in_the_middle_is_told_in_words(bench, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/cache")

    monkeypatch.setattr("pathotune.commands.info.opened", full)
    code, out, err = run(capsys, "info good.tif")
    assert code == 2 and out == "" and "Make room" in err and "Traceback" not in err


def test_stopping_leaves_no_half_result(bench):
    """Ctrl-C while a map is made: one word, code 130, and no file."""
    from pathotune.slides.sample import sample_slide

    env = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin", "HOME": str(bench)}
    words = [sys.executable, "-m", "pathotune.cli", "predict", str(sample_slide())]
    words += ["--bundle", READY, "--out", "m.ome.tif", "--device", "cpu"]
    with subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True) as job:
        assert job.stderr is not None
        job.stderr.readline()  # it has begun
        job.send_signal(signal.SIGINT)
        rest = job.stderr.read()
    assert job.returncode == 130 and "Stopped." in rest and "Traceback" not in rest
    assert not list(bench.glob("*m.ome.tif*"))


def test_a_bundle_does_not_fetch_its_backbone_unasked(bench, capsys):
    from pathotune.models.bundle import ModelBundle
    from pathotune.models.cards import card
    from pathotune.places import data_dir, resources

    lines = (resources() / "models" / "dinov2-small.toml").read_text().splitlines()
    lines = ['id = "far-away"' if x.startswith("id = ") else x for x in lines]
    digest = "0" * 64
    where = f'weights = {{ kind = "hub", where = "somebody/far-away", sha256 = "{digest}" }}'
    lines = [where if x.startswith("weights = ") else x for x in lines]
    (data_dir() / "models").mkdir(parents=True, exist_ok=True)
    (data_dir() / "models" / "far-away.toml").write_text("\n".join(lines))
    hub = card("far-away")
    arrays = {"weight": np.zeros((hub.dims, 2), np.float32), "bias": np.zeros(2, np.float32)}
    bundle = ModelBundle.create(hub, "linear", ("A", "B"), ((0, 0, 0), (9, 9, 9)), arrays)
    bundle.save(Path("hub.safetensors"))
    code, _, err = run(capsys, "predict good.tif --bundle hub.safetensors --out m.tif")
    assert code == 2 and hub.name in err and hub.licence in err and "--download" in err
