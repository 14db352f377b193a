"""How well outlined nuclei agree with those outlined by people, image by image.

Label images of two folders are paired by their names. Every image of the truth
must have its answer: one left out would make the mean too good.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune.events import PathotuneError, Progress

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

    from pathotune._console import Teller

NAME = "eval-nuclei"
TEXT = "Score label images of nuclei against label images drawn by people."
SUFFIXES = (".tif", ".tiff", ".png", ".npy")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    told = "label images: one number a nucleus, 0 is background"
    parser.add_argument("--pred", required=True, metavar="DIR", help=f"what was found; {told}")
    parser.add_argument("--truth", required=True, metavar="DIR", help="what is there; same names")


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Return the scores of every image and their mean."""
    from pathotune.nuclei.scores import NAMES, scores

    found, truth = _files(Path(args.pred)), _files(Path(args.truth))
    missing = sorted(set(truth) - set(found))
    if missing:
        shown = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise PathotuneError(
            f"{len(missing)} of {len(truth)} images have no answer in {args.pred}: {shown}.",
            "Every label image of --truth needs one of the same name in --pred.",
        )
    rows: dict[str, dict[str, float]] = {}
    for number, stem in enumerate(sorted(truth), 1):
        a, b = _labels(found[stem]), _labels(truth[stem])
        if a.shape != b.shape:
            raise PathotuneError(
                f"{stem}: {a.shape[1]} x {a.shape[0]} pixels were found and "
                f"{b.shape[1]} x {b.shape[0]} are there.",
                "Both label images of a pair must be of the same size.",
            )
        rows[stem] = scores(a, b)
        tell(Progress(number, len(truth), "Scoring", None))
    mean = {n: float(np.mean([r[n] for r in rows.values()])) for n in NAMES}
    return {"count": len(rows), "images": rows, "mean": mean}


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise PathotuneError(f"There is no folder {folder}.", "Check the name.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        stem = path.stem.removesuffix(".ome")
        if stem in found:
            raise PathotuneError(
                f"{path.name} and {found[stem].name} in {folder} are of the same name.",
                "Keep one of them.",
            )
        found[stem] = path
    if not found:
        raise PathotuneError(
            f"There are no label images in {folder}.", "They are TIFF, PNG or NPY files."
        )
    return found


def _labels(path: Path) -> NDArray[Any]:
    """Return a label image, (h, w) of whole numbers."""
    import tifffile
    from PIL import Image

    try:
        if path.suffix.lower() == ".npy":
            labels = np.load(path, allow_pickle=False)
        elif path.suffix.lower() in (".tif", ".tiff"):
            labels = tifffile.imread(path, level=0)
        else:
            with Image.open(path) as picture:
                labels = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, tifffile.TiffFileError) as error:
        raise PathotuneError(
            f"{path.name} cannot be read as a picture ({error}).", "Write it again."
        ) from error
    labels = np.asarray(labels)
    if labels.ndim == 3 and 1 in (labels.shape[0], labels.shape[-1]):
        labels = labels.squeeze()
    whole = np.issubdtype(labels.dtype, np.floating) and bool((labels == np.rint(labels)).all())
    if labels.ndim != 2 or not (np.issubdtype(labels.dtype, np.integer) or whole):
        raise PathotuneError(
            f"{path.name} is no label image: it has the shape {labels.shape} of {labels.dtype}.",
            "A label image has one whole number a pixel, 0 for background.",
        )
    return labels.astype(np.int64)
