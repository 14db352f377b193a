"""Every card against what its publisher says, built without weights, giants included.

The table below is written from the publishers' model cards and loaders, apart from
the cards, so that a slip in one shows. Counts are millions of parameters of the
whole network without a head; prefix tokens are class and register tokens.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from pathotune import places
from pathotune.models._torchvision import import_timm
from pathotune.models.cards import cards
from pathotune.models.families import empty_network

timm = import_timm()

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
OPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
LUNIT = ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))
HIBOU = ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816))
NOTHING = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

# id: millions, prefix tokens, blocks, width, patch px, grid, normalisation, licence, gated
PUBLISHED = {
    "phikon": (85.8, 1, 12, 768, 16, 14, IMAGENET, "Owkin non-commercial", False),
    "phikon-v2": (303.4, 1, 24, 1024, 16, 14, IMAGENET, "Owkin non-commercial", False),
    "uni": (303.4, 1, 24, 1024, 16, 14, IMAGENET, "CC-BY-NC-ND-4.0", True),
    "uni2-h": (681.4, 9, 24, 1536, 14, 16, IMAGENET, "CC-BY-NC-ND-4.0", True),
    "virchow": (631.2, 1, 32, 1280, 14, 16, IMAGENET, "Apache-2.0", True),
    "virchow2": (631.2, 5, 32, 1280, 14, 16, IMAGENET, "CC-BY-NC-ND-4.0", True),
    "prov-gigapath": (1134.9, 1, 40, 1536, 16, 14, IMAGENET, "Apache-2.0", True),
    "h-optimus-0": (1134.8, 5, 40, 1536, 14, 16, OPTIMUS, "Apache-2.0", True),
    "h-optimus-1": (1134.8, 5, 40, 1536, 14, 16, OPTIMUS, "CC-BY-NC-ND-4.0", True),
    "h0-mini": (85.7, 5, 12, 768, 14, 16, OPTIMUS, "CC-BY-NC-ND-4.0", True),
    "kaiko-s16": (21.7, 1, 12, 384, 16, 14, HALF, "Kaiko Non-Commercial", False),
    "kaiko-s8": (21.7, 1, 12, 384, 8, 28, HALF, "Kaiko Non-Commercial", False),
    "kaiko-b16": (85.8, 1, 12, 768, 16, 14, HALF, "Kaiko Non-Commercial", False),
    "kaiko-b8": (85.8, 1, 12, 768, 8, 28, HALF, "Kaiko Non-Commercial", False),
    "kaiko-l14": (303.2, 5, 24, 1024, 14, 16, HALF, "Kaiko Non-Commercial", False),
    "lunit-dino-s16": (21.7, 1, 12, 384, 16, 14, LUNIT, "Lunit", False),
    "lunit-dino-s8": (21.7, 1, 12, 384, 8, 28, LUNIT, "Lunit", False),
    "hibou-b": (85.7, 5, 12, 768, 14, 16, HIBOU, "Apache-2.0", True),
    "hibou-l": (303.7, 5, 24, 1024, 14, 16, HIBOU, "Apache-2.0", True),
    "conch": (86.3, 1, 12, 768, 16, 28, IMAGENET, "CC-BY-NC-ND-4.0", True),
    "midnight-12k": (1136.5, 1, 40, 1536, 14, 16, HALF, "MIT", False),
    "pathoduet-he": (85.8, 2, 12, 768, 16, 14, NOTHING, "CC-BY-NC-4.0", False),
    "pathoduet-ihc": (85.8, 2, 12, 768, 16, 14, NOTHING, "CC-BY-NC-4.0", False),
}
STRIDES = {"convnext": (4, 8, 16, 32), "swin": (4, 8, 16, 32), "resnet": (2, 4, 8, 16, 32)}

SHIPPED = {p.stem for p in (places.resources() / "models").glob("*.toml")}
ALL = cards()


@pytest.fixture(scope="module")
def built():
    """Return a function that builds a card's only network once, on the meta device."""
    known = {}

    def build(card):
        if card.id not in known:
            part = card.parts[0]
            side = part.input_px or card.tile_px
            known[card.id] = empty_network(part.timm, part.kwargs, side).to("meta").eval()
        return known[card.id]

    return build


ONE_PART = sorted(c for c in SHIPPED if len(ALL[c].parts) == 1)


@pytest.mark.parametrize("card_id", sorted(PUBLISHED))
def test_the_network_is_the_published_one(card_id, built):
    millions, prefix, blocks, width, patch, grid, norm, licence, gated = PUBLISHED[card_id]
    card = ALL[card_id]
    network = built(card)
    count = sum(p.numel() for p in network.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.004)
    assert network.num_prefix_tokens == prefix
    assert len(network.blocks) == blocks and network.embed_dim == width
    assert network.patch_embed.patch_size == (patch, patch)
    assert network.patch_embed.grid_size == (grid, grid)
    assert (card.parts[0].mean, card.parts[0].std) == norm
    assert card.mpp == 0.5 and card.token_px == patch and card.tokens == grid
    assert licence in card.licence and card.gated == gated


