"""A whole slide's nuclei: tile by tile, the screen first, taken up where it stopped.

Every tile's nuclei go to a file of their own beside the result as soon as they
are found; stopping or a crash loses one tile. When all are there they become
one store and the small files go. Memory holds a tile and the seams around it,
whatever the slide's size.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import Note, NucleiDone, PathotuneError, Progress
from pathotune.marks.geojson import write_atomically
from pathotune.nuclei.measure import centres, measure
from pathotune.nuclei.neighbours import neighbours
from pathotune.nuclei.seams import Cell, Seams
from pathotune.nuclei.store import NucleusStore, chosen, schema, to_arrow
from pathotune.slides.tissue import full_mask

if TYPE_CHECKING:
    from pathlib import Path

    from pathotune.events import Job
    from pathotune.nuclei.segmenter import Segmenter
    from pathotune.slides.geometry import Region
    from pathotune.slides.slide import Slide
    from pathotune.slides.tissue import TissueMask

TILE_UM = 512.0
LEAST_TISSUE = 0.002  # of a tile


@dataclass(frozen=True)
class _Plan:
    """Where the tiles lie; the lattice is the same for every region of a slide."""

    slide: Slide
    segmenter: Segmenter
    region: Region
    tile_px: int
    scale: float  # level-0 pixels per pixel of a field

    def core(self, cell: Cell) -> tuple[float, float, float, float]:
        side = self.tile_px * self.scale
        return cell[1] * side, cell[0] * side, (cell[1] + 1) * side, (cell[0] + 1) * side

    def cells(self, tissue: TissueMask, focus: Region | None) -> tuple[list[Cell], float]:
        """Return the tiles worth computing, the nearest to the screen first, and their mm2."""
        from pathotune.slides.geometry import Region as Box

        side, box = self.tile_px * self.scale, self.region
        found, area = [], 0.0
        for row in range(int(box.y // side), int((box.y1 - 1) // side) + 1):
            for column in range(int(box.x // side), int((box.x1 - 1) // side) + 1):
                x0, y0, x1, y1 = (round(v) for v in self.core((row, column)))
                part = box.intersect(Box(x0, y0, max(1, x1 - x0), max(1, y1 - y0)))
                share = tissue.fraction(part) if part else 0.0
                if part and share >= LEAST_TISSUE:
                    found.append((row, column))
                    area += share * part.width * part.height
        look = focus or box
        middle = (look.y + look.height / 2) / side - 0.5, (look.x + look.width / 2) / side - 0.5
        found.sort(key=lambda c: (max(abs(c[0] - middle[0]), abs(c[1] - middle[1])), c))
        return found, area * self.slide.need_mpp() ** 2 / 1e6

    def rows(self, cell: Cell) -> dict[str, Any]:
        """Find and measure the nuclei that a tile owns."""
        seg = self.segmenter
        halo = int(np.ceil(seg.halo_um / seg.mpp))
        x0, y0, x1, y1 = self.core(cell)
        origin = x0 - halo * self.scale, y0 - halo * self.scale
        size = self.tile_px + 2 * halo
        pixels = self.slide.read_scaled(*origin, seg.mpp, size, size)
        found = seg.segment(pixels)
        middle = centres(found.labels)
        y, x = (middle[:, k] * self.scale + origin[1 - k] for k in (0, 1))
        box = self.region
        mine = (x >= max(x0, box.x)) & (x < min(x1, box.x1))
        mine &= (y >= max(y0, box.y)) & (y < min(y1, box.y1))
        return measure(pixels, found, mine, origin, self.scale, seg.mpp, seg.stains)


def segment_slide(
    slide: Slide,
    segmenter: Segmenter,
    out: Path,
    *,
    tissue: TissueMask | None = None,
    region: Region | None = None,
    focus: Region | None = None,
    tile_um: float = TILE_UM,
) -> Job[dict[str, Any]]:
    """Find a slide's nuclei and write them to a store.

    Parameters
    ----------
    slide, segmenter : Slide, Segmenter
    out : Path
        The Parquet file. ``OUT.parts`` beside it holds what is done until all is.
    tissue : TissueMask, optional
        Tiles without tissue are not computed.
    region : Region, optional
        Level-0 pixels; a nucleus belongs to it when its centre does.
    focus : Region, optional
        What the user looks at; computed first.
    tile_um : float
        Side of a tile without its halo.

    Yields
    ------
    Note, NucleiDone, Progress
        `NucleiDone` after every tile, with the file that holds its nuclei.

    Returns
    -------
    dict
        nuclei, area_mm2, per_mm2, tiles, segmenter, stains_estimated, out.

    Raises
    ------
    PathotuneError
        um/px is missing, the region is beside the slide, or the disk is full.
    """
    scale = segmenter.mpp / slide.need_mpp()
    box = slide.bounds if region is None else slide.bounds.intersect(region)
    if box is None:
        raise PathotuneError("The region lies beside the slide.", "Give level-0 pixels.")
    plan = _Plan(slide, segmenter, box, max(64, round(tile_um / segmenter.mpp)), scale)
    cells, area = plan.cells(tissue or full_mask(slide), focus)
    about = {
        "mpp": slide.need_mpp(),
        "segmenter": segmenter.key,
        "stains_estimated": segmenter.stains.estimated,
        "region": list(astuple(box)),
        "area_mm2": area,
    }
    for note in segmenter.notes:
        yield Note(note, "warning")
    if not cells:
        yield Note("No tissue was found here, so there are no nuclei to count.", "warning")
    told = json.dumps([slide.stamp, about, plan.tile_px, sorted(cells)])
    parts = _folder(out, hashlib.sha256(told.encode()).hexdigest())
    seams, began, fresh = Seams(set(cells)), time.monotonic(), 0
    todo = [c for c in cells if not _part(parts, c).exists()]
    ready = [c for c in cells if c not in set(todo)]
    if ready:
        yield Note(f"{len(ready)} of {len(cells)} tiles were done before and are kept.")
    for done, cell in enumerate([*ready, *todo], 1):
        file = _part(parts, cell)
        if file.exists():
            with NucleusStore(file) as old:
                rows = old.within(box)
            seams.add(cell, rows, plan.core(cell))
        else:
            rows = plan.rows(cell)
            keep = seams.add(cell, rows, plan.core(cell))
            rows = chosen(rows, keep)
            write_atomically(file, functools.partial(_write, rows=rows, about=about))
            fresh += 1
        x0, y0, x1, y1 = plan.core(cell)
        yield NucleiDone(file, (x0, y0, x1, y1), len(rows["x"]))
        left = (time.monotonic() - began) / max(1, fresh) * (len(cells) - done)
        yield Progress(done, len(cells), "Finding nuclei", left if fresh else None)
    count = _join(out, [_part(parts, c) for c in sorted(cells)], about)
    for file in parts.iterdir():
        file.unlink()
    parts.rmdir()
    return {
        "nuclei": count,
        "area_mm2": area,
        "per_mm2": count / area if area else None,
        "tiles": len(cells),
        "mpp": about["mpp"],
        "segmenter": segmenter.key,
        "stains_estimated": segmenter.stains.estimated,
        "out": str(out),
    }


def _folder(out: Path, key: str) -> Path:
    """Return the folder of parts, emptied of those of another run; broken parts go too."""
    parts = out.with_name(out.name + ".parts")
    try:
        parts.mkdir(exist_ok=True)
        mark = parts / "run.txt"
        same = mark.exists() and mark.read_text(encoding="utf-8") == key
        for file in [*parts.glob("tile_*.parquet"), *parts.glob(".tile_*.part")]:
            broken = file.suffix == ".part"
            if same and not broken:
                try:
                    NucleusStore(file).close()
                except PathotuneError:
                    broken = True
            if broken or not same:
                file.unlink()
        if not same:
            write_atomically(mark, lambda f: f.write(key.encode()))
    except OSError as error:
        raise PathotuneError(
            f"{parts} cannot be used ({error.strerror or error}).",
            "Choose a folder that can be written to.",
        ) from error
    return parts


def _part(parts: Path, cell: Cell) -> Path:
    return parts / f"tile_{cell[0]}_{cell[1]}.parquet"


def _write(file: Any, rows: dict[str, Any], about: dict[str, Any]) -> None:
    import pyarrow.parquet as pq

    pq.write_table(to_arrow(rows, about), file, compression="zstd")


def _join(out: Path, files: list[Path], about: dict[str, Any]) -> int:
    """Write all parts as one store, a row group each; return how many nuclei there are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    xy = [pq.read_table(file, columns=["x", "y"]) for file in files]
    # a place is 16 bytes and a nucleus a thousand: all places fit where all nuclei would not
    places = [np.stack([t[k].to_numpy() for k in ("x", "y")], axis=1) for t in xy]
    around = neighbours(np.concatenate([np.zeros((0, 2)), *places]), about["mpp"])
    total = 0

    def write(target: Any) -> None:
        nonlocal total
        total = 0
        with pq.ParquetWriter(target, schema(about), compression="zstd") as writer:
            for file in files:
                table = pq.read_table(file)
                n = len(table)
                if n:
                    new = {"id": pa.array(np.arange(total + 1, total + n + 1))}
                    new |= {k: pa.array(v[total : total + n]) for k, v in around.items()}
                    for name, values in new.items():
                        place = table.schema.get_field_index(name)
                        table = table.set_column(place, table.schema.field(place), values)
                    writer.write_table(table.replace_schema_metadata(schema(about).metadata))
                total += n

    write_atomically(out, write)
    return total
