"""A backbone small enough for tests: random weights, the real way through timm."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from pathotune.models.cards import ModelCard, read_card, user_folder
from pathotune.models.weights import digest
from pathotune.slides.slide import open_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pathotune.slides.slide import Slide

TINY_TOML = """
id = "tiny"
name = "Tiny test network"
about = "random weights, for tests"
mpp = 0.5
tile_px = 64
token_px = 8
halo = 1
neighbourhood = 3
dims = 48
licence = "CC0-1.0"
size_mb = 0.3
made_for = "tests"
[[parts]]
timm = "vit_tiny_patch16_224"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
taps = [0, 1]
weights = {{ kind = "file", where = "{where}", sha256 = "{sha256}" }}
kwargs = {{ img_size = 64, patch_size = 8, embed_dim = 24, depth = 2, num_heads = 2 }}
"""


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """Return a folder with the card and the weights of the tiny network."""
    import torch
    from safetensors.torch import save_file

    from pathotune.models._torchvision import import_timm

    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = import_timm().create_model(
            "vit_tiny_patch16_224",
            num_classes=0,
            img_size=64,
            patch_size=8,
            embed_dim=24,
            depth=2,
            num_heads=2,
        )
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.2)
    save_file(network.state_dict(), folder / "tiny.safetensors")
    text = TINY_TOML.format(where="tiny.safetensors", sha256=digest(folder / "tiny.safetensors"))
    (folder / "tiny.toml").write_text(text)
    return folder


@pytest.fixture(scope="session")
def tiny_card(tiny_folder) -> ModelCard:
    """Return a card of 8 x 8 tokens, 6 x 6 of them kept, 48 features, that runs in 10 ms."""
    return read_card(tiny_folder / "tiny.toml")


@pytest.fixture
def card(tiny_card, tiny_folder) -> ModelCard:
    """Return the tiny card, known by its name too."""
    for file in tiny_folder.iterdir():
        shutil.copy(file, user_folder())
    return tiny_card


@pytest.fixture
def two_textures(tmp_path) -> Callable[[int], Path]:
    """Return what writes a slide of fine dark specks on the left, coarse red on the right."""

    def write(seed: int = 3) -> Path:
        rng = np.random.default_rng(seed)
        image = np.full((400, 600, 3), 225, np.uint8)
        image[:, :300] = rng.integers(60, 200, (400, 300, 1))
        coarse = np.kron(rng.integers(80, 180, (50, 38, 1)), np.ones((8, 8, 1)))
        image[:, 300:] = coarse[:, :300]
        image[:, 300:, 0] = 220
        path = tmp_path / f"two{seed}.tif"
        per_cm = 1e4 / 0.5
        tifffile.imwrite(path, image, resolution=(per_cm,) * 2, resolutionunit="CENTIMETER")
        return path

    return write


@pytest.fixture
def slide(two_textures) -> Iterator[Slide]:
    """Return a slide of two textures."""
    with open_slide(two_textures()) as opened:
        yield opened
