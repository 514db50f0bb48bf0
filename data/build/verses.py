"""The King James Version and the World English Bible, verse by verse, out of their Debian packages.

    apt-get download sword-text-kjv=14.3-1 sword-text-web=426.0-1
    pip install pysword==0.2.8

The packages are read where they lie, without being installed. Both texts are in the public domain.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGES = {
    "kjv": (
        "sword-text-kjv_14.3-1_all.deb",
        "9f463f28ce665f6f528fc723179722bced880a4c5485f7a41bf742838315de57",
        "engKJV2006eb",
    ),
    "web": (
        "sword-text-web_426.0-1_all.deb",
        "930b23670b352f0829a306501de4bebb5e654a2df02cde2cbe86b802177868e1",
        "engWEB2015eb",
    ),
}
# Books of which neither a model nor an adapter of the course sees a verse in training, in either translation.
HELD_OUT = {"validation": ("Ruth", "Ecclesiastes", "Jonah", "James", "Philippians"), "test": ("Proverbs",)}


def read(translation: str, folder: Path) -> dict[str, list[tuple[int, int, str]]]:
    """book -> (chapter, verse, text) of every verse, in order. translation: "kjv" or "web".

    folder: holds the package. The text is the package's, without paragraph marks, with single spaces; empty verses
    are left out.
    Raises SystemExit, saying what to do, if the package is missing or another one.
    """
    from pysword.modules import SwordModules

    name, sha256, module = PACKAGES[translation]
    found: dict[str, list[tuple[int, int, str]]] = {}
    with tempfile.TemporaryDirectory() as unpacked:
        unpack_deb(folder, name, sha256, "./usr/share/sword/", Path(unpacked))
        modules = SwordModules(str(Path(unpacked) / "usr/share/sword"))
        modules.parse_modules()
        bible = modules.get_bible_from_module(module)
        for book in (book for part in bible.get_structure().get_books().values() for book in part):
            numbers = [(c, v) for c, verses in enumerate(book.chapter_lengths, 1) for v in range(1, verses + 1)]
            texts = [" ".join(text.replace("¶", " ").split()) for text in bible.get_iter(books=[book.name])]
            found[book.name] = [(*number, text) for number, text in zip(numbers, texts, strict=True) if text]
    return found


def unpack_deb(folder: Path, name: str, sha256: str, under: str, target: Path) -> None:
    """Unpack what a Debian package holds below `under`, e.g. "./usr/share/sword/", into the folder `target`."""
    path = folder / name
    if not path.is_file():
        package, version, _ = name.split("_")
        raise SystemExit(f"{path} does not exist. Fetch it:\n  apt-get download {package}={version}")
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise SystemExit(f"{name} has sha256 {found[:12]}..., not {sha256[:12]}...: fetch it again.")
    with tarfile.open(fileobj=io.BytesIO(_data_of(content))) as archive:
        members = [member for member in archive if member.name.startswith(under)]
        archive.extractall(target, members, filter="data")


def _data_of(deb: bytes) -> bytes:
    """The member data.tar.* of a .deb, which is an `ar` archive: heads of 60 bytes, contents of even length."""
    for name, content in _members(deb):
        if re.match(rb"data\.tar", name):
            return content
    raise SystemExit("The package holds no data.tar: fetch it again.")


def _members(archive: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(b"!<arch>\n")
    while position < len(archive):
        name, size = archive[position : position + 16], int(archive[position + 48 : position + 58])
        yield name, archive[position + 60 : position + 60 + size]
        position += 60 + size + size % 2
