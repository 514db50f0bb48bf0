"""The lessons' metadata: every fault in it is named, and what is made from it is up to date."""

from __future__ import annotations

import pytest

from peftlab.course import lessons
from peftlab.errors import PeftLabError

GOOD = """
[[lessons]]
number = "06"
file = "06_lora"
title = "LoRA"
heart = "cut"
minutes = 60
core_minutes = 45
needs = "PyTorch"
after = []
goals = ["cut"]
"""


def read(tmp_path, text):
    path = tmp_path / "lessons.toml"
    path.write_text(text, encoding="utf-8")
    return lessons.all_lessons(path)


def test_good_metadata_is_read(tmp_path):
    (found,) = read(tmp_path, GOOD)
    assert found.name == "06 · LoRA" and found.kind == "lesson" and found.goals == ("cut",)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('title = "LoRA"\n', "", "lesson 06 .* lacks title"),
        ('title = "LoRA"', 'title = " "', "title must be a text"),
        ("minutes = 60", 'minutes = "60"', "minutes must be a whole number"),
        ("minutes = 60", "minutes = 0", "minutes must be a whole number"),
        ("core_minutes = 45", "core_minutes = 70", "core_minutes is more than minutes"),
        ('number = "06"', 'number = "6"', "two digits or B and a digit"),
        ('file = "06_lora"', 'file = "07_lora"', "file must be the number and a name"),
        ('heart = "cut"', 'heart = "cut"\nhart = 1', "has hart; the fields are"),
        ("after = []", 'after = ["99"]', "builds on 99"),
        ("after = []", 'after = "05"', "after must be a list"),
        ("minutes = 60", "minutes = ", "not valid TOML"),
    ],
)
def test_a_fault_is_named(tmp_path, old, new, says):
    assert old in GOOD
    with pytest.raises(PeftLabError, match=says):
        read(tmp_path, GOOD.replace(old, new))


def test_a_lesson_may_stand_once_only(tmp_path):
    with pytest.raises(PeftLabError, match="06 twice"):
        read(tmp_path, GOOD + GOOD)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(PeftLabError, match="missing from notebooks"):
        lessons.all_lessons(tmp_path / "lessons.toml")


def test_headers_footers_and_tables_are_up_to_date():
    assert lessons.out_of_date() == []


def test_a_stale_header_is_noticed(tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{lessons.TABLE_BEGINS}\nold\n{lessons.TABLE_ENDS}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(lessons, "README", readme)
    assert any("README.md" in line for line in lessons.out_of_date())
    assert lessons.main(["check"]) == 1


def test_the_readme_needs_a_place_for_the_table(tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text("no marks", encoding="utf-8")
    monkeypatch.setattr(lessons, "README", readme)
    with pytest.raises(PeftLabError, match="no place for the lessons"):
        lessons.out_of_date()


def test_every_notebook_has_metadata_and_goals():
    known = {each.file: each for each in lessons.all_lessons()}
    for source in lessons.NOTEBOOKS.glob("*.py"):
        assert source.stem in known, f"{source.name} has no entry in lessons.toml"
        assert 3 <= len(known[source.stem].goals) <= 5


def test_an_outgrown_lesson_is_listed(monkeypatch):
    (one,) = [each for each in lessons.all_lessons() if each.number == "06"]
    monkeypatch.setattr(lessons, "build_record", lambda: {one.file: {"seconds": 500, "code_cells": 3}})
    assert lessons.outgrown(one) == ["seconds 500 (aim 90)"]