@pytest.mark.parametrize("card_id", ONE_PART)
def test_the_tapped_blocks_give_what_the_card_says(card_id, built):
    card = ALL[card_id]
    part = card.parts[0]
    side = part.input_px or card.tile_px
    with torch.inference_mode():
        maps = built(card).forward_intermediates(
            torch.empty(2, 3, side, side, device="meta"),
            indices=list(part.taps),
            norm=part.norm == "final",
            output_fmt="NCHW",
            intermediates_only=True,
        )
    assert sum(m.shape[1] for m in maps) == card.dims
    strides = next((s for n, s in STRIDES.items() if n in part.timm), None)
    for tap, found in zip(part.taps, maps, strict=True):
        expected = card.tokens if strides is None else side // strides[tap]
        if "efficientnet" not in part.timm:
            assert found.shape[-2:] == (expected, expected)


@pytest.mark.parametrize("card_id", sorted(SHIPPED))
def test_what_timm_publishes_is_what_the_card_says(card_id):
    for part in ALL[card_id].parts:
        where = part.weights.where
        if not where.startswith("timm/"):
            continue
        told = timm.get_pretrained_cfg(where.removeprefix("timm/"))
        assert told is not None and told.hf_hub_id == where
        assert (part.mean, part.std) == (told.mean, told.std)
        assert part.timm.replace("_quickgelu", "") == told.architecture
        licence = ALL[card_id].licence.lower().replace(" ", "-")
        assert licence.startswith(told.license)


IN_TIMM = sorted(c for c in ONE_PART if ALL[c].parts[0].weights.where.startswith("timm/"))


@pytest.mark.parametrize("card_id", IN_TIMM)
def test_the_network_is_the_one_that_timm_keeps_for_these_weights(card_id, built):
    """Registers, pooling, kind of MLP, norms and positions: whatever would not fit the file."""
    part = ALL[card_id].parts[0]
    told = timm.get_pretrained_cfg(part.weights.where.removeprefix("timm/"))
    with torch.device("meta"):
        theirs = timm.create_model(f"{part.timm}.{told.tag}", pretrained=False, num_classes=0)
    ours = built(ALL[card_id])
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (ours, theirs)]
    assert shapes[0].keys() == shapes[1].keys()
    other = {k for k in shapes[0] if shapes[0][k] != shapes[1][k]}
    # trained at another side, the positions of the patches are interpolated
    assert other <= ({"pos_embed"} if "img_size" in part.kwargs else set())
    kinds = [[type(m).__name__ for m in n.modules()] for n in (ours, theirs)]
    assert kinds[0] == kinds[1]
    registers = [getattr(n, "num_prefix_tokens", 0) for n in (ours, theirs)]
    assert registers[0] == registers[1]
    grown = "img_size" in part.kwargs or not told.fixed_input_size
    assert grown or (part.input_px or ALL[card_id].tile_px) == told.input_size[-1]


def test_timm_can_verify_fourteen_cards_and_none_of_those_trained_on_tissue():
    assert len(IN_TIMM) == 14
    hubs = {timm.get_pretrained_cfg(name).hf_hub_id for name in timm.list_pretrained()}
    tissue = [c for c in ONE_PART if c not in IN_TIMM and ALL[c].needs_download]
    assert tissue and not any(ALL[c].parts[0].weights.where in hubs for c in tissue)


def test_every_card_says_what_a_user_must_know():
    for card_id in SHIPPED:
        card = ALL[card_id]
        assert card.source.stem == card_id and card.about and card.made_for and card.licence
        assert all(w.where.count("/") == 1 for w in card.weights if w.kind == "hub")
        if card.needs_download:
            assert card.url.startswith("https://")
        if "NC" in card.licence or "on-commercial" in card.licence.lower():
            assert "research" in card.licence or "commercial" in card.licence
    hubs = [w.where for c in ALL.values() for w in c.weights if w.kind == "hub"]
    assert len(hubs) == len(set(hubs))


PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def cells(card) -> str:
    """Return the beginning of the card's row in the guide."""
    time = f"{card.slower:g}" if card.slower else ""
    gate = "yes" if card.gated else "no"
    return f"| `{card.id}` | {card.licence} | {gate} | {card.size_mb:,.0f} MB | {time} | "


@pytest.mark.parametrize("card_id", sorted(SHIPPED))
def test_the_guide_says_what_the_card_says(card_id):
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith(f"| `{card_id}` |")]
    card = ALL[card_id]
    assert len(rows) == 1
    assert rows[0].startswith(cells(card))
    assert len(rows[0].removeprefix(cells(card)).strip(" |")) > 15  # when to choose it
    doubts = [line for line in lines if line.startswith(f"- `{card_id}`: ")]
    assert doubts == ([f"- `{card_id}`: {card.unverified}."] if card.unverified else [])


def test_the_guide_has_no_card_that_does_not_ship():
    text = PAGE.read_text(encoding="utf-8")
    assert (
        set(re.findall(r"^\| `([a-z0-9-]+)` \| .*(?:yes|no) \| [\d,]+ MB", text, re.M)) == SHIPPED
    )
