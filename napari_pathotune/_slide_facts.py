"""Sentences about a slide, in a pathologist's words.

Kept apart from the widgets so that they can be read, tested and translated
without a window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_pathotune import _settings
from napari_pathotune._forms import area_text

if TYPE_CHECKING:
    from pathotune.slides.slide import Slide
    from pathotune.slides.tissue import TissueMask

SUFFIXES = (
    *("svs", "ndpi", "mrxs", "scn", "bif", "vms", "vmu", "svslide", "dcm"),
    *("tif", "tiff", "png", "jpg", "jpeg"),
)
FILTER = "Slides (" + " ".join(f"*.{s} *.{s.upper()}" for s in SUFFIXES) + ");;All files (*)"
VENDORS = {
    "ome": "OME-TIFF",
    "ome-zarr": "OME-Zarr",
    "tiff": "TIFF",
    "image": "picture",
    "mirax": "3DHISTECH",
}
KINDS = {"fluorescence": "a fluorescence image", "grey": "a grey image"}


def offline() -> bool:
    """Return whether downloads are switched off."""
    return _settings.offline()


def size(slide: Slide) -> str:
    """Return "2,220 x 2,967 px · 1.1 x 1.5 mm"."""
    text = f"{slide.width:,} x {slide.height:,} px"
    if slide.mpp is None:
        return text
    width, height = (side * slide.mpp / 1000 for side in (slide.width, slide.height))
    return f"{text} · {width:.1f} x {height:.1f} mm"


def origin(slide: Slide) -> str:
    """Return "0.499 µm/px · 20x · Aperio · 3 levels"."""
    n = len(slide.levels)
    parts = []
    if slide.mpp is not None:
        typed = " (typed)" if slide.mpp_source == "user" else ""
        parts.append(f"{slide.mpp:.3g} µm/px{typed}")
    if slide.objective:
        parts.append(f"{slide.objective:g}x")
    if slide.vendor != "unknown":
        vendor = VENDORS.get(slide.vendor, slide.vendor)
        parts.append(vendor[:1].upper() + vendor[1:])
    parts.append(f"{n} level{'s' if n > 1 else ''}")
    if slide.times > 1:
        parts.append(f"first of {slide.times} times")
    return " · ".join(parts)


def stain(slide: Slide) -> str:
    """Return a warning for slides the models were not made for, or nothing."""
    kind = KINDS.get(slide.kind)
    what = f"This is {kind}." if kind and not slide.channels else slide.stain_problem
    if not what:
        return ""
    return f"{what} The slide can be looked at and marked; the models were made for H&E."


def tissue(slide: Slide, mask: TissueMask | None) -> str:
    """Return "Tissue: 4.1 mm², 62%"."""
    if mask is None:
        return "Looking for tissue..."
    share = mask.area_px() / (slide.width * slide.height)
    if mask.source == "off":
        return "Tissue: the whole slide"
    if slide.mpp_x is None or slide.mpp_y is None:
        return f"Tissue: {share:.0%} of the slide"
    mm2 = mask.area_px() * slide.mpp_x * slide.mpp_y / 1e6
    return f"Tissue: {area_text(mm2)}, {share:.0%}"
