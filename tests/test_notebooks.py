"""Building lessons: same source, same bytes; and a check that notices each way a pair can go wrong."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from peftlab.course import notebooks
from peftlab.errors import PeftLabError

ROOT = Path(__file__).resolve().parents[1]

LESSON = '''\
# %% [markdown]
# # A small lesson
#
# Five words of prose here.

# %% tags=["setup"]
import matplotlib.pyplot as plt
from ipywidgets import IntSlider

# %%
for number in range(3):
    print("line", number, flush=True)

# %%
print("twice")

# %%
print("twice")

# %% mystnb={"image": {"alt": "A line that rises from 0 to 4."}}
_ = plt.plot([0, 1, 4])

# %%
IntSlider(value=3)
'''


def write_lesson(folder: Path, text: str, name: str = "01_small") -> Path:
    source = folder / f"{name}.py"
    source.write_text(text, encoding="utf-8")
    return source


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with one built lesson; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("notebooks")
    write_lesson(folder, LESSON)
    assert notebooks.build_all(folder, []) == 0
    return folder


@pytest.fixture
def pair(built, tmp_path):
    """A private copy of the built lesson."""
    for path in built.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def problems_after(folder: Path, change) -> str:
    """Apply `change` to the stored notebook and return what check says."""
    path = folder / "01_small.ipynb"
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return "\n".join(notebooks.check_all(folder))


# ---------------------------------------------------------------- build


def test_a_second_build_gives_the_same_bytes_and_touches_nothing(pair, capsys):
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in pair.iterdir()}
    assert notebooks.build_all(pair, ["01_small"]) == 0
    assert "unchanged" in capsys.readouterr().out
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in pair.iterdir()} == files


def test_a_built_notebook_holds_outputs_and_nothing_of_the_machine(built):
    text = (built / "01_small.ipynb").read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any(output.get("text") == "line 0\nline 1\nline 2\n" for output in outputs)
    for trace in ("widget-view", "widget-state", '"execution"', '"version"', sys.prefix):
        assert trace not in text


def test_what_is_recorded_about_a_lesson(built):
    record = json.loads((built / notebooks.RECORD).read_text(encoding="utf-8"))
    assert record["01_small"].pop("seconds") % 5 == 0
    sizes = {"code_cells": 6, "longest_code_cell": 2, "prose_words": 9, "figures": 1, "widgets": 0, "exercises": 0}
    assert record == {"01_small": sizes}


@pytest.mark.parametrize(
    ("measured", "before", "recorded"),
    [(23.0, None, 25), (1.0, None, 5), (23.0, 25, 25), (29.0, 25, 25), (33.0, 25, 35),
     (118.0, 100, 100), (124.0, 100, 125), (9.0, 5, 5)],
)  # fmt: skip
def test_a_run_time_is_rounded_and_small_changes_are_ignored(measured, before, recorded):
    assert notebooks.steady_seconds(measured, before) == recorded


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; print('careful', file=sys.stderr)", "stderr: careful"),
        ("import os; os._exit(1)", "died"),
        ("open('notebooks/data.csv')", "FileNotFoundError"),
    ],
)
def test_a_lesson_that_fails_or_mutters_is_refused(pair, capsys, code, complaint):
    before = (pair / "01_small.ipynb").read_bytes()
    write_lesson(pair, LESSON + f"\n# %%\n{code}\n")
    assert notebooks.build_all(pair, []) == 1
    assert complaint in capsys.readouterr().out
    assert (pair / "01_small.ipynb").read_bytes() == before
    assert not list(pair.glob("*.tmp"))


def test_one_bad_lesson_does_not_stop_the_others(tmp_path):
    write_lesson(tmp_path, "# %%\n1 / 0\n", "01_bad")
    write_lesson(tmp_path, "# %%\nprint(1)\n", "02_good")
    assert notebooks.build_all(tmp_path, []) == 1
    assert not (tmp_path / "01_bad.ipynb").exists()
    assert (tmp_path / "02_good.ipynb").exists()


def test_an_unknown_lesson_is_named_before_anything_runs(pair):
    with pytest.raises(PeftLabError, match="no lesson 99_none; there are 01_small"):
        notebooks.build_all(pair, ["01_small", "99_none"])


def test_cell_ids_depend_on_the_text_alone(tmp_path):
    source = write_lesson(tmp_path, "# %%\na = 1\n\n# %%\nb = 2\n\n# %%\na = 1\n")
    first, second, third = (cell.id for cell in notebooks.read_source(source).cells)
    assert third == first + "-2"
    write_lesson(tmp_path, "# %%\nb = 2\n\n# %%\na = 1\n")
    assert [cell.id for cell in notebooks.read_source(source).cells] == [second, first]


def test_a_built_notebook_passes_strict_nbval(built):
    """Run again cell by cell and compared, as `make test` does, widgets and figures included."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval"]
    command += ["--nbval-current-env", f"--rootdir={built}", str(built / "01_small.ipynb")]
    command.append(f"--nbval-sanitize-with={ROOT / 'tests' / 'nbval_sanitize.cfg'}")
    answer = subprocess.run(command, capture_output=True, text=True, cwd=built)
    assert answer.returncode == 0, answer.stdout
    assert "6 passed" in answer.stdout


