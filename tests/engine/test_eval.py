"""A finished model on marks: what it has seen is known again, figures come with intervals."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import shapely
from PIL import Image

from pathotune import cli, drain
from pathotune.events import Note, PathotuneError
from pathotune.learn.agreement import Sample, agreement
from pathotune.learn.check import check
from pathotune.learn.seen import Seen, places, written
from pathotune.learn.settings import Training
from pathotune.learn.train import train
from pathotune.marks.annotations import Annotation, AnnotationSet, new_id
from pathotune.marks.geojson import write_geojson
from pathotune.marks.overlaps import overlaps
from pathotune.slides.slide import open_slide


def mark(name: str, x: float, y: float, side: float = 60.0, id_: str = "") -> Annotation:
    shape = shapely.box(x, y, x + side, y + side)
    return Annotation(id_ or new_id(), name, "rectangle", shape)


def marked(*items: Annotation) -> AnnotationSet:
    found = AnnotationSet()
    found.add(*items)
    return found


def some(y: float = 30) -> list[Annotation]:
    return [mark(n, x + 80 * i, y) for n, x in (("Specks", 30), ("Red", 330)) for i in range(3)]


def told(command: list[str], capsys) -> tuple[int, dict, str]:
    code = cli.main([*command, "--json", "--device", "cpu"])
    out = capsys.readouterr()
    return code, json.loads(out.out) if code == 0 else {}, out.err


def test_a_model_is_judged_on_what_it_has_not_seen(card, two_textures, tmp_path, capsys):
    path = two_textures(3)
    learnt, fresh = some(), some(250)
    bundle = tmp_path / "b.safetensors"
    with open_slide(path) as slide:
        drain(train([(slide, marked(*learnt))], card=card, device="cpu")).save(bundle)
    # the same regions under other ids and a little edited, together with new ones
    moved = [mark(a.class_name, a.geometry.bounds[0] + 3, 31) for a in learnt[1:]]
    both = marked(*moved, *fresh, mark("Fat", 250, 350, 30))
    write_geojson(tmp_path / "both.geojson", both)
    words = ["eval", str(path), "--bundle", str(bundle), "--annotations"]
    code, found, said = told([*words, str(tmp_path / "both.geojson")], capsys)
    assert code == 0
    assert found["n_regions"] == 6 and len(found["left_out"]) == 5
    assert "learnt from: left out" in said and "other regions of the same slide" in said
    assert found["unknown_classes"] == ["Fat"] and "Fat" in said
    assert found["macro_f1"] > 0.9 and found["low"] <= found["macro_f1"] <= found["high"]
    assert {c["class"] for c in found["per_class"]} == {"Specks", "Red"}
    assert np.sum(found["confusion"]["tokens"]) == sum(c["tokens"] for c in found["per_class"])
    assert 0 <= found["calibration_low"] <= found["calibration_error"] <= found["calibration_high"]
    assert found["drawn"] == "regions"
    write_geojson(tmp_path / "old.geojson", marked(*moved))
    code, _, said = told([*words, str(tmp_path / "old.geojson")], capsys)
    assert code == 2 and "how well it remembers" in said
    assert cli.main([*words, str(tmp_path / "both.geojson"), "--device", "cpu"]) == 0
    assert "Macro-F1" in capsys.readouterr().out


def test_another_slide_is_new_and_missing_classes_are_said(card, two_textures, tmp_path, capsys):
    learnt = some()
    with open_slide(two_textures(3)) as slide:
        plan = Training(epochs=2, repeats=0, views=1)
        made = train([(slide, marked(*learnt))], card=card, method="head", device="cpu", plan=plan)
        bundle = drain(made)
    events = []
    with open_slide(two_textures(4)) as other:
        found = drain(check([(other, marked(*learnt[:3]))], bundle, device="cpu"), events.append)
        assert found.absent == ("Red",) and not found.left_out
        assert found.figures["n_regions"] == 3
        assert any(isinstance(e, Note) and "Red" in e.text for e in events)
        one = drain(check([(other, marked(learnt[0]))], bundle, device="cpu"))
        assert one.figures["low"] is None and one.figures["drawn"] is None
        with pytest.raises(PathotuneError, match="Fat"):
            drain(check([(other, marked(mark("Fat", 9, 9)))], bundle, device="cpu"))
        silent = dataclasses.replace(bundle, meta={**bundle.meta, "regions": []})
        unknown = drain(check([(other, marked(*learnt))], silent, device="cpu"), events.append)
        assert found.new and not unknown.new and "not known" in unknown.scope
        assert any(isinstance(e, Note) and "does not say which" in e.text for e in events)


def test_tiles_are_known_again_by_their_content(card, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for folder, n in (("train", 3), ("both", 2)):
        for name, top in (("dark", 90), ("light", 250)):
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(top - 80, top, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{i}.png")
    shutil.copy(tmp_path / "train" / "dark" / "0.png", tmp_path / "both" / "dark" / "copy.png")
    bundle = str(tmp_path / "b.safetensors")
    words = ["train", "--tiles", str(tmp_path / "train"), "--model", card.id, "--mpp", "0.5"]
    assert told([*words, "--out", bundle], capsys)[0] == 0
    words = ["eval", "--bundle", bundle, "--mpp", "0.5", "--tiles"]
    code, found, _ = told([*words, str(tmp_path / "both")], capsys)
    assert code == 0 and found["drawn"] == "tiles" and found["n_regions"] == 4
    assert found["left_out"] == [{"class": "dark", "region": "dark/copy.png"}]
    assert found["known_to_be_new"]
    assert told([*words, str(tmp_path / "train")], capsys)[0] == 2
    assert told(["eval", "--bundle", bundle], capsys)[0] == 2


def test_the_figures_are_those_worked_out_by_hand():
    sure = np.array([[0.9, 0.1], [0.9, 0.1]], np.float32)
    samples = [
        Sample(0, sure, 10, "a"),  # all right, 0.9 sure
        Sample(0, sure[:, ::-1], 10, "b"),  # all wrong, 0.9 sure
        Sample(1, np.array([[0.4, 0.6]], np.float32), 20, "a"),  # all right, 0.6 sure
        Sample(1, np.array([[0.4, 0.6]], np.float32), 20, "b"),
    ]
    found = agreement(samples, ("A", "B", "C"))
    assert found["confusion"]["tokens"] == [[10, 10, 0], [0, 40, 0]]
    f1 = {c["class"]: c["f1"] for c in found["per_class"]}
    assert f1 == pytest.approx({"A": 2 / 3, "B": 80 / 90})
    assert found["macro_f1"] == pytest.approx((2 / 3 + 80 / 90) / 2)
    # |0.9 - 0.5| on 20 tokens and |0.6 - 1| on 40
    assert found["calibration_error"] == pytest.approx((20 * 0.4 + 40 * 0.4) / 60)
    first = found["per_class"][0]
    assert first["low"] == 0.0 and first["high"] == 1.0  # both regions drawn from one of them
    assert found["confusion"]["share"][1] == [0.0, 1.0, 0.0]
    many = [dataclasses.replace(s, slide=str(i % 6)) for i, s in enumerate(samples * 6)]
    assert agreement(many, ("A", "B"))["drawn"] == "slides"


def test_places_are_nothing_without_the_slide():
    region = mark("A", 1000, 2000, 500)
    kept = [{"places": written(places(region, 16), "one slide")}]
    assert Seen(kept).region(mark("B", 900, 1900, 700), "one slide")
    assert not Seen(kept).region(mark("A", 1600, 2000), "one slide")  # beside it
    assert not Seen(kept).region(region, "another slide")
    assert not Seen([]).knows_regions and Seen(kept).knows_regions and not Seen(kept).knows_files


def test_regions_that_overlap_are_asked_about_and_answers_are_kept(
    card, two_textures, tmp_path, capsys
):
    path = two_textures(3)
    items = [*some(), mark("Red", 50, 50, 60), mark("Red", 60, 32, 3)]
    write_geojson(tmp_path / "m.geojson", marked(*items))
    words = ["train", str(path), "--annotations", str(tmp_path / "m.geojson"), "--model", card.id]
    words += ["--out", str(tmp_path / "b.safetensors")]
    code, _, said = told(words, capsys)
    assert code == 2 and "Specks at x=60, y=60 and Red at x=80, y=80" in said
    assert "leave-out" in said and said.count(" and Red") == 2
    for answer in ("leave-out", "smaller", "last", "first"):
        assert told([*words, "--overlap", answer], capsys)[0] == 0
    tuned = [*words, "--method", "head", "--set", "epochs=1"]
    code, _, said = told(tuned, capsys)
    assert code == 2 and "overlap" in said


def test_what_counts_where_regions_overlap():
    from pathotune.marks.labels import label_tokens

    outer, inner = mark("Out", 0, 0, 100), mark("In", 40, 40, 20)
    first, later = [inner, outer], [outer, inner]
    point = Annotation(new_id(), "In", "point", shapely.Point(10, 10))
    seam = mark("In", 98, 0, 100)  # two pixels: neighbours, not an overlap
    assert [(o.first, o.second) for o in overlaps([*later, point, seam])] == [
        (outer, inner),
        (outer, point),
    ]
    assert not overlaps([outer, mark("Out", 50, 50)]) and not overlaps([outer])

    def inside(items, answer):
        found = label_tokens(items, 0, 0, 10.0, 10, 10, ["In", "Out"], overlap=answer)
        where = dict(
            zip(
                zip(found.rows.tolist(), found.cols.tolist(), strict=True),
                found.class_index.tolist(),
                strict=True,
            )
        )
        return len(where), where.get((4, 4))

    assert inside(later, "last") == inside(first, "smaller") == inside(later, "smaller") == (100, 0)
    assert inside(first, "last") == inside(later, "first") == (100, 1)
    assert inside(later, "leave-out") == inside(first, "leave-out") == (96, None)
    alike = [outer, mark("Out", 40, 40, 20)]
    assert inside(alike, "leave-out") == (100, 1)  # the same class: nothing to ask
