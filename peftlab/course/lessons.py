"""What the course knows of its lessons, from `notebooks/lessons.toml`: checked here, written where it is read.

    python -m peftlab.course.lessons write     # headers and footers of the lessons, the README's table
    python -m peftlab.course.lessons check     # say what is out of date

The first and the last cell of a lesson (tags "header" and "footer") and the table in the README are made from the
metadata and from `notebooks/build.json`, so that a title or a time stands in one place only.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from peftlab.errors import PeftLabError
from peftlab.files import write_if_changed

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
METADATA = NOTEBOOKS / "lessons.toml"
RECORD = NOTEBOOKS / "build.json"
README = ROOT / "README.md"
TABLE_BEGINS, TABLE_ENDS = "<!-- lessons: made from notebooks/lessons.toml -->", "<!-- end of lessons -->"

KINDS = {"B": "bridge"}  # by the number's first letter; a number that ends in a letter is a deep dive


@dataclass(frozen=True)
class Lesson:
    """One lesson as `lessons.toml` describes it."""

    number: str  # "06", "B1"; "03x" for a deep dive
    file: str  # "06_lora", without ending
    title: str
    heart: str  # one line, for tables
    minutes: int  # of a learner's time, everything included
    core_minutes: int  # without exercises and side paths
    needs: str  # what one must know
    after: tuple[str, ...]  # numbers of the lessons that it builds on
    goals: tuple[str, ...]  # "You will …"

    @property
    def kind(self) -> str:
        """ "lesson", "bridge" or "deep dive"."""
        if self.number[-1].isalpha():
            return "deep dive"
        return KINDS.get(self.number[0], "lesson")

    @property
    def name(self) -> str:
        """Number and title, as headings and links have it."""
        return f"{self.number} · {self.title}"

    @property
    def source(self) -> Path:
        return NOTEBOOKS / f"{self.file}.py"

    @property
    def notebook(self) -> Path:
        return NOTEBOOKS / f"{self.file}.ipynb"


def all_lessons(path: Path = METADATA) -> list[Lesson]:
    """Every lesson, in the file's order: the order of reading. Raises PeftLabError that names the faulty entry."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("lessons", [])
    except FileNotFoundError:
        raise PeftLabError(f"{path.name} is missing from notebooks/: restore it from the course") from None
    except tomllib.TOMLDecodeError as error:
        raise PeftLabError(f"{path.name} is not valid TOML: {error}") from None
    lessons = [_lesson(table) for table in tables]
    _check_together(lessons)
    return lessons


def lesson(number: str) -> Lesson:
    """The lesson of that number. Raises PeftLabError if there is none."""
    found = {each.number: each for each in all_lessons()}
    if number not in found:
        raise PeftLabError(f"there is no lesson {number!r}; there are {', '.join(found)}")
    return found[number]


def _lesson(table: dict) -> Lesson:
    wanted = {field.name for field in fields(Lesson)}
    which = f"lesson {table.get('number', '?')} in lessons.toml"
    if missing := sorted(wanted - set(table)):
        raise PeftLabError(f"{which} lacks {', '.join(missing)}")
    if unknown := sorted(set(table) - wanted):
        raise PeftLabError(f"{which} has {', '.join(unknown)}; the fields are {', '.join(sorted(wanted))}")
    for name in ("number", "file", "title", "heart", "needs"):
        if not isinstance(table[name], str) or not table[name].strip():
            raise PeftLabError(f"{which}: {name} must be a text")
    for name in ("minutes", "core_minutes"):
        if not isinstance(table[name], int) or isinstance(table[name], bool) or table[name] < 1:
            raise PeftLabError(f"{which}: {name} must be a whole number of minutes")
    for name in ("after", "goals"):
        if not isinstance(table[name], list) or not all(isinstance(each, str) and each for each in table[name]):
            raise PeftLabError(f"{which}: {name} must be a list of texts")
    if not re.fullmatch(r"(\d\d|B\d)[a-z]?", table["number"]):
        raise PeftLabError(f"{which}: a number is two digits or B and a digit, with a letter for a deep dive")
    if not re.fullmatch(rf"{table['number']}_[a-z0-9_]+", table["file"]):
        raise PeftLabError(f"{which}: file must be the number and a name, such as {table['number']}_lora")
    if table["core_minutes"] > table["minutes"]:
        raise PeftLabError(f"{which}: core_minutes is more than minutes")
    return Lesson(**{**table, "after": tuple(table["after"]), "goals": tuple(table["goals"])})


def _check_together(lessons: Sequence[Lesson]) -> None:
    numbers = [each.number for each in lessons]
    if twice := sorted({n for n in numbers if numbers.count(n) > 1}):
        raise PeftLabError(f"lessons.toml has lesson {', '.join(twice)} twice")
    for each in lessons:
        if unknown := [n for n in each.after if n not in numbers or n == each.number]:
            raise PeftLabError(f"lesson {each.number} builds on {', '.join(unknown)}, which lessons.toml does not have")


# ---- what the build found out -------------------------------------------------------------------------------------


