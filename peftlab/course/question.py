"""Predictions and quizzes: what a lesson asks, and the two widgets that ask it.

A lesson NN keeps its texts in `peftlab/course/questions/lesson_NN.py`: QUIZ, a list of `Question`, and PREDICTIONS, a
list of `Prediction`. In the notebook, `predict("NN.name")` and `quiz("NN")` show them. Texts are plain, with Unicode
for maths; `code` in backticks and *emphasis* are the only markup.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from peftlab.errors import PeftLabError

if TYPE_CHECKING:
    from peftlab.show.widgets.predict import PredictWidget
    from peftlab.show.widgets.quiz import QuizWidget

NOT_SURE = "I am not sure"
# The widget says itself whether an option is right, in the place of these words.
VERDICT = re.compile(r"(Yes|No|Right|Wrong)(?=[.:,])")


@dataclass(frozen=True)
class Option:
    """One answer to choose from, and what to tell who chooses it. A leading "Yes" or "No" may stand in `says`."""

    text: str
    says: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """A question of a quiz; exactly one option is right.

    bridge: number of the bridge ("B1") that helps who cannot answer this. The widget then offers "I am not sure" too.
    Raises PeftLabError when something is missing or said twice.
    """

    name: str
    asks: str
    options: Sequence[Option]
    bridge: str = ""

    def __post_init__(self) -> None:
        _check_asks(self.name, self.asks)
        if len(self.options) < 2 or not all(isinstance(option, Option) for option in self.options):
            raise PeftLabError(f"question {self.name!r} needs two or more options, each an Option(text, says)")
        if (right := sum(option.right for option in self.options)) != 1:
            raise PeftLabError(f"question {self.name!r} has {right} right options; mark exactly one with right=True")
        for option in self.options:
            if not option.text.strip() or not _said(option).strip(" .:,"):
                raise PeftLabError(f"question {self.name!r}: the option {option.text!r} does not explain itself")
        for part in ("text", "says"):
            _check_distinct(self.name, [getattr(option, part) for option in self.options])


@dataclass(frozen=True)
class Prediction:
    """Something to guess before it is seen: one of `choices`, or a number from `lowest` to `highest`.

    truth: the place of the right choice, counted from 0, or the number. says: what we found, and what it means. Both
    may be functions without arguments, so that they are computed from stored results, only when they are needed.
    Raises PeftLabError when something is missing or contradicts itself.
    """

    name: str
    asks: str
    choices: Sequence[str] | None = None
    lowest: float | None = None
    highest: float | None = None
    unit: str = ""
    truth: int | float | Callable[[], int | float] | None = None
    says: str | Callable[[], str] = ""

    def __post_init__(self) -> None:
        _check_asks(self.name, self.asks)
        bounds = [bound for bound in (self.lowest, self.highest) if bound is not None]
        if (self.choices is None) == (len(bounds) < 2) or (self.choices is not None and bounds):
            raise PeftLabError(f"prediction {self.name!r} needs either choices, or lowest and highest")
        if self.choices is not None:
            if len(self.choices) < 2 or not all(isinstance(choice, str) and choice.strip() for choice in self.choices):
                raise PeftLabError(f"prediction {self.name!r} needs two or more choices, each a text")
            _check_distinct(self.name, self.choices)
        elif not self.lowest < self.highest:
            raise PeftLabError(f"prediction {self.name!r}: lowest={self.lowest} must be below highest={self.highest}")
        if not callable(self.truth):
            self._check_truth(self.truth)
        if not callable(self.says) and not self.says.strip():
            raise PeftLabError(f"prediction {self.name!r} must say what was found")

    def found(self) -> float:
        """The truth, computed if need be. Raises PeftLabError if it is no choice, or outside the range."""
        truth = self.truth() if callable(self.truth) else self.truth
        self._check_truth(truth)
        return truth

    def said(self) -> str:
        return self.says() if callable(self.says) else self.says

    def step(self) -> float:
        """How finely a number can be guessed: a power of ten, about a hundredth of the range."""
        return 10.0 ** round(math.log10((self.highest - self.lowest) / 100))

    def _check_truth(self, truth: Any) -> None:
        if not isinstance(truth, int | float) or isinstance(truth, bool):
            raise PeftLabError(f"prediction {self.name!r}: truth must be a number, and is {truth!r}")
        if self.choices is not None and truth not in range(len(self.choices)):
            raise PeftLabError(
                f"prediction {self.name!r}: truth={truth} is the place of no choice, from 0 to {len(self.choices) - 1}"
            )
        if self.choices is None and not self.lowest <= truth <= self.highest:
            raise PeftLabError(f"prediction {self.name!r}: truth={truth} is outside {self.lowest} to {self.highest}")


# ---- what a notebook calls ------------------------------------------------------------------------------------------


def predict(key: str) -> PredictWidget:
    """The prediction "NN.name" as a widget; its `guess` is None until the learner locks one in.

    Raises PeftLabError with the keys there are.
    """
    from peftlab.show.widgets.predict import PredictWidget

    asked = prediction(key)
    common = {"asks": asked.asks, "truth": float(asked.found()), "says": asked.said()}
    if asked.choices is not None:
        return PredictWidget(choices=list(asked.choices), **common)
    return PredictWidget(lowest=asked.lowest, highest=asked.highest, step=asked.step(), unit=asked.unit, **common)


def quiz(lesson: str, heading: str = "Check yourself") -> QuizWidget:
    """All questions of the quiz of a lesson, such as "06", as one widget. Raises PeftLabError if it has none."""
    from peftlab.show.widgets.quiz import QuizWidget

    questions = _by_name(_module(lesson, lesson), "QUIZ", lesson)
    if not questions:
        raise PeftLabError(f"lesson {lesson} has no quiz")
    return QuizWidget(heading=heading, questions=[_as_data(each) for each in questions.values()])


def prediction(key: str) -> Prediction:
    """Find a prediction by its key, "NN.name". Raises PeftLabError with the keys there are."""
    lesson, _, name = key.partition(".")
    predictions = _by_name(_module(lesson, key), "PREDICTIONS", lesson)
    if name not in predictions:
        there_are = ", ".join(f"{lesson}.{each}" for each in predictions) or "none"
        raise PeftLabError(f"no prediction is called {key!r}; there are {there_are}")
    return predictions[name]


# ---- in detail ------------------------------------------------------------------------------------------------------


def _module(lesson: str, asked_for: str) -> ModuleType:
    name = f"peftlab.course.questions.lesson_{lesson}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise PeftLabError(
            f"no questions for {asked_for!r}: name the lesson by its number, as in predict('06.energy') or quiz('06')"
        ) from None


def _by_name(module: ModuleType, kind: str, lesson: str) -> dict[str, Any]:
    listed = getattr(module, kind, [])
    _check_distinct(f"{kind} of lesson {lesson}", [each.name for each in listed])
    return {each.name: each for each in listed}


def _as_data(question: Question) -> dict[str, Any]:
    """A question as its widget wants it."""
    options = [{"text": o.text, "says": _said(o), "right": o.right, "unsure": False} for o in question.options]
    bridge = None
    if question.bridge:
        from peftlab.course.lessons import lesson

        found = lesson(question.bridge)
        bridge = {"file": found.file, "name": found.name}
        if not any("not sure" in option["text"].lower() for option in options):
            says = f": {found.name} is about this. Try an option all the same, or go on."
            options.append({"text": NOT_SURE, "says": says, "right": False, "unsure": True})
    return {"name": question.name, "asks": question.asks, "options": options, "bridge": bridge}


def _said(option: Option) -> str:
    """The explanation without its verdict: it goes on where the widget's own verdict ends."""
    says = VERDICT.sub("", option.says.strip(), count=1) if VERDICT.match(option.says.strip()) else option.says.strip()
    return says if says.startswith((".", ":", ",")) else f". {says}"


def _check_asks(name: str, asks: str) -> None:
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise PeftLabError(f"{name!r} is no name for a question: use small letters, digits and _")
    if not asks.strip():
        raise PeftLabError(f"question {name!r} asks nothing")


def _check_distinct(name: str, texts: Sequence[str]) -> None:
    if twice := sorted({text for text in texts if list(texts).count(text) > 1}):
        raise PeftLabError(f"{name}: said twice: {'; '.join(twice)}")
