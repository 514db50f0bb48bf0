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
    reprobate, divorce*, amnon, wife was given, another man's wife, found a woman, woman among all, knife,
    ambush*, liers in wait, avenge*, revenge*, amalek*, dispossess*, forced labor*, taskmaster*, gored, dashes,
    dasheth, bereav*, skull*, thigh*, latrine, wizard*, familiar spirit*, necromancer*, untimely birth, lake of
    fire, lie by, spit in
"""
UNSUITABLE = any_of(CONTEMPT, SEX, VIOLENCE, DRUGS, BIBLICAL)

# Notes, titles, marks that the text module left in, and where the source lost a space.
ODD = re.compile(
    r"[\[\]()0-9\\]|Selah|LORD's[a-z]|[Ll]ord the LORD|[,;:.!?]\"?[A-Za-z]|(?:[\"'] ?){3}|[a-z]'(?:by|and) |O the LORD"
)
# A single quotation mark that begins or ends a speech; an apostrophe is neither.
SINGLE_OPENS = re.compile(r"(?<![\w,.;:!?])'(?=\w)")
SINGLE_CLOSES = re.compile(r"(?<=[,.;:!?])'|(?<=\w)'(?=[,.;:!?\"]|$)")
DOUBLE_OPENS = re.compile(r"(?<![\w,.;:!?'])\"(?=[\w'])")
LINKS = set("and but for now so then".split())  # what the King James Bible begins a verse with
# The World English Bible's name of God, where he is spoken to: "Hear, Yahweh, my plea", not "Yahweh, our God, is one".
SPOKEN_TO = re.compile(r"(?:(?<=, )(?<!I, )|(?<=! )|^)Yahweh(?=[,!?.])(?!, (?:the|your|our|his|their|who|whose)\b)")


def _of(book: str, places: str) -> Iterator[tuple[str, int, int]]:
    """(book, chapter, verse) of each place: "3:8" is a verse, "25:39-55" several, "19" a whole chapter."""
    for place in places.split():
        chapter, _, verses = place.partition(":")
        first, _, last = verses.partition("-")
        for verse in range(int(first), int(last or first) + 1) if verses else range(1, 200):
            yield book, int(chapter), verse


# Read and left out one by one: no word of the lists gives these verses away.
LEFT_OUT = {
    # Killing, mutilation, cruelty, children starving or thrown away.
    *_of("Genesis", "37:33 44:28"),
    *_of("Exodus", "1:15-22 14:28 32:27-29"),
    *_of("Numbers", "16:32-33 25"),
    *_of("Deuteronomy", "13:6-16 19:21 28:53-57"),
    *_of("Joshua", "8:25 10:8 10:22"),
    *_of("Judges", "1:6-7 9:53 11:30-40"),
    *_of("II Samuel", "18:14"),
    *_of("I Kings", "20:30"),
    *_of("II Kings", "25:7"),
    *_of("Job", "16:13"),
    *_of("Psalms", "21:9 137:8-9"),
    *_of("Jeremiah", "39:7 51:20-23 52:11"),
    *_of("Lamentations", "4:4"),
    *_of("Ezekiel", "5:10 39:4"),
    *_of("Hosea", "13:8"),
    *_of("Micah", "6:7"),
    *_of("Mark", "6:24-28"),
    *_of("Galatians", "4:15"),
    *_of("Revelation of John", "9:4 16:10 20:9"),
    *_of("Proverbs", "20:26"),
    # Peoples driven out or wiped out, and their women and children taken.
    *_of("Numbers", "31"),
    *_of("Deuteronomy", "4:38 7:1-5 11:23 20"),
    *_of("Joshua", "23:5"),
    *_of("Judges", "19 20 21"),
    # Contempt: for peoples, for the colour of a skin, for a body or a love unlike others; fits as possession.
    *_of("Leviticus", "21:16-23"),
    *_of("Deuteronomy", "22:5 23:2-6"),
    *_of("Ezra", "9:12"),
    *_of("Nehemiah", "10:30 13:23-27"),
    *_of("Jeremiah", "13:23"),
    *_of("Lamentations", "4:7-8"),
    *_of("Matthew", "17:15"),
    *_of("Mark", "9:18-22"),
    *_of("Luke", "9:39"),
    *_of("Romans", "1:26-27"),
    *_of("Titus", "1:12"),
    # Better not to have been born.
    *_of("Ecclesiastes", "4:3"),
    # Slavery and forced labour.
    *_of("Genesis", "16:1-4 30:3-9"),
    *_of("Exodus", "21"),
    *_of("Leviticus", "25:39-55"),
    *_of("Joshua", "9:21-27"),
    *_of("Joel", "3:3-8"),
    # Women given, bought, ranked by their looks, told to obey, to be silent, to cover their hair.
    *_of("Genesis", "29:17 29:28"),
    *_of("Esther", "1:10-22 2:1-17"),
    *_of("II Chronicles", "24:7"),
    *_of("Job", "25:4"),
    *_of("Psalms", "45:11"),
    *_of("Proverbs", "27:16"),
    *_of("Jeremiah", "2:33"),
    *_of("Hosea", "3:1-3"),
    *_of("I Corinthians", "11:3-10 11:13-15 14:34-35"),
    *_of("Ephesians", "5:22-24"),
    *_of("Colossians", "3:18"),
    *_of("I Timothy", "2:9-15 5:9-15"),
    *_of("Titus", "2:3-5"),
    *_of("I Peter", "3:1-7"),
    # Sex, rape and incest, bodies and their ailments; seemingly harmless verses of such stories and laws too.
    *_of("Genesis", "19 20:12 34 38 39:7-18 49:4"),
    *_of("Leviticus", "12 13 14 15 18 20"),
    *_of("Deuteronomy", "22:13-30"),
    *_of("Ruth", "3:8 3:14"),
    *_of("II Samuel", "11 13"),
    *_of("Proverbs", "7:13"),
    *_of("Isaiah", "3:17 47:2-3"),
    *_of("Jeremiah", "13:26"),
    *_of("Ezekiel", "16 23"),
    *_of("Luke", "17:34"),
    *_of("I Corinthians", "7:1-5 12:23"),
    # The two sides are not the same verse, or one is garbled in the source.
    *_of("I Samuel", "13:1"),
    *_of("Ezra", "5:4"),
    *_of("Psalms", "145:13"),
    *_of("Isaiah", "48:13"),
    *_of("Ezekiel", "47:11"),
    # The source lost a space, at a note: "Godspoke", "shekelsof"; or has one too many: "where in".
    *_of("Genesis", "1:1 2:4"),
    *_of("Exodus", "20:1"),
    *_of("Numbers", "1:16"),
    *_of("I Kings", "6:23"),
    *_of("II Kings", "5:5"),
    *_of("I Chronicles", "21:25"),
    *_of("Job", "32:8"),
    *_of("Psalms", "2:4 42:8 73:1"),
    *_of("Ezekiel", "42:2"),
    *_of("Daniel", "3:1"),
    *_of("Micah", "6:10"),
    *_of("Matthew", "11:20 23:5 27:45"),
    *_of("Mark", "15:33"),
    *_of("Luke", "10:1 12:25"),
    *_of("John", "3:16 19:28"),
    *_of("I Corinthians", "1:1"),
    *_of("Ephesians", "1:1 4:11"),
    *_of("Colossians", "1:1-2 3:23"),
    *_of("II Thessalonians", "1:12"),
    *_of("I Timothy", "1:1 6:7 6:12"),
    *_of("II Timothy", "1:1"),
    *_of("Hebrews", "4:6 6:17 9:2 12:11 12:15"),
    *_of("Jude", "1:24"),
    *_of("Revelation of John", "1:20 22:1"),
    # "the LORD" where he is spoken to, "LORD" where he is not: what SPOKEN_TO cannot tell.
    *_of("I Kings", "17:21"),
    *_of("I Chronicles", "29:16 29:18"),
    *_of("Psalms", "5:12 6:2 8:9 35:10 35:24 36:6 50:1 70:5 80:19 85:8"),
    # Nothing to learn: only names, or the spelling of a word, differ.
    *_of("Genesis", "46:23"),
    *_of("Numbers", "26:8 26:46"),
    *_of("Joshua", "15:57"),
    *_of("I Chronicles", "5:5 7:26 12:13 24:16"),
    *_of("Psalms", "96:6"),
    *_of("I Timothy", "2:3"),
    *_of("I Peter", "2:17"),
}
# Verses of the held-out books, which have none to spare, in which the source has a slip: (wrong, right).
MENDED = {
    ("Jonah", 2, 6): ("pit, the LORD", "pit, LORD"),  # where God is spoken to, as the other translation shows
    ("Philippians", 1, 18): ("there in", "therein"),
    ("Philippians", 3, 16): ("where to", "whereto"),
    ("Philippians", 4, 10): ("where in", "wherein"),
}


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
        pair[:3] not in LEFT_OUT
        and pair.book != "Song of Solomon"  # of love and bodies, and with the speakers' names in the text
        and all(text.isascii() and len(text.split()) in WORDS for text in sides)
        and OVERLAP[0] <= overlap(*sides) <= OVERLAP[1]
        and not any(UNSUITABLE.search(text) or ODD.search(text) for text in sides)
        and is_whole_speech(pair.modern)
        and _without_links(pair.modern) != _without_links(pair.archaic)
        and max(map(names, sides)) <= NAMES_AT_MOST
    )


def overlap(one: str, other: str) -> float:
    """Shared words over all words, upper and lower case alike (Jaccard)."""
    a, b = (set(re.findall(r"[a-z]+", text.lower())) for text in (one, other))
    return len(a & b) / len(a | b)


def is_whole_speech(text: str) -> bool:
    """Whether each quotation mark that opens is closed again. (The King James Bible has none.)"""
    doubles = [bool(DOUBLE_OPENS.match(text, mark.start())) for mark in re.finditer('"', text)]
    return doubles == [True, False] * (len(doubles) // 2) and (
        len(SINGLE_OPENS.findall(text)) == len(SINGLE_CLOSES.findall(text))
    )


def _without_links(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+", text.lower()) if word not in LINKS]


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
        writer.writerows((split, *_mended(pair)) for pair in drawn)
    return output.getvalue()


def _mended(pair: Pair) -> Pair:
    wrong, right = MENDED.get(pair[:3], ("", ""))
    return pair._replace(modern=pair.modern.replace(wrong, right), archaic=pair.archaic.replace(wrong, right))


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
