"""Colour profiles: standard ones, against Pillow's own conversion and against the arithmetic."""

from __future__ import annotations

import io
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from pathotune.slides.icc import to_srgb
from pathotune.slides.slide import open_slide
from pathotune.slides.view import View

D50 = np.array([0.9642, 1.0, 0.8249])
D65 = (0.3127, 0.3290)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
PRIMARIES = {
    "Adobe RGB (1998)": (((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), 563 / 256),
    "Display P3": (((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), 2.2),
    "a scanner's": (((0.60, 0.34), (0.31, 0.57), (0.16, 0.09)), 1.8),
}


def to_d50(primaries):
    """Return the matrix from linear RGB under D65 to XYZ under D50, Bradford-adapted."""

    def xyz(xy):
        return np.array([xy[0] / xy[1], 1.0, (1 - xy[0] - xy[1]) / xy[1]])

    columns = np.stack([xyz(p) for p in primaries], axis=1)
    matrix = columns * np.linalg.solve(columns, xyz(D65))
    cone = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    ratio = (cone @ D50) / (cone @ xyz(D65))
    return np.linalg.solve(cone, ratio[:, None] * cone) @ matrix


def profile(primaries, gamma):
    """Return a version 2 matrix profile."""
    matrix = to_d50(primaries)

    def fixed(values):
        return b"".join(struct.pack(">i", round(float(v) * 65536)) for v in values)

    text = b"made for a test\0"
    desc = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(4 + 4 + 2 + 1 + 67)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {b"desc": desc + bytes(-len(desc) % 4), b"cprt": b"text" + bytes(4) + text}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + fixed(D50)
    for i, letter in enumerate("rgb"):
        tags[letter.encode() + b"XYZ"] = b"XYZ " + bytes(4) + fixed(matrix[:, i])
        tags[letter.encode() + b"TRC"] = curve
    place, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", place + len(body), len(data))
        body += data
    head = bytearray(128)
    head[0:4] = struct.pack(">I", place + len(body))
    head[8:12], head[12:24], head[36:40] = b"\x02\x40\0\0", b"mntrRGB XYZ ", b"acsp"
    head[68:80] = fixed(D50)
    return bytes(head) + table + body


def arithmetic(pixels, primaries, gamma):
    """Return what a profile means in sRGB, from the definitions."""
    linear = (pixels / 255.0) ** (round(gamma * 256) / 256)
    out = linear @ (np.linalg.solve(to_d50(SRGB), to_d50(primaries))).T
    out = np.clip(out, 0, 1)
    coded = np.where(out <= 0.0031308, 12.92 * out, 1.055 * out ** (1 / 2.4) - 0.055)
    return coded * 255


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (257, 301, 3), np.uint8)


@pytest.mark.parametrize("name", PRIMARIES)
def test_standard_profiles_agree_with_the_definitions_and_with_pillow(name, pixels):
    primaries, gamma = PRIMARIES[name]
    data = profile(primaries, gamma)
    mine = to_srgb(data)(pixels)
    off = np.abs(mine - arithmetic(pixels, primaries, gamma))
    dark = pixels.min(axis=2) < 8  # tables of 8 bits are coarse where curves are steep
    assert off[~dark].max() <= 1.5 and off.mean() < 0.5
    theirs = ImageCms.profileToProfile(
        Image.fromarray(pixels),
        ImageCms.ImageCmsProfile(io.BytesIO(data)),
        ImageCms.createProfile("sRGB"),
    )
    np.testing.assert_array_equal(mine, np.asarray(theirs))
    assert np.abs(mine.astype(int) - pixels).mean() > 2, "it changes something"


def test_srgb_stays_the_same_to_the_bit(pixels):
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    every = np.stack(np.meshgrid(*[np.arange(0, 256, 5, dtype=np.uint8)] * 3, indexing="ij"), -1)
    for some in (pixels, every.reshape(52 * 52, 52, 3)):
        np.testing.assert_array_equal(to_srgb(data)(some), some)


def test_many_threads_share_a_transform(pixels):
    correct = to_srgb(profile(*PRIMARIES["Adobe RGB (1998)"]))
    rng = np.random.default_rng(1)
    parts = [pixels[rng.permutation(len(pixels))] for _ in range(24)]
    alone = [correct(p) for p in parts]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(correct, parts), strict=True):
            np.testing.assert_array_equal(one, other)


def test_profiles_of_other_colours_are_of_no_use():
    grey = bytearray(profile(*PRIMARIES["Display P3"]))
    grey[16:20] = b"GRAY"
    cut = profile(*PRIMARIES["Display P3"])[:150]
    assert to_srgb(bytes(grey)) is None and to_srgb(cut) is None


def test_every_way_of_reading_a_slide_is_corrected_and_glass_beyond_it_is_not(tmp_path, pixels):
    data = profile(*PRIMARIES["a scanner's"])
    path = tmp_path / "profiled.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(128, 128), iccprofile=data)
    right = to_srgb(data)(pixels)
    with open_slide(path, view=View(icc=True)) as slide:
        assert slide.has_icc and slide.view.icc
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 301, 257), right)
        np.testing.assert_array_equal(np.asarray(slide.pyramid()[0]), right)
        edge = slide.read_level(0, 290, 250, 20, 20)
        np.testing.assert_array_equal(edge[:7, :11], right[250:, 290:])
        assert (edge[7:] == 255).all() and (edge[:, 11:] == 255).all()
        half = slide.read_downsampled(0, 0, 2, 100, 100).astype(float)
        mean = right[:200, :200].reshape(100, 2, 100, 2, 3).mean(axis=(1, 3))
        assert np.abs(half - mean).max() <= 1
    with open_slide(path, view=View(icc=False)) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 301, 257), pixels)
