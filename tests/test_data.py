"""The shipped data set is what its datasheet says, and its script makes it again."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import os
import re
from collections import Counter
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[1] / "data"
CSV = DATA / "wordnet_topics.csv"
PER_TOPIC = {"train": 240, "validation": 60, "test": 100}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with CSV.open(encoding="ascii", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("build_topics", DATA / "build/wordnet_topics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_split_is_balanced(rows):
    counts = Counter((row["split"], row["topic"]) for row in rows)
    assert len({row["topic"] for row in rows}) == 12
    assert len(rows) == 4800
    assert {(split, n) for (split, _), n in counts.items()} == set(PER_TOPIC.items())


def test_any_beginning_of_a_split_is_balanced(rows):
    first = [row["topic"] for row in rows if row["split"] == "train"][:480]
    assert set(Counter(first).values()) == {40}


def test_no_definition_occurs_twice_within_or_across_splits(rows):
    def normalised(text: str) -> str:
        return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()

    counts = Counter(normalised(row["definition"]) for row in rows)
    assert [text for text, n in counts.items() if n > 1] == []


def test_test_rows_are_not_near_copies_of_training_rows_of_their_topic(rows):
    bags = [
        (r["split"], r["topic"], set(re.findall(r"[a-z0-9]+", r["definition"].lower())))
        for r in rows
    ]
    train: dict[str, list[set[str]]] = {}
    for split, topic, bag in bags:
        if split == "train":
            train.setdefault(topic, []).append(bag)
    closest = max(
        len(bag & other) / len(bag | other)
        for split, topic, bag in bags
        if split == "test"
        for other in train[topic]
    )
    assert closest <= 0.7


def test_the_file_is_clean_text(rows):
    raw = CSV.read_bytes()
    assert raw.isascii() and b"\r" not in raw and b"\t" not in raw and raw.endswith(b"\n")
    for row in rows:
        for field in ("word", "definition"):
            assert row[field] == " ".join(row[field].split()) != ""
        assert 5 <= len(row["definition"].split()) <= 24
        assert '"' not in row["definition"] and "`" not in row["definition"]


def test_no_row_holds_an_unsuitable_word(rows, script):
    found = [row for row in rows if script.UNSUITABLE.search(f"{row['word']} {row['definition']}")]
    assert found == []


@pytest.mark.parametrize(
    ("text", "unsuitable"),
    [
        ("a fatal gunshot wound", True),
        ("(ethnic slur) an offensive term", True),
        ("MURDER of a king", True),
        ("an executive who runs a company", False),  # not "executed"
        ("the warm season", False),  # not "war"
        ("a shoot that grows from a root", False),
    ],
)
def test_the_filter_matches_whole_words_in_any_case(script, text, unsuitable):
    assert bool(script.UNSUITABLE.search(text)) is unsuitable


def test_the_gloss_is_cut_at_its_first_example(script):
    gloss = ' a fruit;  eaten raw; "an apple a day"; "he said `no\'"\n'
    assert script.definition_of(gloss) == "a fruit; eaten raw"
    assert script.definition_of(" the word `if'\n") == "the word 'if'"


def test_the_datasheet_names_these_bytes_and_their_source(script):
    sheet = (DATA / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(CSV.read_bytes()).hexdigest() in sheet
    for fact in (script.DEB_SHA256, script.NOUNS_SHA256, script.PACKAGE, script.VERSION):
        assert fact in sheet


def test_the_notice_carries_the_wordnet_licence_in_full():
    notice = " ".join((DATA / "NOTICE").read_text(encoding="utf-8").split())
    for sentence in (
        "Permission to use, copy, modify and distribute this software and database",
        "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved.",
        'THIS SOFTWARE AND DATABASE IS PROVIDED "AS IS"',
        "may not be used in advertising or publicity",
    ):
        assert sentence in notice


def test_the_script_refuses_a_folder_without_wordnet_and_another_wordnet(script, tmp_path):
    with pytest.raises(SystemExit, match="(?s)does not exist.*apt-get install"):
        script.find_nouns(tmp_path)
    (tmp_path / "data.noun").write_text("another dictionary")
    with pytest.raises(SystemExit, match="is not the file"):
        script.find_nouns(tmp_path)


def test_the_script_writes_the_shipped_file_again(script, tmp_path):
    folder = Path(os.environ.get("PEFTLAB_WORDNET", script.INSTALLED))
    if not (folder / "data.noun").is_file():
        pytest.skip(
            "WordNet is not installed: apt-get install wordnet-base, or PEFTLAB_WORDNET=FOLDER"
        )
    script.main([str(folder), "--out", str(tmp_path / "again.csv")])
    assert (tmp_path / "again.csv").read_bytes() == CSV.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["again.csv"]
