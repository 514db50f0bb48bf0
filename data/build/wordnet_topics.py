"""Build data/wordnet_topics.csv: 4,800 noun definitions from WordNet 3.0, 12 topics, fixed splits.

Source: Debian package wordnet-base 1:3.0-37. The rows depend on nothing but its file data.noun,
so every run on every machine writes the same bytes.

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb somewhere
    python data/build/wordnet_topics.py somewhere/usr/share/wordnet

Without an argument the script reads /usr/share/wordnet (the package, installed).
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from suitability import UNSUITABLE
from wordnet import command_line, definition_of, normalised, read_lines

TARGET = Path(__file__).resolve().parents[1] / "wordnet_topics.csv"

# Number of the lexicographer file in data.noun -> topic. The other noun files are left out: too
# small once filtered (feeling, shape, motive), or too close to one of these (object, event, state).
TOPICS = {
    4: "act",
    5: "animal",
    6: "artifact",
    8: "body",
    10: "communication",
    13: "food",
    15: "location",
    18: "person",
    20: "plant",
    21: "possession",
    27: "substance",
    28: "time",
}
SPLITS = {"train": 240, "validation": 60, "test": 100}  # rows per topic
WORDS = range(5, 25)  # length of a definition in words
TOO_SIMILAR = 0.7  # share of words two definitions of one topic may have in common (Jaccard)

# Latin group names ("genus Rosa", "family Felidae") say little beyond their rank.
TAXON = re.compile(
    r"\b(genus|genera|subgenus|family|families|subfamily|superfamily|order|suborder|superorder"
    r"|class|subclass|superclass|phylum|subphylum|division|tribe)\b",
    re.IGNORECASE,
)

# Words left out by hand, after reading the rows: no pattern above catches them.
# fmt: off
LEFT_OUT = {
    "Afrikaner", "baldhead", "bedwetter", "bhang", "Bonfire Night", "camp follower", "chebab",
    "curtain lecture", "evisceration", "forced feeding", "gamine", "hog", "insulin shock",
    "macho", "pip-squeak", "search and destroy mission", "sick joke", "spin the bottle",
    "spotted dick", "taxi dancer", "thalidomide", "wedding night",
}
# fmt: on
# A person with dates is a named individual that WordNet 3.0 does not mark as one.
DATED = re.compile(r"\b(born|\d{3,4}-\d{3,4})\b")


class Row(NamedTuple):
    topic: str
    word: str
    definition: str


def read_nouns(folder: Path) -> Iterator[Row]:
    """Every common noun of the twelve files. Format: wndb(5WN)."""
    for line in read_lines(folder, "data.noun"):
        synset, _, gloss = line.partition("|")
        fields = synset.split()
        topic = TOPICS.get(int(fields[1]))
        is_named_individual = "@i" in fields  # Mozart, Kansas: would be half of person and location
        if topic and not is_named_individual:
            yield Row(topic, fields[4].replace("_", " "), definition_of(gloss))


def is_clean(row: Row) -> bool:
    text = f"{row.word} {row.definition}"
    return (
        len(row.definition.split()) in WORDS
        and row.definition.count("(") == row.definition.count(")")
        and not TAXON.search(text)
        and not UNSUITABLE.search(text)
        and not (row.topic == "person" and DATED.search(row.definition))
        and row.word not in LEFT_OUT
    )


def draw_key(row: Row) -> str:
    """A reproducible lottery number, independent of Python's random generator."""
    return hashlib.sha256(f"wordnet_topics/{row.topic}/{row.definition}".encode()).hexdigest()


def draw(candidates: list[Row], how_many: int) -> list[Row]:
    """The first `how_many` clean rows in lottery order, near-copies of an earlier one left out."""
    chosen: list[Row] = []
    bags: list[set[str]] = []
    for row in sorted(candidates, key=draw_key):
        if not is_clean(row):
            continue
        bag = set(normalised(row.definition).split())
        if any(len(bag & other) > TOO_SIMILAR * len(bag | other) for other in bags):
            continue
        chosen.append(row)
        bags.append(bag)
        if len(chosen) == how_many:
            return chosen
    raise SystemExit(f"{candidates[0].topic}: only {len(chosen)} of {how_many} clean definitions")


def build(folder: Path) -> str:
    """The whole CSV file as one string."""
    rows = list(read_nouns(folder))
    copies: dict[str, int] = {}
    for row in rows:
        key = normalised(row.definition)
        copies[key] = copies.get(key, 0) + 1
    # A text that stands under two words may stand under two topics: none of its copies is kept.
    rows = [row for row in rows if copies[normalised(row.definition)] == 1]

    drawn = {
        topic: draw([row for row in rows if row.topic == topic], sum(SPLITS.values()))
        for topic in TOPICS.values()
    }
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["split", "topic", "word", "definition"])
    start = 0
    for split, per_topic in SPLITS.items():
        # Topics take turns, so that the first n rows of a split are balanced for any n.
        for index in range(start, start + per_topic):
            for topic in TOPICS.values():
                writer.writerow([split, *drawn[topic][index]])
        start += per_topic
    return out.getvalue()


def main(argv: list[str] | None = None) -> None:
    command_line(build, TARGET, __doc__ or "", argv)


if __name__ == "__main__":
    main(sys.argv[1:])
