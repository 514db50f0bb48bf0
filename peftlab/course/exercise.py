"""Exercises: check an answer, name the mistake, hint, show the solution.

A learner fills a stub that returns `...`. `check` runs it on awkward inputs (non-square, B ≠ 0, alpha ≠ r). A wrong
answer is compared with a bank of mutants, the wrong answers that people really give, and the one that gives the same
outputs explains itself. The same bank tests the checker: no mutant may pass.
"""

from __future__ import annotations

import importlib
import inspect
import linecache
import textwrap
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peftlab.errors import PeftLabError

NOT_ATTEMPTED, RIGHT, WRONG = "not attempted yet", "right", "not yet"


@dataclass(frozen=True)
class Mutant:
    """A wrong answer that people give, and what to tell them. Never shown itself."""

    answer: Any  # a function, or a value
    says: str


@dataclass(frozen=True)
class Exercise:
    """One exercise. `solution` is a function to be called on each of `cases`, or the value itself."""

    key: str  # "06.forward": lesson and name
    title: str
    minutes: int
    solution: Any
    hints: Sequence[str]
    cases: Callable[[], list[tuple]] = lambda: [()]  # fresh inputs, seeded
    mutants: Sequence[Mutant] = field(default_factory=tuple)
    tolerance: float = 1e-6  # relative to the largest value
    # Turns an answer into the function whose results are compared, where several answers are right.
    compares: Callable[[Callable], Callable] | None = None
    # Of a dictionary that is filled in case by case: words for one wrong entry (name, value) that no mutant has.
    explains: Callable[[str, Any], str] | None = None
    shown: str = ""  # the solution's text, where its source is not the best thing to show


@dataclass(frozen=True)
class Verdict:
    """What came of a check."""

    state: str  # NOT_ATTEMPTED, RIGHT or WRONG
    says: str

    @property
    def ok(self) -> bool:
        return self.state == RIGHT


def exercise(key: str) -> Exercise:
    """Find an exercise by its key. Raises PeftLabError with the keys there are."""
    lesson = key.split(".")[0]
    try:
        module = importlib.import_module(f"peftlab.course.exercises.lesson_{lesson}")
    except ModuleNotFoundError:
        raise PeftLabError(f"no exercise {key!r}: a key names the lesson first, as in '06.best_cut'") from None
    found = {each.key: each for each in module.EXERCISES}
    if key not in found:
        raise PeftLabError(f"no exercise is called {key!r}; lesson {lesson} has {', '.join(found)}")
    return found[key]


# ---- what a learner calls -----------------------------------------------------------------------------------------


def check(key: str, answer: Any) -> None:
    """Say whether the answer is right, and if not, what is wrong with it. Never raises because of the answer."""
    task = exercise(key)
    verdict = judge(task, answer)
    print(f"Exercise {key} – {task.title}: {verdict.state}. {verdict.says}".rstrip())


def use(key: str, answer: Any) -> Any:
    """The learner's answer if it is right, else the course's, so that the lesson goes on. Says whose it is."""
    task = exercise(key)
    if judge(task, answer).ok:
        print(f"Using your {task.title}.")
        return answer
    print(f"Using the course's {task.title} (yours: {judge(task, answer).state}).")
    return task.solution


def hint(key: str, number: int = 1) -> None:
    """The first, second, … hint."""
    task = exercise(key)
    if not 1 <= number <= len(task.hints):
        print(f"There are {len(task.hints)} hints for {key}: hint({key!r}, 1) to hint({key!r}, {len(task.hints)}).")
        return
    print(f"Hint {number} of {len(task.hints)}: {task.hints[number - 1]}")


def solution(key: str) -> None:
    """The course's answer."""
    print(solution_text(exercise(key)))


def solution_text(task: Exercise) -> str:
    if task.shown:
        return textwrap.dedent(task.shown).strip()
    if callable(task.solution):
        return textwrap.dedent(inspect.getsource(task.solution)).strip()
    return repr(task.solution)


# ---- judging ------------------------------------------------------------------------------------------------------


