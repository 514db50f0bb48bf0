"""The verse pairs are what their datasheet says, and their script makes them again."""

from __future__ import annotations

import csv
import hashlib
import importlib
import os
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from peftlab.tasks import datasets
from peftlab.tasks.verses import archaic_prompt, verse_pairs

DATA = Path(__file__).resolve().parents[1] / "data"
CSV = DATA / "verse_pairs.csv"
SIZES = {"train": 5000, "validation": 300, "test": 300}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with CSV.open(encoding="ascii", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(DATA / "build"))
    yield importlib.import_module("verse_pairs")
    sys.path.remove(str(DATA / "build"))


def letters(text: str) -> str:
    return re.sub(r"[^a-z]+", " ", text.lower()).strip()


def test_every_split_has_its_size(rows):
    assert Counter(row["split"] for row in rows) == SIZES


def test_held_out_verses_are_of_books_that_training_does_not_have(rows, script):
    books = {split: {row["book"] for row in rows if row["split"] == split} for split in SIZES}
    assert books["train"].isdisjoint(books["validation"] | books["test"])
    assert books["validation"].isdisjoint(books["test"])
    assert books["validation"] <= set(script.HELD_OUT["validation"]) and books["test"] <= set(script.HELD_OUT["test"])


def test_no_verse_occurs_twice_on_either_side(rows):
    for side in ("modern", "archaic"):
        counts = Counter(letters(row[side]) for row in rows)
        assert [text for text, n in counts.items() if n > 1] == []
    assert len({(row["book"], row["chapter"], row["verse"]) for row in rows}) == len(rows)


def test_the_two_sides_are_the_same_verse_and_not_the_same_text(rows):
    for row in rows:
        a, b = set(letters(row["modern"]).split()), set(letters(row["archaic"]).split())
        assert 0.2 <= len(a & b) / len(a | b) <= 0.9, row
        assert row["modern"] != row["archaic"]


def test_the_file_is_clean_text(rows):
    raw = CSV.read_bytes()
    assert raw.isascii() and b"\r" not in raw and b"\t" not in raw and raw.endswith(b"\n")
    for row in rows:
        for side in ("modern", "archaic"):
            assert row[side] == " ".join(row[side].split()) and 5 <= len(row[side].split()) <= 42
            assert not re.search(r"[\[\]\d]|Yahweh", row[side]), row


def test_no_pair_is_unsuitable(rows, script):
    for row in rows:
        assert not script.UNSUITABLE.search(row["modern"]) and not script.UNSUITABLE.search(row["archaic"]), row


@pytest.mark.parametrize(
    ("modern", "archaic", "good"),
    [
        ("You shall keep my words always.", "Thou shalt keep my words alway.", True),
        ("You shall keep my words always.", "And it came to pass in those days.", False),  # another verse
        ("He took a sword and went away.", "He took a sword, and departed away.", False),
        ("The words [of the king] are good.", "The words of a king are good.", False),
        ("Go.", "Go thou.", False),
    ],
)
def test_a_pair_that_is_not_fit_is_refused(script, modern, archaic, good):
    assert script.is_good(script.Pair("Psalms", 1, 1, modern, archaic)) is good


def test_the_modern_translations_name_of_god_becomes_the_other_ones(script):
    assert script._plain("Hear, Yahweh, my plea. Yahweh is good.") == "Hear, LORD, my plea. The LORD is good."


def test_the_script_writes_the_shipped_file_again(script):
    packages = os.environ.get("PEFTLAB_SWORD")
    if not packages:
        pytest.skip("PEFTLAB_SWORD=FOLDER with the two packages that data/build/verses.py names")
    pytest.importorskip("pysword", reason="pip install pysword==0.2.8")
    assert script.build(Path(packages)).encode("ascii") == CSV.read_bytes()


def test_the_datasheet_names_these_bytes_and_their_sources(script):
    sheet = (DATA / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(CSV.read_bytes()).hexdigest() in sheet
    for package, sha256, _ in importlib.import_module("verses").PACKAGES.values():
        assert sha256 in sheet and package.partition("_")[0] in sheet
    assert "verse_pairs.csv" in (DATA / "NOTICE").read_text(encoding="utf-8")


def test_the_task_reads_a_modern_verse_and_wants_the_archaic_one():
    verses = verse_pairs()
    pair, task = verses.test[0], verses.archaic("test")
    assert task.prompts[0] == archaic_prompt(pair.modern) and task.completions[0] == f" {pair.archaic}"
    assert len(task) == 300 and datasets.load("verse_pairs") == verses
