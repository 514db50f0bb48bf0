"""The website: what staging changes, which pages are made, what a finished site may not have. And one real build."""

from __future__ import annotations

import base64
import copy
import dataclasses
import html
import json
import re
import struct
from pathlib import Path

import nbformat
import pytest
import yaml

from peftlab.course import lessons as course
from peftlab.course.exercise import Exercise, exercise
from peftlab.course.lessons import Lesson
from peftlab.course.site import atlas, check, lessons, links, pages
from peftlab.course.site import build as site_build
from peftlab.course.site import side_by_side as comparison
from peftlab.errors import PeftLabError
from peftlab.methods.base import METHODS
from peftlab.show import palette, side_by_side
from peftlab.show.knobs import WITHOUT_KERNEL
from peftlab.show.word_switch import ASLEEP
from tests.built_site import built_site

ROOT = Path(__file__).resolve().parents[1]
LORA = "notebooks/06_lora.ipynb"


def places(repository: str = "https://github.com/someone/course") -> links.Map:
    pages_of_book = {f"book/{name}.md": f"{name}.md" for name in ("intro", "glossary", "lessons")}
    return links.Map(ROOT, repository, {LORA: LORA, **pages_of_book}, frozenset({"notebooks/20_later.ipynb"}))


def lesson(number: str, **changes) -> Lesson:
    values = dict(
        number=number, file=f"{number}_name", title=f"Title {number}", heart="its heart", minutes=60, core_minutes=45,
        needs="some Python", after=(), goals=(),
    )  # fmt: skip
    return Lesson(**{**values, **changes})


# ---- links --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "written", "shown"),
    [
        ("book/intro.md", "[06](../notebooks/06_lora.ipynb)", "[06](notebooks/06_lora.ipynb)"),
        ("book/intro.md", "[06](../notebooks/06_lora.ipynb#sources)", "[06](notebooks/06_lora.ipynb#sources)"),
        (LORA, "[word](../book/glossary.md#term-rank)", "[word](../glossary.md#term-rank)"),
        (LORA, "[here](06_lora.ipynb)", "[here](06_lora.ipynb)"),
        ("book/intro.md", "[all](lessons.md)", "[all](lessons.md)"),
        ("book/intro.md", "[later](../notebooks/20_later.ipynb)", "later"),
        ("book/intro.md", "[paper](https://arxiv.org/abs/2106.09685)", "[paper](https://arxiv.org/abs/2106.09685)"),
        ("book/intro.md", "[down](#three-doors)", "[down](#three-doors)"),
        ("book/intro.md", "[data](../data/README.md)",
         "[data](https://github.com/someone/course/blob/main/data/README.md)"),
        ("book/intro.md", "[gone](no_such_page.md)", "[gone](no_such_page.md)"),
    ],
)  # fmt: skip
def test_links_lead_to_where_things_are_on_the_site(page, written, shown):
    assert links.rewrite(written, page, places()) == shown


def test_without_a_home_the_repository_is_named_in_words():
    unpublished = places("https://github.com/OWNER/course")
    assert links.rewrite("[data](../data/README.md)", "book/intro.md", unpublished) == "data (`data/README.md`)"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("85 % of 90 MB", "85\u00a0% of 90\u00a0MB"),
        ("core, 12 min", "core, 12\u00a0min"),
        ("20 minutes, 4 GBit", "20 minutes, 4 GBit"),
        ("`85 %`", "`85\u00a0%`"),
    ],
)
def test_a_number_keeps_its_unit(written, shown):
    assert links.rewrite(written, "book/intro.md", places()) == shown


def test_code_is_left_alone_and_a_figure_is_not():
    code = "```python\n[a](../notebooks/06_lora.ipynb)\n```\n"
    figure = "```{figure} a.png\n[a](../notebooks/06_lora.ipynb)\n```\n"
    shown = links.rewrite(f"{figure}{code}[a](../notebooks/06_lora.ipynb)", "book/intro.md", places())
    assert shown.count("(notebooks/06_lora.ipynb)") == 2
    assert code in shown


