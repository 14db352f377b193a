"""Learn classes from the marked regions of a slide and map the whole of it.

    python map_a_slide.py [SLIDE ANNOTATIONS.geojson] [--out FOLDER]

Without arguments the sample slide is used. Every long step is a job: `drain`
runs it to its end; a `for` loop over it shows its events.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pathotune import drain, open_slide, plugins, predict, read_geojson, train
from pathotune.events import Event, Progress
from pathotune.models.cards import DEFAULT_ID, card
from pathotune.slides.sample import sample_annotations, sample_slide


def tell(event: Event) -> None:
    """Print what a job does."""
    if isinstance(event, Progress):
        print(f"{event.what}: {event.done} of {event.total}")


def main() -> None:
    """Train, map, and write the map and its areas."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path, nargs="?", default=sample_slide())
    parser.add_argument("annotations", type=Path, nargs="?", default=sample_annotations())
    parser.add_argument("--out", type=Path, default=Path("map-output"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    with open_slide(args.slide) as slide:
        marks = read_geojson(args.annotations)
        bundle = drain(train([(slide, marks)], card=card(DEFAULT_ID)), tell)
        bundle.save(args.out / "model.safetensors")
        classmap = drain(predict(slide, bundle), tell)
        for key, name in (("ome_tiff", "map.ome.tif"), ("csv", "areas.csv")):
            plugins.load("pathotune.cases.exports", key).write(args.out / name, classmap, slide)

    for name, area in classmap.areas_mm2().items():
        print(f"{name}: {area:.2f} mm2")


if __name__ == "__main__":
    main()
