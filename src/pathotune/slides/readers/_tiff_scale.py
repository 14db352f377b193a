"""um/px of TIFF files: OME metadata in any unit, resolution tags per inch or cm.

Kept apart from decoding, because every writer says it in its own way and
whether it is to be believed is decided elsewhere.
"""

from __future__ import annotations

from typing import Any

# OME's own spellings of lengths, with both signs for micro
LENGTHS = {
    "km": 1e9,
    "m": 1e6,
    "dm": 1e5,
    "cm": 1e4,
    "mm": 1e3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "nm": 1e-3,
    "pm": 1e-6,
    "Å": 1e-4,
    "in": 25400.0,
    "ft": 304800.0,
    "thou": 25.4,
    "mil": 25.4,
    "pt": 25400 / 72,
}
Pair = tuple[float | None, float | None]


def ome_mpp(xml: str, image: int = 0) -> Pair:
    """Return um/px along x and y of an image in OME-XML; None where it is not told."""
    from xml.etree import ElementTree  # most slides say their scale otherwise

    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None, None
    every = [node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"]
    for node in every[image : image + 1]:
        found: list[float | None] = []
        for axis in "XY":
            size = node.get(f"PhysicalSize{axis}")
            unit = LENGTHS.get(node.get(f"PhysicalSize{axis}Unit", "µm"))
            try:
                found.append(float(size) * unit if size and unit else None)
            except ValueError:
                found.append(None)
        return found[0], found[1]
    return None, None


def tag_mpp(page: Any) -> Pair:
    """Return um/px along x and y from a page's resolution tags."""
    unit = page.tags.get("ResolutionUnit")
    per_um = {2: 25400.0, 3: 10000.0}.get(int(unit.value) if unit is not None else 2)
    found: list[float | None] = []
    for name in ("XResolution", "YResolution"):
        tag = page.tags.get(name)
        try:
            found.append(per_um * tag.value[1] / tag.value[0] if tag and per_um else None)
        except (ZeroDivisionError, TypeError, IndexError):
            found.append(None)
    return found[0], found[1]
