"""Build data/define_word.csv: 6,600 words and what they mean, from WordNet 3.0, fixed splits.

Source: Debian package wordnet-base 1:3.0-37. The rows depend on nothing but its files (the
checksums are in wordnet.py) and on data/wordnet_topics.csv, whose rows are kept out.

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb somewhere
    python data/build/define_word.py somewhere/usr/share/wordnet

Without an argument the script reads /usr/share/wordnet (the package, installed).
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from suitability import UNSUITABLE, any_of
from wordnet import command_line, definition_of, normalised, read_lines

TARGET = Path(__file__).resolve().parents[1] / "define_word.csv"
TOPICS_CSV = TARGET.with_name("wordnet_topics.csv")
SPLITS = {"test": 300, "validation": 300, "train": 6000}  # in the order in which rows are drawn
WORDS = range(3, 17)  # length of a definition in words
TOO_SIMILAR = 0.7  # share of words that a row may have in common with a held-out definition (Jaccard)

# A part of speech: its file's ending, and the digits that stand for it in sense keys ("satellite"
# adjectives have a digit of their own).
PARTS = {"noun": ("noun", "1"), "verb": ("verb", "2"), "adjective": ("adj", "35")}
# Number of the lexicographer file -> topic. Format: lexnames(5WN).
TOPICS = dict(
    enumerate(
        "all pertainym adverb top act animal artifact attribute body cognition communication event feeling "
        "food group location motive object person phenomenon plant possession process quantity relation "
        "shape state substance time body change cognition communication competition consumption contact "
        "creation emotion motion perception possession social stative weather participle".split()
    )
)

# Glosses that say how a word is used instead of what it means, or need the gloss of another word.
NO_DEFINITION = any_of(
    "coming next after, being one more than, being ten more than, used in combination, used for emphasis, "
    "intensif*, followed by, preceded by, abbreviation, past tense, past participle, plural of, idiom*, "
    "archaic, obsolete, phrase*, combining form, see also, e.g, i.e"
)
# Beyond the lists of suitability.py: everyday words, verbs and adjectives need more than the rarer nouns did.
UNSUITABLE_HERE = any_of(
    # sex and the body
    "ass, carnal, mating, mate with, gravid, pregnan*, womb, fetus, foetus, ovar*, gonad*, pelvi*, bosom*, "
    "thigh*, underpants, underwear, panties, nubile, libertine*, dissolute, wanton, lech*, amorous*, ravish*, "
    "rump, rumps, posterior, flirt*, urin*, bowel*, diarrh*, vomit*, pus, screw, fuck*, divorc*, fertiliz*, "
    "procreat*, voluptuous*",
    # contempt, peoples and harassment
    "miscegenation, non-white, different races, races, tribe*, tribal*, detribal*, half-breed*, orient, "
    "oriental*, turban*, joss, bedamn*, curse*, wretch*, ragamuffin*, urchin*, beggar*, harass*, molest*, "
    "hoyden*, handicap*, disabled, invalid, blinded, humiliat*, ridicul*, mock*, worthless*, swear*, blasphem*, "
    "obscen*, indecen*, filth*",
    # war, crime and drugs
    "army, armies, troops, warship*, squadron*, regiment*, cavalry, infantry, navy, naval, warrior*, sniper*, "
    "shoot at, shoots at, dismember*, fatal*, poison*, venom*, massacr*, perish*, bootleg*, hangover*, tobacco, "
    "cigar*, smoking, alcohol*, liquor*, drug, drugs, gambl*, swindl*, cheat*, illegal*, illicit*, police*, "
    "arrest*, torment*, doom*, ghastly, gruesome, horrif*, horrib*, blood, bleed*, kill*, hurt*, terrori*, "
    "menac*, threat*, tomb*, perver*, atroc*, vice, lynch*, destroyer",
)
# Words left out by hand, after reading the rows, because they hurt or distract, or because the definition is no
# use without its entry. The next row of the lottery takes the seat of each: all other rows keep theirs.
# fmt: off
LEFT_OUT = {
    "aborigine", "amorist", "anaplasmosis", "anionic", "anorexia", "avenge", "backer", "beardown", "belch",
    "belching", "bestial", "bloat", "bluestocking", "bullshit", "bum", "bushwhacking", "butt", "calculating",
    "cemetery", "chump", "cock", "concertina", "conjugal", "constatation", "coon", "corpulence", "cps",
    "crackpot", "cremate", "croak", "cud", "cyst", "deadhead", "decedent", "delayed", "depredation",
    "derivative", "dickens", "diethylstilbestrol", "disfigured", "doped", "dullard", "dumb", "effloresce",
    "enterotoxemia", "erect", "eugenic", "euphoric", "excellent", "flail", "gag", "gassing", "gentile",
    "glottochronological", "glutton", "goddamn", "gouge", "hijack", "holster", "hookup", "hypercellularity",
    "hypocellularity", "hypophysectomised", "illegitimacy", "impale", "impotent", "imprecate", "inane",
    "infantryman", "infertile", "irons", "john", "joined", "key", "lacerate", "lackey", "lactating", "leering",
    "legitimate", "lexicostatistic", "lick", "looking", "looted", "louse", "lousiness", "macabre", "maggot",
    "marksman", "marksmanship", "megakaryocytic", "meq", "mercenary", "mph", "muscleman", "neoliberal", "older",
    "oldster", "opened", "orgy", "paired", "paleocortical", "pecs", "penetrate", "pommel", "portwatcher", "psi",
    "puff", "quackery", "ransom", "rbi", "relyric", "retch", "rhinotracheitis", "rob", "rubber",
    "schoolmistress", "seahorse", "sensual", "shackled", "shot", "slug", "smack", "spit", "starvation",
    "stentorian", "streaming", "suck", "swart", "teat", "thiouracil", "thoriated", "tit", "titillating",
    "topped", "triamcinolone", "twine", "underprivileged", "unwire", "virile", "voodoo", "whiteface",
    "wisenheimer", "yonder",
}
# fmt: on


class Row(NamedTuple):
    word: str
    part_of_speech: str
    topic: str
    definition: str


class Sense(NamedTuple):
    """A word's first sense in one part of speech."""

    row: Row
    synset: str  # senses of one synset share their definition
    tags: int  # how often WordNet's editors met this sense in the texts they tagged


