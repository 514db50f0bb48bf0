"""Stage the pages and the committed notebooks, run Jupyter Book on them, check, and replace the old site."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml

from peftlab.course import lessons as course
from peftlab.course.site import atlas, check, lessons, pages, side_by_side
from peftlab.course.site.links import Map, rewrite
from peftlab.errors import PeftLabError
from peftlab.files import write_whole

ROOT = Path(__file__).resolve().parents[3]
BOOK = ROOT / "book"
BUILD = BOOK / "_build"
RESULTS = ROOT / "data" / "results"
BENCH = ROOT / "peftlab" / "bench"
MATHJAX = "tex-svg-full.js"  # one file that fetches no other: glyphs are drawn, and every package is inside

# Jupyter Book's own redirect says nothing and has no icon, which browsers then look for in vain.
FRONT_DOOR = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>PEFT Lab</title>
<meta http-equiv="refresh" content="0; url=intro.html">
<link rel="icon" href="_static/favicon.svg">
</head>
<body><p><a href="intro.html">PEFT Lab: to the first page</a></p></body>
</html>
"""


def build(out: Path = BUILD) -> Path:
    """Write the site to `out`/html and return that folder.

    The old site stays until the new one is complete and checked. Raises PeftLabError with every warning and problem.
    """
    source, fresh = out / "source", out / "fresh"
    for folder in (source, fresh):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    stage(source)
    html = run_jupyter_book(source, fresh)
    hand_out_notebooks(html)
    write_whole(html / "index.html", FRONT_DOOR.encode())
    if problems := check.Site(html).problems():
        raise PeftLabError("the site was built, but:\n" + "\n".join(f"  {line}" for line in problems))
    shutil.rmtree(out / "html", ignore_errors=True)
    os.replace(html, out / "html")
    shutil.rmtree(fresh)
    return out / "html"


# ---- staging ------------------------------------------------------------------------------------------------------


def stage(source: Path) -> None:
    """Write everything that Jupyter Book needs into the empty folder `source`; says which lessons are left out."""
    config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    every = course.all_lessons()
    built = [each for each in every if each.notebook.exists()]
    planned = [each for each in every if not each.notebook.exists()]
    for each in planned:
        print(f"left out: lesson {each.name} ({each.file}.ipynb is not built yet)")
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(BOOK.glob("*.md"))}
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    made = made_pages(built, planned, results)
    places = where_things_are(config, list(texts), list(made), built, planned)

    _write(source / "_config.yml", (BOOK / "_config.yml").read_bytes())
    _write(source / "_toc.yml", pages.toc(built, list(texts), list(results)).encode())
    for bibliography in BOOK.glob("*.bib"):
        _write(source / bibliography.name, bibliography.read_bytes())
    shutil.copytree(BOOK / "assets", source / "assets")
    _write(source / "assets" / "vendor" / MATHJAX, mathjax())
    _write(source / side_by_side.FIGURE, side_by_side.drawn(results))
    for name, text in texts.items():
        _write(source / f"{name}.md", rewrite(text, f"book/{name}.md", places).encode())
    for path, text in made.items():
        _write(source / path, text.encode())
    for each in built:
        stage_lesson(each, source, places)
    for name in results:
        _write(source / "extra" / "downloads" / "results" / f"{name}.json", (RESULTS / f"{name}.json").read_bytes())


def made_pages(built: list, planned: list, results: dict) -> dict[str, str]:
    """Path in the staged source -> text."""
    made = {
        "lessons.md": pages.lessons_page(built, planned),
        "builds.md": pages.builds_page(built, course.build_record()),
        "atlas.md": atlas.page(ROOT),
        "side_by_side.md": side_by_side.page(results),
    }
    if results:
        made["results.md"] = pages.results_page(results, BENCH)
    for name, content in results.items():
        made[f"results/{name}.md"] = pages.result_page(name, content, BENCH, built)
    return made


def where_things_are(config: dict, texts: list[str], made: list[str], built: list, planned: list) -> Map:
    places = {f"notebooks/{each.file}.ipynb": f"notebooks/{each.file}.ipynb" for each in built}
    places |= {f"book/{name}.md": f"{name}.md" for name in texts} | {f"book/{path}": path for path in made}
    unbuilt = frozenset(f"notebooks/{each.file}.ipynb" for each in planned)
    return Map(ROOT, config["repository"]["url"].rstrip("/"), places, unbuilt)


def stage_lesson(lesson: course.Lesson, source: Path, places: Map) -> None:
    content = lesson.notebook.read_bytes()
    notebook = nbformat.reads(content.decode("utf-8"), as_version=4)
    shown = lessons.page(notebook, lesson, lessons.exercises_of(lesson), places)
    _write(source / "notebooks" / lesson.notebook.name, nbformat.writes(shown).encode())
    _write(source / "extra" / "downloads" / lesson.notebook.name, lessons.download(content))


def mathjax() -> bytes:
    """MathJax in one file, from the package that carries it. Raises PeftLabError if that is not installed."""
    try:
        files = importlib.metadata.files("sphinx-mathjax-offline") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == MATHJAX:
            return file.locate().read_bytes()
    raise PeftLabError("MathJax is missing: install the package sphinx-mathjax-offline (make book does)")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


# ---- building -----------------------------------------------------------------------------------------------------


def run_jupyter_book(source: Path, out: Path) -> Path:
    """Build `source` and return the folder of the site. Raises PeftLabError with the warnings, if there is one."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source)]
    command += ["--path-output", str(out), "-W", "--keep-going", "-q"]
    here = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # for our Sphinx extension
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "NO_COLOR": "1", "PYTHONPATH": here}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    html = out / "_build" / "html"
    if ran.returncode or not (html / "index.html").exists():
        errors = re.sub(r"\x1b\[[\d;]*m", "", ran.stderr)  # Sphinx colours them
        warnings = [line for line in errors.splitlines() if line.strip()]
        said = "\n".join(warnings or ran.stdout.splitlines()[-20:])
        raise PeftLabError(f"Jupyter Book did not accept the pages:\n{said}")
    return html


def hand_out_notebooks(html: Path) -> None:
    """The theme's download button serves what the page was made from, with every answer: give the handed-out file."""
    for notebook in (html / "downloads").glob("*.ipynb"):
        served = html / "_sources" / "notebooks" / notebook.name
        if served.exists():
            write_whole(served, notebook.read_bytes())
