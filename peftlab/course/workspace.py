"""A learner's own copies of the lessons, in `work/`, and JupyterLab on the first of them.

    python -m peftlab.course.workspace                      # hand out, then open JupyterLab
    python -m peftlab.course.workspace --no-browser         # options go to JupyterLab
    python -m peftlab.course.workspace --copy-only          # hand out and stop

A copy that the learner has changed is never written over. What was handed out is remembered by its
sha256 in `work/.handed-out.json`; a file that no longer has that hash belongs to the learner.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peftlab.errors import PeftLabError
from peftlab.files import write_whole

ROOT = Path(__file__).resolve().parents[2]
LEDGER = ".handed-out.json"  # in work/: name of a file -> sha256 of what was written there
FIRST_LESSONS = ("00", "06")  # the one to open: the first of these that exists


@dataclass(frozen=True)
class HandedOut:
    """One file written to work/: 'new', 'refreshed', or 'beside' a copy the learner has changed."""

    lesson: str  # name of the lesson's file
    written: Path
    how: str


def hand_out(lessons: Path, work: Path) -> list[HandedOut]:
    """Copy every lesson's .ipynb from `lessons` into `work`; returns what was written.

    A missing copy is made; an unchanged one follows the lesson; a changed one is left alone, and
    when its lesson has changed too, the new version is placed beside it as NAME.new.ipynb, once.
    Raises PeftLabError if there are no lessons or `work` cannot be written.
    """
    sources = sorted(path for path in lessons.glob("*.ipynb") if not path.name.startswith("."))
    if not sources:
        raise PeftLabError(f"there are no lessons in {lessons}: restore that folder from the course")
    try:
        work.mkdir(parents=True, exist_ok=True)
        ledger = read_ledger(work)
        handed_out = []
        for source in sources:
            content = without_outputs(source.read_bytes())
            target, how = decide(source.name, sha256(content), work, ledger)
            if how != "keep":
                write_whole(work / target, content)
                handed_out.append(HandedOut(source.name, work / target, how))
            if target:
                ledger[target] = sha256(content)
        write_whole(work / LEDGER, (json.dumps(ledger, indent=1, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise PeftLabError(f"cannot write to {work}: {error.strerror}") from None
    return handed_out


def decide(name: str, lesson: str, work: Path, ledger: dict[str, str]) -> tuple[str, str]:
    """Where in work/ the lesson `name` with hash `lesson` belongs, and how it gets there.

    Returns (file name, how); how is 'new', 'refreshed', 'beside' or 'keep' (nothing to write). The
    file name is '' where the learner's copy is their own and the ledger has nothing to learn.
    """
    copy = file_hash(work / name)
    if copy is None:
        return name, "new"
    if copy == lesson:
        return name, "keep"
    if copy in ledger.values():  # as it was handed out, here or as the new version beside
        return name, "refreshed"
    if lesson == ledger.get(name):
        return "", "keep"  # the learner's work on the lesson as it is now
    for beside in names_beside(name):
        if ledger.get(beside) == lesson:
            return "", "keep"  # placed there before; it may have been changed or deleted since
        if file_hash(work / beside) in (None, ledger.get(beside)):
            return beside, "beside"
    raise AssertionError("names_beside never ends")


def names_beside(name: str) -> Iterator[str]:
    """06_lora.new.ipynb, 06_lora.new2.ipynb, ..."""
    stem = name.removesuffix(".ipynb")
    yield f"{stem}.new.ipynb"
    number = 2
    while True:
        yield f"{stem}.new{number}.ipynb"
        number += 1


def without_outputs(content: bytes) -> bytes:
    """A notebook with its cells not yet run: outputs that stand there already would give the predictions away."""
    try:
        notebook = json.loads(content)
    except ValueError:  # not a notebook: handed out as it is
        return content
    for cell in notebook.get("cells", []):
        if cell.get("cell_type") == "code":
            cell.update(outputs=[], execution_count=None)
    return (json.dumps(notebook, ensure_ascii=False, indent=1) + "\n").encode()


def read_ledger(work: Path) -> dict[str, str]:
    try:
        ledger = json.loads((work / LEDGER).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # without it every copy that differs counts as the learner's own, which is safe
    return ledger if isinstance(ledger, dict) else {}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file_hash(path: Path) -> str | None:
    return sha256(path.read_bytes()) if path.exists() else None


def first_lesson(work: Path, lessons: Path) -> str:
    """The file name of the lesson to open."""
    names = sorted(path.name for path in lessons.glob("*.ipynb") if (work / path.name).exists())
    for number in FIRST_LESSONS:
        for name in names:
            if name.startswith(number + "_"):
                return name
    return names[0]


def open_lab(work: Path, lesson: str, options: list[str]) -> int:
    """Run JupyterLab in `work` on one lesson until it is stopped; returns its exit code."""
    command = [sys.executable, "-m", "jupyterlab", lesson]
    # JupyterLab would ask the network for a newer version of itself.
    command.append("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container the learner often is root
    print(f"Opening {lesson} in JupyterLab; stop it here with Ctrl-C.", flush=True)
    lab = subprocess.Popen([*command, *options], cwd=work)
    while True:
        try:
            return lab.wait()
        except KeyboardInterrupt:
            pass  # JupyterLab got the Ctrl-C too and asks whether to stop


def main(arguments: list[str] | None = None) -> int:
    options = list(sys.argv[1:] if arguments is None else arguments)
    lessons, work = ROOT / "notebooks", ROOT / "work"
    try:
        handed_out = hand_out(lessons, work)
    except PeftLabError as error:
        print(error, file=sys.stderr)
        return 1
    for item in handed_out:
        if item.how == "beside":
            print(
                f"{item.lesson} has a new version; your changed copy is kept, and the new one is {item.written.name}."
            )
    fresh = sum(item.how != "beside" for item in handed_out)
    print(f"Your copies of the lessons are in {work} ({fresh} new or refreshed).")
    if options == ["--copy-only"]:
        return 0
    return open_lab(work, first_lesson(work, lessons), options)


if __name__ == "__main__":
    sys.exit(main())
