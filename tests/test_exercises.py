"""The checkers are checked: solutions pass, every wrong answer in the bank is refused with its own words."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest
import torch

import peftlab.course.exercises as bank
from peftlab.course import exercise
from peftlab.course.exercise import NOT_ATTEMPTED, RIGHT, WRONG, judge
from peftlab.errors import PeftLabError

LESSONS = [importlib.import_module(f"{bank.__name__}.{m.name}") for m in pkgutil.iter_modules(bank.__path__)]
TASKS = [task for lesson in LESSONS for task in lesson.EXERCISES]
MUTANTS = [(task, mutant) for task in TASKS for mutant in task.mutants]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.key)
def test_solution_passes_and_stub_is_not_attempted(task):
    assert judge(task, task.solution).ok
    assert not any(isinstance(each, exercise._Raised) for each in exercise._outcomes(task.solution, task))
    stub = (lambda *_: ...) if callable(task.solution) else ...
    assert judge(task, stub).state == NOT_ATTEMPTED
    assert judge(task, None).state == NOT_ATTEMPTED


@pytest.mark.parametrize(("task", "mutant"), MUTANTS, ids=lambda x: getattr(x, "key", None) or x.says[:30])
def test_every_mutant_is_refused_with_its_own_words(task, mutant):
    verdict = judge(task, mutant.answer)
    assert verdict.state == WRONG
    assert verdict.says == mutant.says


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.key)
def test_an_exercise_is_complete(task):
    assert len(task.hints) >= 2
    assert len(task.mutants) >= 3
    assert len({mutant.says for mutant in task.mutants}) == len(task.mutants)
    assert 1 <= task.minutes <= 10
    assert "..." not in exercise.solution_text(task)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.__name__[-2:])
def test_the_first_exercise_takes_under_five_minutes(lesson):
    assert lesson.EXERCISES[0].minutes < 5


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"tickets": ...}, "5 of 6 are right, 1 still open: tickets."),
        ({"tickets": ..., "invoices": (4, "LoRA, merged")}, "4 of 6 are right, 1 still open: tickets.\ninvoices: five"),
        ({"keyboard": (5, "LoRA, merged")}, "another question settles it first"),
        ({"keyboard": (4, "prompt")}, "the right question, but another answer"),
        ({"keyboard": ("4", "LoRA, merged")}, "without quotes"),
        ({"one card": (5, "qlora")}, "'qlora' is not one of the seven names"),
        ({"one card": "QLoRA"}, "a pair is wanted"),
        ({"one card": (3, "head only")}, "A later question"),
        ({"one card": (5, "LoRA, unmerged"), "customers": (2, "retrieval")}, "look up, either"),
    ],
)
def test_each_case_is_judged_for_itself(entries, says):
    task = exercise.exercise("02.first_try")
    verdict = judge(task, {**task.solution, **entries})
    assert verdict.state == WRONG and says in verdict.says


@pytest.mark.parametrize("answer", [0, 1e-9])
def test_hours_that_are_nearly_nothing_are_not_mistaken_for_those_of_one_token(answer):
    assert "one token" not in judge(exercise.exercise("01.card_hours"), lambda *_: answer).says


def tensors(value) -> list[torch.Tensor]:
    """All tensors inside a case, however deep."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return [tensor for part in parts for tensor in tensors(part)]


@pytest.mark.parametrize("task", [t for t in TASKS if tensors(t.cases()[0])], ids=lambda task: task.key)
def test_cases_are_awkward(task):
    """Square matrices hide transposed ones, and alpha = r hides a forgotten scale."""
    given = tensors(task.cases()[0])
    first = next((x for x in given if x.ndim == 2), None)
    if first is None:
        first = next(x for x in given if x.ndim > 2)
    assert first.shape[-2] != first.shape[-1]
    assert all(torch.equal(a, b) for a, b in zip(tensors(task.cases()), tensors(task.cases()), strict=True))


def test_code_that_stops_is_shown_and_does_not_stop_the_lesson(capsys):
    def wrong_order(x, W, b, A, B, alpha):
        return x @ A @ B

    exercise.check("06.lora_forward", wrong_order)
    said = capsys.readouterr().out
    assert "not yet" in said and "x @ A @ B" in said and "RuntimeError" in said


def test_changing_the_input_in_place_is_noticed(capsys):
    exercise.check("06.merged_conv1d", lambda weight, A, B, alpha: weight.add_(alpha / len(A) * (B @ A).T))
    assert "You changed an input in place" in capsys.readouterr().out