def build_record(path: Path = RECORD) -> dict[str, dict[str, int]]:
    """Run time and sizes by lesson file; empty before the first build."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def machine_time(found: Lesson) -> str:
    """How long the lesson computes, in words; "" before its first build."""
    seconds = build_record().get(found.file, {}).get("seconds")
    if seconds is None:
        return ""
    return "less than half a minute" if seconds < 30 else "about a minute" if seconds < 75 else "a minute or two"


# What a lesson should not outgrow. Run time on two quiet cores.
AIMS = {"prose_words": 2500, "code_cells": 35, "longest_code_cell": 15, "seconds": 90, "figures": 6, "widgets": 2,
        "exercises": 4}  # fmt: skip
BRIDGE_AIMS = {**AIMS, "prose_words": 1000, "code_cells": 15, "seconds": 15, "figures": 2, "exercises": 2}


def outgrown(found: Lesson) -> list[str]:
    """Where the lesson is larger than aimed for, one phrase each."""
    aims = BRIDGE_AIMS if found.kind == "bridge" else AIMS
    sizes = build_record().get(found.file, {})
    return [
        f"{name.replace('_', ' ')} {sizes[name]:,} (aim {aim:,})"
        for name, aim in aims.items()
        if sizes.get(name, 0) > aim
    ]


# ---- the texts that are made --------------------------------------------------------------------------------------


def header(found: Lesson) -> str:
    """The first cell: title, times, what it builds on."""
    times = f"{found.minutes} minutes"
    if found.core_minutes < found.minutes:
        times += f" ({found.core_minutes} without the exercises)"
    if computing := machine_time(found):
        times += f", of which your machine computes for {computing}"
    before = ", ".join(f"[{lesson(number).name}]({lesson(number).file}.ipynb)" for number in found.after)
    lines = [f"{times}.", f"Builds on {before}." if before else f"You need {found.needs}.", "No GPU, no network."]
    return f"# {found.name}\n\n*{' '.join(lines)}*"


def footer(found: Lesson, lessons: Sequence[Lesson]) -> str:
    """The last cell: where to go from here."""
    same = [each for each in lessons if each.kind == found.kind and each.notebook.exists()]
    numbers = [each.number for each in same]
    following = same[numbers.index(found.number) + 1 :] if found.number in numbers else []
    if not following:
        return "---\n\n*This is the last one so far.*" if found.kind == "lesson" else "---\n\n*Back to your lesson.*"
    step = following[0]
    return f"---\n\n**Next:** [{step.name}]({step.file}.ipynb), {step.heart}."


def table(lessons: Sequence[Lesson]) -> str:
    """The README's table of lessons."""
    rows = [f"| [{e.name}](notebooks/{e.file}.ipynb) | {e.heart} | {e.minutes} min |" for e in lessons]
    return "\n".join(["| lesson | at its heart | time |", "|---|---|---|", *rows])


def written() -> Iterator[tuple[Path, str]]:
    """Every file that holds made text, with what it should hold."""
    lessons = all_lessons()
    built = [each for each in lessons if each.notebook.exists()]
    for each in lessons:
        if each.source.exists():
            made = {"header": header(each), "footer": footer(each, lessons)}
            text = each.source.read_text(encoding="utf-8")
            for tag, content in made.items():
                text = _with_cell(text, tag, content, each)
            yield each.source, text
            if each.notebook.exists():
                yield each.notebook, _notebook_with_cells(each.notebook, made)
    text = README.read_text(encoding="utf-8")
    if TABLE_BEGINS not in text or TABLE_ENDS not in text:
        raise PeftLabError(f"the README has no place for the lessons: put {TABLE_BEGINS} and {TABLE_ENDS} into it")
    head, _, rest = text.partition(TABLE_BEGINS)
    yield README, f"{head}{TABLE_BEGINS}\n{table(built)}\n{TABLE_ENDS}{rest.partition(TABLE_ENDS)[2]}"


def _with_cell(text: str, tag: str, content: str, found: Lesson) -> str:
    """The py:percent text with the cell of that tag replaced."""
    mark = f'# %% [markdown] tags=["{tag}"]\n'
    if text.count(mark) != 1:
        raise PeftLabError(f'{found.file}.py needs one cell that begins with # %% [markdown] tags=["{tag}"]')
    before, _, rest = text.partition(mark)
    _, cell_mark, after = rest.partition("\n# %%")
    comment = "\n".join(f"# {line}".rstrip() for line in content.splitlines())
    return f"{before}{mark}{comment}\n{cell_mark}{after}" if cell_mark else f"{before}{mark}{comment}\n"


def _notebook_with_cells(path: Path, made: dict[str, str]) -> str:
    """The built notebook with the same cells replaced: nothing needs to run again for a new title."""
    import nbformat

    from peftlab.course.notebooks import stable_ids

    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    for cell in notebook.cells:
        for tag, content in made.items():
            if tag in cell.metadata.get("tags", []):
                cell.source = content
    for cell, cell_id in zip(notebook.cells, stable_ids(notebook.cells), strict=True):
        cell.id = cell_id
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def out_of_date() -> list[str]:
    """Files whose made text differs from the metadata, one line each."""
    return [
        f"{path.name}: not what lessons.toml says; run python -m peftlab.course.lessons write"
        for path, text in written()
        if path.read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str] | None = None) -> int:
    options = sys.argv[1:] if arguments is None else arguments
    if options not in (["write"], ["check"]):
        print("usage: python -m peftlab.course.lessons write|check", file=sys.stderr)
        return 2
    try:
        if options == ["check"]:
            problems = out_of_date()
            print("\n".join(problems) or "Headers, footers and tables agree with lessons.toml.")
            return 1 if problems else 0
        for path, text in written():
            if write_if_changed(path, text.encode()):
                print(f"written: {path.name}")
    except PeftLabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
