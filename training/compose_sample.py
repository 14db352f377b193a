"""Compose the sample slide that ships with the program from open colorectal tissue tiles.

A demonstration must work offline and show real tissue, and no openly licensed
whole slide with region labels is a few megabytes small. So this script lays
real pixels out like a section of bowel wall: every patch of a class is grown
from one tile by image quilting (Efros and Freeman 2001, sections 2 and 3), which
re-arranges pixels and invents none. Some patches are annotated; the others are
made of other tiles, so that they are an honest test area. The result is
reproducible: same tiles and seed, same bytes.

    python training/compose_sample.py TILES_FOLDER [--out resources/sample]

TILES_FOLDER holds ADI/ LYM/ MUS/ NORM/ STR/ TUM/ of CRC-VAL-HE-7K (Kather et al.,
Zenodo 10.5281/zenodo.1214456, CC BY 4.0).
"""

from __future__ import annotations

import argparse
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
import tifffile
from PIL import Image
from scipy import ndimage
from shapely.geometry import Polygon, mapping
from skimage import measure
from sklearn.cluster import KMeans

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH, HEIGHT, MPP = 5120, 3840, 0.5
COARSE = 8  # the layout is drawn on a grid this many times coarser
BLOCK, OVERLAP = 112, 40
CLASSES = {  # folder -> name, colour of the annotation (Okabe-Ito), patches annotated
    "TUM": ("Tumour", (213, 94, 0), 4),
    "STR": ("Stroma", (230, 159, 0), 4),
    "MUS": ("Muscle", (0, 114, 178), 4),
    "NORM": ("Normal mucosa", (0, 158, 115), 4),
    "LYM": ("Lymphocytes", (240, 228, 66), 4),
    "ADI": ("Fat", (86, 180, 233), 4),
}
TURNS = {"MUS": (0, 2), "STR": (0, 2)}  # fibres keep their direction
HELD_BACK = 10  # added to a truth value where the patch's tile was never annotated


@dataclass(frozen=True)
class Patch:
    """One patch of one class: its tile and where it lies on the coarse grid."""

    folder: str
    tile: Path
    mask: NDArray[np.bool_]
    annotated: bool


