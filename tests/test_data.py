"""The shipped data sets are what their datasheets say, and their scripts make them again."""

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

DATA = Path(__file__).resolve().parents[1] / "data"
CSV = DATA / "wordnet_topics.csv"
DEFINE_CSV = DATA / "define_word.csv"
PER_TOPIC = {"train": 240, "validation": 60, "test": 100}
DEFINE_SPLITS = {"train": 6000, "validation": 300, "test": 300}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="ascii", newline="") as file:
        return list(csv.DictReader(file))


def normalised(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def words_of(row: dict[str, str]) -> set[str]:
    return set(normalised(row["definition"]).split())


def closest(some: list[dict[str, str]], others: list[dict[str, str]]) -> float:
    """The largest share of words (Jaccard) that a definition of `some` has in common with one of `others`."""
    bags = [words_of(other) for other in others]
    return max(len(bag & b) / len(bag | b) for bag in map(words_of, some) for b in bags)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return read(CSV)


@pytest.fixture(scope="module")
def entries() -> list[dict[str, str]]:
    return read(DEFINE_CSV)


@pytest.fixture(scope="module")
def build():
    """A module of data/build by its name. They import one another, as a script run from there would."""
    sys.path.insert(0, str(DATA / "build"))
    yield importlib.import_module
    sys.path.remove(str(DATA / "build"))


@pytest.fixture(scope="module")
def script(build):
    return build("wordnet_topics")


@pytest.fixture(scope="module")
def define_script(build):
    return build("define_word")


@pytest.fixture
def wordnet_folder(build) -> Path:
    folder = Path(os.environ.get("PEFTLAB_WORDNET", build("wordnet").INSTALLED))
    if not (folder / "data.noun").is_file():
        pytest.skip("WordNet is not installed: apt-get install wordnet-base, or PEFTLAB_WORDNET=FOLDER")
    return folder


# ---------------------------------------------------------------------------------- wordnet_topics


def test_every_split_is_balanced(rows):
    counts = Counter((row["split"], row["topic"]) for row in rows)
    assert len({row["topic"] for row in rows}) == 12
    assert len(rows) == 4800
    assert {(split, n) for (split, _), n in counts.items()} == set(PER_TOPIC.items())


def test_any_beginning_of_a_split_is_balanced(rows):
    first = [row["topic"] for row in rows if row["split"] == "train"][:480]
    assert set(Counter(first).values()) == {40}


def test_no_definition_occurs_twice_within_or_across_splits(rows):
    counts = Counter(normalised(row["definition"]) for row in rows)
    assert [text for text, n in counts.items() if n > 1] == []


def test_test_rows_are_not_near_copies_of_training_rows_of_their_topic(rows):
    for topic in {row["topic"] for row in rows}:
        of_topic = [row for row in rows if row["topic"] == topic]
        train, test = ([row for row in of_topic if row["split"] == split] for split in ("train", "test"))
        assert closest(test, train) <= 0.7


def test_the_file_is_clean_text(rows):
    raw = CSV.read_bytes()
    assert raw.isascii() and b"\r" not in raw and b"\t" not in raw and raw.endswith(b"\n")
    for row in rows:
        for field in ("word", "definition"):
            assert row[field] == " ".join(row[field].split()) != ""
        assert 5 <= len(row["definition"].split()) <= 24
        assert '"' not in row["definition"] and "`" not in row["definition"]


def test_no_row_holds_an_unsuitable_word(rows, build):
    unsuitable = build("suitability").UNSUITABLE
    found = [row for row in rows if unsuitable.search(f"{row['word']} {row['definition']}")]
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
def test_the_filter_matches_whole_words_in_any_case(build, text, unsuitable):
    assert bool(build("suitability").UNSUITABLE.search(text)) is unsuitable


def test_the_gloss_is_cut_at_its_first_example(build):
    definition_of = build("wordnet").definition_of
    gloss = ' a fruit;  eaten raw; "an apple a day"; "he said `no\'"\n'
    assert definition_of(gloss) == "a fruit; eaten raw"
    assert definition_of(" the word `if'\n") == "the word 'if'"


def test_the_script_writes_the_shipped_file_again(script, wordnet_folder, tmp_path):
    script.main([str(wordnet_folder), "--out", str(tmp_path / "again.csv")])
    assert (tmp_path / "again.csv").read_bytes() == CSV.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["again.csv"]


# ------------------------------------------------------------------------------------- define_word


def test_the_dictionary_has_its_splits_and_all_three_parts_of_speech_in_each(entries):
    assert Counter(row["split"] for row in entries) == DEFINE_SPLITS
    for split, size in DEFINE_SPLITS.items():
        shares = Counter(row["part_of_speech"] for row in entries if row["split"] == split)
        assert set(shares) == {"noun", "verb", "adjective"}
        assert min(shares.values()) > size / 10


def test_no_word_and_no_definition_of_the_dictionary_occurs_twice(entries):
    for field in ("word", "definition"):
        counts = Counter(normalised(row[field]) for row in entries)
        assert [text for text, n in counts.items() if n > 1] == []


def test_the_two_data_sets_share_no_word_and_no_definition(rows, entries):
    """So no test row of one task can be a training row of another."""
    for field in ("word", "definition"):
        assert {normalised(row[field]) for row in rows}.isdisjoint(normalised(row[field]) for row in entries)


def test_held_out_entries_are_not_near_copies_of_other_entries(entries):
    of = {split: [row for row in entries if row["split"] == split] for split in DEFINE_SPLITS}
    assert closest(of["test"], of["train"] + of["validation"]) <= 0.7
    assert closest(of["validation"], of["train"]) <= 0.7


def test_the_dictionary_is_clean_text(entries):
    raw = DEFINE_CSV.read_bytes()
    assert raw.isascii() and b"\r" not in raw and b"\t" not in raw and raw.endswith(b"\n")
    for row in entries:
        assert re.fullmatch("[a-z]{3,}", row["word"])
        assert 3 <= len(row["definition"].split()) <= 16
        assert row["definition"] == " ".join(row["definition"].split())
        assert row["definition"][0].isalpha()
        assert '"' not in row["definition"] and "`" not in row["definition"]


def test_no_entry_is_unsuitable_or_defines_a_word_by_itself(entries, build, define_script):
    unsuitable = (build("suitability").UNSUITABLE, define_script.UNSUITABLE_HERE)
    for row in entries:
        text = f"{row['word']} {row['definition']}"
        assert not any(pattern.search(text) for pattern in unsuitable), text
        assert row["word"] not in row["definition"].lower().split()
    assert define_script.LEFT_OUT.isdisjoint(row["word"] for row in entries)


@pytest.mark.parametrize(
    ("word", "definition", "itself"),
    [
        ("act", "the act of acting", True),
        ("unhappy", "not happy", True),
        ("happiness", "the state of being happy", True),
        ("river", "a large natural stream of water", False),
        ("cat", "a small animal that catches mice", True),  # rather too often than too seldom
    ],
)
def test_a_definition_that_holds_a_form_of_its_word_is_found(define_script, word, definition, itself):
    assert define_script.names_itself(word, definition) is itself


def test_the_most_tagged_sense_of_a_word_is_chosen_and_a_synset_is_used_once(define_script):
    def sense(word: str, synset: str, tags: int):
        return define_script.Sense(define_script.Row(word, "noun", "act", f"the meaning of {synset}"), synset, tags)

    senses = [sense("walk", "seldom", 1), sense("walk", "often", 9), sense("stroll", "often", 5), sense("hike", "c", 2)]
    chosen = define_script.one_sense_per_word(senses)
    assert [(row.word, row.definition) for row in chosen] == [
        ("walk", "the meaning of often"),
        ("hike", "the meaning of c"),
    ]


def test_a_row_left_out_by_hand_leaves_all_others_in_their_seats(define_script, monkeypatch):
    def row(word: str):
        return define_script.Row(word, "noun", "act", f"a {word} and nothing like another thing {word * 2} {word * 3}")

    candidates = [row("abcdefghijkl"[n] * 3) for n in range(12)]
    monkeypatch.setattr(define_script, "SPLITS", {"test": 2, "validation": 2, "train": 5})
    monkeypatch.setattr(define_script, "TOO_SIMILAR", 0.99)
    monkeypatch.setattr(define_script, "LEFT_OUT", set())
    before = define_script.draw(candidates)
    bad = before["train"][1].word
    monkeypatch.setattr(define_script, "LEFT_OUT", {bad})
    after = define_script.draw(candidates)
    differing = [(s, n) for s in before for n, (a, b) in enumerate(zip(before[s], after[s], strict=True)) if a != b]
    assert differing == [("train", 1)]
    assert after["train"][1] not in sum(before.values(), [])


def test_too_few_rows_are_an_error(define_script):
    with pytest.raises(SystemExit, match="not enough"):
        define_script.draw([define_script.Row("river", "noun", "object", "a large natural stream of water")])


def test_the_script_writes_the_shipped_dictionary_again(define_script, wordnet_folder, tmp_path):
    define_script.main([str(wordnet_folder), "--out", str(tmp_path / "again.csv")])
    assert (tmp_path / "again.csv").read_bytes() == DEFINE_CSV.read_bytes()


# --------------------------------------------------------------------------------------------- both


@pytest.mark.parametrize("path", [CSV, DEFINE_CSV], ids=lambda path: path.stem)
def test_the_datasheet_names_these_bytes_and_their_source(build, path):
    sheet = (DATA / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in sheet
    source = build("wordnet")
    for fact in (source.DEB_SHA256, source.SHA256["data.noun"], source.PACKAGE, source.VERSION):
        assert fact in sheet


@pytest.mark.parametrize("path", [CSV, DEFINE_CSV], ids=lambda path: path.stem)
def test_the_notice_names_every_file_made_from_wordnet(path):
    assert f"data/{path.name}" in (DATA / "NOTICE").read_text(encoding="utf-8")


def test_the_notice_carries_the_wordnet_licence_in_full():
    notice = " ".join((DATA / "NOTICE").read_text(encoding="utf-8").split())
    for sentence in (
        "Permission to use, copy, modify and distribute this software and database",
        "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved.",
        'THIS SOFTWARE AND DATABASE IS PROVIDED "AS IS"',
        "may not be used in advertising or publicity",
    ):
        assert sentence in notice


@pytest.mark.parametrize("name", ["wordnet_topics", "define_word"])
def test_the_scripts_refuse_a_folder_without_wordnet_and_another_wordnet(build, name, tmp_path):
    main, target = build(name).main, tmp_path / "out.csv"
    with pytest.raises(SystemExit, match="(?s)does not exist.*apt-get install"):
        main([str(tmp_path), "--out", str(target)])
    for file in build("wordnet").SHA256:
        (tmp_path / file).write_text("another dictionary")
    with pytest.raises(SystemExit, match="is not the file"):
        main([str(tmp_path), "--out", str(target)])
    assert not target.exists()
