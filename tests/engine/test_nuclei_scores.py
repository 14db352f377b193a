"""The scores of nuclei against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pathotune.nuclei.scores import scores


def line(*labels):
    return np.array([labels])


@pytest.mark.parametrize(
    ("found", "truth", "dice", "aji", "dq", "sq"),
    [
        (line(0, 0), line(0, 0), 1, 1, 1, 1),
        (line(0, 0), line(0, 3), 0, 0, 0, 0),
        (line(0, 5), line(0, 0), 0, 0, 0, 0),
        (line(7, 7, 0, 2), line(1, 1, 0, 9), 1, 1, 1, 1),
        # touching nuclei, both right
        (line(1, 1, 2, 2), line(2, 2, 1, 1), 1, 1, 1, 1),
        # merged: two of two pixels found as one of four
        (line(1, 1, 1, 1), line(1, 1, 2, 2), 1, 4 / 8, 0, 0),
        # split: one of four found as one of three and one of one
        (line(1, 1, 1, 2), line(1, 1, 1, 1), 1, 3 / 5, 2 / 3, 3 / 4),
        # one pixel too few, and one nucleus where there is none
        (line(1, 1, 0, 0, 2), line(1, 1, 1, 0, 0), 4 / 6, 2 / 4, 2 / 3, 2 / 3),
        # no background at all
        (line(4, 4), line(4, 4), 1, 1, 1, 1),
    ],
)
def test_hand_worked(found, truth, dice, aji, dq, sq):
    told = scores(found, truth)
    assert told == pytest.approx({"dice": dice, "aji": aji, "dq": dq, "sq": sq, "pq": dq * sq})


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shapes differ"):
        scores(line(1), line(1, 2))