# ---------------------------------------------------------------- check


def test_a_fresh_build_passes_the_check(built):
    assert notebooks.check_all(built) == []


def cell_with(notebook, text: str):
    return next(cell for cell in notebook.cells if text in cell.source)


def edit_source(notebook):
    cell_with(notebook, "line").source += "\n# edited in the browser"


def drop_cell(notebook):
    del notebook.cells[-1]


def swap_cells(notebook):
    notebook.cells[1], notebook.cells[2] = notebook.cells[2], notebook.cells[1]


def change_type(notebook):
    notebook.cells[0].cell_type = "raw"


def change_tags(notebook):
    cell_with(notebook, "import").metadata["tags"] = ["hide-cell"]


def random_id(notebook):
    notebook.cells[0].id = "deadbeef"


def never_run(notebook):
    cell_with(notebook, "line").execution_count = None


def run_out_of_order(notebook):
    cell_with(notebook, "line").execution_count = 9


def store_error(notebook):
    error = {"output_type": "error", "ename": "KeyError", "evalue": "'x'", "traceback": []}
    cell_with(notebook, "line").outputs.append(nbformat.from_dict(error))


def store_stderr(notebook):
    stream = {"output_type": "stream", "name": "stderr", "text": "a warning"}
    cell_with(notebook, "line").outputs.append(nbformat.from_dict(stream))


def store_much(notebook):
    cell_with(notebook, "line").outputs[0].text = "x" * 200_001


def add_figure_without_alt(notebook):
    figure = copy.deepcopy(cell_with(notebook, "plt.plot").outputs[-1])
    cell_with(notebook, "line").outputs.append(figure)


def add_version(notebook):
    notebook.metadata.language_info["version"] = "3.11.7"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (edit_source, "source differs"),
        (drop_cell, "7 cells in the .py, 6 in the .ipynb"),
        (swap_cells, "source differs"),
        (change_type, "cell_type differs"),
        (change_tags, "metadata differs"),
        (random_id, "id differs"),
        (never_run, "never executed"),
        (run_out_of_order, "executed as number 9 instead of 2"),
        (store_error, "a stored error: KeyError"),
        (store_stderr, "output on stderr: a warning"),
        (store_much, "more than 200 kB"),
        (add_figure_without_alt, "without alt text"),
        (add_version, "metadata is not what a build writes"),
    ],
)
def test_the_check_notices(pair, change, complaint):
    assert complaint in problems_after(pair, change)


def test_alt_text_must_say_something(pair):
    write_lesson(pair, LESSON.replace("A line that rises from 0 to 4.", " "))

    def empty_alt(notebook):
        cell_with(notebook, "plt.plot").metadata["mystnb"]["image"]["alt"] = " "

    assert "without alt text" in problems_after(pair, empty_alt)


def test_a_lesson_edited_after_its_build_is_noticed(pair):
    write_lesson(pair, LESSON.replace("range(3)", "range(4)"))
    assert any("source differs" in line for line in notebooks.check_all(pair))


def test_both_halves_of_a_pair_are_needed(pair):
    (pair / "01_small.py").rename(pair / "02_other.py")
    assert notebooks.check_all(pair) == [
        "02_other: no 02_other.ipynb",
        "01_small: no 01_small.py",
    ]


def test_a_damaged_notebook_is_reported_not_raised(pair):
    (pair / "01_small.ipynb").write_text("{ not json", encoding="utf-8")
    assert notebooks.check_all(pair) == ["01_small: 01_small.ipynb is not a notebook"]


def test_the_command_line_fails_when_the_check_does(pair, capsys):
    assert notebooks.main(["--folder", str(pair), "check"]) == 0
    (pair / "01_small.ipynb").unlink()
    assert notebooks.main(["--folder", str(pair), "check"]) == 1
    assert "no 01_small.ipynb" in capsys.readouterr().err


@pytest.mark.parametrize("source", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_a_lesson_imports_peftlab_before_peft(source):
    """`import peft` imports bitsandbytes, which mutters on some processors unless peftlab has asked it not to."""
    found = re.findall(r"^(?:import|from) (peft|peftlab)\b", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found and found[0] == "peftlab"
