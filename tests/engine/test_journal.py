"""Journals under strain: large imports, long histories, damaged lines, full disks."""

from __future__ import annotations

import errno
import json
import time
from typing import TYPE_CHECKING

import numpy as np
from shapely.geometry import box

from pathotune.marks import journal as journals
from pathotune.marks.annotations import Annotation, AnnotationSet, new_id
from pathotune.marks.journal import LONG, Journal, journal_for, replay

if TYPE_CHECKING:
    from pathotune.events import PathotuneError


def mark(i: int, class_name: str = "Tumour") -> Annotation:
    return Annotation(str(i), class_name, "polygon", box(i, 0, i + 1, 1))


def test_the_first_line_names_the_slide_and_the_format():
    path = journal_for("abc123")
    journal = Journal(path)
    journal.attach(AnnotationSet())
    journal.close()
    first = json.loads(path.read_text().splitlines()[0])
    assert first == {"pathotune-journal": journals.FORMAT, "slide": "abc123"}


def test_a_large_import_keeps_nobody_waiting_and_is_all_there():
    path = journal_for("large")
    marks = AnnotationSet()
    journal = Journal(path)
    journal.attach(marks)
    begin = time.perf_counter()
    marks.add(*(mark(i) for i in range(3000)))
    marks.add(mark(3000, "Fat"))
    marks.remove(["5"])
    assert time.perf_counter() - begin < 3
    marks.undo()
    journal.close()
    assert [a.id for a in replay(path).items] == [a.id for a in marks.items]


def test_edits_are_written_in_a_few_ms():
    marks = AnnotationSet()
    journal = Journal(journal_for("quick"))
    journal.attach(marks)
    took = []
    for i in range(300):
        begin = time.perf_counter()
        marks.add(mark(i))
        took.append(time.perf_counter() - begin)
    journal.close()
    assert np.median(took) < 0.005


def test_a_set_read_from_the_journal_goes_on_without_writing_it_again():
    path = journal_for("again")
    marks = AnnotationSet()
    journal = Journal(path)
    journal.attach(marks)
    marks.add(mark(1))
    journal.close()
    before = path.read_bytes()
    back = replay(path)
    journal = Journal(path)
    journal.attach(back)
    assert path.read_bytes() == before
    back.add(mark(2))
    journal.close()
    assert path.read_bytes().startswith(before)
    assert len(replay(path)) == 2


def test_a_long_history_is_replaced_by_what_it_led_to():
    path = journal_for("long")
    marks = AnnotationSet()
    journal = Journal(path)
    journal.attach(marks)
    marks.add(mark(1))
    for i in range(LONG):
        marks.recolour_class("Tumour", (i % 256, 0, 0))
    journal.close()
    back = replay(path)
    journal = Journal(path)
    journal.attach(back)
    journal.close()
    assert len(path.read_bytes().splitlines()) < 5
    assert replay(path).classes == marks.classes and replay(path).items[0].id == "1"


def test_edits_after_a_line_that_makes_no_sense_are_not_lost():
    path = journal_for("odd")
    marks = AnnotationSet()
    journal = Journal(path)
    journal.attach(marks)
    marks.add(mark(1))
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"do": "add", "put": [[0, {"type": "Feature"}]]}\n')
    back = replay(path)
    journal = Journal(path)
    journal.attach(back)
    back.add(mark(2))
    journal.close()
    assert [a.id for a in replay(path).items] == ["1", "2"]
    assert list(path.parent.glob("odd.damaged-*"))


def test_another_set_does_not_wipe_out_what_was_there():
    path = journal_for("other")
    marks = AnnotationSet()
    journal = Journal(path)
    journal.attach(marks)
    marks.add(mark(1))
    journal.close()
    journal = Journal(path)
    journal.attach(AnnotationSet())
    journal.close()
    (aside,) = path.parent.glob("other.earlier-*")
    assert b'"1"' in aside.read_bytes()


def test_what_a_killed_second_window_drew_is_offered_with_the_rest():
    path = journal_for("two")
    first, second = Journal(path), Journal(path)
    one, two = AnnotationSet(), AnnotationSet()
    first.attach(one)
    second.attach(two)
    two.add(mark(7))
    assert len(replay(path)) == 0  # while it is open its marks are its own
    second.close()
    third = Journal(path)
    marks = replay(path)
    third.attach(marks)  # takes the free name, and has its marks
    assert [a.id for a in marks.items] == ["7"] and third.path == second.path
    first.close()
    third.close()
    assert [a.id for a in replay(path).items] == ["7"]


def test_a_disk_full_at_the_start_is_made_good_later(monkeypatch):
    path = journal_for("full")
    told: list[PathotuneError] = []

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    marks = AnnotationSet()
    marks.add(mark(1))
    journal = Journal(path, told.append)
    monkeypatch.setattr("pathotune.marks.geojson.os.fsync", full)
    journal.attach(marks)
    marks.add(mark(2))
    assert told and "full" in told[0].message and len(marks) == 2
    assert not path.exists()
    monkeypatch.undo()
    path = journal.path
    marks.add(mark(3))
    assert [a.id for a in replay(path).items] == ["1", "2", "3"] and journal.problem is None
    journal.close()


def test_ids_that_are_taken_give_way():
    marks = AnnotationSet()
    marks.add(mark(1))
    marks.add(mark(1), mark(1))
    assert len(marks) == 3 and marks.items[0].id == "1"
    marks.undo()
    assert [a.id for a in marks.items] == ["1"]


def test_colours_of_any_number_type_are_kept_as_plain_numbers():
    path = journal_for("numbers")
    marks = AnnotationSet()
    journal = Journal(path)
    journal.attach(marks)
    marks.add_class("a", np.array([1, 2, 300]))
    marks.recolour_class("a", np.array([4, 5, 6], np.uint8))
    marks.replace()
    journal.close()
    assert replay(path).classes[0].colour == (4, 5, 6)
    assert new_id() != new_id()


def test_undo_and_redo_go_on_after_a_restart():
    path = journal_for("undo")
    marks = AnnotationSet()
    journal = Journal(path)
    journal.attach(marks)
    marks.add_class("Fat")
    marks.add(mark(0), mark(1), mark(2))
    marks.add(*(mark(i, "Fat") for i in range(3, 253)))  # three lines, one edit
    marks.remove(["1"])
    marks.reclass(["0"], "Fat")
    marks.undo()
    journal.close()

    back = replay(path)
    states = [[(a.id, a.class_name) for a in marks.items]]
    assert [(a.id, a.class_name) for a in back.items] == states[0]
    assert back.can_redo and back.undo_text == "remove"
    for step in ("redo", "undo", "undo", "undo", "undo"):
        getattr(marks, step)()
        getattr(back, step)()
        assert [(a.id, a.class_name) for a in back.items] == [
            (a.id, a.class_name) for a in marks.items
        ]
        assert [c.name for c in back.classes] == [c.name for c in marks.classes]
    back.undo()
    assert not back.can_undo and not back.classes
    assert path.exists()


def test_what_is_undone_after_a_restart_is_on_the_disk():
    path = journal_for("again")
    marks = AnnotationSet()
    journal = Journal(path)
    journal.attach(marks)
    marks.add(mark(0))
    marks.add(mark(1))
    journal.close()
    back = replay(path)
    journal = Journal(path)
    journal.attach(back)
    back.undo()
    journal.close()
    last = replay(path)
    assert [a.id for a in last.items] == ["0"] and last.can_redo
    last.redo()
    assert [a.id for a in last.items] == ["0", "1"]
