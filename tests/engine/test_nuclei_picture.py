"""The picture of nuclei against shapes whose pixels are known."""

from __future__ import annotations

import numpy as np
import pytest

from pathotune.nuclei.picture import INSIDE, Frame, Picture, value_codes


def circle(x, y, r, n=40):
    t = np.linspace(0, 2 * np.pi, n + 1)
    ring = np.stack([x + r * np.cos(t), y + r * np.sin(t)], 1)
    ring[-1] = ring[0]
    return ring.astype(np.float32)


def rings(*given):
    starts = np.cumsum([0, *(len(g) for g in given)])
    return np.concatenate(given), starts


def test_a_filled_square_covers_its_pixels():
    square = np.array([[10, 20], [30, 20], [30, 50], [10, 50], [10, 20]], np.float32)
    picture = Picture(Frame(0, 0, 1, 1, 100, 80))
    picture._fill(square[:-1], square[1:], np.zeros(4, int), np.array([3], np.uint8))
    assert (picture.codes == 3).sum() == 20 * 30
    assert (picture.codes[20:50, 10:30] == 3).all()
    assert (picture.cover[20:50, 10:30] == INSIDE).all()


def test_outline_lies_where_the_ring_lies_at_any_zoom():
    for step in (0.125, 0.5, 2.0):
        frame = Frame(100, 200, step, step, 160, 160)
        middle = 100 + 80 * step, 200 + 80 * step
        picture = Picture(frame)
        picture.outlines(*rings(circle(*middle, 50 * step)), np.array([7], np.uint8))
        rows, columns = np.nonzero(picture.cover > 128)
        far = np.hypot(rows + 0.5 - 80, columns + 0.5 - 80)
        assert abs(np.median(far) - 50) < 0.5
        assert far.min() > 48
        assert far.max() < 52
        turn = np.degrees(np.arctan2(rows - 80, columns - 80)).astype(int)
        assert len(np.unique(turn)) > 300  # closed all round
        assert set(np.unique(picture.codes)) == {0, 7}


def test_two_nuclei_keep_their_codes_and_a_bent_one_is_not_filled_across():
    c_shape = np.array(
        [[10, 10], [50, 10], [50, 20], [20, 20], [20, 40], [50, 40], [50, 50], [10, 50], [10, 10]],
        np.float32,
    )
    picture = Picture(Frame(0, 0, 1, 1, 120, 60))
    picture.outlines(*rings(c_shape, circle(90, 30, 15)), np.array([1, 2], np.uint8), filled=True)
    assert picture.codes[30, 15] == 1
    assert picture.codes[30, 40] == 0
    assert picture.codes[30, 90] == 2
    area = (picture.codes == 2).sum()
    assert area == pytest.approx(np.pi * 16**2, rel=0.1)


def test_what_lies_beside_the_picture_does_no_harm():
    picture = Picture(Frame(0, 0, 1, 1, 40, 40))
    given = circle(-100, -100, 20), circle(40, 20, 10), circle(500, 20, 10)
    picture.outlines(*rings(*given), np.array([1, 2, 3], np.uint8), filled=True)
    assert set(np.unique(picture.codes)) == {0, 2}
    picture.outlines(np.zeros((0, 2), np.float32), np.zeros(1, int), np.zeros(0, np.uint8))


def test_dots_and_density():
    picture = Picture(Frame(0, 0, 2, 2, 50, 50))
    picture.dots(np.array([[20.0, 40.0]]), np.array([5], np.uint8), 3)
    rows, columns = np.nonzero(picture.codes)
    assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(20, abs=1)
    assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(10, abs=1)
    grid = np.zeros((10, 10))
    grid[5, 2] = 8
    picture = Picture(Frame(0, 0, 1, 1, 100, 100))
    picture.heat(grid, 10, 8)
    assert np.unravel_index(picture.codes.argmax(), (100, 100)) in [(54, 24), (55, 25), (54, 25)]
    assert picture.codes[0, 0] == 0


def test_colours_come_from_the_table():
    picture = Picture(Frame(0, 0, 1, 1, 4, 4))
    picture.codes[1, 2], picture.cover[1, 2] = 9, 200
    table = np.zeros((256, 3), np.uint8)
    table[9] = (1, 2, 3)
    assert picture.rgba(table)[1, 2].tolist() == [1, 2, 3, 200]
    assert picture.rgba(table)[0, 0].tolist() == [0, 0, 0, 0]
    assert value_codes(np.array([0, 5, 10, np.nan, 99]), 0, 10).tolist() == [1, 128, 255, 1, 255]
