"""Modern English and King James English, verse by verse: data/verse_pairs.csv.

    python data/build/verse_pairs.py PACKAGES [--out FILE]

PACKAGES holds the two Debian packages that verses.py names. Same input, same bytes. Validation and test come from
books (verses.HELD_OUT) that give no row to the training split.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from suitability import CONTEMPT, DRUGS, SEX, VIOLENCE, any_of
from verses import HELD_OUT, read

TARGET = Path(__file__).resolve().parents[1] / "verse_pairs.csv"
SIZES = {"train": 5000, "validation": 300, "test": 300}
WORDS = range(5, 43)  # on either side
OVERLAP = (0.2, 0.9)  # share of words in common: below, the verses are not the same one; above, nothing was modernised
NAMES_AT_MOST = 2  # verses full of names teach names
PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "—": "-", "–": "-", "æ": "ae", "Æ": "Ae"})
COMMON_CAPITALS = set("I O God God's Lord LORD Lord's LORD's Jesus Christ Israel Holy Spirit Father Son".split())
# What the WordNet lists do not know of: the Bible's own violence, slavery, purity rules and contempt.
BIBLICAL = """
    slay*, slain, slew, smite*, smote, smitten, sword*, spear*, bow, arrow*, blood*, burn*, burnt, consume*,
    curse*, cursed, destroy*, destruction, desolat*, plague*, pestilence*, famine*, leper*, lepro*, sore*,
    harlot*, whore*, prostitut*, fornicat*, adulter*, concubine*, virgin*, womb, nakedness, naked, lie with, lay
    with, lain with, circumcis*, uncircumcis*, foreskin*, unclean*, menstr*, issue, seed, loins, breasts,
    eunuch*, bear a son, slave*, bondservant*, bondman, bondmen, bondwoman, bondage, bondmaid*, handmaid*,
    maidservant*, manservant*, menservants, servant*, rod, stripes, beat, beaten, whip*, scourg*, crucif*, stone
    him, stoned, hang, hanged, strangle*, gentile*, samaritan*, pharisee*, scribes, jews, canaanite*,
    philistine*, moabite*, egyptians, heathen*, stranger*, hell, devil*, demon*, satan, unclean, brimstone,
    torment*, vengeance, enemy, enemies, war, wars, battle*, spoil, prey, captiv*, prison*, dead, death, die,
    dies, died, dying, tomb*, grave, graves, corpse*, carcass*, carcase*, flesh, sacrific*, offering*, altar*,
    priest*, barren, lame, blind, deaf, dumb, cripple*, drunk*, wine, sluggard*, slothful, lust*, doted, bare a son,
    bore a son, conceive*, conception, goes in to, goeth in to, went in to his, went in to her, went in unto her,
    neighbor's wife, contentious, brawling, wives, submi*, sorcer*, witch*, enchant*, divination, bowels, dung, ass,
    asses, vomit*, belly, male child, males, valuation, estimation, her vow, her vows, my period, hamstr*, houghed,
    reprobate, divorce*, amnon, wife was given, another man's wife, found a woman, woman among all, knife
"""
UNSUITABLE = any_of(CONTEMPT, SEX, VIOLENCE, DRUGS, BIBLICAL)

# Notes, titles, marks that the text module left in, and where the source lost a space.
ODD = re.compile(r"[\[\]()0-9\\]|Selah|LORD's[a-z]|[Ll]ord the LORD|[,;:.!?]\"?[A-Za-z]|(?:[\"'] ?){3}")
# The World English Bible's name of God, where he is spoken to: "Hear, Yahweh, my plea", not "Yahweh, our God, is one".
SPOKEN_TO = re.compile(r"(?:(?<=, )|(?<=! )|^)Yahweh(?=[,!?.])(?!, (?:the|your|our|his|their|who|whose)\b)")


class Pair(NamedTuple):
    book: str
    chapter: int
    verse: int
    modern: str
    archaic: str


def pairs(folder: Path) -> Iterator[Pair]:
    """Every verse that both translations have, in plain ASCII."""
    archaic = {(book, c, v): text for book, verses in read("kjv", folder).items() for c, v, text in verses}
    for book, verses in read("web", folder).items():
        for chapter, verse, text in verses:
            if other := archaic.get((book, chapter, verse)):
                yield Pair(book, chapter, verse, _plain(text), _plain(other))


def is_good(pair: Pair) -> bool:
    sides = (pair.modern, pair.archaic)
    return (
        all(text.isascii() and len(text.split()) in WORDS for text in sides)
        and OVERLAP[0] <= overlap(*sides) <= OVERLAP[1]
        and not any(UNSUITABLE.search(text) or ODD.search(text) for text in sides)
        and all(text.count('"') % 2 == 0 for text in sides)  # not half a speech
        and max(map(names, sides)) <= NAMES_AT_MOST
    )


def overlap(one: str, other: str) -> float:
    """Shared words over all words, upper and lower case alike (Jaccard)."""
    a, b = (set(re.findall(r"[a-z]+", text.lower())) for text in (one, other))
    return len(a & b) / len(a | b)


def names(text: str) -> int:
    """Capitalised words inside a sentence that are not in COMMON_CAPITALS."""
    inside = re.findall(r"(?<=[a-z,;:] )[A-Z][\w']*", text)
    return sum(word not in COMMON_CAPITALS for word in inside)


def build(folder: Path) -> str:
    """The whole CSV file as one string."""
    good = [pair for pair in pairs(folder) if is_good(pair)]
    copies = Counter(_key(text) for pair in good for text in {_key(pair.modern), _key(pair.archaic)})
    good = [pair for pair in good if copies[_key(pair.modern)] == copies[_key(pair.archaic)] == 1]
    split_of = {book: split for split, books in HELD_OUT.items() for book in books}

    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(("split", *Pair._fields))
    for split, size in SIZES.items():
        drawn = sorted((pair for pair in good if split_of.get(pair.book, "train") == split), key=_lot)[:size]
        if len(drawn) < size:
            raise SystemExit(f"{split}: only {len(drawn)} of {size} verses passed.")
        writer.writerows((split, *pair) for pair in drawn)
    return output.getvalue()


def _plain(text: str) -> str:
    text = SPOKEN_TO.sub("LORD", text.translate(PLAIN)).replace("Yahweh", "the LORD")
    text = re.sub(r"(^\W*|[.!?]\W* |[\"'])the LORD", r"\1The LORD", text)
    return " ".join(text.split())


def _key(text: str) -> str:
    return " ".join(re.findall(r"[a-z]+", text.lower()))


def _lot(pair: Pair) -> str:
    """A reproducible lottery number."""
    return hashlib.sha256(f"verse_pairs/{pair.archaic}".encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", type=Path)
    parser.add_argument("--out", type=Path, default=TARGET, help=f"default: {TARGET.name} in data/")
    arguments = parser.parse_args()
    content = build(arguments.packages).encode("ascii")
    temporary = arguments.out.with_name(f"{arguments.out.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, arguments.out)
    print(f"{arguments.out.name}: {len(content.splitlines()) - 1:,} rows, {len(content):,} bytes")
    print(f"sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
