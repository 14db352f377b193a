"""The embedded backbone is what it claims to be: the source's features, small, and robust."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pathotune import places
from pathotune.models.backbones import load_backbone
from pathotune.models.cards import DEFAULT_ID, Part, Weights, card, cards

RELATIVE = 5e-3
"""Largest mean error of a feature, as a share of the features' standard deviation (rounding of
the convolutional weights to half precision; the transformer's came in half precision)."""


@pytest.fixture(scope="module")
def tiles(shared):
    folder = shared / "data" / "tiles_crc_he_9class" / "CRC-VAL-HE-7K"
    names = ("LYM", "NORM", "TUM")
    files = [sorted((folder / n).glob("*.png"))[0] for n in names]
    read = [np.asarray(Image.open(f).convert("RGB")) for f in files]
    return np.stack([np.pad(t, ((28, 28), (28, 28), (0, 0)), mode="reflect") for t in read])


def test_it_is_the_default_and_small():
    assert next(iter(cards())) == DEFAULT_ID
    chosen = card(DEFAULT_ID)
    assert not chosen.needs_download
    assert not chosen.gated
    assert chosen.bytes_per_mm2 <= 6e6
    weights = places.resources() / "weights"
    assert sum(f.stat().st_size for f in weights.glob("*.safetensors")) < 50e6


def test_notices_travel_with_the_weights():
    from safetensors import safe_open

    folder = places.resources()
    text = (folder / "NOTICES.md").read_text(encoding="utf-8")
    with (folder / "models" / "pathotune-small.toml").open("rb") as file:
        raw = tomllib.load(file)
    named = [raw["projection"]["where"], *(p["weights"]["where"] for p in raw["parts"])]
    for name in named:
        with safe_open(folder / "weights" / name, "numpy") as weights:
            assert weights.metadata()["notice"]
        assert name in text


def test_features_are_the_sources(shared, tiles):
    chosen = card(DEFAULT_ID)
    raw = replace(chosen, projection=None, dims=384 + 112 + 320)
    own = load_backbone(raw).tokens(tiles)
    files = (
        "weights_dinov2_vits14/vit_small_patch14_dinov2_timm_fp16.safetensors",
        "weights_efficientnet_lite0/tf_efficientnet_lite0_timm.safetensors",
    )
    parts: list[Part] = [
        replace(part, depth=None, weights=Weights("file", str(shared / "weights" / file)))
        for part, file in zip(raw.parts, files, strict=True)
    ]
    source = load_backbone(replace(raw, parts=tuple(parts))).tokens(tiles)
    np.testing.assert_allclose(own[..., :384], source[..., :384], rtol=1e-4, atol=1e-4)
    for channels in (slice(384, 496), slice(496, 816)):
        a, b = own[..., channels], source[..., channels]
        assert np.abs(a - b).mean() < RELATIVE * b.std()
    z, w = load_backbone(chosen).tokens(tiles), load_backbone(replace(chosen, parts=tuple(parts)))
    assert np.abs(z - w.tokens(tiles)).mean() < RELATIVE * z.std()


def test_another_colour_moves_a_token_less_than_another_tissue(tiles):
    backbone = load_backbone(card(DEFAULT_ID))
    warm = np.clip(tiles * np.array([1.08, 0.97, 0.92]), 0, 255).astype(np.uint8)
    plain, changed = (backbone.tokens(t).mean((1, 2)) for t in (tiles, warm))
    moved = np.linalg.norm(plain - changed, axis=-1)
    apart = [np.linalg.norm(plain[i] - plain[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert moved.max() < 0.5 * min(apart)


def test_the_ready_bundle_belongs_to_the_backbone_and_says_what_it_is_for(tiles):
    from pathotune.models.bundle import ModelBundle
    from pathotune.models.tuning.linear import LinearHead

    bundle = ModelBundle.load(places.resources() / "bundles" / "crc_nine.safetensors")
    chosen = bundle.card()
    assert chosen.id == DEFAULT_ID
    assert len(bundle.classes) == 9
    assert "colorectal" in bundle.meta["made_for"]
    assert "Macenko" in bundle.meta["limits"]
    assert 0.5 < bundle.meta["metrics"]["macro_f1"] < 1
    head = LinearHead.from_arrays(bundle.arrays)
    tokens = load_backbone(chosen).tokens(tiles).mean((1, 2))
    found = [bundle.classes[i] for i in head.logits(tokens).argmax(1)]
    assert found == ["LYM", "NORM", "TUM"]