def tag_counts(folder: Path) -> dict[tuple[str, str, str], int]:
    """(lemma, digit of the part of speech, sense number) -> times tagged. Format: cntlist(5WN)."""
    counts = {}
    for line in read_lines(folder, "cntlist.rev"):
        key, sense_number, count = line.split()
        lemma, _, rest = key.partition("%")
        counts[lemma, rest[0], sense_number] = int(count)
    return counts


def first_senses(folder: Path) -> Iterator[Sense]:
    """The first sense of every plain lower-case word that was tagged at least once. Format: wndb(5WN)."""
    tagged = tag_counts(folder)
    for part, (ending, digits) in PARTS.items():
        synsets = {line[:8]: line for line in read_lines(folder, f"data.{ending}")}
        for line in read_lines(folder, f"index.{ending}"):
            fields = line.split()
            lemma, how_many_senses = fields[0], int(fields[2])
            tags = max(tagged.get((lemma, digit, "1"), 0) for digit in digits)
            offset = fields[-how_many_senses]
            synset, _, gloss = synsets[offset].partition("|")
            # The index is in lower case; the synset tells "may" from "May".
            spelt_so = lemma in re.sub(r"\(\w+\)", "", synset).split()
            if tags and spelt_so and re.fullmatch("[a-z]{3,}", lemma):
                topic = TOPICS[int(synset.split()[1])]
                yield Sense(Row(lemma, part, topic, definition_of(gloss)), f"{ending}/{offset}", tags)


