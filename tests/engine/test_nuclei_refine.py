"""Corrected nuclei teach the network: better where it was not taught, and said when not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely

from pathotune import cli
from pathotune.events import PathotuneError, drain
from pathotune.nuclei.edits import Edits
from pathotune.nuclei.query import Nuclei
from pathotune.nuclei.refine import Window, agreement, apart, refine, windows
from pathotune.nuclei.run import segment_slide
from pathotune.nuclei.segmenter import Found, prepare
from pathotune.slides.geometry import Region
from pathotune.slides.slide import open_slide

BOX = Region(760, 760, 620, 620)


@pytest.fixture(scope="module")
def found(shared_data, tmp_path_factory):
    """Nuclei of real tissue as the network finds them."""
    file = shared_data / "data/wsi_cmu1_small_region/CMU-1-Small-Region.svs"
    out = tmp_path_factory.mktemp("found") / "n.parquet"
    with open_slide(file) as slide:
        drain(segment_slide(slide, prepare("nucleus_net", slide), out, region=BOX))
    return file, out


@pytest.fixture(scope="module")
def shared_data():
    from pathlib import Path

    for folder in (Path(__file__).parents[2].parent, Path(__file__).parents[4]):
        if (folder / "shared" / "data").is_dir():
            return folder / "shared"
    pytest.skip("the development data is not beside this checkout")


def grown(nuclei, edits, spots):
    """Redraw all nuclei of some spots a micron wider, as one who wants the whole rim."""
    reach = 25 / nuclei.mpp
    for x, y in spots:
        for row in nuclei.within(x - reach, y - reach, x + reach, y + reach).tolist():
            wide = shapely.make_valid(
                shapely.polygons(nuclei.outlines([row]).ring(0).astype(float))
            )
            edits.redraw(row, np.asarray(wide.buffer(1.2 / nuclei.mpp).exterior.coords))


SPOTS = [(x, y) for x in (860, 1260) for y in (860, 1260)]


def test_corrections_of_one_kind_are_learnt(found, tmp_path):
    file, store = found
    nuclei = Nuclei.open(store)
    edits = Edits(nuclei, tmp_path / "edits.jsonl")
    grown(nuclei, edits, SPOTS)
    with open_slide(file) as slide:
        out = tmp_path / "refined.safetensors"
        told = drain(refine(slide, nuclei, edits, out, steps=16))
        # a dozen steps widen the outlines; the touching ones take longer to come right
        assert told["after"]["dice"] > told["before"]["dice"]
        assert told["better"] == (told["after"]["aji"] > told["before"]["aji"])
        assert ("did not help" in told["verdict"]) != told["better"]
        pixels = slide.read_scaled(800, 800, 0.5, 256, 256)
        new, old = prepare(str(out), slide), prepare("nucleus_net", slide)
        assert new.key != old.key
        # the same field, wider nuclei
        assert (new.segment(pixels).labels > 0).sum() > (old.segment(pixels).labels > 0).sum()
    assert told["windows"] > told["held_out"] >= 1


def test_too_few_or_all_in_one_place_is_said(found, tmp_path):
    file, store = found
    nuclei = Nuclei.open(store)
    edits = Edits(nuclei, tmp_path / "edits.jsonl")
    edits.delete([0])
    with open_slide(file) as slide:
        with pytest.raises(PathotuneError, match="1 outlines were corrected; 4"):
            windows(slide, nuclei, edits)
        for row in nuclei.nearest(*nuclei.xy[1], 4).tolist():
            edits.delete([row])
        seen = windows(slide, nuclei, edits)
    one = [Window(w.pixels, w.labels, w.weight, (0, 0)) for w in seen]
    with pytest.raises(PathotuneError, match="one place"):
        apart(one)


def test_places_are_learnt_from_or_judged():
    empty = np.zeros((4, 4), np.int32)
    made = [Window(empty, empty, empty, (i % 7, 0)) for i in range(30)]
    learnt, judged = apart(made)
    assert len(learnt) + len(judged) == 30
    assert {w.place for w in learnt}.isdisjoint({w.place for w in judged})
    assert len({w.place for w in judged}) == 2


def test_only_what_was_corrected_is_judged():
    labels = np.zeros((4, 8), np.int32)
    labels[:, :2], labels[:, 5:7] = 1, 2
    weight = np.full(labels.shape, 0.3, np.float32)
    weight[:, :4] = 1
    window = Window(labels, labels, weight, (0, 0))
    half = np.where(labels == 1, 1, 0).astype(np.int32)  # the other one was missed
    told = agreement([Found(half, np.ones(1, np.float32))], [window])
    assert told["aji"] == 1


def test_the_command(found, tmp_path, capsys):
    file, store = found
    local = tmp_path / "n.parquet"
    local.write_bytes(store.read_bytes())
    out = tmp_path / "r.safetensors"
    asked = ["refine-nuclei", str(file), str(local), "--steps", "1", "--out", str(out), "--json"]
    assert cli.main(asked) == 2
    assert "No nucleus of n.parquet was corrected" in capsys.readouterr().err
    edits = Edits(Nuclei.open(local))
    grown(edits.nuclei, edits, SPOTS)
    edits.close()
    assert cli.main(asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["before"]) == set(told["after"])
    assert out.exists()
    assert cli.main([*asked[:5], "--out", str(tmp_path / "r.bin"), "--json"]) == 2
    assert "ending in .safetensors" in capsys.readouterr().err
