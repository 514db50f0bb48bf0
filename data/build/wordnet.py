"""The WordNet 3.0 that the data sets are built from: where it is, that it is the right one, how to read it.

Source: Debian package wordnet-base 1:3.0-37. Only files with the checksums below are read, so every
run on every machine writes the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

PACKAGE = "wordnet-base"
VERSION = "1:3.0-37"
DEB_SHA256 = "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752"
INSTALLED = Path("/usr/share/wordnet")
SHA256 = {
    "data.adj": "c89120dfc1f046ddff4a631bf9b7e9fa1a36b5e86565a23bf82dbe14f30b88a7",
    "data.adv": "444a63bf3955080ab7524f5079cfc07ff9bc682cb98bdb1db73b0fb9829f1139",
    "data.noun": "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
    "data.verb": "adcf43e35b581e8036d8b5a52d63d9cd3d3b4870b2720d3c03c799df44777bc2",
    "index.adj": "c9865d7b4d1f805bdef82ccdcea5282436e23083e6f6f1b33e716327c4eda810",
    "index.noun": "a490d99d93d017bf4822fe2f0ffa51fd73911ce271dc7535fade21f8814b5a04",
    "index.verb": "e2ac24816c3a8289dcb72aaa9cf8db81fdf25ec34d792bfc96ac5b7a20c8b4ae",
    "cntlist.rev": "a198580b8f705fa02797bba8b13e5cbe4a9f9f40cb1697e774c7fc6a5865b035",
}


def read_lines(folder: Path, name: str) -> list[str]:
    """The lines of one WordNet file without the licence at its head.

    Raises SystemExit, saying what to do, if the file is not there or is not the one we know.
    """
    path = folder / name
    if not path.is_file():
        raise SystemExit(
            f"{path} does not exist. Give the folder that holds {name}, or install it:\n"
            f"  apt-get install {PACKAGE}={VERSION}"
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise SystemExit(
            f"{path} is not the file this data set is built from (sha256 {found[:12]}..., not "
            f"{SHA256[name][:12]}...). It must come from Debian {PACKAGE} {VERSION}."
        )
    return [line for line in content.decode("ascii").splitlines() if not line.startswith(" ")]


def definition_of(gloss: str) -> str:
    """The gloss without its usage examples, with plain quotes and single spaces."""
    definition = re.split(r'[;:,]?\s*"', gloss, maxsplit=1)[0]
    return " ".join(definition.replace("`", "'").split()).rstrip(" ;:,")


def normalised(definition: str) -> str:
    """What two definitions are compared by: lower-case letters and digits, single spaces."""
    return " ".join(re.findall(r"[a-z0-9]+", definition.lower()))


def command_line(build: Callable[[Path], str], target: Path, about: str, argv: list[str] | None) -> None:
    """`SCRIPT [FOLDER] [--out FILE]`: build the data set from FOLDER and write it, whole or not at all."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=INSTALLED, help=f"default: {INSTALLED}")
    parser.add_argument("--out", type=Path, default=target, help=f"default: {target.name} in data/")
    arguments = parser.parse_args(argv)

    content = build(arguments.folder).encode("ascii")
    # peftlab.files does this too, but these scripts run with Python alone, nothing installed.
    temporary = arguments.out.with_name(f"{arguments.out.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, arguments.out)
    rows = len(content.splitlines()) - 1
    print(f"{arguments.out.name}: {rows:,} rows, {len(content):,} bytes")
    print(f"sha256 {hashlib.sha256(content).hexdigest()}")
