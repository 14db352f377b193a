"""The Tune dock says how good the model is, and never more than is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from shapely.geometry import box

from pathotune.marks import annotations


def evaluation(**how):
    table = {
        "macro_f1": 0.81,
        "low": 0.72,
        "high": 0.88,
        "why_not": None,
        "per_class": [
            ("Tumour", 0.92, 0.81, 0.97, 3, 800),
            ("Stroma", 0.70, 0.52, 0.90, 3, 900),
        ],
        "confusion": np.array([[90, 10], [30, 70]]),
        "scope": "this slide",
        "n_regions": 6,
    }
    return SimpleNamespace(**(table | how))


@pytest.fixture
def dock(desk, qtbot):
    from napari_pathotune._tune_dock import TuneDock

    made = TuneDock(desk.viewer, desk.session)
    made.resize(320, 640)
    qtbot.addWidget(made)
    made.show()
    made.desk = desk
    return made


def mark_all(desk, n=2):
    for i in range(n):
        for j, name in enumerate(desk.board.class_names()):
            desk.marks.add(
                annotations.Annotation(
                    id=f"{name}{i}",
                    class_name=name,
                    kind="rectangle",
                    geometry=box(200 * i, 200 * j, 200 * i + 80, 200 * j + 80),
                )
            )


def judge(dock, verdict):
    dock.session.loop.head = object()
    dock.session.loop.evaluation = verdict
    dock.session.validation_changed.emit(verdict)


def test_the_score_comes_with_its_worth(dock):
    mark_all(dock.desk)
    judge(dock, evaluation())
    text = dock.verdict.text()
    assert "F1 0.81" in text and "(0.72–0.88)" in text
    assert "6 regions" in text and "this slide only" in text
    assert "another slide is unknown" in dock.worth.text()
    assert "had not seen" in dock.worth.text()
    assert dock.bars.isVisible() and dock.bars.scores[1].low == 0.52
    assert dock.primary.text() == "Save model..."


def test_without_enough_regions_there_is_a_sentence_and_no_number(dock):
    mark_all(dock.desk, n=1)
    judge(dock, evaluation(macro_f1=None, why_not="Tumour has only one region.", per_class=[]))
    assert "0." not in dock.verdict.text() and "only one region" in dock.verdict.text()
    assert not dock.bars.isVisible() and not dock.mixed.isVisible()
    assert dock.primary.text() == "Mark a second Tumour region"
    wanted = []
    dock.session.dock_wanted.connect(wanted.append)
    dock.primary.click()
    assert wanted == ["annotate"]


def test_without_a_model_it_says_what_is_missing(dock):
    dock.session.loop.missing = "Mark at least one Stroma region."
    dock.session.status_changed.emit(None)
    assert dock.verdict.text() == "Mark at least one Stroma region."
    dock.session.loop.head = object()
    dock.session.model_changed.emit()
    assert "has not seen" in dock.verdict.text()


def test_the_matrix_is_in_percent_of_what_was_marked(dock):
    mark_all(dock.desk)
    judge(dock, evaluation())
    matrix = dock.matrix
    assert np.allclose(matrix.percent, [[90, 10], [30, 70]])
    left, cell = matrix._layout()
    y = 2.5 * matrix.row_px
    assert matrix.explain(left + cell / 2, y) == (
        "30 % of what is marked Stroma is taken for Tumour"
    )
    assert matrix.explain(left + 1.5 * cell, y) == "70 % of what is marked Stroma is found"
    assert "Tumour: F1 0.92 (0.81–0.97), 3 regions" in dock.bars.explain(5, 3)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_the_views_are_painted_at_any_number_of_classes(qtbot, n):
    from napari_pathotune._verdict_view import ConfusionMatrix, Score, ScoreBars

    names = [f"A rather long name of class {i}" for i in range(n)]
    bars, matrix = ScoreBars(), ConfusionMatrix()
    bars.show_scores([Score(name, (200, 10, 10), 0.5, 0.2, 0.8, 2) for name in names])
    bars.show_scores([*bars.scores, Score("None", (0, 0, 0), None, 0, 0, 1)])
    matrix.show_matrix(names, np.eye(n) * 10)
    for view in (bars, matrix):
        qtbot.addWidget(view)
        view.resize(280, view.sizeHint().height())
        image = view.grab().toImage()
        colours = {image.pixel(x, y) for x in range(0, 280, 7) for y in range(0, image.height(), 5)}
        assert len(colours) > 3
    assert matrix._layout()[1] >= 15


def test_saving_and_loading_say_what_happened(dock, monkeypatch, tmp_path):
    from napari_pathotune import _model_file
    from pathotune.events import PathotuneError

    def run(lane, start, *, what, where, on_done, on_error=None, on_cancelled=None, **_):
        try:
            on_done(start())
        except PathotuneError as error:
            on_error(error)
        return SimpleNamespace(cancel=on_cancelled)

    monkeypatch.setattr(dock.session, "run", run)
    mark_all(dock.desk)
    judge(dock, evaluation())
    saved = []
    model = SimpleNamespace(save=saved.append)
    monkeypatch.setattr(_model_file, "model_in_use", lambda session: model)
    dock.save(tmp_path / "my model")
    assert "Saved my model.safetensors" in dock.notice.text
    assert saved == [tmp_path / "my model.safetensors"]
    assert "check it before you trust it" in dock.notice.text

    def refuse(path):
        raise PathotuneError("x.safetensors was made for another backbone (UNI).", "Choose UNI.")

    monkeypatch.setattr(_model_file, "load", refuse)
    dock.load(tmp_path / "x.safetensors")
    assert dock.notice.text == "x.safetensors was made for another backbone (UNI). Choose UNI."
    assert dock.session.bundle is None
    bundle = SimpleNamespace(classes=("Fat", "Muscle"))
    monkeypatch.setattr(_model_file, "load", lambda path: bundle)
    dock.load(tmp_path / "x.safetensors")
    assert dock.session.bundle is bundle and not dock.working.isVisible()
    assert "does not follow your marks" in dock.title.text()
    assert "unknown" in dock.worth.text() and not dock.bars.isVisible()
    wanted = []
    dock.session.dock_wanted.connect(wanted.append)
    dock.primary.click()
    assert wanted == ["classify"]
    dock.back_button.click()
    assert dock.session.bundle is None and "F1 0.81" in dock.verdict.text()


def test_without_a_model_there_is_nothing_to_save(dock, tmp_path):
    dock.session.loop.plan = dock.session.loop.classmap = None
    dock.save(tmp_path / "x")
    assert dock.notice.text == "There is no model to save yet. Mark two classes first."


def test_it_fits(dock):
    mark_all(dock.desk)
    judge(dock, evaluation())
    dock.mixed.expand(animate=False)
    assert dock.minimumSizeHint().width() <= 320 and dock.minimumSizeHint().height() <= 640
