"""Networks taken apart give timm's own bits, and prompts find their places in every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pathotune import plugins
from pathotune.events import PathotuneError, drain
from pathotune.learn.adapt.material import Material
from pathotune.learn.adapt.trainer import Trainer
from pathotune.learn.pieces import of_tiles
from pathotune.learn.settings import Training
from pathotune.models import cards
from pathotune.models._torchvision import import_timm
from pathotune.models.backbones import normalised, part_maps
from pathotune.models.bundle import ModelBundle
from pathotune.models.cards import ModelCard, Part, Weights
from pathotune.models.tuned import METHODS
from pathotune.models.tuning import _net
from pathotune.models.tuning._delta import Setting
from pathotune.models.tuning._net import Net
from pathotune.models.tuning._trunk import Trunk, has_tokens

SMALL = {"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 4}
TOKENS = {
    "plain": ("vit_tiny_patch16_224", SMALL | {"patch_size": 8}),
    "registers": ("vit_small_patch14_reg4_dinov2", SMALL | {"patch_size": 8}),
    "distilled": ("deit_tiny_distilled_patch16_224", SMALL | {"patch_size": 8}),
    "siglip": ("vit_base_patch16_siglip_224", SMALL | {"patch_size": 8}),
    "clip": ("vit_base_patch16_clip_224", SMALL | {"patch_size": 8}),
    "eva02": ("eva02_tiny_patch14_224", SMALL | {"patch_size": 8}),
    "dinov3": ("vit_small_patch16_dinov3", SMALL | {"patch_size": 8}),
}
STAGES = {
    "convnext": ("convnext_atto", {}),
    "swin": ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 4, "embed_dim": 24}),
    "efficientnet": ("tf_efficientnet_lite0", {}),
    "resnet": ("resnet10t", {}),
}


def network(name: str, kwargs: dict):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = import_timm().create_model(name, pretrained=False, num_classes=0, **kwargs)
        for key, weight in net.named_parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.05)
            elif key.endswith("weight"):
                torch.nn.init.ones_(weight)  # some norms start at zero and let nothing through
    return net.eval().requires_grad_(False)


def part(name: str, taps: tuple[int, ...], norm: str = "none") -> Part:
    weights = Weights("file", "none", "0" * 64)
    return Part(name, weights, (0.5,) * 3, (0.3,) * 3, taps, {}, norm=norm)


@pytest.fixture(params=[*TOKENS, *STAGES])
def family(request, monkeypatch):
    """Return a card of a family, served with random weights, and a fresh network of it."""
    name, kwargs = (TOKENS | STAGES)[request.param]
    taps = (1, 2) if request.param in TOKENS else (1,)
    norm = "final" if request.param in TOKENS else "none"
    card = ModelCard(
        *("id", "Name", "about", 0.5, 64, 8, 1, 3, (part(name, taps, norm),), None),
        *(96 if request.param in TOKENS else 0, "CC0", False, 1.0, "", "tests"),
    )
    served = network(name, kwargs)
    served.prune_intermediate_layers(list(taps), prune_norm=norm != "final")
    monkeypatch.setattr(_net, "load_networks", lambda *_: ([served], None))
    return request.param, card, network(name, kwargs)


def test_the_loop_is_timms_own_to_the_bit(family):
    _, card, net = family
    trunk = Trunk(card.parts[0], net, card.tile_px, card.tokens)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(
            trunk.features(pixels), net.forward_features(normalised(card.parts[0], pixels))
        )
        ours = trunk.place(trunk.run(trunk.stem(pixels)).maps)
        theirs = torch.cat(part_maps(card.parts[0], net, pixels, card.tokens), 1)
        assert torch.equal(ours, theirs.permute(0, 2, 3, 1))
        if trunk.kind != "stages":  # from a kept block on it is the same
            lower = trunk.run(trunk.stem(pixels), 1)
            assert torch.equal(trunk.place(trunk.run(lower).maps), ours)


@pytest.mark.parametrize("method", [n for n in plugins.names(METHODS) if n != "linear"])
def test_every_method_serves_every_family_or_says_why_not(family, method):
    kind, card, _ = family
    module = plugins.load(METHODS, method)
    net = Net(card, "cpu")
    reason = module.serves(card.parts[0].timm)
    setting = Setting(False, sentence="telling tissue apart")
    if reason is not None:
        assert kind in STAGES and "transformer" in reason
        with pytest.raises(PathotuneError, match="cannot tune"):
            net.attach(module, module.Config(), setting)
        return
    delta = net.attach(module, module.Config(), setting)
    delta.open()
    tiles = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    features = net.upper(net.lower(net.pixels(tiles)))
    assert features.shape == (2, 8, 8, net.dims) and torch.isfinite(features).all()
    if method != "head":
        features.square().mean().backward()
        moved = {k for k, v in net.trained().items() if v.grad is not None and v.grad.any()}
        if method == "lora":  # half of them wait for the other half, which starts at zero
            assert moved == {k for k in net.trained() if k.endswith(".b")}
        assert moved
        own = {id(v) for v in net.trained().values()}
        frozen = [p for p in net.trunk.network.parameters() if id(p) not in own]
        assert all(p.grad is None for p in frozen) and not net.trunk.network.training
    if net.delta.drops and kind in TOKENS and net.delta.first < net.trunk.depth:
        kept = torch.arange(0, 64, 2)
        half = net.upper(net.lower(net.pixels(tiles)), kept=kept).flatten(1, 2)
        assert half[:, 1].abs().max() == 0 and half[:, 0].abs().max() > 0


@pytest.mark.parametrize("values", [{}, {"residual": False}], ids=["residual", "as published"])
def test_what_is_kept_of_every_family_can_be_learnt_from(family, values):
    """A module behind the last block keeps what lies below, whatever shape that has."""
    module = plugins.load(METHODS, "cdtm")
    net = Net(family[1], "cpu")
    net.attach(module, module.Config(**values), Setting())
    tiles = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
    pieces = of_tiles(tiles, np.arange(4), np.array([0, 1, 0, 1]), list("abcd"), 8)
    material = Material(net, pieces, Training(views=1))
    drain(material.prepare())
    assert material.keeps
    run = drain(Trainer(material).run(np.ones(4, bool), None, 1, 0, ""))
    assert np.isfinite(run.passes[-1].train_loss) and not run.broken


def test_the_frozen_features_stay_whole_beside_a_module_that_replaces_them():
    card = cards.card(cards.DEFAULT_ID)
    shape = (1, card.tile_px, card.tile_px, 3)
    tiles = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    alone, tuned = Net(card, "cpu"), Net(card, "cpu")
    module = plugins.load(METHODS, "cdtm")
    tuned.attach(module, module.Config(residual=False), Setting())
    with torch.inference_mode():
        before = alone.upper(alone.lower(alone.pixels(tiles)))
        after = tuned.upper(tuned.lower(tuned.pixels(tiles)), changed=False)
    assert torch.equal(before, after)


def test_names_tell_transformers_from_other_networks():
    assert all(has_tokens(name) for name, _ in TOKENS.values())
    assert not any(has_tokens(name) for name, _ in STAGES.values())
    for other in ("mobilevitv2_050", "maxvit_tiny_224", "levit_128", "efficientvit_b0"):
        assert not has_tokens(other)


def test_prompts_for_a_vit_b_fit_into_ten_megabytes(monkeypatch, tmp_path):
    """A real ViT-B with random weights: the bundle holds the prompts alone."""
    name = "vit_base_patch16_224"
    served = import_timm().create_model(name, pretrained=False, num_classes=0).eval()
    monkeypatch.setattr(_net, "load_networks", lambda *_: ([served], None))
    card = ModelCard(
        *("id", "Name", "about", 0.5, 224, 16, 1, 3, (part(name, (11,), "final"),), None, 768),
        *("CC0", False, 1.0, "", "tests"),
    )
    tile = np.random.default_rng(0).integers(0, 255, (1, 224, 224, 3), dtype=np.uint8)
    net = Net(card, "cpu")
    assert net.trunk.size > 85e6
    for method in ("pathotune", "vpt"):
        module = plugins.load(METHODS, method)
        net.attach(module, module.Config(), Setting(False, sentence="telling tissue apart"))
        net.set_head(np.zeros((net.dims, 9)), np.zeros(9))
        if method == "pathotune":
            assert net.upper(net.lower(net.pixels(tile))).shape == (1, 14, 14, 768)
        names, colours = tuple("abcdefghi"), ((0, 0, 0),) * 9
        bundle = ModelBundle.create(card, method, names, colours, net.arrays())
        assert bundle.save(tmp_path / "b.safetensors").stat().st_size < 10e6
