"""What an encoder that learnt nuclei without outlines knows of tissue: a linear probe.

Usage: ``python benchmarks/nuclei_encoder.py FOLDER SEGMENTER [--draws 20]`` with a file of
``pathotune learn-nuclei``. Means and spreads of the encoder's maps of the nine-class colorectal
tiles, logistic regression on k tiles a class, four others a class for the test; beside it the
same encoder before it learnt anything, and mean and spread of the colours alone.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pathotune.nuclei.unpaired import saved
from pathotune.nuclei.unpaired.pairs import scaled
from pathotune.nuclei.unpaired.reader import Reader

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import open_tissue
from few_shot import draws

if TYPE_CHECKING:
    from numpy.typing import NDArray


@torch.inference_mode()
def encoded(reader: Reader, tiles: NDArray[Any]) -> NDArray[np.float32]:
    """Return mean and spread of every map but the finest, (n, features)."""
    reader.eval()
    rows = []
    for tile in tiles:
        maps = reader.encode(torch.from_numpy(scaled(tile)[None]))[1:]
        parts = [v for m in maps for v in (m.mean((2, 3)), m.std((2, 3)))]
        rows.append(torch.cat(parts, 1)[0].numpy())
    return np.stack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("development", type=Path)
    parser.add_argument("segmenter", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    args = parser.parse_args()
    tiles, classes, _ = open_tissue.crc_tiles(args.development / "data")
    torch.manual_seed(0)
    learnt = saved.load(args.segmenter)
    colours = tiles.reshape(len(tiles), -1, 3) / 255.0
    sets = {
        "colours alone": np.concatenate([colours.mean(1), colours.std(1)], 1),
        "encoder before learning": encoded(Reader(learnt.widths, learnt.pyramid), tiles),
        "encoder after learning": encoded(learnt.reader(), tiles),
    }
    print("accuracy on held-out tiles, mean (spread over draws)\n")
    print("| k | " + " | ".join(sets) + " |")
    print("|---|" + "---|" * len(sets))
    for k in (1, 2, 4):
        cells = []
        for x in sets.values():
            right = []
            for train, test in draws(classes, k, args.draws):
                model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model.fit(x[train], classes[train])
                right.append(float((model.predict(x[test]) == classes[test]).mean()))
            cells.append(f"{np.mean(right):.3f} ({np.std(right):.3f})")
        print(f"| {k} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