def test_a_card_links_to_a_page_and_loses_the_link_to_a_planned_one():
    card = ":::{{grid-item-card}} Learn\n:link: {}\n:link-type: doc\n\nWords.\n:::\n"
    shown = links.rewrite(card.format("../notebooks/06_lora"), "book/intro.md", places())
    assert ":link: notebooks/06_lora\n:link-type: doc\n" in shown
    shown = links.rewrite(card.format("../notebooks/20_later"), "book/intro.md", places())
    assert ":link" not in shown and "Words." in shown


# ---- lessons ------------------------------------------------------------------------------------------------------


@pytest.fixture
def notebook():
    cell = nbformat.v4
    control = cell.new_output("execute_result", {"text/plain": "VBox(children=(IntSlider(value=8, max=64),))"})
    twin = cell.new_output("execute_result", {"text/plain": "HTML(value='')", "text/html": "<b>alive</b>"})
    number = cell.new_output("execute_result", {"text/plain": "tensor(42)"})
    return cell.new_notebook(
        cells=[
            cell.new_markdown_cell("# 06 · LoRA", metadata={"tags": ["header"]}),
            cell.new_code_cell("drag()", outputs=[control], execution_count=1),
            cell.new_code_cell("quiz()", outputs=[twin], execution_count=2),
            cell.new_code_cell("42", outputs=[number], execution_count=3),
            cell.new_markdown_cell("[later](20_later.ipynb)", metadata={"tags": ["footer"]}),
        ]
    )


TASKS = [
    Exercise("06.one", "one", 4, solution="x" * 3, hints=["Use `a*b`, not a*b or $x$."]),
    Exercise("06.two", "two_of_them", 5, solution={"a": 1}, hints=["First.", "Second."]),
]


def test_a_page_gets_its_actions_below_the_title_and_solutions_before_the_end(notebook):
    before = copy.deepcopy(notebook)
    shown = lessons.page(notebook, course.lesson("06"), TASKS, places())
    assert notebook == before
    tags = [cell.metadata.get("tags", [""])[0] for cell in shown.cells]
    assert tags == ["header", "actions", "", "", "", "solutions", "footer"]
    assert shown.cells[-1].source == "later"
    assert 'href="../downloads/06_lora.ipynb" download' in shown.cells[1].source
    assert "colab.research.google.com/github/someone/course/blob/main/notebooks/06_lora.ipynb" in shown.cells[1].source


def test_every_exercise_has_its_hints_and_its_solution_in_dropdowns():
    text = lessons.hints_and_solutions(TASKS)
    assert text.count(":::{dropdown} Hints") == text.count(":::{dropdown} Solution") == 2
    assert "````python\n'xxx'\n````" in text
    assert "1. First." in text and "2. Second." in text
    assert "two\\_of\\_them" in text


def test_solutions_bear_the_names_that_the_exercises_have_in_the_lesson():
    cell = nbformat.v4
    book = cell.new_notebook(
        cells=[
            cell.new_markdown_cell("# 06 · LoRA"),
            cell.new_markdown_cell("Before.\n\n### Exercise 1 · The cut of $x$ (4 minutes)\n\nWrite it."),
            cell.new_code_cell("x = 1"),
            cell.new_code_cell('check("06.one", one)'),
            cell.new_code_cell('check("06.two", two)'),
        ]
    )
    shown = lessons.page(book, course.lesson("06"), TASKS, places())
    asked, solved = shown.cells[2].source, shown.cells[-1].source
    assert "(exercise-06-one)=\n### Exercise 1 · The cut of $x$ (4 minutes)\n" in asked
    assert asked.endswith("[Hints and solution](#to-solve-06-one)")
    assert "(to-solve-06-one)=\n### Exercise 1 · The cut of $x$\n\n[Back to the exercise](#exercise-06-one)" in solved
    assert "(to-solve-06-two)=\n### two\\_of\\_them\n\n5 minutes" in solved  # it has no heading in the lesson


def test_a_solution_is_shown_without_remarks_to_our_linter():
    def answer(x):  # noqa: ANN001, ANN202
        return x  # kept

    shown = lessons.solution_code(Exercise("06.x", "x", 1, solution=answer, hints=[]))
    assert shown == "def answer(x):\n    return x  # kept"


