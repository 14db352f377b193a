"""A model is told to be unfit when it sees other channels, depths or colours than it learnt."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from pathotune.slides.slide import open_slide
from pathotune.slides.stain import channel_problem, picture_problem
from pathotune.slides.view import View


@pytest.mark.parametrize(
    "now, learnt, words",
    [
        (View(1, 1, None, False), [View(1, 1, None, False)], ""),
        (View(2, 1, None, False), [View(1, 1, None, False)], ""),
        (View(1, 1, None, False), [], ""),
        (View(1, 1, None, True), [View(1, 1, None, False)], "learnt from colours without"),
        (View(1, 1, None, False), [View(1, 1, None, True)], "learnt from colours with the"),
        (View(1, 1, 2, False), [View(1, 1, None, False)], "another channel"),
        (View(1, 1, 2, False), [View(1, 1, 1, False), View(1, 1, 2, False)], ""),
        (View(1, 3, None, False), [View(1, 1, None, False)], "at depth 1; shown is depth 3"),
        (View(1, None, None, False), [View(1, 1, None, False)], ""),
    ],
)
def test_what_differs_is_said(now, learnt, words):
    said = picture_problem(now, [view.words() for view in learnt])
    assert (words in said) if words else said == ""


def test_channels_are_named_with_the_colours_they_are_shown_in():
    names = ("DAPI", "CD3", "Ki-67", "PanCK")
    assert channel_problem((), None) == ""
    said = channel_problem(names, None)
    assert "DAPI in red, CD3 in green, Ki-67 in blue" in said and "PanCK" not in said
    assert "PanCK" in channel_problem(names, 4) and "grey" in channel_problem(names, 4)


def test_a_bright_stack_of_channels_is_not_taken_for_he(tmp_path):
    rng = np.random.default_rng(0)
    stack = rng.integers(150, 255, (2, 128, 128), np.uint8)  # bright: the pixels alone do not tell
    path = tmp_path / "channels.ome.tif"
    tifffile.imwrite(
        path,
        stack,
        ome=True,
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3"]}},
    )
    with open_slide(path) as slide:
        assert "DAPI in red, CD3 in green" in slide.stain_problem
    with open_slide(path, view=View(channel=2)) as slide:
        assert "CD3" in slide.stain_problem
