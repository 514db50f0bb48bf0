"""Prose that quotes a number is held to the number's source: each fact is written anew and must stand in the text.

Every percentage and every decimal in a lesson's prose, its quiz and its predictions must belong to a fact, or to the
list of numbers that are nobody's measurement (settings, sizes, guesses offered to the reader). The facts of a lesson
are in tests/facts/lesson_NN.py.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import jupytext
import pytest

HERE = Path(__file__).parent
NOTEBOOKS = HERE.parent / "notebooks"
NUMBER = re.compile(r"(?<![\w.@/:-])\d+(?:\.\d+)?(?= ?%)|(?<![\w.@/:-])\d+\.\d+(?![\w.]*\d*/)")
FACTS = {
    module.NAME: module
    for path in sorted((HERE / "facts").glob("lesson_*.py"))
    for module in [importlib.import_module(f"tests.facts.{path.stem}")]
}


def prose(name: str) -> str:
    """All that a lesson says in words: markdown, alt texts, quiz and predictions. Links and maths are left out."""
    cells = jupytext.read(NOTEBOOKS / f"{name}.py").cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    texts += [cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "") for cell in cells]
    text = "\n".join([*texts, *asked(name)])
    text = re.sub(r"\$r = (\d+)\$", r"r=\1", text)
    return re.sub(r"\]\([^)]*\)|\[arXiv:[^\]]*\]|\$[^$]*\$", " ", text)


def asked(name: str) -> list[str]:
    """Every text of the lesson's quiz and predictions."""
    where = f"peftlab.course.questions.lesson_{name.partition('_')[0]}"
    if importlib.util.find_spec(where) is None:
        return []
    module = importlib.import_module(where)
    texts = []
    for question in module.QUIZ:
        texts += [question.asks, *(text for option in question.options for text in (option.text, option.says))]
    for prediction in module.PREDICTIONS:
        says = prediction.says() if callable(prediction.says) else prediction.says
        texts += [prediction.asks, *(prediction.choices or ()), says]
    return texts


@pytest.mark.parametrize("module", FACTS.values(), ids=list(FACTS))
def test_every_quoted_number_is_the_stored_one(module: ModuleType):
    text = prose(module.NAME)
    missing = [fact for fact in module.facts() if fact not in text]
    assert not missing, f"the prose of {module.NAME} should say: {missing}"


@pytest.mark.parametrize("module", FACTS.values(), ids=list(FACTS))
def test_no_number_stands_without_a_source(module: ModuleType):
    known = set(NUMBER.findall(" ".join(module.facts()))) | module.NOT_MEASURED
    unknown = sorted(set(NUMBER.findall(prose(module.NAME))) - known)
    assert not unknown, f"numbers in {module.NAME} that no fact covers: {unknown}"


def test_the_net_catches_an_invented_number():
    assert NUMBER.findall("It gained 3.7 points, or 12 %, in lesson 06 (2021).") == ["3.7", "12"]


def test_every_lesson_with_stored_results_or_figures_has_facts():
    using = {p.stem for p in NOTEBOOKS.glob("*.py") if NUMBER.search(prose(p.stem))}
    assert using <= set(FACTS)
