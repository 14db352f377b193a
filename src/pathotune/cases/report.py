"""One page that says what was mapped, how well, and how it was made.

A class map is only worth what is known about it, so the picture, the areas, the
held-out figures with their intervals and the settings travel together in one
HTML file that opens anywhere: pictures inside, no script, nothing fetched. It
carries the slide's name as the user sees it and no path.
"""

from __future__ import annotations

import base64
from datetime import date
from typing import TYPE_CHECKING, Any

from pathotune import __version__
from pathotune.places import resources

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pathotune.maps.classmap import ClassMap
    from pathotune.slides.slide import Slide

CAUTION = (
    "A map shows what the model takes each spot for; it can be wrong with confidence, "
    "most of all on tissue that looks like none of the marked classes."
)


def embedded_picture(path: Path, caption: str) -> dict[str, str]:
    """Return a PNG or JPEG file as the page holds it: kind, base64 text, caption."""
    kind = "jpeg" if path.suffix.lower() in {".jpg", ".jpeg"} else "png"
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return {"kind": kind, "data": data, "caption": caption}


def area_rows(classmap: ClassMap) -> list[dict[str, Any]]:
    """Return one row a class: name, CSS colour, mm2 and percent of what was mapped."""
    mm2, percent = classmap.areas_mm2(), classmap.areas_percent()
    return [
        {
            "name": name,
            "colour": "#{:02x}{:02x}{:02x}".format(*(int(c) for c in colour)),
            "mm2": mm2[name],
            "percent": percent[name],
        }
        for name, colour in zip(classmap.classes, classmap.colours, strict=True)
    ]


def write_report(
    path: Path,
    slide: Slide,
    classmap: ClassMap,
    held_out: Mapping[str, Any],
    *,
    pictures: Sequence[tuple[Path, str]] = (),
    facts: Mapping[str, str] | None = None,
    unseen: Mapping[str, Any] | None = None,
    credit: str = "",
) -> Path:
    """Write the page and return its path.

    Parameters
    ----------
    path : Path
        Where the HTML file goes.
    slide : Slide
        The slide; its name, size and um/px are shown.
    classmap : ClassMap
        The map whose areas are tabled.
    held_out : mapping
        A verdict as `Evaluation.as_dict` gives it.
    pictures : sequence of (Path, str)
        Picture files to embed, with their captions.
    facts : mapping, optional
        What to list under "How it was made".
    unseen : mapping, optional
        ``sentence`` and ``f1`` by class: a test where the truth is known.
    credit : str
        Whom the slide is owed to.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources()),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    html = environment.get_template("report.html.jinja").render(
        slide=slide,
        version=__version__,
        made_on=date.today().isoformat(),
        caution=CAUTION,
        pictures=[embedded_picture(*p) for p in pictures],
        areas=area_rows(classmap),
        held_out=dict(held_out),
        facts=facts or {},
        unseen=unseen,
        credit=credit,
    )
    path.write_text(html, encoding="utf-8")
    return path