def names_itself(word: str, definition: str) -> bool:
    """Whether a definition seems to hold its word, a form of it or a relative. Rather too often than too seldom."""
    for other in re.findall("[a-z]+", definition.lower()):
        same_start = len(os.path.commonprefix([word, other]))
        shorter = min(len(word), len(other))
        is_a_form = same_start == len(word) or (same_start >= 4 and same_start >= 0.6 * shorter)
        if is_a_form or (len(other) >= 4 and other in word):
            return True
    return False


def is_clean(row: Row) -> bool:
    text = f"{row.word} {row.definition}"
    return (
        len(row.definition.split()) in WORDS
        and row.definition[0].isalpha()  # a label such as "(baseball)" would teach the model to begin with one
        and row.definition.count("(") == row.definition.count(")")
        and not NO_DEFINITION.search(row.definition)
        and not names_itself(row.word, row.definition)
        and not UNSUITABLE.search(text)
        and not UNSUITABLE_HERE.search(text)
    )


def one_sense_per_word(senses: Iterable[Sense]) -> list[Row]:
    """Every word once and every definition once. The most tagged sense wins; at a tie, the alphabet decides."""
    words: set[str] = set()
    synsets: set[str] = set()
    texts: set[str] = set()
    rows = []
    for sense in sorted(senses, key=lambda sense: (-sense.tags, sense.row)):
        text = normalised(sense.row.definition)
        if sense.row.word in words or sense.synset in synsets or text in texts:
            continue
        words.add(sense.row.word)
        synsets.add(sense.synset)
        texts.add(text)
        rows.append(sense.row)
    return rows


def draw_key(row: Row) -> str:
    """A reproducible lottery number, independent of Python's random generator."""
    return hashlib.sha256(f"define_word/{row.word}".encode()).hexdigest()


def draw(candidates: list[Row]) -> dict[str, list[Row]]:
    """The rows of each split, in lottery order; near-copies of a held-out row are left out."""
    drawn: dict[str, list[Row]] = {split: [] for split in SPLITS}
    held_out: list[set[str]] = []
    lottery = iter(sorted(candidates, key=draw_key))
    for split, how_many in SPLITS.items():
        while len(drawn[split]) < how_many:
            row = next_unlike(held_out, lottery)
            drawn[split].append(row)
            if split != "train":
                held_out.append(bag_of(row))

    substitutes = (row for row in lottery if row.word not in LEFT_OUT)
    seated = [bag_of(row) for rows in drawn.values() for row in rows]
    for rows in drawn.values():
        for seat, row in enumerate(rows):
            if row.word in LEFT_OUT:
                rows[seat] = next_unlike(seated, substitutes)
                seated.append(bag_of(rows[seat]))
    return drawn


def next_unlike(others: list[set[str]], lottery: Iterator[Row]) -> Row:
    """The next row whose definition is no near-copy of the others. Raises SystemExit if there is none."""
    for row in lottery:
        bag = bag_of(row)
        if not any(len(bag & other) > TOO_SIMILAR * len(bag | other) for other in others):
            return row
    raise SystemExit("There are not enough clean definitions.")


def bag_of(row: Row) -> set[str]:
    return set(normalised(row.definition).split())


def build(folder: Path) -> str:
    """The whole CSV file as one string."""
    with TOPICS_CSV.open(encoding="ascii", newline="") as file:
        topics = list(csv.DictReader(file))
    words_there = {row["word"].lower() for row in topics}
    texts_there = {normalised(row["definition"]) for row in topics}

    suitable = [
        sense
        for sense in first_senses(folder)
        if is_clean(sense.row)
        and sense.row.word not in words_there
        and normalised(sense.row.definition) not in texts_there
    ]
    drawn = draw(one_sense_per_word(suitable))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["split", *Row._fields])
    for split in ("train", "validation", "test"):
        writer.writerows([split, *row] for row in drawn[split])
    return out.getvalue()


def main(argv: list[str] | None = None) -> None:
    command_line(build, TARGET, __doc__ or "", argv)


if __name__ == "__main__":
    main(sys.argv[1:])
