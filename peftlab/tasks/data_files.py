"""Where the files of the data sets are, and how a table is read or refused."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from peftlab.errors import PeftLabError


def data_folder() -> Path:
    """$PEFTLAB_DATA, else the folder `data` beside the package (a clone, installed with -e)."""
    if chosen := os.environ.get("PEFTLAB_DATA"):
        folder = Path(chosen).expanduser()
        if not folder.is_dir():
            raise PeftLabError(f"The environment variable PEFTLAB_DATA names {chosen!r}: no folder.")
        return folder
    folder = Path(__file__).resolve().parents[2] / "data"
    if not folder.is_dir():
        raise PeftLabError(
            "The folder `data` is not beside the package: peftlab was installed as a copy. Work in "
            "the course's repository (pip install -e .), or set PEFTLAB_DATA to its data folder."
        )
    return folder


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """All rows of a CSV file, each with exactly these columns, none of them empty.

    Raises PeftLabError if the file is missing, damaged or has no rows.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header, rows = tuple(reader.fieldnames or ()), list(reader)
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise damaged(path, str(error)) from None
    if header != columns:
        raise damaged(path, f"it has columns {list(header)}, not {list(columns)}")
    for number, row in enumerate(rows, start=1):
        # DictReader fills a short row with None and files a long row's surplus under None.
        if None in row or not all(row.values()):
            raise damaged(path, f"its row {number} is {list(row.values())}")
    if not rows:
        raise damaged(path, "it has no rows")
    return rows


def read_splits(path: Path, columns: tuple[str, ...], splits: tuple[str, ...]) -> list[dict[str, str]]:
    """`read_table` of a table whose column "split" holds each of `splits`, and nothing else."""
    rows = read_table(path, columns)
    for number, row in enumerate(rows, start=1):
        if row["split"] not in splits:
            raise damaged(path, f"its row {number} is {list(row.values())}")
    for split in splits:
        if not any(row["split"] == split for row in rows):
            raise damaged(path, f"it has no {split} rows")
    return rows


def missing(path: Path) -> PeftLabError:
    """The error to raise for a file that is not there."""
    return PeftLabError(
        f"{path.name} is missing from the data folder. {_mend(path)}, or set PEFTLAB_DATA to a folder that has it."
    )


def damaged(path: Path, what: str) -> PeftLabError:
    """The error to raise for a file that is not what it should be. what: what is wrong with it."""
    return PeftLabError(f"{path.name} is damaged: {what}. {_mend(path)}.")


def _mend(path: Path) -> str:
    return f"Restore it with `git checkout data/{path.name}`"
