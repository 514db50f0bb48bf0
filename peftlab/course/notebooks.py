"""Build and check the lessons: `notebooks/NN_title.py` -> `notebooks/NN_title.ipynb`.

    python -m peftlab.course.notebooks build [06_lora ...]   # run and write; all without a name
    python -m peftlab.course.notebooks check                 # compare each pair, no kernel needed

People edit the .py (py:percent). The .ipynb is made here only, by running the .py from top to
bottom, and it is made so that two builds of the same lesson give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from peftlab.course import lessons
from peftlab.errors import PeftLabError
from peftlab.files import write_if_changed

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
RECORD = "build.json"  # beside the notebooks: how long each takes, how large it is
CELL_TIMEOUT = 600  # seconds
LARGEST_OUTPUT = 200_000  # bytes

WIDGETS = "scissors_widget|drag|retrain|switch|memory_wall|method_map|place_levels"  # questions are not counted
WIDGET_CALL = re.compile(rf"^(?:\w+ = )?(?:{WIDGETS})\(", re.MULTILINE)
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {  # no version: it would change with the author's machine
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}
# The Makefile sets the same for the tests, which compare their outputs with those of a build.
BUILD_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONHASHSEED": "0",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
}


class BuildError(PeftLabError):
    """A lesson cannot be built; its .ipynb was left as it was."""


# ---------------------------------------------------------------- reading


def read_source(path: Path) -> NotebookNode:
    """The notebook that a py:percent file describes, without outputs, with stable cell ids."""
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell, cell_id in zip(notebook.cells, stable_ids(notebook.cells), strict=True):
        cell.id = cell_id
    return notebook


def stable_ids(cells: list[NotebookNode]) -> list[str]:
    """An id per cell that depends on its text alone, so that moving a cell keeps its id.

    Equal cells are told apart by a counter.
    """
    seen: Counter[str] = Counter()
    ids = []
    for cell in cells:
        digest = hashlib.sha1(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        ids.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return ids


# ---------------------------------------------------------------- building


def execute(notebook: NotebookNode) -> None:
    """Run every cell, in place. Raises BuildError where a cell raises, hangs or kills its kernel.

    The kernel works in an empty folder, as nothing in a lesson may depend on where it lies: the
    learner's copy runs in work/.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError

    with tempfile.TemporaryDirectory(prefix="peftlab-build-") as folder:
        environment = {
            **os.environ,
            **BUILD_ENVIRONMENT,
            "IPYTHONDIR": os.path.join(folder, ".ipython"),  # no one's own start-up files
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        client = NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT,
            kernel_name="python3",
            record_timing=False,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns of its local connection
            coalesce_streams=True,  # else it is chance how many pieces a long print comes in
            resources={"metadata": {"path": folder}},
        )
        try:
            client.execute(env=environment)
        except (CellExecutionError, CellControlSignal, DeadKernelError) as error:
            raise BuildError(f"a cell failed\n{str(error).strip()}") from None


def clean(notebook: NotebookNode) -> None:
    """Remove what differs from one build to the next, in place."""
    notebook.metadata = nbformat.from_dict(METADATA)  # drops widget state and versions
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        # A finished progress bar would stay on static pages as "0%|   | 0/50".
        if cell.get("outputs"):
            cell.outputs = [output for output in cell.outputs if not is_progress_bar(output)]
        for output in cell.get("outputs", []):
            # A view names its widget by a random id, and means nothing without the kernel.
            if len(output.get("data", {})) > 1:
                output.data.pop(WIDGET_VIEW, None)


def is_progress_bar(output: NotebookNode) -> bool:
    data = output.get("data", {})
    return WIDGET_VIEW in data and re.search(r"\d+%\|", data.get("text/plain", "")) is not None


def build(source: Path) -> tuple[NotebookNode, float]:
    """Run one lesson. Returns the finished notebook and the seconds it took; writes nothing.

    Raises BuildError if a cell fails or writes to stderr.
    """
    notebook = read_source(source)
    started = time.perf_counter()
    execute(notebook)
    seconds = time.perf_counter() - started
    clean(notebook)
    noise = list(noise_in(notebook))
    if noise:
        raise BuildError("\n".join(noise))
    nbformat.validate(notebook)
    return notebook, seconds


