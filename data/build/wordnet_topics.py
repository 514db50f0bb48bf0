"""Build data/wordnet_topics.csv: 4,800 noun definitions from WordNet 3.0, 12 topics, fixed splits.

Source: Debian package wordnet-base 1:3.0-37. The rows depend on nothing but its file data.noun,
so every run on every machine writes the same bytes.

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb somewhere
    python data/build/wordnet_topics.py somewhere/usr/share/wordnet

Without an argument the script reads /usr/share/wordnet (the package, installed).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "wordnet-base"
VERSION = "1:3.0-37"
DEB_SHA256 = "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752"
NOUNS_SHA256 = "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2"
INSTALLED = Path("/usr/share/wordnet")
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

# What a classroom can do without; `*` stands for any ending. Broad on purpose: WordNet has far more
# rows than we need, so a harmless row lost ("war memorial") costs nothing. Both the word and its
# definition are searched.
# slurs, contempt, insults, labels WordNet itself puts on such words
CONTEMPT = """
    offensive*, ethnic*, slur*, disparag*, derogat*, derisive*, contempt*, insult*, vulgar*,
    slang, informal, profan*, pejorative*, racial*, racis*, race, negro*, black person, blacks,
    whites, white person, white man, white woman, white people, coloured person, coloured people,
    colored person, colored people, mulatto*, savage*, barbar*, heathen*, gypsy, gypsies,
    redskin*, squaw*, eskimo*, lapp*, kafir*, kaffir*, aryan*, jew, jews, hick*, hillbill*,
    yokel*, stupid*, idiot*, moron*, imbecil*, fool*, retard*, feeble*, crippl*, simpleton*,
    sissy, deform*, freak*, overweight, scold*, stillborn, neglect*, midget*, lunatic*, insan*,
    madman, madmen, madness, mad, craz*, mentally, mental, psycho*, despicable, worthless*,
    detest*, repulsive*, disgust*, ugly, fat, obese, loathsome, obnoxious, unpleasant,
    disreputable, degenerat*, deprav*, immoral*, coward*, traitor*, scoundrel*, villain*, damn*,
    bastard*, bitch*, shit*, fart*, piss*, turd*, crap, dung, excre*, faeces, faecal, feces,
    fecal, defecat*, mongoloid*, cretin*, spinster*, hag, crone, old maid, effeminat*, womaniz*,
    illegitimate, inferior, lazy, clumsy, boring, dislik*, hatred, hate, hates, hated, heretic*,
    hypocri*, despot*, tyran*, pagan*, infidel*, cult, cults, fascis*, bigot*, chauvin*, suprema*,
    segregat*, apartheid, imperialis*
"""
# sex, and body parts that classes giggle at
SEX = """
    sex*, heterosex*, homosex*, bisex*, transsex*, gay, gays, lesbian*, erotic*, porn*, penis*,
    penile, phall*, vagina*, vulva*, clitor*, genital*, testic*, testis, testes, scrot*, orgas*,
    masturbat*, coit*, copulat*, intercourse, ejaculat*, semen, seminal, sperm*, prostitut*,
    brothel*, whore*, harlot*, strumpet*, nude*, nudi*, naked*, lewd*, lust, lustful*,
    licentious*, lascivious*, promiscu*, obscen*, fornicat*, adulter*, incest*, rape*, raping,
    rapist*, pimp*, concubin*, harem*, mistress*, sodom*, bugger*, fetish*, condom*, contracept*,
    abort*, virgin, virgins, virginity, anus, anal, rectal, rectum, perine*, buttock*, nipple*,
    pubic, pubis, pubes, labia, labiales, labial vein*, erectile, pudend*, vestibul* gland*,
    urethr*, urinat*, crotch, groin, foreskin, circumcis*, castrat*, menstru*, menses, seduc*,
    debauch*, pervers*, pervert*, bestiality, impotence, libid*, striptease*, breast*, brassiere,
    bra, uterus, uterine, hymen, placenta*, aphrodisiac*, lover, lovers,
    attractive woman, attractive women, attractive girl*, young woman, young women, young girl*,
    young lady, old woman, old women, old lady, beautiful woman, beautiful women, beautiful girl*,
    mature woman, unmarried woman, unmarried women, elderly woman, dignified woman
