"""Fixtures shared by all tests.

Tests never touch the user's own folders, and those that need the development
data beside the repository skip where it is not there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Keep caches, journals and remembered answers of a test to itself."""
    monkeypatch.setenv("PATHOTUNE_HOME", str(tmp_path / "pathotune-home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def own_compiled(tmp_path_factory):
    """Convert a network once a session, away from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHOTUNE_COMPILED", str(tmp_path_factory.getbasetemp() / "compiled"))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of development data, or skip."""
    for folder in (SHARED, Path(__file__).parents[3] / "shared"):
        if (folder / "data").is_dir():
            return folder
    pytest.skip("the development data is not beside this checkout")