def noise(rng: np.random.Generator, sigma: float) -> NDArray[np.float64]:
    """Return smooth noise on the coarse grid with standard deviation 1."""
    shape = (HEIGHT // COARSE, WIDTH // COARSE)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="reflect")
    return np.asarray(field / field.std())


def layout(rng: np.random.Generator) -> NDArray[np.int8]:
    """Return the class of every coarse pixel, -1 = glass: a bowel wall and two loose pieces."""
    rows, cols = HEIGHT // COARSE, WIDTH // COARSE
    y, x = np.mgrid[0:rows, 0:cols].astype(float) * COARSE
    x = x + noise(rng, 14) * 55 + noise(rng, 4) * 14
    y = y + noise(rng, 14) * 55 + noise(rng, 4) * 14
    order = list(CLASSES)
    out = np.full((rows, cols), -1, np.int8)

    def blob(cx: float, cy: float, rx: float, ry: float) -> NDArray[np.bool_]:
        return np.asarray(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1)

    top = 640 + 90 * np.sin(x / 330) + 60 * np.sin(x / 140 + 1) + ((x - 2400) / 1900) ** 2 * 240
    depth = y - top
    wall = (x > 420) & (x < 4480) & (depth > 0)
    for name, upper, lower in (
        ("NORM", 0, 460),
        ("STR", 460, 880),
        ("MUS", 880, 1430),
        ("ADI", 1430, 1960),
    ):
        out[wall & (depth >= upper) & (depth < lower)] = order.index(name)
    tumour = blob(2450, 1180, 800, 700) & (depth > -40)
    out[tumour] = order.index("TUM")
    for cx, cy in ((900, 1500), (1480, 1760), (3330, 1640), (3950, 1560), (2440, 2090)):
        out[blob(cx, cy, 235, 215)] = order.index("LYM")
    # Two loose pieces that nobody annotates.
    piece = blob(1250, 3300, 800, 330)
    out[piece] = order.index("STR")
    out[piece & blob(850, 3300, 420, 420)] = order.index("TUM")
    out[piece & blob(1800, 3300, 300, 420)] = order.index("LYM")
    piece = blob(3950, 3320, 800, 310)
    out[piece] = order.index("MUS")
    out[piece & (x > 3900)] = order.index("NORM")
    return out


def patches(classes: NDArray[np.int8], tiles: Path, seed: int) -> list[Patch]:
    """Cut every class into as many patches as there are tiles; the loose pieces stay unmarked."""
    out: list[Patch] = []
    rng = np.random.default_rng(seed)
    wobble = np.stack([noise(rng, 5), noise(rng, 5)], axis=-1) * 5  # no straight borders
    rows = np.arange(classes.shape[0])[:, None]
    for index, (folder, (_, _, marked)) in enumerate(CLASSES.items()):
        files = sorted((tiles / folder).glob("*.png"))
        wall, loose = (
            np.argwhere((classes == index) & (where < 0)) for where in (rows - 355, 355 - rows - 1)
        )
        n_loose = 2 if len(loose) else 0
        used = 0
        for points, count in ((wall, len(files) - n_loose), (loose, n_loose)):
            if not count:
                continue
            bent = points + wobble[tuple(points.T)]
            near = KMeans(count, n_init=4, random_state=seed).fit_predict(bent)
            for part in range(count):
                mask = np.zeros(classes.shape, bool)
                mask[tuple(points[near == part].T)] = True
                out.append(Patch(folder, files[used], mask, points is wall and part < marked))
                used += 1
    return out


def cheapest_path(cost: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return for every row the column of the cheapest seam from the first row to the last."""
    total = cost.copy()
    n = cost.shape[1]
    for r in range(1, len(cost)):
        above = np.pad(total[r - 1], 1, constant_values=np.inf)
        total[r] += np.minimum(np.minimum(above[:n], above[1 : n + 1]), above[2:])
    seam = np.empty(len(cost), np.intp)
    seam[-1] = int(total[-1].argmin())
    for r in range(len(cost) - 2, -1, -1):
        lo = max(seam[r + 1] - 1, 0)
        seam[r] = lo + int(total[r, lo : seam[r + 1] + 2].argmin())
    return seam


def quilt(
    tile: NDArray[np.uint8], height: int, width: int, turns: tuple[int, ...], seed: int
) -> NDArray[np.uint8]:
    """Grow a tile to (height, width, 3) from its own blocks, joined along their cheapest seams."""
    rng = np.random.default_rng(seed)
    turned = [np.rot90(tile, k).astype(np.float32) for k in turns]
    sources = turned + [np.ascontiguousarray(t[:, ::-1]) for t in turned if len(turns) == 4]
    used = [np.zeros((tile.shape[0], tile.shape[1])) for _ in sources]
    step = BLOCK - OVERLAP
    rows, cols = -(-(height - OVERLAP) // step), -(-(width - OVERLAP) // step)
    out = np.zeros((rows * step + OVERLAP, cols * step + OVERLAP, 3), np.float32)
    reach = tile.shape[0] - BLOCK
    for i in range(rows):
        for j in range(cols):
            r, c = i * step, j * step
            here = out[r : r + BLOCK, c : c + BLOCK]
            best, best_error, place = None, np.inf, (0, 0, 0)
            for _ in range(1 if i == j == 0 else 200):
                n = int(rng.integers(len(sources)))
                a, b = (int(v) for v in rng.integers(reach + 1, size=2))
                block = sources[n][a : a + BLOCK, b : b + BLOCK]
                error = 1.0
                if i:
                    error += float(((block[:OVERLAP:2, ::2] - here[:OVERLAP:2, ::2]) ** 2).sum())
                if j:
                    error += float(((block[::2, :OVERLAP:2] - here[::2, :OVERLAP:2]) ** 2).sum())
                error *= 1 + 0.5 * used[n][a + BLOCK // 2, b + BLOCK // 2]  # spare the eye repeats
                if error < best_error:
                    best, best_error, place = block, error, (n, a, b)
            assert best is not None
            n, a, b = place
            used[n][a + 16 : a + BLOCK - 16, b + 16 : b + BLOCK - 16] += 1
            take = np.ones((BLOCK, BLOCK), bool)
            difference = ((best - here) ** 2).sum(2)
            if j:
                seam = cheapest_path(difference[:, :OVERLAP])
                take[:, :OVERLAP] &= np.arange(OVERLAP)[None] >= seam[:, None]
            if i:
                seam = cheapest_path(difference[:OVERLAP].T)
                take[:OVERLAP] &= np.arange(OVERLAP)[:, None] >= seam[None]
            soft = ndimage.gaussian_filter(take.astype(np.float32), 1.0, mode="nearest")[..., None]
            if i == 0 and j == 0:
                soft[:] = 1
            here[:] = soft * best + (1 - soft) * here
    return out[:height, :width].clip(0, 255).astype(np.uint8)


def glass(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return empty glass: nearly white, a soft shade, sensor noise and a little dust."""
    shade = ndimage.zoom(noise(rng, 60), COARSE, order=1)[..., None] * 0.8
    image = np.array([243.0, 241.0, 244.0]) + shade
    image = image + rng.standard_normal((HEIGHT, WIDTH, 1)) * 0.7
    for _ in range(26):
        cx, cy, size = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), rng.uniform(3, 9)
        r0, c0 = max(int(cy) - 30, 0), max(int(cx) - 30, 0)
        part = image[r0 : r0 + 60, c0 : c0 + 60]
        y, x = np.mgrid[r0 : r0 + part.shape[0], c0 : c0 + part.shape[1]]
        part -= (
            rng.uniform(15, 60) * np.exp(-(((x - cx) ** 2 + (y - cy) ** 2) / size**2))[..., None]
        )
    return image.astype(np.float32)


def paint(parts: list[Patch], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the slide's pixels: every patch over the glass, edges a few pixels soft."""
    image = glass(rng)
    ragged = [ndimage.zoom(noise(rng, 1.5), COARSE, order=1) for _ in range(3)]
    for number, part in enumerate(parts):
        rows, cols = (np.flatnonzero(part.mask.any(axis)) for axis in (1, 0))
        r0, r1 = max(rows[0] - 4, 0) * COARSE, (rows[-1] + 5) * COARSE
        c0, c1 = max(cols[0] - 4, 0) * COARSE, (cols[-1] + 5) * COARSE
        box = (slice(r0, r1), slice(c0, c1))
        coarse = part.mask[r0 // COARSE : r1 // COARSE, c0 // COARSE : c1 // COARSE]
        soft = ndimage.zoom(coarse * 1.0, COARSE, order=1)
        soft = soft + ragged[number % 3][box][: soft.shape[0], : soft.shape[1]] * 0.08
        alpha = np.clip((ndimage.gaussian_filter(soft, 2.0) - 0.35) / 0.2, 0, 1)[..., None]
        tile = np.asarray(Image.open(part.tile).convert("RGB"))
        turns = TURNS.get(part.folder, (0, 1, 2, 3))
        tissue = quilt(tile, *alpha.shape[:2], turns, seed=number)
        image[box] = alpha * tissue + (1 - alpha) * image[box]
    return image.round().clip(0, 255).astype(np.uint8)


def hand_drawn(part: Patch, rng: np.random.Generator) -> Polygon:
    """Return a region well inside a patch, as a hand would draw it, in level-0 pixels."""
    inside = ndimage.distance_transform_edt(np.pad(part.mask, 1))[1:-1, 1:-1]
    core = inside > max(7.0, 0.42 * inside.max())
    named, _ = ndimage.label(core)
    peak = np.unravel_index(inside.argmax(), inside.shape)
    core = named == named[peak]
    contour = max(measure.find_contours(np.pad(core * 1.0, 1), 0.5), key=len) - 1
    points = (contour[:, ::-1] + 0.5) * COARSE
    ring = ndimage.gaussian_filter1d(points, 5, axis=0, mode="wrap")[::4]
    ring = ring + rng.normal(0, 3, ring.shape)
    polygon = shapely.make_valid(Polygon(ring.round(1)))
    if polygon.geom_type != "Polygon":
        polygon = max(polygon.geoms, key=lambda g: g.area)
    return polygon


def annotations(parts: list[Patch], rng: np.random.Generator) -> dict[str, object]:
    """Return the annotated patches as a GeoJSON collection the way QuPath writes it."""
    features = []
    for part in parts:
        if not part.annotated:
            continue
        name, colour, _ = CLASSES[part.folder]
        ident = str(uuid.uuid5(uuid.NAMESPACE_URL, f"pathotune sample {part.tile.stem}"))
        features.append(
            {
                "type": "Feature",
                "id": ident,
                "geometry": mapping(hand_drawn(part, rng)),
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": name, "color": list(colour)},
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def write_pyramid(path: Path, image: NDArray[np.uint8], levels: int = 4) -> None:
    """Write a tiled, JPEG-compressed OME-TIFF with its um/px and halved levels."""
    options = {
        "tile": (256, 256),
        "photometric": "rgb",
        "compression": "jpeg",
        "resolutionunit": "CENTIMETER",
    }
    metadata = {
        "axes": "YXS",
        "PhysicalSizeX": MPP,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": MPP,
        "PhysicalSizeYUnit": "µm",
    }
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            if level:
                h, w = (n // 2 * 2 for n in image.shape[:2])
                quad = image[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).astype(np.float32)
                image = quad.mean((1, 3)).round().astype(np.uint8)
            per_cm = 1e4 / (MPP * 2**level)
            tiff.write(
                image,
                subifds=levels - 1 if level == 0 else 0,
                subfiletype=1 if level else 0,
                resolution=(per_cm, per_cm),
                metadata=metadata if level == 0 else None,
                compressionargs={"level": 88},
                **options,
            )


def main() -> None:
    """Compose the slide, its annotations and its truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("--out", type=Path, default=Path("resources/sample"))
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    classes = layout(rng)
    parts = patches(classes, args.tiles, args.seed)
    drawn = annotations(parts, rng)
    write_pyramid(args.out / "bowel_wall.ome.tif", paint(parts, rng))
    (args.out / "bowel_wall.geojson").write_text(
        json.dumps(drawn, separators=(",", ":")), encoding="utf-8"
    )
    truth = np.zeros(classes.shape, np.uint8)
    for part in parts:
        value = 1 + list(CLASSES).index(part.folder)
        truth[part.mask] = value + (0 if part.annotated else HELD_BACK)
    Image.fromarray(truth).save(args.out / "bowel_wall_truth.png", optimize=True)
    print(f"{len(parts)} patches, {len(drawn['features'])} annotated -> {args.out}")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