def test_a_lesson_without_exercises_gets_no_empty_section(notebook):
    shown = lessons.page(notebook, course.lesson("06"), [], places())
    assert not any("Hints" in cell.source for cell in shown.cells)
    assert lessons.exercises_of(lesson("99")) == []


def test_colab_has_to_wait_for_a_public_repository():
    assert "once the course's repository is public" in lessons.actions(
        lesson("06"), places("https://github.com/OWNER/c")
    )
    assert "is public" not in lessons.actions(lesson("06"), places())


def test_colab_gets_the_data_and_the_models_too():
    """A plain pip install of the repository would copy the package without them."""
    shown = lessons.actions(lesson("06"), places())
    assert "git clone --depth 1 https://github.com/someone/course course" in shown
    assert "pip install -q -e" in shown and "course/data/models/requirements.txt" in shown


def test_a_control_sleeps_and_a_widget_with_a_twin_lives(notebook):
    control, twin, number = (
        cell.outputs[0].data for cell in lessons.page(notebook, lesson("06"), [], places()).cells if "outputs" in cell
    )
    assert "needs a running kernel" in control["text/html"] and "text/plain" not in control
    assert 'class="admonition' in control["text/html"] and "make lab" in control["text/html"]
    assert twin["text/html"] == "<b>alive</b>"
    assert number == {"text/plain": "tensor(42)"}


def test_the_live_panels_say_that_they_sleep():
    """Knobs and switch bring words of their own: the note keeps them, and says what to do."""
    for stored in (WITHOUT_KERNEL, ASLEEP):
        assert lessons.NEEDS_A_KERNEL in stored
        output = nbformat.v4.new_output("execute_result", {"text/html": f"<p>{stored}</p>", "text/plain": stored})
        lessons.put_to_sleep(output)
        assert f"<p>{stored}</p>" in output.data["text/html"] and "make lab" in output.data["text/html"]


def png(width: int) -> str:
    """The beginning of a PNG file, in base64."""
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, 300) + b"\x08\x06\0\0\0"
    return base64.b64encode(head + bytes(40)).decode()


@pytest.mark.parametrize(("width", "image"), [(971, {"alt": "A.", "classes": "wide-figure"}), (651, {"alt": "A."})])
def test_a_figure_of_several_columns_is_marked(notebook, width, image):
    shown = nbformat.v4.new_output("display_data", {"image/png": png(width), "text/plain": "<Figure>"})
    cell = nbformat.v4.new_code_cell("draw()", outputs=[shown], metadata={"mystnb": {"image": {"alt": "A."}}})
    notebook.cells.insert(1, cell)
    assert lessons.page(notebook, course.lesson("06"), [], places()).cells[2].metadata["mystnb"]["image"] == image


@pytest.mark.parametrize(
    ("plain", "control"),
    [("IntSlider(value=8)", True), ("HTML(value='x')", True), ("Linear(in_features=3)", False), ("42", False)],
)
def test_what_counts_as_a_control(plain, control):
    assert lessons.is_control(plain) is control


def test_in_a_hint_only_backticks_are_markup():
    assert lessons.plain("Use `a*b`, not a*b or $x$.") == "Use `a*b`, not a\\*b or \\$x\\$."
    assert lessons.plain("an odd ` one") == "an odd ' one"


# ---- pages made from data -----------------------------------------------------------------------------------------


def test_the_table_of_contents_has_its_parts_in_order():
    every = [lesson("00"), lesson("06"), lesson("06x"), lesson("B1")]
    toc = yaml.safe_load(pages.toc(every, ["intro", "about", "zebra", "overview", "glossary"], ["scissors"]))
    files = {part["caption"]: [chapter["file"] for chapter in part["chapters"]] for part in toc["parts"]}
    assert list(files) == ["Start", "Lessons", "Bridges", "Reference"]
    assert toc["root"] == "intro"
    assert files["Start"] == ["lessons", "overview"]
    assert files["Bridges"] == ["notebooks/B1_name"]
    assert files["Lessons"] == ["notebooks/00_name", "notebooks/06_name", "notebooks/06x_name"]
    assert files["Reference"] == ["atlas", "side_by_side", "glossary", "about", "zebra", "results", "builds"]


