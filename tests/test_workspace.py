"""Handing out lessons: a learner's work is never written over, and new versions still arrive."""

from __future__ import annotations

import json

import pytest

from peftlab.course import workspace
from peftlab.course.workspace import hand_out
from peftlab.errors import PeftLabError


@pytest.fixture
def folders(tmp_path):
    lessons = tmp_path / "notebooks"
    lessons.mkdir()
    (lessons / "06_lora.ipynb").write_text("version 1")
    return lessons, tmp_path / "work"


def contents(work) -> dict[str, str]:
    return {path.name: path.read_text() for path in work.glob("*.ipynb")}


def summary(handed_out) -> list[tuple[str, str]]:
    return [(item.written.name, item.how) for item in handed_out]


def test_the_first_time_every_lesson_is_copied_and_then_nothing_is(folders):
    lessons, work = folders
    assert summary(hand_out(lessons, work)) == [("06_lora.ipynb", "new")]
    assert contents(work) == {"06_lora.ipynb": "version 1"}
    assert hand_out(lessons, work) == []


def test_an_unchanged_copy_follows_the_lesson(folders):
    lessons, work = folders
    hand_out(lessons, work)
    (lessons / "06_lora.ipynb").write_text("version 2")
    assert summary(hand_out(lessons, work)) == [("06_lora.ipynb", "refreshed")]
    assert contents(work) == {"06_lora.ipynb": "version 2"}


def test_a_changed_copy_is_left_alone(folders):
    lessons, work = folders
    hand_out(lessons, work)
    (work / "06_lora.ipynb").write_text("my work")
    assert hand_out(lessons, work) == []
    assert contents(work) == {"06_lora.ipynb": "my work"}


def test_a_new_version_is_placed_beside_a_changed_copy_once(folders):
    lessons, work = folders
    hand_out(lessons, work)
    (work / "06_lora.ipynb").write_text("my work")
    (lessons / "06_lora.ipynb").write_text("version 2")
    assert summary(hand_out(lessons, work)) == [("06_lora.new.ipynb", "beside")]
    assert contents(work) == {"06_lora.ipynb": "my work", "06_lora.new.ipynb": "version 2"}
    assert hand_out(lessons, work) == []

    (work / "06_lora.new.ipynb").unlink()  # seen, not wanted
    assert hand_out(lessons, work) == []


def test_a_changed_file_beside_is_the_learners_too(folders):
    lessons, work = folders
    hand_out(lessons, work)
    (work / "06_lora.ipynb").write_text("my work")
    (lessons / "06_lora.ipynb").write_text("version 2")
    hand_out(lessons, work)
    (work / "06_lora.new.ipynb").write_text("more work")
    assert hand_out(lessons, work) == []
    (lessons / "06_lora.ipynb").write_text("version 3")
    assert summary(hand_out(lessons, work)) == [("06_lora.new2.ipynb", "beside")]
    assert contents(work)["06_lora.new.ipynb"] == "more work"


def test_taking_over_the_new_version_ends_the_matter(folders):
    lessons, work = folders
    hand_out(lessons, work)
    (work / "06_lora.ipynb").write_text("my work")
    (lessons / "06_lora.ipynb").write_text("version 2")
    hand_out(lessons, work)
    (work / "06_lora.new.ipynb").replace(work / "06_lora.ipynb")
    (lessons / "06_lora.ipynb").write_text("version 3")
    assert summary(hand_out(lessons, work)) == [("06_lora.ipynb", "refreshed")]


def test_a_deleted_copy_comes_back(folders):
    lessons, work = folders
    hand_out(lessons, work)
    (work / "06_lora.ipynb").unlink()
    assert summary(hand_out(lessons, work)) == [("06_lora.ipynb", "new")]


@pytest.mark.parametrize("ledger", [None, "", "[1]", "{broken"])
def test_without_the_ledger_every_differing_copy_is_kept(folders, ledger):
    lessons, work = folders
    hand_out(lessons, work)
    (work / workspace.LEDGER).unlink()
    if ledger is not None:
        (work / workspace.LEDGER).write_text(ledger)
    (lessons / "06_lora.ipynb").write_text("version 2")
    assert summary(hand_out(lessons, work)) == [("06_lora.new.ipynb", "beside")]
    assert contents(work)["06_lora.ipynb"] == "version 1"


def test_a_course_without_lessons_is_explained(tmp_path):
    with pytest.raises(PeftLabError, match="no lessons"):
        hand_out(tmp_path / "notebooks", tmp_path / "work")


@pytest.mark.parametrize(
    ("names", "opened"),
    [
        (["00_start_here", "06_lora"], "00_start_here"),
        (["01_scaling", "06_lora"], "06_lora"),
        (["B1_block", "07_lora_at_work"], "07_lora_at_work"),
    ],
)
def test_the_lesson_to_open(folders, names, opened):
    lessons, work = folders
    (lessons / "06_lora.ipynb").unlink()
    for name in names:
        (lessons / f"{name}.ipynb").write_text(name)
    hand_out(lessons, work)
    assert workspace.first_lesson(work, lessons) == f"{opened}.ipynb"


def test_a_learner_gets_lessons_without_their_outputs(folders):
    lessons, work = folders
    cell = {"cell_type": "code", "source": "6 * 7", "outputs": [{"text": "42"}], "execution_count": 3}
    (lessons / "06_lora.ipynb").write_text(json.dumps({"cells": [cell]}))
    hand_out(lessons, work)
    handed_out = json.loads((work / "06_lora.ipynb").read_text())
    assert handed_out["cells"] == [{**cell, "outputs": [], "execution_count": None}]
