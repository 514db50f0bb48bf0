"""Predictions and quizzes: the rules for their texts, and every lesson's own."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import peftlab.course.questions as bank
from peftlab.course import lessons, question
from peftlab.course.question import Option, Prediction, Question, predict, quiz
from peftlab.errors import PeftLabError

LESSONS = {m.name.removeprefix("lesson_"): f"{bank.__name__}.{m.name}" for m in pkgutil.iter_modules(bank.__path__)}
RIGHT, WRONG = Option("yes", "Yes: it is.", right=True), Option("no", "No: it is not.")


def module(number: str):
    return importlib.import_module(LESSONS[number])


# ---- every lesson ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", LESSONS)
def test_a_quiz_is_one(number):
    questions = module(number).QUIZ
    assert 3 <= len(questions) <= 6
    places = [[o.right for o in q.options].index(True) for q in questions]
    assert len(set(places)) > 1, "the right option always stands in the same place"
    shown = quiz(number).questions
    assert [q["name"] for q in shown] == [q.name for q in questions]
    for asked in shown:
        assert sum(o["right"] for o in asked["options"]) == 1
        assert all(len(o["says"]) > 15 for o in asked["options"]), f"{asked['name']}: an option hardly explains itself"


@pytest.mark.parametrize("number", LESSONS)
def test_every_prediction_has_a_truth_and_says_what_it_means(number):
    for asked in module(number).PREDICTIONS:
        widget = predict(f"{number}.{asked.name}")
        assert widget.truth == asked.found()
        assert len(widget.says) > 15
        if not widget.choices:
            assert widget.lowest + widget.step < widget.highest


@pytest.mark.parametrize("number", LESSONS)
def test_outputs_are_the_same_each_time(number):
    assert quiz(number).twin() == quiz(number).twin()
    for asked in module(number).PREDICTIONS:
        assert predict(f"{number}.{asked.name}").twin() == predict(f"{number}.{asked.name}").twin()


# ---- what the texts may be ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "make"),
    [
        ("0 right options", lambda: Question("q", "Is it?", [WRONG, Option("maybe", "No: decide.")])),
        ("2 right options", lambda: Question("q", "Is it?", [RIGHT, Option("maybe", "Yes: so.", right=True)])),
        ("two or more options", lambda: Question("q", "Is it?", [RIGHT])),
        ("two or more options", lambda: Question("q", "Is it?", ["yes", "no"])),
        ("does not explain itself", lambda: Question("q", "Is it?", [RIGHT, Option("no", "No.")])),
        ("said twice: yes", lambda: Question("q", "Is it?", [RIGHT, Option("yes", "No: it is not.")])),
        ("said twice", lambda: Question("q", "Is it?", [RIGHT, WRONG, Option("never", WRONG.says)])),
        ("asks nothing", lambda: Question("q", " ", [RIGHT, WRONG])),
        ("no name", lambda: Question("Not a key", "Is it?", [RIGHT, WRONG])),
        ("either choices", lambda: Prediction("p", "How many?", truth=1, says="One.")),
        ("either choices", lambda: Prediction("p", "?", choices=["a", "b"], lowest=0, highest=1, truth=1, says="x")),
        ("either choices", lambda: Prediction("p", "How many?", lowest=0, truth=1, says="One.")),
        ("two or more choices", lambda: Prediction("p", "?", choices=["a"], truth=0, says="x")),
        ("place of no choice", lambda: Prediction("p", "?", choices=["a", "b"], truth=2, says="x")),
        ("below highest", lambda: Prediction("p", "?", lowest=3, highest=3, truth=3, says="x")),
        ("outside", lambda: Prediction("p", "?", lowest=0, highest=1, truth=39.0, says="x")),
        ("must be a number", lambda: Prediction("p", "?", lowest=0, highest=1, says="x")),
        ("must be a number", lambda: Prediction("p", "?", choices=["a", "b"], truth="a", says="x")),
        ("say what was found", lambda: Prediction("p", "?", choices=["a", "b"], truth=0)),
    ],
)
def test_a_malformed_question_is_refused_in_words(words, make):
    with pytest.raises(PeftLabError, match=words):
        make()


def test_truths_may_be_computed_late_and_are_checked_then():
    late = Prediction("p", "?", lowest=0, highest=1, truth=lambda: 1 / 0, says=lambda: "Found.")
    with pytest.raises(ZeroDivisionError):
        late.found()
    wrong = Prediction("p", "?", lowest=0, highest=1, truth=lambda: 2.0, says="Found.")
    with pytest.raises(PeftLabError, match="outside"):
        wrong.found()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: predict("06.nothing"), "06.energy"),
        (lambda: predict("energy"), "name the lesson by its number"),
        (lambda: predict("99.energy"), "name the lesson by its number"),
        (lambda: quiz("99"), "name the lesson by its number"),
        (lambda: quiz("06_lora"), "name the lesson by its number"),
    ],
)
def test_an_unknown_key_is_answered_with_those_there_are(call, words):
    with pytest.raises(PeftLabError, match=words):
        call()


def test_the_widgets_verdict_takes_the_place_of_the_authors():
    texts = ("Yes: r × r.", "No. The rest.", "Nobody knows.", "Now, then.")
    said = [question._said(Option("x", text)) for text in texts]
    assert said == [": r × r.", ". The rest.", ". Nobody knows.", ". Now, then."]


def test_the_step_suits_the_range():
    steps = [Prediction("p", "?", lowest=0, highest=h, truth=0, says="x").step() for h in (100, 1, 12, 5000)]
    assert steps == pytest.approx([1, 0.01, 0.1, 100])


def test_a_bridge_brings_its_title_and_the_option_not_to_know():
    data = question._as_data(Question("q", "Is it?", [RIGHT, WRONG], bridge="B1"))
    assert data["bridge"] == {"file": lessons.lesson("B1").file, "name": lessons.lesson("B1").name}
    assert [o["text"] for o in data["options"]] == ["yes", "no", "I am not sure"]
    assert lessons.lesson("B1").title in data["options"][-1]["says"]
    own = Question("q", "Is it?", [RIGHT, Option("I'm not sure", "Then look it up.")], bridge="B1")
    assert len(question._as_data(own)["options"]) == 2  # the author's own stays the only one
    with pytest.raises(PeftLabError, match="B99"):
        question._as_data(Question("q", "Is it?", [RIGHT, WRONG], bridge="B99"))
    assert len(question._as_data(Question("q", "Is it?", [RIGHT, WRONG]))["options"]) == 2
