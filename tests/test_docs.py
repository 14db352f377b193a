"""The documents say what is so: links lead somewhere, targets and options exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "resources").rglob("*.md")]
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# Words of the workshop, not of the product.
FORBIDDEN = ("TODO", "FIXME", "placeholder", "lorem ipsum")
COMMANDS = ("info", "tissue", "train", "predict", "models", "doctor", "demo")


def title(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+\s+(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in heads}


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_and_pictures_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file) if file else page
        assert place.exists(), f"{title(page)} -> {target}"
        if anchor:
            assert anchor in anchors(place), f"{title(page)} -> {target}"


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_nothing_of_the_workshop_is_left(page):
    text = page.read_text(encoding="utf-8")
    assert not [word for word in FORBIDDEN if word.lower() in text.lower()]


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_a_make_target_that_is_named_exists(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = {
        m
        for quoted in re.findall(r"`([^`\n]+)`", text)
        for m in re.findall(r"^make ([a-z-]+)", quoted)
    }
    named |= set(re.findall(r"^\s*make ([a-z-]+)", text, re.MULTILINE))
    assert named <= known


def help_of(*words: str) -> str:
    code = "import sys; from pathotune.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_page_matches_the_program(command):
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    helped = help_of(command)
    shared = set(re.findall(r"--[a-z-]+", page.split("## Look")[0])) - {"--help"}
    lines = re.findall(rf"^pathotune {command}\b(?:.*\\\n)*.*$", page, re.MULTILINE)
    assert lines, f"pathotune {command} is not in the page"
    for option in {o for line in lines for o in re.findall(r"--[a-z-]+", line)}:
        assert option in helped, f"pathotune {command} has no {option}"
    told = {o for line in lines for o in re.findall(r"--[a-z-]+", line)} | shared | {"--help"}
    assert set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", helped)) <= told


def test_every_command_is_in_the_page():
    assert all(command in help_of() for command in COMMANDS)


def test_pages_are_reached_from_the_readme():
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        targets = LINK.findall(page.read_text(encoding="utf-8"))
        waiting += [
            page.parent / t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:", t)
        ]
    missing = {title(p) for p in (ROOT / "docs").rglob("*.md") if p.resolve() not in reached}
    assert not missing