def test_an_input_changed_in_the_last_case_alone_is_noticed(capsys):
    """What it returned there must not count beside the complaint: there would be more outcomes than cases."""
    right = exercise.exercise("B4.adamw_step").solution

    def changes_the_last(w, g, m, v, t, lr, decay):
        found = right(w, g, m, v, t, lr, decay)
        if decay == 0:
            w.zero_()
        return found

    exercise.check("B4.adamw_step", changes_the_last)
    assert "You changed an input in place" in capsys.readouterr().out
    task = exercise.exercise("B4.adamw_step")
    assert len(exercise._outcomes(changes_the_last, task)) == len(task.cases())


def test_an_input_may_hold_infinity_and_nan():
    given = torch.tensor([0.0, -torch.inf, torch.nan])
    task = exercise.Exercise("x", "x", 1, lambda x: x.nan_to_num(), ("", ""), cases=lambda: [(given.clone(),)])
    assert judge(task, lambda x: torch.nan_to_num(x)).ok
    assert "in place" in judge(task, lambda x: x.nan_to_num_()).says
    assert judge(task, lambda x: ...).state == NOT_ATTEMPTED


def gradients(x, W, g):
    return exercise.exercise("B4.linear_backward").solution(x, W, g)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            lambda x, W, g: (*gradients(x, W, g)[:2], g.flatten(0, -2).sum(0, keepdim=True)),
            "Value 3 of 3: The shape should be (5,) for inputs of shapes (2, 3, 4), (5, 4), (2, 3, 5); yours is (1, 5)",
        ),
        (
            lambda x, W, g: (g.flatten(0, -2) @ W, *gradients(x, W, g)[1:]),
            "Value 1 of 3: The shape should be (2, 3, 4)",
        ),
        (
            lambda x, W, g: (g @ W, 2 * gradients(x, W, g)[1], gradients(x, W, g)[2]),
            "Value 2 of 3: The shape is right, the values are not",
        ),
        (lambda x, W, g: (g @ W, "dW", gradients(x, W, g)[2]), "Value 2 of 3: A tensor of shape (5, 4) is wanted"),
        (lambda x, W, g: (*gradients(x, W, g)[:2], g.flatten(0, -2).sum(0) > 0), "Value 3 of 3: The shape is right"),
        (lambda x, W, g: g @ W, "3 values are wanted, in a tuple"),
        (lambda x, W, g: (*gradients(x, W, g), W), "you return a tuple of 4."),
    ],
)
def test_of_several_values_the_first_that_differs_is_explained(answer, says, capsys):
    exercise.check("B4.linear_backward", answer)
    said = capsys.readouterr().out
    assert WRONG in said and says in said and "Your code stops" not in said


def test_several_values_with_one_still_to_be_filled_in_are_not_attempted():
    assert judge(exercise.exercise("B4.linear_backward"), lambda x, W, g: (g @ W, ..., ...)).state == NOT_ATTEMPTED
    assert judge(exercise.exercise("B5.paired_interval"), lambda correct, draws: (0.0, ...)).state == NOT_ATTEMPTED


def differences(correct, draws):
    rows = torch.randint(correct.shape[1], (draws, correct.shape[1]))
    return (correct[0, rows] - correct[1, rows]).mean(1)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (differences, "Two numbers are wanted, (low, high); you return a tensor of shape (3000,)."),
        (lambda c, n: differences(c, n).std().item(), "(low, high); you return a float."),
        (lambda c, n: (differences(c, n), differences(c, n)), "(low, high); yours are not."),
        (lambda c, n: differences(c, n).quantile(torch.tensor([0.0, 1.0])), "Not right yet: 'width of the interval'"),
        (lambda c, n: ((c[0].mean() - c[1].mean()).item() + 0.1,) * 2, "'middle of the interval', 'width of the"),
    ],
)
def test_an_interval_of_the_wrong_form_is_described(answer, says, capsys):
    exercise.check("B5.paired_interval", answer)
    said = capsys.readouterr().out
    assert WRONG in said and says in said


def test_a_dictionary_names_only_the_entries_beyond_the_tolerance():
    task = exercise.Exercise("x", "x", 1, {"a": 1.0, "b": 2.0}, ("", ""), tolerance=0.01)
    assert judge(task, {"a": 1.001, "b": 3.0}).says == "Not right yet: 'b'."


def test_an_entry_that_is_no_truth_value_is_named_as_such():
    task = exercise.Exercise("x", "x", 1, {"a": True, "b": False}, ("", ""))
    assert judge(task, {"a": 1, "b": 0}).says == "Write True or False."


def test_a_wrong_number_is_shown_with_its_inputs():
    task = exercise.Exercise("x", "x", 1, lambda n, double: n + double, ("", ""), cases=lambda: [(2, True)])
    assert judge(task, lambda n, double: n).says == "The value is not right for 2, True: it gives 2."