def test_the_atlas_tells_every_method_and_links_to_each():
    text = atlas.page(ROOT)
    for method in METHODS:
        assert f"[{method.__name__}](#{atlas.anchor(method)})" in text and f"({atlas.anchor(method)})=\n" in text
        assert atlas.code(method.card.parameters) in text and method.card.title in text
        for fact in (method.card.use_when, method.card.avoid_when, method.card.unknown):
            assert fact and f"\n: {lessons.plain(fact)}\n" in text
    assert text.count("\n### ") == len(METHODS)


def test_the_page_side_by_side_holds_what_was_stored_and_leaves_out_what_was_not():
    names = ("scissors", "adapter_widths", "additive", "selective")
    results = {name: json.loads((ROOT / f"data/results/{name}.json").read_text("utf-8")) for name in names}
    shown = side_by_side.rows(results)
    assert [row.mean for row in shown] == sorted((row.mean for row in shown), reverse=True)
    for row in shown:
        assert len(row.accuracies) >= 3 and len(set(row.accuracies)) > 1, row.name
    full = next(row for row in shown if row.name == "full fine-tuning")
    cells = results["scissors"]["cells"]
    assert sorted(full.accuracies) == sorted(cells[f"full/{s}"]["accuracy"] for s in range(5))
    text = comparison.page(results)
    assert all(comparison.link(row) in text and row.name in comparison.described(shown) for row in shown)
    below = comparison.below_the_head(shown, next(row for row in shown if row.name == "head only"))
    assert "P-tuning" in below[0] and "IA³" not in below[0] and comparison.below_the_head(shown[:3], shown[-1]) == []
    fewer = side_by_side.rows({"scissors": results["scissors"]})
    assert {row.family for row in fewer} == {"baseline", "reparameterisation"}


def test_a_card_in_the_atlas_is_text_and_not_markup(monkeypatch):
    traps = ("W_up * 2 < `a_b`", "an odd ` one")
    monkeypatch.setattr(METHODS[0], "card", dataclasses.replace(METHODS[0].card, traps=traps))
    shown = atlas.entry(METHODS[0], ROOT)
    assert "W\\_up * 2 \\< `a_b`" in shown.replace("\\*", "*") and "an odd ' one" in shown


def test_a_site_needs_a_first_page():
    with pytest.raises(PeftLabError, match="intro.md is missing"):
        pages.toc([], ["overview"], [])


def test_the_lessons_page_shows_what_is_built_and_names_what_is_planned():
    shown = pages.lessons_page([lesson("00"), lesson("06"), lesson("B1")], [lesson("07")])
    fast = next(line for line in shown.splitlines() if "fast path" in line)
    assert fast.index("00_name") < fast.index("06_name") and "90 minutes" in fast
    assert "B1" not in fast and "07" not in fast
    assert "07 · Title 07" in shown and "07_name" not in shown


def test_the_builds_page_says_where_a_lesson_is_too_large(monkeypatch):
    record = {"06_name": {"seconds": 130, "prose_words": 3510, "code_cells": 28, "longest_code_cell": 12}}
    monkeypatch.setattr(course, "build_record", lambda: record)
    shown = pages.builds_page([lesson("06"), lesson("00")], record)
    row = next(line for line in shown.splitlines() if "06_name" in line)
    assert "| 130 | 3,510 | 28 | 12 |" in row and "prose words 3,510 (aim 2,500)" in row and "code cells" not in row
    assert "| – | – | – | – | within its aims |" in shown


def test_a_results_page_says_what_with_what_and_on_what(tmp_path):
    (tmp_path / "speed.py").write_text('"""Seconds per\nstep.\n\nMore."""\n', encoding="utf-8")
    content = {
        "cells": {"cut/1": {"loss": 1.0}, "cut/2": {"loss": 2.0}, "full": 3.0},
        "settings": {"seeds": [0, 1]},
        "environment": {"torch": "2.13.0"},
    }
    shown = pages.result_page("speed", content, tmp_path, [])
    assert "Seconds per step." in shown and "More." not in shown
    assert "| `cut` | 2 | `cut/1` | `loss` |" in shown and "| `full` | 1 | `full` | a float |" in shown
    assert pages.measured_on(content) == "CPU"
    assert pages.measured_on({"environment": {"device": "NVIDIA H100"}}) == "H100"
    assert "| `seeds` | `[0, 1]` |" in shown and "| `torch` | 2.13.0 |" in shown
    assert "../downloads/results/speed.json" in shown


