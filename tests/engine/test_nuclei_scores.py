"""The scores of nuclei against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pathotune.nuclei.scores import scores


def line(*labels):
    return np.array([labels])


@pytest.mark.parametrize(
    ("found", "truth", "dice", "aji", "dq", "sq", "f1"),
    [
        (line(0, 0), line(0, 0), 1, 1, 1, 1, 1),
        (line(0, 0), line(0, 3), 0, 0, 0, 0, 0),
        (line(0, 5), line(0, 0), 0, 0, 0, 0, 0),
        (line(7, 7, 0, 2), line(1, 1, 0, 9), 1, 1, 1, 1, 1),
        # touching nuclei, both right
        (line(1, 1, 2, 2), line(2, 2, 1, 1), 1, 1, 1, 1, 1),
        # merged: two of two pixels found as one of four
        (line(1, 1, 1, 1), line(1, 1, 2, 2), 1, 4 / 8, 0, 0, 2 / 3),
        # split: one of four found as one of three and one of one
        (line(1, 1, 1, 2), line(1, 1, 1, 1), 1, 3 / 5, 2 / 3, 3 / 4, 2 / 3),
        # one pixel too few, and one nucleus where there is none
        (line(1, 1, 0, 0, 2), line(1, 1, 1, 0, 0), 4 / 6, 2 / 4, 2 / 3, 2 / 3, 2 / 3),
        # no background at all
        (line(4, 4), line(4, 4), 1, 1, 1, 1, 1),
    ],
)
def test_hand_worked(found, truth, dice, aji, dq, sq, f1):
    told = scores(found, truth)
    wanted = {"dice": dice, "aji": aji, "dq": dq, "sq": sq, "pq": dq * sq, "detection_f1": f1}
    assert told == pytest.approx(wanted)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shapes differ"):
        scores(line(1), line(1, 2))


def test_a_crescent_is_detected_by_itself():
    ring = np.ones((5, 5), int)
    ring[1:, 1:4] = 0
    assert scores(ring, ring)["detection_f1"] == 1
