"""Pages that are made from data: all lessons, builds, stored results, and the table of contents."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from peftlab.course import lessons as course
from peftlab.course.lessons import Lesson
from peftlab.course.paths import FAST_PATH
from peftlab.errors import PeftLabError

# Pages of book/, in this order; any other goes to the end.
START = ("overview", "for_teachers")
REFERENCE = ("models", "glossary", "notation", "bibliography", "authoring", "about")


def toc(lessons: Sequence[Lesson], pages: Sequence[str], results: Sequence[str]) -> str:
    """The table of contents, in parts.

    lessons: those that have a page. pages: names of Markdown files in book/. results: names of stored results.
    Raises PeftLabError if there is no intro page.
    """
    if "intro" not in pages:
        raise PeftLabError("book/intro.md is missing: it is the site's first page")
    known = {"intro", *START, *REFERENCE}
    start = ["lessons", *(name for name in START if name in pages)]
    reference = [name for name in REFERENCE if name in pages] + sorted(set(pages) - known)
    of_kind = {
        caption: [{"file": f"notebooks/{each.file}"} for each in lessons if each.kind in kinds]
        for caption, kinds in {"Lessons": ["lesson", "deep dive"], "Bridges": ["bridge"]}.items()
    }
    stored = {"file": "results", "sections": [{"file": f"results/{name}"} for name in results]}
    parts = [
        {"caption": "Start", "chapters": [{"file": name} for name in start]},
        *({"caption": caption, "chapters": found} for caption, found in of_kind.items() if found),
        {
            "caption": "Reference",
            "chapters": [
                {"file": "atlas"},
                {"file": "side_by_side"},
                *({"file": name} for name in reference),
                *([stored] if results else []),
                {"file": "builds"},
            ],
        },
    ]
    return yaml.safe_dump({"format": "jb-book", "root": "intro", "parts": parts}, sort_keys=False)


# ---- lessons ------------------------------------------------------------------------------------------------------


def lessons_page(lessons: Sequence[Lesson], planned: Sequence[Lesson]) -> str:
    """All lessons in tables, one for each kind, and the fast path. `planned` have no page yet."""
    parts = ["# Lessons"]
    fast = [each for number in FAST_PATH for each in lessons if each.number == number]
    if len(fast) > 1:
        path = " → ".join(link(each) for each in fast)
        total = sum(each.core_minutes for each in fast)
        parts.append(f"**The fast path:** {path}. {total} minutes, without the exercises.")
    headings = {
        "lesson": [],  # the page's own
        "bridge": ["## Bridges", "Short lessons on what the others take for granted. Take one when you need it."],
        "deep dive": ["## Deep dives", "What a lesson leaves out."],
    }
    for kind, heading in headings.items():
        rows = [lesson_row(each) for each in lessons if each.kind == kind]
        if rows:
            parts += heading
            parts.append(table(["lesson", "at its heart", "you need", "your time", "machine time"], rows))
    if planned:
        names = ", ".join(each.name for each in planned)
        parts.append(f"## In preparation\n\n{names}.")
    return "\n\n".join(parts) + "\n"


def lesson_row(lesson: Lesson) -> list[str]:
    needs = ", ".join([*(f"lesson {number}" for number in lesson.after)]) or lesson.needs
    return [link(lesson), lesson.heart, needs, f"{lesson.minutes} min", course.machine_time(lesson) or "–"]


def link(lesson: Lesson) -> str:
    return f"[{lesson.name}](notebooks/{lesson.file}.ipynb)"


def builds_page(lessons: Sequence[Lesson], record: Mapping[str, Mapping[str, int]]) -> str:
    """What the last build of each lesson measured, and where a lesson is larger than aimed for."""
    rows = []
    for each in lessons:
        sizes = record.get(each.file, {})
        numbers = [sizes.get(name) for name in ("seconds", "prose_words", "code_cells", "longest_code_cell")]
        shown = ["–" if number is None else f"{number:,}" for number in numbers]
        rows.append([link(each), *shown, "; ".join(course.outgrown(each)) or "within its aims"])
    head = ["lesson", "run time (s)", "words", "code cells", "longest cell (lines)", "against the aims"]
    return "\n\n".join(
        [
            "# Builds",
            "Each lesson is run from top to bottom before it is published, and run again by the tests. "
            "This is what the last build measured. Run times are rounded to 5 seconds, on two processor cores.",
            table(head, rows, right=range(1, 5)),
            "",
        ]
    )


# ---- stored results -----------------------------------------------------------------------------------------------


def results_page(found: Mapping[str, Mapping[str, Any]], bench: Path) -> str:
    """The list of all stored results. found: name -> content of its file."""
    rows = [
        [
            f"[{name}](results/{name}.md)",
            what_it_measured(name, bench),
            measured_on(content),
            f"{len(content.get('cells', {})):,}",
        ]
        for name, content in found.items()
    ]
    return "\n\n".join(
        [
            "# Stored results",
            "Every number that a lesson quotes comes from one of these files, and a test holds the prose to them. "
            "Each file says with which settings, versions and machine it was measured.",
            table(["results", "what was measured", "measured on", "cells"], rows, right=[3]),
            "",
        ]
    )


def result_page(name: str, content: Mapping[str, Any], bench: Path, lessons: Sequence[Lesson]) -> str:
    """One stored result: what, with what, on what, and the file."""
    users = [each for each in lessons if each.source.exists() and f'"{name}"' in each.source.read_text("utf-8")]
    used = ", ".join(f"[{each.name}](../notebooks/{each.file}.ipynb)" for each in users)
    parts = [
        f"# {name}",
        what_it_measured(name, bench),
        f'<p><a href="../downloads/results/{name}.json" download>Download {name}.json</a></p>',
        f"To measure it again: `python -m peftlab.bench {measurement(name, bench).stem} --fresh`.",
        f"Used in {used}." if used else "",
        "## What is in it",
        "A cell is one run, kept under its key. Keys with the same first part belong together.",
        table(["keys begin with", "cells", "an example", "each holds"], list(families(content.get("cells", {}))), [1]),
        "## Settings",
        mapping_table(content.get("settings", {}), "setting"),
        "## Measured with",
        mapping_table(content.get("environment", {}), "part"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def what_it_measured(name: str, bench: Path) -> str:
    """The first paragraph of the measurement's own description."""
    path = measurement(name, bench)
    if not path.exists():
        return "No description."
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "No description."
    return " ".join(text.split("\n\n")[0].split())