def test_a_bar_in_a_cell_does_not_end_it():
    assert pages.table(["a", "b"], [["1|2", "3"]], right=[1]).splitlines()[1:] == ["| --- | --: |", "| 1\\|2 | 3 |"]


# ---- what a finished site may not have ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ('<img src="a.png">', "without alt text"),
        ('<img src="a.png" alt=" ">', "without alt text"),
        ('<img src="a.png" alt="_images/a.png">', "without alt text"),  # what Sphinx writes where there is none
        ('<a href="gone.html">x</a>', "gone.html leads nowhere"),
        ('<a href="#gone">x</a>', "not on that page"),
        ('<a href="other.html#gone">x</a>', "not on that page"),
        ('<script src="https://cdn.example/x.js"></script>', "loads https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', "loads //fonts.example/x.css"),
    ],
)
def test_a_problem_is_found(tmp_path, written, problem):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "other.html").write_text("<p id='here'></p>")
    (tmp_path / "page.html").write_text(written)
    (found,) = check.Site(tmp_path).problems()
    assert problem in found and found.startswith("page.html")


def test_a_good_page_has_no_problems(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "other.html").write_text("<p id='here'></p>")
    (tmp_path / "page.html").write_text(
        '<img src="a.png" alt="A curve."><a href="other.html#here">x</a><a href="https://example.org/x">out</a>'
    )
    assert check.Site(tmp_path).problems() == []


# ---- looks --------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def variables(theme: str) -> dict[str, str]:
    css = (ROOT / "book/assets/course.css").read_text(encoding="utf-8")
    block = re.search(rf'html\[data-theme="{theme}"\] \{{(.*?)\}}', css, re.DOTALL)[1]
    return dict(re.findall(r"--course-([\w-]+): (#\w{6});", block))


@pytest.mark.parametrize(("theme", "background", "accent"), [
    ("light", "#FFFFFF", palette.BLUE), ("dark", "#121212", palette.SKY)
])  # fmt: skip
def test_the_sites_colours_are_the_palettes_and_can_be_read(theme, background, accent):
    found = variables(theme)
    assert found["accent"] == accent and found["turn"] == palette.ORANGE
    for name in ("accent", "accent-strong", "muted"):
        assert contrast(found[name], background) >= 4.5
        assert contrast(found[name], found["panel"]) >= 4.5


def test_contrast_is_measured_as_the_guidelines_say():
    assert round(contrast("#000000", "#FFFFFF"), 1) == 21.0
    assert round(contrast("#777777", "#FFFFFF"), 2) == 4.48


# ---- a real build -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site() -> Path:
    return built_site()


def built_lessons() -> list[Lesson]:
    return [each for each in course.all_lessons() if each.notebook.exists()]


def test_every_built_lesson_has_a_page_with_all_its_solutions(site):
    for each in built_lessons():
        page = (site / "notebooks" / f"{each.file}.html").read_text(encoding="utf-8")
        words = re.sub(r"\s+", "", html.unescape(re.sub(r"<[^>]+>", "", page)))
        for task in lessons.exercises_of(each):
            assert re.sub(r"\s+", "", lessons.solution_code(task)) in words, task.key
        assert "VBox(children=" not in page


def test_downloads_are_what_learners_are_handed(site):
    for each in built_lessons():
        offered = json.loads((site / "downloads" / f"{each.file}.ipynb").read_text(encoding="utf-8"))
        source = json.loads(each.notebook.read_text(encoding="utf-8"))
        assert [cell["source"] for cell in offered["cells"]] == [cell["source"] for cell in source["cells"]]
        assert not any(cell.get("outputs") for cell in offered["cells"])
        # The theme's own download button serves the same file.
        served = site / "_sources" / "notebooks" / f"{each.file}.ipynb"
        assert served.read_bytes() == (site / "downloads" / f"{each.file}.ipynb").read_bytes()


