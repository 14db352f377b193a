"""What to say of a file or folder that no reader here knows, and what to do about it.

A pathologist whose scanner writes a closed format is not helped by a list of
open ones: the file is told by its name or first bytes, and the way to a file
that opens is named, in the maker's own program where it has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from pathlib import Path

_QUPATH = "open it in QuPath and choose File, Export images, OME TIFF (pyramidal)"
_RAW = "convert it with bioformats2raw and open the OME-Zarr folder that it makes"
_TIFF_OR_RAW = f"Save it as a pyramidal OME-TIFF: {_QUPATH}; or {_RAW}."

_KNOWN = {
    "czi": ("a Zeiss CZI file", f"In ZEN choose Export, OME-TIFF; or {_QUPATH}; or {_RAW}."),
    "vsi": ("an Olympus (Evident) VSI file", _TIFF_OR_RAW),
    "ets": ("a part of an Olympus (Evident) VSI slide", _TIFF_OR_RAW),
    "oir": ("an Olympus (Evident) OIR file", _TIFF_OR_RAW),
    "lif": ("a Leica LIF file", _TIFF_OR_RAW),
    "nd2": ("a Nikon ND2 file", f"In NIS-Elements save it as TIFF; or {_QUPATH}; or {_RAW}."),
    "ims": ("an Imaris file", _TIFF_OR_RAW),
    "isyntax": (
        "a Philips iSyntax file",
        "Have the image management system export it as TIFF or DICOM, and open that.",
    ),
    "i2syntax": (
        "a Philips iSyntax file",
        "Have the image management system export it as TIFF or DICOM, and open that.",
    ),
    "kfb": ("a KFBio KFB file", "Export it as SVS or TIFF with the scanner's program."),
    "sdpc": ("a SQRAY SDPC file", "Export it as SVS or TIFF with the scanner's program."),
    "mds": ("a Motic MDS file", "Export it as SVS or TIFF with the scanner's program."),
    "tmap": ("a UNIC TMAP file", "Export it as SVS or TIFF with the scanner's program."),
    "jp2": ("a bare JPEG 2000 picture", "Save it as a tiled, pyramidal TIFF and open that."),
    "zip": ("a packed archive", "Unpack it first, then open the slide or folder inside it."),
}
_ALIKE = {"lof": "lif", "xlif": "lif", "j2k": "jp2", "jpx": "jp2", "7z": "zip", "rar": "zip"}
_HEADS = (
    (b"ZISRAWFILE", "czi"),
    (b"\xda\xce\xbe\x0a", "nd2"),
    (b"\x00\x00\x00\x0cjP  ", "jp2"),
    (b"PK\x03\x04", "zip"),
)


def refusal(path: Path) -> PathotuneError:
    """Return what the user is told of a path that no reader claims.

    Raises
    ------
    OSError
        It cannot be looked at.
    """
    if path.is_dir():
        return PathotuneError(
            f"{path.name} is a folder without a slide that can be told.",
            "Choose a slide file inside it.",
        )
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        return PathotuneError(
            f"{path.name} is empty.", "Copy it again from where it came, then open it again."
        )
    suffix = path.suffix.lower().removeprefix(".")
    kind = next((kind for start, kind in _HEADS if head.startswith(start)), suffix)
    known = _KNOWN.get(_ALIKE.get(kind, kind))
    if known is not None:
        what, how = known
        return PathotuneError(f"{path.name} is {what}, which cannot be read here.", how)
    return PathotuneError(
        f"{path.name} is not a slide or image of a known format.",
        "Open SVS, NDPI, MRXS, SCN, BIF, VMS, DICOM, TIFF, OME-TIFF, OME-Zarr, PNG or JPEG.",
    )