def judge(task: Exercise, answer: Any) -> Verdict:
    """Compare with the solution on every case; explain the first difference."""
    if task.explains is not None and isinstance(answer, dict) and answer.keys() == task.solution.keys():
        return _judge_entries(task, answer)
    if _blank(answer):
        return Verdict(NOT_ATTEMPTED, f"Replace the ... (about {task.minutes} minutes).")
    if callable(task.solution) and not callable(answer):
        return Verdict(WRONG, f"A function is wanted here, and this is a {type(answer).__name__}.")
    wanted, found = _outcomes(task.solution, task), _outcomes(answer, task)
    if all(value is None for value in found):
        return Verdict(WRONG, "Your function returns None: is the return missing?")
    if any(_blank(value) for value in found):
        return Verdict(NOT_ATTEMPTED, f"Replace the ... (about {task.minutes} minutes).")
    if all(_equal(a, b, task.tolerance) for a, b in zip(found, wanted, strict=True)):
        return Verdict(RIGHT, "")
    for mutant in task.mutants:
        same = zip(found, _outcomes(mutant.answer, task), strict=True)
        if not all(isinstance(a, _Raised) for a in found) and all(_equal(a, b, task.tolerance) for a, b in same):
            return Verdict(WRONG, mutant.says)
    case, a, b = next(
        (c, a, b) for c, a, b in zip(task.cases(), found, wanted, strict=True) if not _equal(a, b, task.tolerance)
    )
    if isinstance(a, _Raised):
        return Verdict(WRONG, _explain_error(a, case))
    return Verdict(WRONG, _explain_difference(a, b, case, task.tolerance))


def _judge_entries(task: Exercise, answer: dict[str, Any]) -> Verdict:
    """Every entry for itself: what is filled in is judged although others are still open."""
    unfilled = [name for name, value in answer.items() if _blank(value)]
    if len(unfilled) == len(answer):
        return Verdict(NOT_ATTEMPTED, f"Replace the ... (about {task.minutes} minutes).")
    words = [
        _words_for_entry(task, name, value)
        for name, value in answer.items()
        if name not in unfilled and not _equal(value, task.solution[name], task.tolerance)
    ]
    if unfilled:
        right = len(answer) - len(unfilled) - len(words)
        words.insert(0, f"{right} of {len(answer)} are right, {len(unfilled)} still open: {', '.join(unfilled)}.")
    return Verdict(WRONG, "\n".join(words)) if words else Verdict(RIGHT, "")


def _words_for_entry(task: Exercise, name: str, value: Any) -> str:
    for mutant in task.mutants:
        known = mutant.answer[name]
        if not _equal(known, task.solution[name], task.tolerance) and _equal(value, known, task.tolerance):
            return mutant.says
    return task.explains(name, value)


def _blank(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_blank(each) for each in value.values())
    if isinstance(value, tuple | list):
        return any(each is Ellipsis for each in value)
    return value is Ellipsis or value is None or value is NotImplemented


class InputChanged(Exception):
    """The answer wrote into what it was given."""


class WrongForm(Exception):
    """The answer's value cannot be compared: its words, for the learner, name what was returned and what is wanted."""


def described(value: Any) -> str:
    """What a learner returned, in words: "a tensor of shape (7, 5)", "a tuple of 3", "a str"."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


@dataclass(frozen=True)
class _Raised:
    error: Exception


def _outcomes(answer: Any, task: Exercise) -> list[Any]:
    """What the answer gives on every case. What a learner's code raises is kept, to be shown."""
    outcomes = []
    for case, untouched in zip(task.cases(), task.cases(), strict=True):
        try:
            value = _compared(answer, task)(*case) if callable(answer) else answer
            if not _untouched(case, untouched):
                raise InputChanged
            outcomes.append(value)
        except Exception as error:  # noqa: BLE001
            outcomes.append(_Raised(error))
    return outcomes


