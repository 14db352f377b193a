"""The quiet import must bring the same torch and leave the collector as it was."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

from pathotune.models import quiet

SRC = Path(__file__).parents[2] / "src"


def test_torch_works_after_a_quiet_import_in_a_thread():
    code = (
        "import threading, gc, sys\n"
        "from pathotune.models.quiet import import_torch, thaw\n"
        "t = threading.Thread(target=import_torch); t.start(); t.join()\n"
        "import torch\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 0\n"
        "assert float((torch.ones(8, 8) @ torch.ones(8, 8)).sum()) == 512\n"
        "thaw(); assert gc.get_freeze_count() == 0\n"
        "print('fine')"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SRC), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert out.stdout.strip() == "fine", out.stderr


def test_the_collector_stays_off_where_it_was_off():
    gc.disable()
    try:
        quiet.import_torch("colorsys")
        assert not gc.isenabled()
    finally:
        gc.enable()
        quiet.thaw()