"""
# violence, crime, weapons, war, death
VIOLENCE = """
    kill*, murder*, homicid*, assassin*, massacr*, slaughter*, butcher*, genocid*, tortur*,
    terror*, suicid*, behead*, decapitat*, execution*, executed, hanged, hanging, gallows,
    guillotin*, lynch*, mutilat*, stab*, bomb*, grenad*, missile*, weapon*, gun*, rifle*, pistol*,
    revolver*, cannon*, artillery, firearm*, ammunition, bullet*, cartridge, explosi*, explode*,
    detonat*, torpedo*, warhead*, sword*, dagger*, bayonet*, war, wars, warfare, wartime, battle*,
    combat*, invasion, invad*, enemy, enemies, militar*, soldier*, corpse*, cadaver*, dead,
    deaths, death, die, dies, died, dying, deadly, lethal*, funeral*, burial, buried, grave,
    graves, coffin*, victim*, violen*, assault*, attack*, abus*, cruel*, crime, crimes, criminal*,
    gang*, hostage*, kidnap*, abduct*, slave*, nazi*, hitler*, holocaust, crucif*, cannibal*,
    beating*, beaten, flog*, whip*, lashes, lashing, punish*, prison*, jail*,
    convict*, wound*, maim*, strangl*, suffocat*, bloody, bloodshed, bloodthirsty, gore, hunt*,
    prey, bullfight*, cockfight*, fighting, robb*, thie*, theft, steal*, burglar*, blackmail*,
    extort*, brib*, arson*, perjur*, treason*, riot*, persecut*, hostile, nerve agent, nerve gas,
    tear gas, bio-weapon*, bioweapon*, blasting, insurrect*, revolt*, mob, sacrific*, satan*,
    devil*, demon*, hell, damnation
"""
# drugs, drink in excess
DRUGS = """
    street name*, heroin*, cocaine, marijuana, marihuana, cannabis, hashish, opium, opiate*,
    narcotic*, hallucinogen*, psychedelic*, amphetamin*, addict*, drunk*, intoxicat*, inebri*,
    barbiturat*, smuggl*
"""


def any_of(*word_lists: str) -> re.Pattern[str]:
    """A pattern for the words of comma-separated lists, in which `*` stands for any ending."""
    words = [word.strip() for word in ",".join(word_lists).split(",")]
    alternatives = "|".join(re.escape(word).replace(r"\*", r"\w*") for word in words)
    return re.compile(rf"\b({alternatives})\b", re.IGNORECASE)


UNSUITABLE = any_of(CONTEMPT, SEX, VIOLENCE, DRUGS)
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


def read_nouns(path: Path) -> Iterator[Row]:
    """Every common noun of the twelve files. Format: wndb(5WN)."""
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith(" "):  # the licence, at the head of the file
            continue
        synset, _, gloss = line.partition("|")
        fields = synset.split()
        topic = TOPICS.get(int(fields[1]))
        is_named_individual = "@i" in fields  # Mozart, Kansas: would be half of person and location
        if topic and not is_named_individual:
            yield Row(topic, fields[4].replace("_", " "), definition_of(gloss))


def definition_of(gloss: str) -> str:
    """The gloss without its usage examples, with plain quotes and single spaces."""
    definition = re.split(r'[;:,]?\s*"', gloss, maxsplit=1)[0]
    return " ".join(definition.replace("`", "'").split()).rstrip(" ;:,")


def normalised(definition: str) -> str:
    """What two definitions are compared by: lower-case letters and digits, single spaces."""
    return " ".join(re.findall(r"[a-z0-9]+", definition.lower()))


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


def build(nouns: Path) -> str:
    """The whole CSV file as one string."""
    rows = list(read_nouns(nouns))
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


def find_nouns(folder: Path | None) -> Path:
    """data.noun of the right WordNet, or a SystemExit that says what to do."""
    nouns = (folder or INSTALLED) / "data.noun"
    if not nouns.is_file():
        raise SystemExit(
            f"{nouns} does not exist. Give the folder that holds data.noun, or install it:\n"
            f"  apt-get install {PACKAGE}={VERSION}"
        )
    found = hashlib.sha256(nouns.read_bytes()).hexdigest()
    if found != NOUNS_SHA256:
        raise SystemExit(
            f"{nouns} is not the file this data set is built from (sha256 {found[:12]}..., not "
            f"{NOUNS_SHA256[:12]}...). It must come from Debian {PACKAGE} {VERSION}."
        )
    return nouns


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help=f"default: {INSTALLED}")
    parser.add_argument("--out", type=Path, default=TARGET, help=f"default: {TARGET.name} in data/")
    arguments = parser.parse_args(argv)

    content = build(find_nouns(arguments.folder)).encode("ascii")
    temporary = arguments.out.with_name(f"{arguments.out.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, arguments.out)
    rows = len(content.splitlines()) - 1
    print(f"{arguments.out.name}: {rows:,} rows, {len(content):,} bytes")
    print(f"sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main(sys.argv[1:])