def test_infinite_values_are_named():
    task = exercise.exercise("13.half")
    assert "infinite" in judge(task, lambda n: torch.full((n,), torch.inf)).says


def test_a_tuple_instead_of_a_tensor_is_explained(capsys):
    exercise.check("06.best_cut", lambda dW, r: torch.linalg.svd(dW))
    assert "A tensor of shape (7, 5) is wanted" in capsys.readouterr().out


def test_a_missing_return_is_named(capsys):
    exercise.check("06.best_cut", lambda dW, r: None)
    assert "is the return missing?" in capsys.readouterr().out


def test_use_takes_a_right_answer_and_says_whose_code_runs(capsys):
    task = exercise.exercise("06.best_cut")

    def mine(dW, r):
        U, S, Vh = torch.linalg.svd(dW, full_matrices=False)
        return U[:, :r] @ torch.diag(S[:r]) @ Vh[:r]

    assert exercise.use("06.best_cut", mine) is mine
    assert "your best_cut" in capsys.readouterr().out
    assert exercise.use("06.best_cut", lambda dW, r: ...) is task.solution
    assert "the course's best_cut (yours: not attempted yet)" in capsys.readouterr().out


def test_hints_and_solution(capsys):
    exercise.hint("06.best_cut", 1)
    exercise.hint("06.best_cut", 9)
    exercise.solution("06.best_cut")
    said = capsys.readouterr().out
    assert "Hint 1 of 2" in said and "There are 2 hints" in said and "torch.linalg.svd" in said


@pytest.mark.parametrize("key", ["06.nothing", "99.nothing"])
def test_an_unknown_exercise_names_those_there_are(key):
    with pytest.raises(PeftLabError, match="lesson"):
        exercise.exercise(key)


def test_a_wrong_dictionary_names_the_wrong_entries(capsys):
    exercise.check("07.sizes", {"bytes of one adapter": 5, "adapters in the space of one copy": 291})
    assert "Not right yet: 'bytes of one adapter'." in capsys.readouterr().out
    exercise.check("07.sizes", {"bytes": 5})
    assert "yours are 'bytes'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda f, w: sum(v * B @ A for (A, B), v in zip(f, w, strict=True)), "yours is a tensor of shape (7, 5)"),
        (lambda f, w: (torch.cat([B for _, B in f], 1), torch.cat([A for A, _ in f])), "Return A first, then B"),
        (lambda f, w: (torch.cat([A for A, _ in f]), torch.cat([B for _, B in f])), "Put the B's side by side"),
        (lambda f, w: (torch.cat([A for A, _ in f], 1), torch.cat([B for _, B in f])), "B A would be (14, 10)"),
        (lambda f, w: ("A", "B"), "each a matrix; yours are a str and a str"),
        (
            lambda f, w: (
                torch.cat([v**0.5 * A for (A, _), v in zip(f, w, strict=True)]),
                torch.cat([v**0.5 * B for (_, B), v in zip(f, w, strict=True)], 1),
            ),
            "Your numbers are complex",
        ),
    ],
)
def test_a_sum_of_the_wrong_form_is_described_and_not_our_own_code(answer, says, capsys):
    exercise.check("07.weighted_sum", answer)
    said = capsys.readouterr().out
    assert WRONG in said and says in said and "Your code stops" not in said
    assert "found" not in said and "B @ A" not in said


def test_a_root_of_each_factor_passes_if_it_keeps_the_sign():
    def roots(factors, weights):
        A = torch.cat([w * abs(w) ** -0.5 * A for (A, _), w in zip(factors, weights, strict=True)])
        return A, torch.cat([abs(w) ** 0.5 * B for (_, B), w in zip(factors, weights, strict=True)], dim=1)

    assert judge(exercise.exercise("07.weighted_sum"), roots).ok


def test_complex_numbers_are_not_equal_to_real_ones():
    task = exercise.exercise("06.best_cut")
    assert not judge(task, lambda dW, r: task.solution(dW, r) + 0.5j).ok
    assert not judge(task, lambda dW, r: task.solution(dW, r).to(torch.complex64)).ok


def test_a_count_may_be_a_number_of_numpy_or_torch():
    task = exercise.exercise("03.parameters")
    right = dict(task.solution)
    for kind in (np.int64, torch.tensor, float):
        assert judge(task, {name: kind(n) for name, n in right.items()}).state == RIGHT
        assert judge(task, {name: kind(n + 1) for name, n in right.items()}).state == WRONG
    assert judge(task, {name: torch.tensor([n, n]) for name, n in right.items()}).state == WRONG