def _untouched(a: Any, b: Any) -> bool:
    """The same to the last bit; unlike `_equal`, this lets an input hold -inf or NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.shape == b.shape and a.dtype == b.dtype
        return same and bool(((a == b) | ((a != a) & (b != b))).all())  # NaN is not equal to itself
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_untouched(a[key], b[key]) for key in b)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(_untouched(x, y) for x, y in zip(a, b, strict=True))
    return _equal(a, b, 0.0)


def _compared(answer: Callable, task: Exercise) -> Callable:
    return answer if task.compares is None else task.compares(answer)


def _equal(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, _Raised) or isinstance(b, _Raised):
        return isinstance(a, _Raised) and isinstance(b, _Raised) and type(a.error) is type(b.error)
    if isinstance(b, Tensor):
        if not isinstance(a, Tensor) or a.shape != b.shape:
            return False
        if a.is_complex() != b.is_complex():  # .double() would drop the imaginary part
            return False
        scale = float(b.abs().max().clamp_min(1e-12)) if b.numel() else 1.0
        wide = torch.complex128 if b.is_complex() else torch.float64
        return bool(torch.isfinite(a).all()) and float((a.to(wide) - b.to(wide)).abs().max()) <= tolerance * scale
    if isinstance(b, dict):
        return isinstance(a, dict) and a.keys() == b.keys() and all(_equal(a[k], b[k], tolerance) for k in b)
    if isinstance(b, tuple | list):
        return (
            isinstance(a, tuple | list)
            and len(a) == len(b)
            and all(_equal(x, y, tolerance) for x, y in zip(a, b, strict=True))
        )
    if isinstance(b, bool) or isinstance(a, bool) or isinstance(b, str):
        return a == b and isinstance(a, bool) == isinstance(b, bool)
    if isinstance(b, int | float):
        if isinstance(a, np.generic) or (isinstance(a, Tensor) and a.ndim == 0):  # a sum of counts may be one of these
            a = a.item()
        return isinstance(a, int | float) and abs(a - b) <= tolerance * max(1.0, abs(b))
    return a == b


def _explain_difference(a: Any, b: Any, case: tuple, tolerance: float) -> str:
    """What is wrong with a, where b is wanted. Of several values, the first that differs is explained."""
    shapes = ", ".join(str(tuple(x.shape)) for x in case if isinstance(x, Tensor))
    given = f" for inputs of shapes {shapes}" if shapes else ""
    if isinstance(b, Tensor) and not isinstance(a, Tensor):
        return f"A tensor of shape {tuple(b.shape)} is wanted{given}; you return {described(a)}."
    if isinstance(b, Tensor) and a.shape != b.shape:
        return f"The shape should be {tuple(b.shape)}{given}; yours is {tuple(a.shape)}."
    if isinstance(b, Tensor) and a.is_complex() and not b.is_complex():
        return f"Your numbers are complex{given}, real ones are wanted: is there a root of a negative number?"
    if isinstance(b, Tensor) and not bool(torch.isfinite(a).all()):
        return f"Some of your values are infinite, or no numbers (nan){given}."
    if isinstance(b, Tensor):
        wide = torch.complex128 if b.is_complex() else torch.float64
        largest = float((a.to(wide) - b.to(wide)).abs().max())
        return f"The shape is right, the values are not: largest difference {largest:.2g}{given}."
    if isinstance(b, dict) and isinstance(a, dict):
        if a.keys() != b.keys():
            return f"The keys should be {', '.join(map(repr, b))}; yours are {', '.join(map(repr, a)) or 'none'}."
        if any(isinstance(b[key], bool) and not isinstance(a[key], bool) for key in b):
            return "Write True or False."
        return f"Not right yet: {', '.join(repr(key) for key in b if not _equal(a[key], b[key], tolerance))}."
    if isinstance(b, tuple | list):
        if not isinstance(a, tuple | list) or len(a) != len(b):
            return f"{len(b)} values are wanted, in a {type(b).__name__}; you return {described(a)}."
        first = next(i for i in range(len(b)) if not _equal(a[i], b[i], tolerance))
        return f"Value {first + 1} of {len(b)}: {_explain_difference(a[first], b[first], case, tolerance)}"
    if isinstance(b, str) and isinstance(a, str) and case != ():
        return f"For {', '.join(map(repr, case))} it gives {a!r}; wanted is {b!r}."
    if case and all(isinstance(x, bool | int | float | str) for x in case):
        given = f" for {', '.join(map(repr, case))}: it gives {a!r}"
    return f"The value is not right{given}."


def _explain_error(raised: _Raised, case: tuple) -> str:
    error = raised.error
    if isinstance(error, InputChanged):
        return "You changed an input in place; return a new tensor."
    if isinstance(error, WrongForm):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(where.filename, where.lineno).strip()
    shapes = ", ".join(str(tuple(x.shape)) for x in case if isinstance(x, Tensor))
    on = f" on inputs of shapes {shapes}" if shapes else ""
    code = f" at `{line}`" if line else ""
    return f"Your code stops{on}{code}: {type(error).__name__}: {error}"
