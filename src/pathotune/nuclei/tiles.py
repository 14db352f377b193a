"""Every picture of a folder to a label image of the same name, for scripts and for judging.

Each picture is a small slide: its own stains, its own scale. Where a picture does
not tell its um/px and nobody gave one, that of a 20x scan is assumed, and said to
be.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import Note, PathotuneError, Progress
from pathotune.marks.geojson import write_atomically
from pathotune.nuclei.query import Nuclei
from pathotune.nuclei.raster import Unnamed, kind, paint
from pathotune.nuclei.run import segment_slide
from pathotune.nuclei.segmenter import prepare
from pathotune.slides.tile_folder import tile_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from pathotune.events import Job
    from pathotune.slides.slide import Slide


ASSUMED = 0.5  # um/px, a 20x scan


def label_tiles(
    folder: Path,
    out: Path,
    segmenter: str,
    opened: Callable[[Path, float | None], AbstractContextManager[Slide]],
) -> Job[dict[str, Any]]:
    """Write one label TIFF a picture, of the picture's size: uint16, uint32 where needed.

    Parameters
    ----------
    folder : Path
        PNG, JPEG or TIFF files, also in folders below.
    out : Path
        Made if it is not there. Must not be the folder of the pictures.
    segmenter : str
        As for `prepare`.
    opened : callable
        Opens a picture with its own um/px, or with the one given beside it.

    Yields
    ------
    Note, Progress

    Returns
    -------
    dict
        images (name to count of nuclei), nuclei, tiles, mpp_assumed, out, and
        refused: pictures in which nothing can be looked for, and why; theirs are empty.

    Raises
    ------
    PathotuneError
        There are no pictures, two share a name, or the disk is full.
    """
    files = tile_files(folder)
    if out.resolve() == folder.resolve():
        raise PathotuneError(
            "The label images would lie among the tiles.", "Choose another folder for --out."
        )
    stems = [_stem(f) for f in files]
    twice = sorted({s for s in stems if stems.count(s) > 1})
    if twice:
        raise PathotuneError(
            f"Several pictures are called {twice[0]}; their label images would be one file.",
            "Give each picture a name of its own.",
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PathotuneError(
            f"{out} cannot be made ({error.strerror or error}).", "Choose another folder."
        ) from error
    counts: dict[str, int] = {}
    assumed, refused = False, dict[str, str]()
    first: PathotuneError | None = None
    said: set[str] = set()
    for number, (file, stem) in enumerate(zip(files, stems, strict=True), 1):
        with opened(file, None) as slide:
            known = slide.mpp is not None
        if not known and not assumed:
            yield Note(
                f"{stem} does not tell its um/px; {ASSUMED} is assumed, here and wherever it is "
                "missing. With --mpp sizes are right.",
                "warning",
            )
        assumed = assumed or not known
        with opened(file, None if known else ASSUMED) as slide:
            notes: tuple[str, ...] = ()
            try:
                finder = prepare(segmenter, slide)
                notes, labels = finder.notes, _labelled(slide, finder)
            except PathotuneError as error:  # one picture of glass must not stop the others
                refused[stem] = str(error)
                first = first or error
                notes, labels = (str(error),), np.zeros((slide.height, slide.width), np.uint16)
        for note in notes:
            if note not in said:
                said.add(note)
                yield Note(f"{stem}: {note}", "warning")
        counts[stem] = int(labels.max(initial=0))
        _save(out / f"{stem}.tif", labels)
        yield Progress(number, len(files), "Finding nuclei", None)
    if first is not None and len(refused) == len(files):
        raise first
    if not any(counts.values()):
        yield Note("No nuclei were found in any picture.", "warning")
    total = sum(counts.values())
    told = {"nuclei": total, "tiles": len(files), "mpp_assumed": assumed, "refused": refused}
    return {**told, "images": counts, "out": str(out)}


def _stem(file: Path) -> str:
    return file.stem.removesuffix(".ome")


def _labelled(slide: Slide, finder: Any) -> NDArray[Any]:
    """Return the label image of a picture; numbers run from 1 without gaps."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "nuclei.parquet"
        for _ in segment_slide(slide, finder, store):
            pass
        with Nuclei.open(store) as nuclei:
            rows = np.arange(len(nuclei.ids))
            found = nuclei.outlines(rows)
            labels = np.zeros((slide.height, slide.width), np.uint32)
            paint(labels, [found.ring(i) for i in rows.tolist()], rows + 1)
    # what lies wholly under another, or between pixels, is not in the picture
    values, number = np.unique(labels, return_inverse=True)
    whole: NDArray[Any] = number.reshape(labels.shape) + (values[0] != 0)
    return whole.astype(kind(int(whole.max(initial=0))))


def _save(path: Path, labels: NDArray[Any]) -> None:
    import tifffile

    def write(file: Any) -> None:
        tifffile.imwrite(Unnamed(file), labels, compression="zlib", photometric="minisblack")

    write_atomically(path, write)
