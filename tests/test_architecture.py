"""The house rules, kept by reading the imports of every file.

The engine must run without a window, the window must open without torch, and
the floors must not grow cycles; nobody remembers that for years without a test.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "src" / "pathotune"
FRONT = ROOT / "napari_pathotune"

FLOORS = {
    "events": 0,
    "plugins": 0,
    "places": 0,
    "slides": 1,
    "marks": 2,
    "models": 2,
    "learn": 3,
    "nuclei": 3,
    "maps": 3,
    "cases": 4,
    "commands": 5,
    "cli": 6,
}
SIBLINGS = [{"learn", "nuclei", "maps"}, {"marks", "models"}]
NO_TORCH_AT_TOP_EXCEPT = {
    "models.backbones",
    "models.runtime",
    "models.features",
    "models.text",
    "models.bundle",
    "models.tuning",
    "learn.adapt",
    "nuclei.unpaired.adversarial",
    "nuclei.unpaired.augment",
    "nuclei.unpaired.critics",
    "nuclei.unpaired.losses",
    "nuclei.unpaired.painter",
    "nuclei.unpaired.reader",
    "nuclei.unpaired.rendered",
    "nuclei.unpaired.state",
    "nuclei.net.network",
}


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(ENGINE).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__")


def is_type_checking(node: ast.If) -> bool:
    test = node.test
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Return every absolute module that a file imports at run time."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and is_type_checking(child):
                continue
            if top_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(child, ast.Import):
                found.update(a.name for a in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                base = child.module or ""
                found.add(base)
                found.update(f"{base}.{a.name}" for a in child.names)
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def roots(modules: set[str]) -> set[str]:
    return {m.partition(".")[0] for m in modules}


def wing(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != "pathotune" or len(parts) < 2:
        return None
    return parts[1] if parts[1] in FLOORS else None


@pytest.mark.parametrize("path", python_files(ENGINE), ids=lambda p: str(p.relative_to(ROOT)))
def test_engine_knows_no_window(path):
    forbidden = {
        "napari",
        "qtpy",
        "magicgui",
        "superqt",
        "vispy",
        "PyQt5",
        "PyQt6",
        "PySide6",
        "napari_pathotune",
    }
    assert not roots(imports(path)) & forbidden


@pytest.mark.parametrize("path", python_files(FRONT), ids=lambda p: str(p.relative_to(ROOT)))
def test_front_end_imports_no_heavy_library(path):
    forbidden = {"torch", "timm", "openslide", "tifffile", "torchvision", "PyQt5", "PyQt6"}
    assert not roots(imports(path)) & forbidden


@pytest.mark.parametrize("path", python_files(ENGINE), ids=lambda p: str(p.relative_to(ROOT)))
def test_torch_stays_out_of_module_level(path):
    name = dotted(path)
    if any(name == ok or name.startswith(ok + ".") for ok in NO_TORCH_AT_TOP_EXCEPT):
        pytest.skip("a torch module")
    assert not roots(imports(path, top_only=True)) & {"torch", "timm", "torchvision"}


@pytest.mark.parametrize("path", python_files(ENGINE), ids=lambda p: str(p.relative_to(ROOT)))
def test_floors_are_kept(path):
    own = dotted(path).partition(".")[0]
    if own not in FLOORS:
        return
    for module in imports(path):
        other = wing(module)
        if other is None or other == own:
            continue
        assert FLOORS[other] <= FLOORS[own], f"{own} imports {module}, a floor above"
        for group in SIBLINGS:
            assert not {own, other} <= group, f"siblings {own} and {other} know each other"


def test_no_cycles():
    graph: dict[str, set[str]] = {}
    files = {f"pathotune.{dotted(p)}".rstrip("."): p for p in python_files(ENGINE)}
    files |= {
        "napari_pathotune." + p.stem if p.stem != "__init__" else "napari_pathotune": p
        for p in FRONT.glob("*.py")
    }
    for name, path in files.items():
        graph[name] = {m for m in imports(path, top_only=True) if m in files and m != name}
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done:
            return
        for other in graph[name]:
            if name.startswith(other + ".") or other in {"pathotune", "napari_pathotune"}:
                continue
            walk(other, (*trail, name))
        done.add(name)

    for name in graph:
        walk(name, ())


@pytest.mark.parametrize(
    "path", python_files(ENGINE) + python_files(FRONT), ids=lambda p: str(p.relative_to(ROOT))
)
def test_files_stay_short_and_say_why(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    assert ast.get_docstring(ast.parse(text))
    assert path.name != "utils.py"


def test_docks_do_not_know_one_another():
    docks = {p.stem for p in FRONT.glob("*_dock.py")}
    for path in FRONT.glob("*_dock.py"):
        known = {m.rpartition(".")[2] for m in imports(path)}
        assert not (known & docks) - {path.stem}, path.name


def test_nothing_imports_the_shelves():
    for folder in (ENGINE, FRONT, ROOT / "tests"):
        for path in python_files(folder):
            assert not roots(imports(path)) & {"src", "resources"}, path


def test_importing_the_engine_costs_no_torch():
    code = (
        "import sys, pathotune, napari_pathotune\n"
        "assert 'torch' not in sys.modules and 'napari' not in sys.modules"
    )
    env = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=60)