def test_every_stored_result_has_a_page_and_a_file(site):
    for path in (ROOT / "data" / "results").glob("*.json"):
        assert (site / "results" / f"{path.stem}.html").exists()
        assert (site / "downloads" / "results" / path.name).read_bytes() == path.read_bytes()


def test_the_site_has_nothing_from_elsewhere_and_no_dead_links(site):
    assert check.Site(site).problems() == []
    assert (site / "_static" / "vendor" / site_build.MATHJAX).exists()
    assert "intro.html" in (site / "index.html").read_text(encoding="utf-8")


def test_what_was_staged_is_what_is_committed(site):
    """No output is made anew: each stored text output of a lesson is on its page's source."""
    for each in built_lessons():
        staged = nbformat.read(site.parent / "source" / "notebooks" / each.notebook.name, as_version=4)
        stored = nbformat.read(each.notebook, as_version=4)
        shown = [cell for cell in staged.cells if cell.cell_type == "code"]
        for ours, theirs in zip(shown, (c for c in stored.cells if c.cell_type == "code"), strict=True):
            assert ours.source == theirs.source and ours.execution_count == theirs.execution_count
            assert len(ours.outputs) == len(theirs.outputs)


def test_every_exercise_has_its_name_and_its_way_to_the_solution(site):
    for each in built_lessons():
        page = (site / "notebooks" / f"{each.file}.html").read_text(encoding="utf-8")
        for task in lessons.exercises_of(each):
            assert f'href="#{lessons.solution_name(task)}"' in page and f'href="#{lessons.exercise_name(task)}"' in page
        headings = [html.unescape(re.sub(r"<[^>]+>", "", found)) for found in re.findall(r"<h3>(.*?)<a", page)]
        solved = headings[len(headings) - len(lessons.exercises_of(each)) :]
        assert all(heading.startswith("Exercise ") for heading in solved), each.file


def test_the_bibliography_links_each_paper_once(site):
    page = (site / "bibliography.html").read_text(encoding="utf-8")
    papers = re.findall(r'<div class="citation".*?</div>', page, re.DOTALL)
    assert len(papers) > 50
    for paper in papers:
        links_out = re.findall(r'href="(https?://[^"]+)"', paper)
        assert len(links_out) == 1 and paper.count("<em>") >= 1, paper


def test_the_search_index_knows_lora(site):
    assert re.search(r"\blora\b", (site / "searchindex.js").read_text(encoding="utf-8"))


# ---- when it fails ------------------------------------------------------------------------------------------------


def test_a_warning_stops_the_build_and_the_old_site_stays(tmp_path, monkeypatch):
    old = tmp_path / "html" / "index.html"
    old.parent.mkdir()
    old.write_text("the old site")

    def stage(source: Path) -> None:
        (source / "_config.yml").write_text("title: t\nexecute: {execute_notebooks: 'off'}\n")
        (source / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
        (source / "intro.md").write_text("# Title\n\n[gone](no_such_page.md)\n")

    monkeypatch.setattr(site_build, "stage", stage)
    with pytest.raises(PeftLabError, match="no_such_page"):
        site_build.build(tmp_path)
    assert old.read_text() == "the old site"


def test_a_picture_without_words_stops_the_build_too(tmp_path, monkeypatch):
    def run(source: Path, out: Path) -> Path:
        (out / "intro.html").write_text('<img src="https://example.org/x.png">')
        return out

    monkeypatch.setattr(site_build, "stage", lambda source: None)
    monkeypatch.setattr(site_build, "run_jupyter_book", run)
    with pytest.raises(PeftLabError, match="without alt text"):
        site_build.build(tmp_path)
    assert not (tmp_path / "html").exists()


def test_a_missing_mathjax_is_explained(monkeypatch):
    monkeypatch.setattr(site_build.importlib.metadata, "files", lambda name: [])
    with pytest.raises(PeftLabError, match="sphinx-mathjax-offline"):
        site_build.mathjax()


def test_the_shown_solution_is_the_courses():
    text = lessons.hints_and_solutions([exercise("06.best_cut")])
    assert "def best_cut(dW: torch.Tensor, r: int)" in text
