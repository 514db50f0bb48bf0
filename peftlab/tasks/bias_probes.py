"""Sentences that probe a model for gender bias: WinoBias and Winogender. data/README.md has the datasheets.

    pairs = winobias()
    pairs.dev[0].pro, pairs.dev[0].anti        # which of the two does the model find more likely?

    probe = winogender()
    probe.sentences[0].pronoun, probe.occupations["nurse"].bls_percent_female

Rows that share a `group` say nearly the same. A standard error over rows treats them as independent and comes out too
small: average within the groups first, or draw whole groups when you bootstrap.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

from peftlab.tasks.data_files import damaged, data_folder, read_table

GENDERS = ("male", "female", "neutral")
MALE = {"he", "him", "his", "himself"}


@dataclass(frozen=True)
class WinoBiasPair:
    """Two sentences with two people, alike but for the gender of one person's pronouns.

    In `pro` the gender is the one that the United States statistics of the source suggest for `occupation`, the person
    whom the pronouns mean; in `anti` it is the other. type 1: only the story tells who is meant; type 2: the grammar
    does. group: the two occupations; both types, and all sentences about these two, share it.
    """

    split: str  # dev or test, as published
    type: int  # 1 or 2
    group: str
    occupation: str
    other_occupation: str
    pro_pronouns: tuple[str, ...]  # those that differ, in order: nearly always one
    anti_pronouns: tuple[str, ...]
    pro: str
    anti: str

    @property
    def stereotype(self) -> str:
        """The gender that the source counts as stereotypical for `occupation`: "male" or "female"."""
        return "male" if self.pro_pronouns[0] in MALE else "female"


@dataclass(frozen=True)
class WinoBias:
    """The pairs by published split. Half of the `pro` sentences of each have male pronouns. Nothing is for training."""

    dev: tuple[WinoBiasPair, ...]
    test: tuple[WinoBiasPair, ...]

    def __repr__(self) -> str:
        return f"WinoBias(dev {len(self.dev):,} pairs, test {len(self.test):,} pairs)"


@dataclass(frozen=True)
class WinogenderSentence:
    """One sentence with an occupation, another person and a pronoun.

    group: the template. It stands in six sentences: three genders of the pronoun, and the other person named by a
    role ("the customer") or as "someone".
    """

    group: str
    occupation: str
    participant: str  # the other person
    refers_to: str  # whom the pronoun means: "occupation" or "participant"
    gender: str  # of the pronoun: male, female or neutral (they)
    pronoun: str
    sentence: str


@dataclass(frozen=True)
class OccupationStatistics:
    """How many women are in an occupation, in percent, in two counts."""

    occupation: str
    bergsma_percent_female: float  # of gendered mentions in text
    bls_percent_female: float  # of people employed in the United States
    bls_year: int


@dataclass(frozen=True)
class Winogender:
    """720 sentences from 120 templates, and statistics of their 60 occupations by name."""

    sentences: tuple[WinogenderSentence, ...]
    occupations: dict[str, OccupationStatistics]

    def __repr__(self) -> str:
        return f"Winogender({len(self.sentences):,} sentences, {len(self.occupations)} occupations)"


def winobias() -> WinoBias:
    """1,480 pairs of sentences, pro- and anti-stereotypical (Zhao et al. 2018, arXiv:1804.06876).

    Raises PeftLabError if the file is missing or damaged.
    """
    path = data_folder() / "winobias.csv"
    pairs = []
    for number, row in enumerate(read_table(path, tuple(f.name for f in fields(WinoBiasPair))), start=1):
        pronouns = tuple(row["pro_pronouns"].split()), tuple(row["anti_pronouns"].split())
        if row["split"] not in ("dev", "test") or row["type"] not in ("1", "2") or len(pronouns[0]) != len(pronouns[1]):
            raise damaged(path, f"its row {number} is {list(row.values())}")
        row = {**row, "type": int(row["type"]), "pro_pronouns": pronouns[0], "anti_pronouns": pronouns[1]}
        pairs.append(WinoBiasPair(**row))
    found = WinoBias(
        tuple(pair for pair in pairs if pair.split == "dev"), tuple(pair for pair in pairs if pair.split == "test")
    )
    for split in ("dev", "test"):
        if not getattr(found, split):
            raise damaged(path, f"it has no {split} rows")
    return found


def winogender() -> Winogender:
    """720 sentences with he, she and they, and occupation statistics (Rudinger et al. 2018, arXiv:1804.09301).

    Raises PeftLabError if one of the two files is missing or damaged.
    """
    path = data_folder() / "winogender.csv"
    columns = tuple(field.name for field in fields(WinogenderSentence))
    sentences = [WinogenderSentence(**row) for row in read_table(path, columns)]
    occupations = _occupations(path.with_name("occupations.csv"))
    for number, sentence in enumerate(sentences, start=1):
        if sentence.gender not in GENDERS or sentence.refers_to not in ("occupation", "participant"):
            raise damaged(path, f"its row {number} is {sentence}")
        if sentence.occupation not in occupations:
            raise damaged(path.with_name("occupations.csv"), f"it has no row for {sentence.occupation!r}")
    for group, count in Counter(sentence.group for sentence in sentences).items():
        if count != 6:
            raise damaged(path, f"template {group!r} stands in {count} sentences, not in 6")
    return Winogender(tuple(sentences), occupations)


def _occupations(path: Path) -> dict[str, OccupationStatistics]:
    columns = ("occupation", "bergsma_pct_female", "bls_pct_female", "bls_year")
    found = {}
    for number, row in enumerate(read_table(path, columns), start=1):
        try:
            found[row["occupation"]] = OccupationStatistics(
                row["occupation"], float(row["bergsma_pct_female"]), float(row["bls_pct_female"]), int(row["bls_year"])
            )
        except ValueError:
            raise damaged(path, f"its row {number} is {list(row.values())}") from None
    return found
