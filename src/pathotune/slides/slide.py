"""One whole-slide image at any scale, whatever file it lies in.

A slide hides formats, levels and doubts about um/px behind `read_scaled`: give
a corner in level-0 pixels and a um/px, get exactly the pixels of that size,
averaged by area from the next finer level and placed to a fraction of a pixel.
Reading is safe from several threads.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pathotune import plugins
from pathotune.events import PathotuneError
from pathotune.slides import folders
from pathotune.slides import mpp as mpp_rules
from pathotune.slides.fingerprint import fingerprint
from pathotune.slides.gate import Gate
from pathotune.slides.geometry import Level, Region
from pathotune.slides.levels import LevelArray, pyramid
from pathotune.slides.placing import place_levels
from pathotune.slides.scaled import read_downsampled
from pathotune.slides.unreadable import refusal
from pathotune.slides.view import Scene, View, remember

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    from pathotune.slides.icc import Correct
    from pathotune.slides.readers._base import Reader

__all__ = ["Level", "LevelArray", "Region", "Slide", "is_slide", "open_slide"]

Kind = Literal["brightfield", "fluorescence", "grey"]
_READERS = "pathotune.slides.readers"


class Slide:
    """An open slide; made by `open_slide`, closed with `close` or ``with``.

    Attributes
    ----------
    path : Path
        The file. Never shown in exports.
    width, height : int
        Size in level-0 pixels.
    levels : tuple of Level
        From the finest on.
    mpp, mpp_x, mpp_y : float or None
        um/px; None when the file's is missing or not believable and nobody has
        said better.
    mpp_source : {"file", "user", "missing"}
        Where `mpp` comes from.
    mpp_problem : str or None
        Why the file's own value was not taken.
    view : View
        Which scene, depth and channel it is, and whether colours are corrected.
    scenes, depth, channels, has_icc, times
        What there is to choose from; no scenes or channels where there is one. Of several
        times the first is shown.
    view_key : str
        Under what the choice is kept.
    kind : {"brightfield", "fluorescence", "grey"}
        Judged from a thumbnail.
    """

    def __init__(self, path: Path, reader: Reader, key: str, view: View = View()) -> None:  # noqa: B008
        self._reader = reader
        self._gate = Gate()
        self._correct: Correct | None = None
        if view.icc:
            from pathotune.slides.icc import to_srgb

            self._correct = to_srgb(reader.icc_profile)
        self.has_icc = bool(reader.icc_profile)
        self.scenes: tuple[Scene, ...] = reader.scenes
        self.depth, self.channels, self.times = reader.depth, reader.channels, reader.times
        corrected = self._correct is not None
        self.view = View(reader.scene, reader.z, reader.channel, corrected)
        self.path = self.source = path
        self.view_key = ""
        self.name = path.name
        self.reader = key
        if not reader.sizes or min(map(min, reader.sizes)) < 1:
            raise PathotuneError(
                f"{path.name} says that it has no pixels; the file is damaged.",
                "Copy it again from where it came, then open it again.",
            )
        self.width, self.height = reader.sizes[0]
        self.levels = tuple(Level(w, h, 1.0, 1.0) for w, h in reader.sizes)
        self.levels = place_levels(reader.sizes, self.read_level, scanner=key == "openslide")
        self.vendor = reader.vendor
        self.objective = reader.objective
        self.chunk = reader.chunk
        self.fingerprint = fingerprint(path, reader.quickhash)
        self.mpp_x: float | None = None
        self.mpp_y: float | None = None
        self.mpp_source: Literal["file", "user", "missing"] = "missing"
        self.mpp_problem = mpp_rules.believable(*reader.mpp)
        if self.mpp_problem is None:
            self.mpp_x, self.mpp_y = reader.mpp
            self.mpp_source = "file"
        self._kind: Kind | None = None
        self._stain_problem = ""

    @property
    def mpp(self) -> float | None:
        """Return the mean um/px of both axes."""
        if self.mpp_x is None or self.mpp_y is None:
            return None
        return (self.mpp_x + self.mpp_y) / 2

    @property
    def stamp(self) -> str:
        """Return what changes when the file or its um/px changes: the key of caches."""
        try:
            changed = self.path.stat().st_mtime_ns
        except OSError:
            changed = 0
        text = f"{self.fingerprint} {changed} {self.mpp_x!r} {self.mpp_y!r}"
        view = self.view
        if view.z != 1 or view.channel is not None or view.icc:
            text += f" z{view.z} c{view.channel} icc{view.icc}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def bounds(self) -> Region:
        """Return the whole slide as a region."""
        return Region(0, 0, self.width, self.height)

    @property
    def kind(self) -> Kind:
        """Return what sort of picture it is, judged once from a thumbnail."""
        self._judge()
        return self._kind or "brightfield"

    @property
    def stain_problem(self) -> str:
        """Return a sentence when it does not look like H&E, else nothing; judged once."""
        self._judge()
        return self._stain_problem

    def _judge(self) -> None:
        if self._kind is None:
            from pathotune.slides import stain

            small = self.thumbnail(512)
            told = stain.channel_problem(self.channels, self.view.channel)
            self._stain_problem = told or stain.stain_problem(small)
            self._kind = stain.kind_of(small)

    def with_mpp(self, mpp: float, *, remember: bool = True) -> None:
        """Take the user's um/px, and keep it for this slide.

        Raises
        ------
        PathotuneError
            The value cannot be a slide's.
        """
        mpp = mpp_rules.check_answer(mpp)
        self.mpp_x = self.mpp_y = mpp
        self.mpp_source = "user"
        if remember:
            mpp_rules.remember(self.fingerprint, mpp)

    def need_mpp(self) -> float:
        """Return um/px, or tell the user what to do about its absence.

        Raises
        ------
        PathotuneError
            Nobody knows it.
        """
        if self.mpp is None:
            raise PathotuneError(
                f"{self.mpp_problem} Areas and models need it.",
                "Type um/px (0.25 for a 40x scan, 0.5 for 20x); on the command line: --mpp 0.25.",
            )
        return self.mpp

    def read_level(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        """Return (h, w, 3) pixels of a level, in its own pixels; white beyond its borders."""
        return self.read_reduced(level, 1, x, y, w, h)

    def reductions(self, level: int) -> tuple[int, ...]:
        """Return the whole numbers by which a level is read smaller at no extra cost."""
        with self._gate.reading():
            return self._reader.reductions(level)

    def may_reduce(self, level: int) -> bool:
        """Whether a level is likely to have `reductions`; answered without reading pixels."""
        with self._gate.reading():
            return self._reader.may_reduce(level)

    def read_reduced(
        self, level: int, reduction: int, x: int, y: int, w: int, h: int, *, exact: bool = False
    ) -> NDArray[np.uint8]:
        """Return (h, w, 3) of a level shrunk by one of its `reductions`; white beyond it.

        The box is in shrunk pixels, each the mean of `reduction` x `reduction`
        of the level's: to about one grey level, or to half of one if `exact`.
        """
        size = self.levels[level]
        x0, y0 = max(0, x), max(0, y)
        x1, y1 = min(-(-size.width // reduction), x + w), min(-(-size.height // reduction), y + h)
        with self._gate.reading():
            if x1 <= x0 or y1 <= y0:
                return np.full((h, w, 3), 255, np.uint8)
            if reduction == 1:
                pixels = self._reader.read(level, x0, y0, x1 - x0, y1 - y0)
            else:
                box = x0, y0, x1 - x0, y1 - y0
                pixels = self._reader.read_reduced(level, reduction, *box, exact=exact)
        if self._correct is not None:
            pixels = self._correct(pixels)
        if pixels.shape[:2] == (h, w):
            return pixels
        out = np.full((h, w, 3), 255, np.uint8)
        out[y0 - y : y1 - y, x0 - x : x1 - x] = pixels
        return out

    def read(self, region: Region, mpp: float | None = None) -> NDArray[np.uint8]:
        """Return a region's pixels, at level 0 or at a um/px.

        Parameters
        ----------
        region : Region
            Level-0 pixels; what lies beyond the slide is white.
        mpp : float, optional
            um/px of the result; its size is rounded to whole pixels.
        """
        if mpp is None:
            return self.read_level(0, region.x, region.y, region.width, region.height)
        scale = mpp / self.need_mpp()
        width, height = max(1, round(region.width / scale)), max(1, round(region.height / scale))
        return self.read_scaled(region.x, region.y, mpp, width, height)

    def read_scaled(
        self, x: float, y: float, mpp: float, width: int, height: int
    ) -> NDArray[np.uint8]:
        """Return exactly (height, width, 3) pixels of `mpp` whose corner is at (x, y).

        The next finer level is averaged by area, from tiles decoded whole, so
        that a model's pixels do not hang on the decoder. On integer pyramids the
        result is within 1 grey level on the mean of reducing level 0.

        Parameters
        ----------
        x, y : float
            Level-0 pixels, to a fraction.
        mpp : float
            um/px of the result.
        width, height : int
            Size of the result.
        """
        downsample = mpp / self.need_mpp()
        return self.read_downsampled(x, y, downsample, width, height, exact=True)

    def read_downsampled(
        self, x: float, y: float, downsample: float, width: int, height: int, *, exact: bool = False
    ) -> NDArray[np.uint8]:
        """Return (height, width, 3) pixels that each span `downsample` level-0 pixels.

        For the eye the decoder may shrink the tiles; `exact` averages whole ones.
        """
        return read_downsampled(self, x, y, downsample, width, height, exact=exact)

    def thumbnail(self, max_px: int = 1024) -> NDArray[np.uint8]:
        """Return the whole slide with its longer side at most `max_px` pixels."""
        downsample = max(1.0, self.width / max_px, self.height / max_px)
        width = max(1, int(self.width / downsample))
        height = max(1, int(self.height / downsample))
        return self.read_downsampled(0, 0, downsample, width, height)

    def level_array(self, level: int) -> LevelArray:
        """Return a level as an array-like for the viewer."""
        return LevelArray(self, level)

    def pyramid(self) -> list[LevelArray]:
        """Return every level for the viewer, and coarser ones where the file has too few."""
        return pyramid(self)

    def associated(self) -> tuple[str, ...]:
        """Return the names of label, macro and the like; they may show a patient's name."""
        return self._reader.associated()

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Return (h, w, 3) of an associated image, when the user asks for it."""
        with self._gate.reading():
            return self._reader.read_associated(name)

    def keep_view(self, view: View) -> None:
        """Open the file this way from now on; this slide itself stays as it is."""
        remember(self.view_key, view)

    def close(self) -> None:
        """Close the file once reads under way are done; later ones are refused with words."""
        self._gate.shut(self._reader.close)

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _readers() -> list[ModuleType]:
    found = [plugins.load(_READERS, name) for name in plugins.names(_READERS)]
    return sorted(found, key=lambda module: module.ORDER)


def _claimed(path: Path) -> ModuleType | None:
    folder = path.is_dir()
    head = b"" if folder else _head(path)
    return next((m for m in _readers() if (head or folder) and m.claims(path, head)), None)


def is_slide(path: str | Path) -> bool:
    """Whether some reader knows the file or folder; looks at names and first bytes only."""
    try:
        path = folders.inside(Path(path)).path
        return path.exists() and _claimed(path) is not None
    except OSError:
        return False


def open_slide(path: str | Path, mpp: float | None = None, view: View | None = None) -> Slide:
    """Open a slide.

    Parameters
    ----------
    path : path-like
        The file, or the folder of an OME-Zarr, of DICOM files or of an MRXS.
    mpp : float, optional
        um/px that overrides the file's, for this opening only.
    view : View, optional
        Scene, depth, channel and colours, for this opening only; what it leaves
        open is as it was last chosen for this file (`Slide.keep_view`).

    Raises
    ------
    PathotuneError
        The file is missing, empty, damaged, or of no known format.
    """
    path = source = Path(path)
    try:
        key, view = folders.chosen(source, view or View())
        found = folders.inside(source, view)
        path = found.path
        module = _claimed(path)
        if module is None:
            raise refusal(path)
    except FileNotFoundError as error:
        raise PathotuneError(f"There is no file {path}.", "Check the name.") from error
    except OSError as error:
        raise PathotuneError(
            f"{path.name} cannot be opened ({error.strerror}).",
            "Check that you may read it and that its drive is connected.",
        ) from error
    # where the folder chose among slides, the file itself holds one scene
    reader = module.open_reader(path, replace(view, scene=None) if found.scenes else view)
    if found.scenes:
        reader.scenes, reader.scene = found.scenes, found.scene
    try:
        slide = Slide(path, reader, module.KEY, view)
        slide.source, slide.view_key = source, key
    except BaseException:
        reader.close()
        raise
    try:
        if mpp is not None:
            slide.with_mpp(mpp, remember=False)
        elif slide.mpp is None:
            answer = mpp_rules.remembered(slide.fingerprint)
            if answer is not None:
                slide.with_mpp(answer, remember=False)
    except BaseException:
        slide.close()
        raise
    return slide
