"""`make gpu-check` says plainly when there is nothing to check."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so_and_ends_with_3():
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_check.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3
    assert "no CUDA card" in done.stdout and "Nothing was checked" in done.stdout
    assert "gpu-check" in (ROOT / "Makefile").read_text()