def measurement(name: str, bench: Path) -> Path:
    """The file that made a result: its namesake, or one measurement for several machines."""
    own = bench / f"{name}.py"
    return own if own.exists() else bench / f"{name.removesuffix('_gpu').removesuffix('_cpu')}.py"


def measured_on(content: Mapping[str, Any]) -> str:
    """The accelerator that a result names, or that there was none."""
    return content.get("environment", {}).get("device", "CPU").removeprefix("NVIDIA ")


def families(cells: Mapping[str, Any]) -> list[list[str]]:
    """Rows: first part of the key, how many cells, one key, and the names of what they hold."""
    grouped: dict[str, list[str]] = {}
    for key in cells:
        grouped.setdefault(key.split("/")[0], []).append(key)
    rows = []
    for first, keys in grouped.items():
        value = cells[keys[0]]
        holds = ", ".join(f"`{field}`" for field in value) if isinstance(value, dict) else f"a {type(value).__name__}"
        rows.append([f"`{first}`", f"{len(keys):,}", f"`{keys[0]}`", holds])
    return rows


def mapping_table(values: Mapping[str, Any], heading: str) -> str:
    if not values:
        return "Not recorded."
    shown = {key: value if isinstance(value, str) else f"`{json.dumps(value)}`" for key, value in values.items()}
    return table([heading, "value"], [[f"`{key}`", value] for key, value in shown.items()])


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A Markdown table; the columns in `right` are aligned to the right."""
    lines = [head, ["--:" if column in right else "---" for column in range(len(head))]]
    lines += [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
