"""Fixtures for the tests that need Qt; they skip where there is no screen.

napari draws with OpenGL, for which Qt's offscreen platform is not enough: on a
machine without a display these tests run under xvfb-run.
"""

from __future__ import annotations

import os
import sys
import time

import pytest


def pytest_collection_modifyitems(items):
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        for item in items:
            if "/ui/" in str(item.path):
                item.add_marker(pytest.mark.skip(reason="needs a display (xvfb-run)"))


@pytest.fixture
def wait_until(qtbot):
    """Return a function that runs the event loop until something is true."""

    def wait(check, seconds=20.0, what="it"):
        end = time.monotonic() + seconds
        while not check():
            assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
            qtbot.wait(10)

    return wait
