"""What OME-XML says of each image: its name and the names of its channels.

Which page is which is tifffile's business; this is for the words that a person
chooses by.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageWords:
    """Name and channels' names of one image; empty where the file does not say."""

    name: str
    channels: tuple[str, ...]


def images(xml: str) -> list[ImageWords]:
    """Return the images of OME-XML in their order; none when it cannot be read."""
    from xml.etree import ElementTree  # most slides are not OME

    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return []
    found = []
    for node in root:
        if node.tag.rpartition("}")[2] == "Image":
            channels = [
                c.get("Name", "") for c in node.iter() if c.tag.rpartition("}")[2] == "Channel"
            ]
            found.append(ImageWords(node.get("Name", ""), tuple(channels)))
    return found
