"""What a slide says of itself: size, scale, levels, maker.

A script asks this first to know whether a scale is missing and which reader
opens the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathotune.commands._common import mpp, opened, picture

if TYPE_CHECKING:
    import argparse

    from pathotune._console import Teller

TEXT = "Say what is known about a slide."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("slide", metavar="SLIDE")
    mpp(parser, "the slide, when the file does not say")
    picture(parser)


def run(args: argparse.Namespace, tell: Teller) -> dict[str, Any]:
    """Return size, um/px, levels and what the file is."""
    with opened(args.slide, args) as slide:
        return {
            "name": slide.name,
            "width": slide.width,
            "height": slide.height,
            "mpp": slide.mpp,
            "mpp_x": slide.mpp_x,
            "mpp_y": slide.mpp_y,
            "mpp_source": slide.mpp_source,
            "mpp_problem": slide.mpp_problem,
            "levels": [
                {
                    "width": level.width,
                    "height": level.height,
                    "downsample_x": level.downsample_x,
                    "downsample_y": level.downsample_y,
                }
                for level in slide.levels
            ],
            "vendor": slide.vendor,
            "kind": slide.kind,
            "objective": slide.objective,
            "reader": slide.reader,
            "scene": slide.view.scene,
            "scenes": [
                {"number": s.number, "name": s.name, "width": s.width, "height": s.height}
                for s in slide.scenes
            ],
            "z": slide.view.z,
            "depth": slide.depth,
            "times": slide.times,
            "channel": slide.view.channel,
            "channels": list(slide.channels),
            "has_icc": slide.has_icc,
            "icc": slide.view.icc,
        }
