"""Bible verses in modern and in King James English, pair by pair. data/README.md has the datasheet.

    verses = verse_pairs()
    verses.train[0].modern, verses.train[0].archaic
    verses.archaic("test")     # "Modern English: ...\\nKing James Bible:" -> " And ye shall ..."
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from peftlab.tasks import datasets
from peftlab.tasks.data_files import data_folder, read_splits
from peftlab.tasks.datasets import Completions


@dataclass(frozen=True)
class VersePair:
    """One verse twice: as the World English Bible has it (modern), and the King James Version (archaic)."""

    book: str
    chapter: int
    verse: int
    modern: str
    archaic: str


@dataclass(frozen=True)
class VersePairs:
    """Pairs with fixed splits. Validation and test come from books of which nothing is in `train`."""

    train: tuple[VersePair, ...]
    validation: tuple[VersePair, ...]
    test: tuple[VersePair, ...]

    def archaic(self, split: str) -> Completions:
        """Modern to King James English: archaic_prompt(modern) is to be followed by " " and the archaic verse."""
        pairs: tuple[VersePair, ...] = getattr(self, datasets.checked_split(split))
        return Completions.of([(archaic_prompt(pair.modern), f" {pair.archaic}") for pair in pairs])

    def __repr__(self) -> str:
        return f"VersePairs({', '.join(f'{split} {len(getattr(self, split)):,}' for split in datasets.SPLITS)})"


def archaic_prompt(modern: str) -> str:
    """What a causal model reads before it puts a verse into King James English."""
    return f"Modern English: {modern}\nKing James Bible:"


def verse_pairs() -> VersePairs:
    """5,000 / 300 / 300 pairs. Raises PeftLabError if the file is missing or damaged."""
    columns = tuple(field.name for field in fields(VersePair))
    rows = read_splits(data_folder() / "verse_pairs.csv", ("split", *columns), datasets.SPLITS)

    def split(part: str) -> tuple[VersePair, ...]:
        return tuple(
            VersePair(row["book"], int(row["chapter"]), int(row["verse"]), row["modern"], row["archaic"])
            for row in rows
            if row["split"] == part
        )

    return VersePairs(*map(split, datasets.SPLITS))
