"""A learnt segmenter as one file, and how it is used on a slide.

The file is safetensors with a JSON header: numbers and their story, nothing that can run. What
does not say it is a segmenter of ours, or does not fit the network, is refused. Its name
takes the place of a segmenter's key wherever one is asked for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathotune import __version__
from pathotune.events import PathotuneError
from pathotune.marks.geojson import write_atomically
from pathotune.nuclei.stains import estimate, look

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathotune.nuclei.segmenter import Found
    from pathotune.nuclei.stains import Stains
    from pathotune.nuclei.unpaired.reader import Reader
    from pathotune.slides.slide import Slide
    from pathotune.slides.tissue import TissueMask

FORMAT = "napari-pathotune nucleus segmenter"
VERSION = 1
SUFFIX = ".safetensors"
LEAST_UM2 = 12.0
MOST_HEADER = 1 << 20


@dataclass(frozen=True, eq=False)
class LearntFile:
    """What a segmenter's file holds.

    Attributes
    ----------
    name : str
        For the user.
    mpp : float
        um/px it works at.
    widths : tuple of int
    pyramid : int
    arrays : dict of str to array
        The network's numbers.
    about : dict
        Plain JSON: how it was made and judged.
    """

    name: str
    mpp: float
    widths: tuple[int, ...]
    pyramid: int
    arrays: dict[str, NDArray[Any]]
    about: dict[str, Any]

    def key(self) -> str:
        """Return a key that changes with every number in it."""
        digest = hashlib.sha256(repr((self.mpp, self.widths, self.pyramid)).encode())
        for name in sorted(self.arrays):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        return "learnt-" + digest.hexdigest()[:16]

    def reader(self) -> Reader:
        """Return the network.

        Raises
        ------
        PathotuneError
            The numbers do not fit it.
        """
        import torch

        from pathotune.nuclei.unpaired.reader import Reader

        network = Reader(self.widths, self.pyramid)
        try:
            network.load_state_dict(
                {k: torch.from_numpy(np.array(v)) for k, v in self.arrays.items()}
            )
        except (RuntimeError, TypeError) as error:
            raise PathotuneError(
                f"The numbers of {self.name} do not fit its network; the file is damaged.",
                "Learn the nuclei again.",
            ) from error
        return network.eval()


def save(path: Path | str, reader: Reader, mpp: float, about: dict[str, Any]) -> Path:
    """Write a segmenter; an old file of that name is replaced whole or not at all.

    Raises
    ------
    PathotuneError
        The disk is full or the folder cannot be written.
    """
    from safetensors.numpy import save as packed

    path = Path(path)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "mpp": mpp,
        "widths": list(reader.widths),
        "pyramid": reader.pyramid,
        "about": about | {"program": __version__},
    }
    arrays = {k: v.detach().cpu().numpy() for k, v in reader.state_dict().items()}
    data = packed(arrays, {"pathotune": json.dumps(header, ensure_ascii=False, allow_nan=False)})
    write_atomically(path, lambda file: file.write(data))
    return path


def load(path: Path | str) -> LearntFile:
    """Read a segmenter's file.

    Raises
    ------
    PathotuneError
        It cannot be read, or is not a segmenter of ours, or is of a newer program.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    foreign = PathotuneError(
        f"{path.name} is not a nucleus segmenter of this program.",
        "Choose a file that Learn nuclei wrote.",
    )
    try:
        if not path.is_file():
            raise PathotuneError(f"There is no file {path}.", "Check the name.")
        with safe_open(str(path), framework="np") as file:
            header = json.loads((file.metadata() or {}).get("pathotune", "{}"))
            if not isinstance(header, dict) or header.get("format") != FORMAT:
                raise foreign
            if header.get("version", 0) > VERSION:
                raise PathotuneError(
                    f"{path.name} was made by a newer version of the program.",
                    "Update the program.",
                )
            widths = tuple(int(w) for w in header["widths"])
            found = LearntFile(
                path.stem,
                float(header["mpp"]),
                widths,
                int(header["pyramid"]),
                {k: file.get_tensor(k) for k in file.keys()},
                dict(header["about"]),
            )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise foreign from error
    except OSError as error:
        raise PathotuneError(
            f"{path.name} cannot be read ({error.strerror or error}).", "Check the file."
        ) from error
    sound = len(widths) == 5 and all(0 < w <= 1024 for w in widths) and 0 < found.pyramid <= 1024
    if not sound or not 0.05 <= found.mpp <= 10:
        raise foreign
    return found


class Learnt:
    """The segmenter of a file, with a slide's stains.

    Parameters
    ----------
    file : LearntFile
    stains : Stains
        Of the slide, for the measurements.
    notes : tuple of str
    device : str
    """

    halo_um = 32.0

    def __init__(
        self, file: LearntFile, stains: Stains, notes: tuple[str, ...] = (), device: str = "cpu"
    ) -> None:
        self.mpp, self.stains, self.notes, self.device = file.mpp, stains, notes, device
        self.key = file.key()
        self.network = file.reader().to(device)

    def segment(self, pixels: NDArray[Any]) -> Found:
        """Find the nuclei of a field, uint8 (h, w, 3) at `mpp`."""
        import torch

        from pathotune.models import runtime
        from pathotune.nuclei.unpaired.dense import separate
        from pathotune.nuclei.unpaired.pairs import scaled
        from pathotune.nuclei.unpaired.reader import STRIDE

        h, w = pixels.shape[:2]
        pad = [(0, -h % STRIDE), (0, -w % STRIDE), (0, 0)]
        image = scaled(np.pad(pixels, pad, mode="edge"))
        with torch.inference_mode(), runtime.limited_threads():
            dense = self.network(torch.from_numpy(image[None]).to(self.device))[1][0]
            maps = dense.sigmoid().float().cpu().numpy()[:, :h, :w]
        return separate(maps[0], maps[1], LEAST_UM2 / self.mpp**2)


def prepare(
    path: Path | str, slide: Slide, tissue: TissueMask | None = None, device: str = "cpu"
) -> Learnt:
    """Let the segmenter of a file look at a slide.

    Raises
    ------
    PathotuneError
        The file is not one, um/px is missing, or the slide is not brightfield.
    """
    file = load(path)
    slide.need_mpp()
    if slide.kind != "brightfield":
        raise PathotuneError(
            f"This is not a stained slide ({slide.kind}), and {file.name} was learnt on one.",
            "Open an H&E slide.",
        )
    stains = estimate(look(slide, file.mpp, tissue))
    notes = (
        ()
        if stains.estimated
        else ("This slide's stains could not be told apart; the textbook's colours are used.",)
    )
    return Learnt(file, stains, notes, device)