def build_all(folder: Path, names: list[str]) -> int:
    """Build the named lessons (all if none is named), one line each. Returns how many failed."""
    sources = chosen_sources(folder, names)
    record = read_record(folder)
    failed = 0
    for number, source in enumerate(sources, start=1):
        print(f"[{number}/{len(sources)}] {source.stem} ", end="", flush=True)
        try:
            notebook, seconds = build(source)
        except BuildError as error:
            failed += 1
            print("FAILED, its .ipynb was left as it was")
            print("    " + str(error).replace("\n", "\n    "), flush=True)
            continue
        text = nbformat.writes(notebook)
        changed = write_if_changed(source.with_suffix(".ipynb"), (text.rstrip("\n") + "\n").encode())
        record[source.stem] = lesson_record(notebook, seconds, record.get(source.stem, {}))
        kept = {p.stem: record[p.stem] for p in lesson_files(folder, ".py") if p.stem in record}
        write_if_changed(folder / RECORD, (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode())
        state = "written" if changed else "unchanged"
        print(f"{seconds:.0f} s, {len(text.encode()) / 1000:.0f} kB, {state}", flush=True)
    return failed


def lesson_files(folder: Path, suffix: str) -> list[Path]:
    return sorted(path for path in folder.glob("*" + suffix) if not path.name.startswith("."))


def chosen_sources(folder: Path, names: list[str]) -> list[Path]:
    sources = {path.stem: path for path in lesson_files(folder, ".py")}
    stems = [re.sub(r"\.(py|ipynb)$", "", Path(name).name) for name in names]
    unknown = sorted(set(stems) - set(sources))
    if unknown:
        raise PeftLabError(f"there is no lesson {', '.join(unknown)}; there are {', '.join(sources) or 'none'}")
    return [sources[stem] for stem in stems] if stems else list(sources.values())


# ---------------------------------------------------------------- how long, how large


def read_record(folder: Path) -> dict[str, dict[str, int]]:
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise PeftLabError(f"{folder / RECORD} is damaged: restore it or delete it") from None


def lesson_record(notebook: NotebookNode, seconds: float, before: dict[str, int]) -> dict[str, int]:
    """Run time in seconds and sizes of one lesson."""
    code = [c.source for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    prose = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    return {
        "seconds": steady_seconds(seconds, before.get("seconds")),
        "code_cells": len(code),
        "longest_code_cell": max((len(text.strip().splitlines()) for text in code), default=0),
        "prose_words": sum(len(text.split()) for text in prose),
        "figures": sum(is_figure(output) for c in notebook.cells for output in c.get("outputs", [])),
        "widgets": sum(bool(WIDGET_CALL.search(text)) for text in code),
        "exercises": sum("exercise" in c.metadata.get("tags", []) for c in notebook.cells),
    }


def is_figure(output: NotebookNode) -> bool:
    return any(mime.startswith("image/") for mime in output.get("data", {}))


def steady_seconds(measured: float, before: int | None) -> int:
    """The run time to the next 5 s, or the old record while the new one is close to it.

    Close is 20 %, or 5 s where that is more; else every build would change the file.
    """
    if before is not None and abs(measured - before) <= max(0.2 * before, 5):
        return before
    return max(5, 5 * round(measured / 5))


# ---------------------------------------------------------------- checking


def where(number: int, cell: NotebookNode) -> str:
    lines = cell.source.strip().splitlines()
    return f"cell {number} ({lines[0][:50] if lines else 'empty'})"


def noise_in(notebook: NotebookNode) -> Iterator[str]:
    """Stored errors and stderr, one line each."""
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                yield f"{where(number, cell)}: a stored error: {output.ename}: {output.evalue}"
            elif output.get("name") == "stderr":
                yield f"{where(number, cell)}: output on stderr: {output.text.strip()[:300]}"


def check_notebook(notebook: NotebookNode) -> Iterator[str]:
    """What is wrong with a built notebook taken by itself, one line each."""
    yield from noise_in(notebook)
    expected_count = 0
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        expected_count += 1
        if cell.execution_count is None:
            yield f"{where(number, cell)}: never executed"
        elif cell.execution_count != expected_count:
            yield (
                f"{where(number, cell)}: executed as number {cell.execution_count} instead of "
                f"{expected_count}, so not from top to bottom in a fresh kernel"
            )
        for output in cell.outputs:
            size = len(json.dumps(output, ensure_ascii=False).encode())
            if size > LARGEST_OUTPUT:
                yield f"{where(number, cell)}: an output of {size // 1000} kB, more than 200 kB"
            if is_figure(output) and not alt_text(cell):
                yield (
                    f"{where(number, cell)}: a figure without alt text; begin the cell with "
                    '# %% mystnb={"image": {"alt": "what the figure shows"}}'
                )


def alt_text(cell: NotebookNode) -> str:
    """The text for those who cannot see the cell's figure, as MyST-NB reads it."""
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()


def check_pair(source: Path) -> Iterator[str]:
    """What is wrong with a lesson: pair and notebook, one line each."""
    built = source.with_suffix(".ipynb")
    if not built.exists():
        yield f"no {built.name}"
        return
    try:
        notebook = nbformat.read(built, as_version=nbformat.NO_CONVERT)
    except (ValueError, nbformat.reader.NotJSONError):
        yield f"{built.name} is not a notebook"
        return
    wanted = read_source(source)
    if len(wanted.cells) != len(notebook.cells):
        yield f"{len(wanted.cells)} cells in the .py, {len(notebook.cells)} in the .ipynb"
    for number, (ours, theirs) in enumerate(zip(wanted.cells, notebook.cells, strict=False), start=1):
        for part in ("cell_type", "source", "metadata", "id"):
            if ours[part] != theirs.get(part):
                yield f"{where(number, ours)}: {part} differs between .py and .ipynb"
                break
        else:
            continue
        break  # after the first difference the rest says nothing
    if notebook.metadata != wanted.metadata:
        yield "the notebook's metadata is not what a build writes"
    yield from check_notebook(notebook)


def check_all(folder: Path) -> list[str]:
    """All that is wrong with the lessons in `folder`, one line each."""
    sources = lesson_files(folder, ".py")
    problems = [f"{source.stem}: {line}" for source in sources for line in check_pair(source)]
    for built in lesson_files(folder, ".ipynb"):
        if not built.with_suffix(".py").exists():
            problems.append(f"{built.stem}: no {built.stem}.py")
    return problems


# ---------------------------------------------------------------- command line


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m peftlab.course.notebooks", description="Build or check the lessons."
    )
    parser.add_argument("--folder", type=Path, default=NOTEBOOKS, help="default: notebooks/")
    commands = parser.add_subparsers(dest="command", required=True)
    build_command = commands.add_parser("build", help="run the .py files, write the .ipynb files")
    build_command.add_argument("names", nargs="*", help="lessons, such as 06_lora (default: all)")
    commands.add_parser("check", help="compare each .py with its .ipynb, without running anything")
    options = parser.parse_args(arguments)
    try:
        if options.command == "build":
            failed = build_all(options.folder, options.names)
            if options.folder == NOTEBOOKS:
                lessons.main(["write"])  # the times may have changed
                for lesson in lessons.all_lessons():
                    for size in lessons.outgrown(lesson):
                        print(f"{lesson.file} outgrows the sizes aimed for: {size}")
            if failed:
                print(f"{failed} not built", file=sys.stderr)
            return 1 if failed else 0
        problems = check_all(options.folder)
    except PeftLabError as error:
        print(error, file=sys.stderr)
        return 1
    if problems:
        print("\n".join(problems), file=sys.stderr)
        print("Mend the .py, then run 'make notebooks'.", file=sys.stderr)
        return 1
    count = len(lesson_files(options.folder, ".py"))
    print(f"Lessons checked: {count}. Each .ipynb agrees with its .py.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
