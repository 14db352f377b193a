"""Edits of nuclei: every kind and back, killed programs, torn lines, full disks, a new run."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pathotune.events import PathotuneError
from pathotune.nuclei.edits import Edits, journal_of
from pathotune.nuclei.measure import MEASURES
from pathotune.nuclei.query import Nuclei
from pathotune.nuclei.store import to_arrow

ABOUT = {"mpp": 0.5}


def disc(x, y, r=10.0, points=33):
    turn = np.linspace(0, 2 * np.pi, points)
    return np.stack([x + r * np.cos(turn), y + r * np.sin(turn)], 1).astype(np.float32)


def write(path, places, shift=0.0):
    """Write discs of radius 10."""
    rings = [disc(x + shift, y, 10 + shift / 4) for x, y in places]
    boxes = np.array([(*r.min(axis=0), *r.max(axis=0)) for r in rings])
    rows = dict(zip(("x0", "y0", "x1", "y1"), boxes.T, strict=True))
    rows |= {"x": np.array([p[0] for p in places], float) + shift, "outline": rings}
    rows["y"] = np.array([p[1] for p in places], float)
    rows |= {m: np.ones(len(places)) for m in (*MEASURES, "confidence")}
    pq.write_table(to_arrow(rows, ABOUT), path)


GRID = [(50 + 40 * i, 50 + 40 * j) for j in range(3) for i in range(5)]


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "n.parquet"
    write(path, GRID)
    return path


def state(nuclei):
    """What is seen: box, class of every nucleus."""
    rows = np.flatnonzero(nuclei.alive)
    names = [nuclei.classes[c] for c in nuclei.codes[rows]]
    boxes = nuclei.boxes[rows].round(1).tolist()
    return sorted(zip(boxes, names, strict=True))


def edited(path):
    nuclei = Nuclei.open(path)
    edits = Edits(nuclei)
    edits.add(disc(300, 50), "tumour")
    edits.delete([0])
    edits.split(1, [(90, 30), (90, 70)])
    edits.merge([2, 3])
    edits.redraw(4, disc(212, 50, 14))
    edits.name([5, 6], "immune")
    return nuclei, edits


def test_every_kind_of_edit_and_all_of_them_back(store):
    nuclei = Nuclei.open(store)
    before = state(nuclei)
    with pytest.raises(PathotuneError, match="too far apart"):
        Edits(nuclei).merge([0, 4])
    nuclei.close()
    write(store, [*GRID, (162, 300), (180, 300)])
    nuclei, edits = Nuclei.open(store), None
    before = state(nuclei)
    edits = Edits(nuclei)
    seen = [before]
    edits.add(disc(300, 50), "tumour")
    seen.append(state(nuclei))
    assert nuclei.classes[nuclei.codes[nuclei.at(300, 50)]] == "tumour"
    edits.delete([0, 1])
    seen.append(state(nuclei))
    assert nuclei.at(50, 50) is None
    cut = edits.split(2, [(130, 30), (130, 70)])
    seen.append(state(nuclei))
    halves = nuclei.column("area_um2")[cut.come]
    assert halves == pytest.approx([np.pi * 100 * 0.25 / 2] * 2, rel=0.02)
    one = edits.merge([15, 16])
    seen.append(state(nuclei))
    assert nuclei.at(162, 300) == nuclei.at(180, 300) == one.come[0]
    edits.redraw(4, disc(212, 50, 14))
    seen.append(state(nuclei))
    edits.name([5, 6], "immune")
    seen.append(state(nuclei))
    assert edits.named == {17: "tumour", 5: "immune", 6: "immune"}
    for wanted in reversed(seen[:-1]):
        edits.undo()
        assert state(nuclei) == wanted
    assert edits.undo() is None
    for wanted in seen[1:]:
        edits.redo()
        assert state(nuclei) == wanted
    assert edits.redo() is None


def test_what_is_no_nucleus_is_refused_and_written_nowhere(store):
    edits = Edits(Nuclei.open(store))
    with pytest.raises(PathotuneError, match="encloses nothing"):
        edits.add([(0, 0), (1, 1)])
    with pytest.raises(PathotuneError, match="does not cut"):
        edits.split(0, [(0, 0), (5, 5)])
    with pytest.raises(PathotuneError, match="needs two"):
        edits.merge([1])
    assert not journal_of(store).exists()
    bow = edits.add([(300, 300), (340, 300), (300, 340), (340, 340)])  # crosses itself
    assert len(bow.come) == 1


def test_a_drawn_outline_replaces_what_it_covers(store):
    nuclei = Nuclei.open(store)
    change = Edits(nuclei).add(disc(52, 50, 13))
    assert change.gone.tolist() == [0]
    assert nuclei.at(50, 50) == change.come[0]


def test_reopened_it_is_as_it_was(store):
    write(store, [*GRID[:3], (147, 50), *GRID[4:]])
    nuclei, edits = edited(store)
    edits.delete([10])
    edits.undo()
    edits.delete([11])
    edits.undo()
    edits.redo()
    edits.close()
    again = Nuclei.open(store)
    after = Edits(again)
    assert state(again) == state(nuclei)
    assert {tuple(again.boxes[r]): n for r, n in after.named.items()} == {
        tuple(nuclei.boxes[r]): n for r, n in edits.named.items()
    }
    assert not after.notes
    after.undo()
    assert again.alive[11]


def test_edits_survive_a_new_run(store):
    """The new run finds everything a little to the right and a little larger."""
    write(store, [*GRID[:3], (147, 50), *GRID[4:]])
    _, edits = edited(store)
    edits.close()
    write(store, [*GRID[:3], (147, 50), *GRID[4:], (300, 50)], shift=1.5)
    nuclei = Nuclei.open(store)
    Edits(nuclei)
    assert nuclei.at(50, 50) is None  # deleted
    assert nuclei.at(85, 50) != nuclei.at(96, 50)  # split
    assert nuclei.at(130, 50) == nuclei.at(147, 50)  # merged
    assert len(nuclei.within(295, 45, 305, 55)) == 1  # drawn, and found now: once
    assert nuclei.classes[nuclei.codes[nuclei.at(300, 50)]] == "tumour"
    assert [nuclei.classes[nuclei.codes[nuclei.at(x, 90)]] for x in (50, 90)] == ["immune"] * 2
    assert len(nuclei) == 16 - 1 + 1 - 1


def test_a_killed_program_loses_nothing(store):
    code = f"""
    import os, signal
    from pathlib import Path
    from pathotune.nuclei.edits import Edits
    from pathotune.nuclei.query import Nuclei
    edits = Edits(Nuclei.open(Path({str(store)!r})))
    edits.delete([0])
    edits.name([1], "tumour")
    os.kill(os.getpid(), signal.SIGKILL)
    """
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=env, timeout=120)
    assert done.returncode == -signal.SIGKILL
    nuclei = Nuclei.open(store)
    assert Edits(nuclei).named == {1: "tumour"}
    assert not nuclei.alive[0]


def test_a_torn_line_costs_itself_alone(store):
    edits = Edits(Nuclei.open(store))
    edits.delete([0])
    edits.delete([1])
    edits.close()
    whole = journal_of(store).read_bytes()
    journal_of(store).write_bytes(whole[:-20])
    nuclei = Nuclei.open(store)
    edits = Edits(nuclei)
    assert nuclei.alive[:2].tolist() == [False, True]
    assert "1 damaged line" in edits.notes[0]
    edits.delete([2])
    edits.close()
    nuclei = Nuclei.open(store)
    Edits(nuclei)
    assert nuclei.alive[:3].tolist() == [False, True, False]


def test_a_full_disk_keeps_the_edits_until_there_is_room(store, monkeypatch):
    edits = Edits(Nuclei.open(store))
    edits.delete([0])
    real, room = os.write, [7]

    def full(handle, content):
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, content[: room.pop()])

    monkeypatch.setattr(os, "write", full)
    edits.delete([1])
    assert "disk is full" in str(edits.problem)
    edits.delete([2])
    monkeypatch.setattr(os, "write", real)
    edits.delete([3])
    assert edits.problem is None
    edits.close()
    nuclei = Nuclei.open(store)
    assert not Edits(nuclei).notes
    assert nuclei.alive.tolist() == [False] * 4 + [True] * 11
    for line in journal_of(store).read_text().splitlines():
        json.loads(line)
