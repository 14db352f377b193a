"""The Annotate dock leads: what to do next is always said, and nothing is lost on the way."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from shapely.geometry import Point, box

from pathotune.events import PathotuneError
from pathotune.marks import annotations


def mark(id_, class_name="Tumour", x=0):
    return annotations.Annotation(
        id=id_, class_name=class_name, kind="rectangle", geometry=box(x, 100, x + 80, 200)
    )


@pytest.fixture
def dock(desk, qtbot):
    from napari_pathotune._annotate_dock import AnnotateDock

    made = AnnotateDock(desk.viewer, desk.session)
    made.resize(320, 640)
    qtbot.addWidget(made)
    made.show()
    made.desk = desk
    return made


def steps(has_slide=True, has_mpp=True, classes=("Tumour", "Fat"), **how):
    from napari_pathotune._next_step import next_step

    counts = how.pop("counts", {})
    return next_step(
        has_slide=has_slide, has_mpp=has_mpp, classes=list(classes), counts=counts, **how
    )


def test_the_next_step_follows_the_work():
    assert steps(has_slide=False).action == "open"
    assert steps(has_mpp=False).action == "mpp"
    assert steps(classes=()).text == "What do you want to tell apart? Add two classes."
    assert steps(classes=("Fat",)).button == "Add a second class"
    assert steps().button == "Mark Tumour"
    assert steps(counts={"Tumour": 1}).text == "Mark at least one Fat region."
    assert steps(counts={"Tumour": 1, "Fat": 1}, unclassified=1).action == "give_class"
    second = steps(counts={"Tumour": 2, "Fat": 1})
    assert second.button == "Mark a second Fat region" and not second.enough
    assert steps(counts={"Tumour": 2, "Fat": 2}).enough
    many = steps(classes=[f"Class {i}" for i in range(12)])
    assert len(many.text) < 90


def test_from_nothing_to_a_region_with_the_button_alone(dock):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QLineEdit

    desk = dock.desk
    desk.session.take(annotations.AnnotationSet())
    assert "tell apart" in dock.hint.text()
    assert not dock.tools.buttons["brush"].isEnabled()
    assert "tell apart" in dock.tools.buttons["brush"].toolTip()
    for name in ("Tumour", "Fat"):
        dock.primary.click()
        editor = dock.classes.findChild(QLineEdit)
        editor.setText(name)
        QTest.keyClick(editor, Qt.Key.Key_Return)
        desk.settle()
    assert desk.board.class_names() == ["Tumour", "Fat"]
    assert dock.primary.text() == "Mark Tumour"
    dock.primary.click()
    assert desk.pen.tool == "brush" and desk.board.active_class == "Tumour"
    assert dock.tools.buttons["brush"].isChecked()
    desk.drag((300, 300), (400, 320), (500, 300))
    assert dock.primary.text() == "Mark Fat"
    assert dock.hint.text() == "Mark at least one Fat region."
    dock.primary.click()
    assert desk.board.active_class == "Fat"
    desk.drag((300, 700), (400, 720), (500, 700))
    assert [a.class_name for a in desk.marks.items] == ["Tumour", "Fat"]
    assert dock.primary.text() == "Mark a second Tumour region"


def test_the_list_shows_the_set_and_edits_it(dock):
    desk, marks = dock.desk, dock.session.annotations
    marks.add(mark("a"))
    rows = [
        [dock.classes.topLevelItem(r).text(c) for c in range(3)]
        for r in range(dock.classes.topLevelItemCount())
    ]
    assert rows == [["1", "Tumour", "1 region"], ["2", "Stroma", "0 regions"]]
    dock.classes.setCurrentItem(dock.classes.topLevelItem(1))
    assert desk.board.active_class == "Stroma"
    desk.board.choose_class("Tumour")
    assert dock.classes.currentItem().text(1) == "Tumour"
    dock.classes.topLevelItem(0).setText(1, "Cancer")
    assert marks.get("a").class_name == "Cancer" and desk.board.active_class == "Cancer"
    menu = dock.classes.menu_for("Cancer")
    colours = next(a.menu() for a in menu.actions() if a.menu())
    colours.actions()[3].trigger()
    assert tuple(marks.classes[0].colour) == tuple(dock.classes._okabe_ito[3])
    dock.classes.deleted.emit("Cancer")
    assert marks.get("a").class_name is None
    assert "Its region has no class now" in dock.notice.text
    dock.notice._made[0].click()
    assert marks.get("a").class_name == "Cancer" and not dock.notice.text


def test_a_name_that_is_taken_or_empty_is_refused_kindly(dock):
    item = dock.classes.topLevelItem(0)
    item.setText(1, "  ")
    assert dock.desk.board.class_names() == ["Tumour", "Stroma"] and item.text(1) == "Tumour"
    item.setText(1, "Stroma")
    names = dock.desk.board.class_names()
    assert len(names) == len(set(names)) and item.text(1) == names[0]


def test_undo_redo_and_saved_say_how_it_stands(dock):
    desk = dock.desk
    at = time.mktime((2026, 11, 21, 12, 4, 31, 0, 0, -1))
    desk.session.journal = SimpleNamespace(saved_at=at, problem=None)
    assert not dock.redo_button.isEnabled()
    desk.marks.add(mark("a"))
    assert dock.undo_button.isEnabled()
    assert dock.saved.text() == "saved 12:04:31"
    dock.undo_button.click()
    assert not desk.marks.items and dock.redo_button.isEnabled()
    dock.redo_button.click()
    assert desk.marks.items
    full = PathotuneError("Your marks cannot be saved just now (disk full).", "Free some space.")
    desk.session.journal.problem = full
    desk.marks.undo()
    assert dock.saved.text() == "not saved" and "Free some space" in dock.notice.text
    desk.session.journal.problem = None
    desk.marks.redo()
    assert dock.saved.text() == "saved 12:04:31" and not dock.notice.text


def test_errors_of_this_dock_are_shown_in_it(dock):
    failed = dock.session.failed
    failed.emit(SimpleNamespace(where="slide", message="not mine", hint=""))
    assert not dock.notice.text
    failed.emit(SimpleNamespace(where="annotate", message="The disk is full.", hint="Free some."))
    assert dock.notice.text == "The disk is full. Free some." and dock.notice.isVisible()
    dock.notice._cross.click()
    assert not dock.notice.isVisible()


def test_what_came_back_after_a_crash_is_offered(dock):
    dock.desk.marks.add(mark("a"))
    dock.session.recovered = 1
    dock.session.slide_changed.emit(dock.session.slide)
    assert "1 region you marked" in dock.notice.text
    keep, afresh = dock.notice._made
    keep.click()
    assert dock.desk.marks.items and not dock.notice.text
    dock.session.slide_changed.emit(dock.session.slide)
    dock.notice._made[1].click()
    assert not dock.desk.marks.items and afresh is not None
    dock.notice._made[0].click()  # Undo
    assert dock.desk.marks.items


def test_regions_without_a_class_are_selected_for_a_digit(dock):
    desk = dock.desk
    for i, name in enumerate(["Tumour", "Tumour", "Stroma", "Stroma", None]):
        desk.marks.add(mark(str(i), name, x=120 * i))
    assert dock.primary.text() == "Select it"
    dock.primary.click()
    assert desk.board.selected() == ["4"]
    desk.key("1")
    assert desk.marks.get("4").class_name == "Tumour"
    assert "follows every stroke" in dock.hint.text()


def test_without_a_slide_or_its_scale_the_way_leads_to_the_slide_dock(dock):
    wanted = []
    dock.session.dock_wanted.connect(wanted.append)
    dock.session.slide = None
    dock.session.slide_changed.emit(None)
    assert dock.primary.text() == "Open a slide" and not dock.add_button.isEnabled()
    dock.primary.click()
    scale = {"mpp": None, "mpp_x": None, "mpp_y": None}
    dock.session.slide = SimpleNamespace(**scale, name="x", fingerprint="x")
    dock.session.slide_changed.emit(dock.session.slide)
    assert "µm/px" in dock.hint.text()
    dock.primary.click()
    assert wanted == ["slide", "slide"]


def test_a_loaded_model_does_not_follow_and_the_dock_says_so(dock):
    dock.session.use_bundle(object())
    assert "does not learn from your marks" in dock.hint.text()
    dock.primary.click()
    assert dock.session.bundle is None and dock.primary.text() == "Mark Tumour"


def test_the_sheet_of_keys_comes_with_a_question_mark(dock):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    QApplication.setActiveWindow(dock)  # no window manager does it here
    QTest.keyClick(dock, Qt.Key.Key_F1)
    assert dock._sheet is not None and dock._sheet.isVisible()
    QApplication.setActiveWindow(dock)
    QTest.keyClick(dock, Qt.Key.Key_Question)
    assert not dock._sheet.isVisible()


def test_it_fits_and_every_tool_can_be_read(dock):
    assert dock.minimumSizeHint().width() <= 320 and dock.minimumSizeHint().height() <= 640
    for button in dock.tools.buttons.values():
        needed = button.fontMetrics().horizontalAdvance(button.text())
        assert button.width() >= needed, button.text()
        assert button.toolTip()


def test_two_hundred_regions_cost_no_frame(dock):
    desk = dock.desk
    marks = annotations.AnnotationSet()
    marks.add_class("Tumour")
    marks.add_class("Stroma")
    for i in range(200):
        marks.add(
            annotations.Annotation(
                id=str(i),
                class_name=("Tumour", "Stroma")[i % 2],
                kind="polygon",
                geometry=Point(60 * (i % 20) + 50, 60 * (i // 20) + 50).buffer(25, quad_segs=6),
                width=0,
            )
        )
    desk.session.take(marks)
    desk.settle()
    spent = []
    for i in range(5):
        began = time.perf_counter()
        marks.add(mark(f"new{i}", x=60 * i))
        spent.append(time.perf_counter() - began)
        began = time.perf_counter()
        marks.undo()
        spent.append(time.perf_counter() - began)
    assert sorted(spent)[len(spent) // 2] < 0.05, spent


def test_closing_lets_go(desk, qtbot):
    from napari_pathotune._annotate_dock import AnnotateDock

    before = len(desk.session.annotations_changed)
    dock = AnnotateDock(desk.viewer, desk.session)
    assert len(desk.session.annotations_changed) > before
    dock.deleteLater()
    qtbot.wait(20)
    assert len(desk.session.annotations_changed) == before
    desk.marks.add(mark("a"))
