"""States of the Slide dock that the sample slide cannot show: choices of a picture, a weight file.

Files are made for them from the sample: two sections as stacks of depths and
channels in one OME-TIFF, and a slide that carries a colour profile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from make_screenshots import Studio

CHANNELS = ("DAPI", "CD3", "Ki-67")


def tissue(left: int, top: int, side: int = 1500) -> Any:
    """Return pixels of the sample slide."""
    from pathotune.slides.sample import sample_slide
    from pathotune.slides.slide import open_slide

    with open_slide(sample_slide()) as slide:
        return slide.read_level(0, left, top, side, side)


def stacks(path: Path) -> Path:
    """Write two sections of three depths and three channels."""
    import tifffile

    scale = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(path, ome=True) as out:
        for name, corner in (("Section A", (300, 300)), ("Section B", (1500, 900))):
            pixels = 255 - tissue(*corner)
            channels = [pixels[..., 0] // 2, pixels[..., 1], pixels[..., 2] // 4]
            deep = np.stack([np.stack(channels) // (3 - z) for z in range(3)])
            told = {"Name": name, "Channel": {"Name": list(CHANNELS)}, **scale}
            meta = {"axes": "ZCYX", **told}
            out.write(deep, photometric="minisblack", tile=(256, 256), metadata=meta)
    return path


def profiled(path: Path) -> Path:
    """Write a slide with a colour profile."""
    import tifffile
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    where = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    pixels = tissue(300, 300)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), iccprofile=profile, **where)
    return path


def weights(path: Path) -> Path:
    """Write weights of a small network that no card knows."""
    from safetensors.torch import save_file

    from pathotune.models._torchvision import import_timm

    small = {"patch_size": 16, "embed_dim": 192, "depth": 4, "num_heads": 3, "num_classes": 0}
    save_file(import_timm().create_model("vit_tiny_patch16_224", **small).state_dict(), path)
    return path


def choices(studio: Studio, folder: Path) -> None:
    """Scenes, depth and channels; a profile; a weight file."""
    session = studio.session
    dock = studio.dock("slide")
    session.loop.pause()
    for name, path in (
        ("slide-channels", stacks(folder / "two sections.ome.tif")),
        ("slide-profile", profiled(folder / "section 4.tif")),
    ):
        dock.open(path)
        studio.until(lambda path=path: session.slide is not None and session.slide.path == path)
        studio.until(lambda: session.tissue is not None and session.jobs.idle)
        dock.notice.clear()
        studio.settle(1.0)
        studio.take(name)
    dock.network.expand(animate=False)
    form = dock.picker.form
    form.look(weights(folder / "ours.safetensors"))
    studio.until(form.isVisible)
    studio.settle(1.0)
    form.which.setCurrentIndex(form.which.count() - 1)
    form.which.activated.emit(form.which.currentIndex())
    studio.settle(1.0)
    studio.take("slide-weight-file")
    form.close_form()
    dock.network.collapse(animate=False)
    session.close_slide()
    studio.until(lambda: session.slide is None and session.jobs.idle)
    session.loop.resume()
