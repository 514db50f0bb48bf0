"""Bridge B5, validation, seeds, intervals: the exercises, their solutions, and the wrong answers that people give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from peftlab.course.exercise import Exercise, Mutant, WrongForm, described

# ---- 1: the standard error of an accuracy -------------------------------------------------------------------------


def standard_error(right: int, N: int) -> float:
    p = right / N
    return (p * (1 - p) / N) ** 0.5


def _counts() -> list[tuple]:
    return [(87, 100), (1049, 1200), (31, 40), (4, 50)]


def _as_number(answer: Callable) -> Callable:
    """A tensor with one number is as good as a number."""

    def found(*case: Any) -> Any:
        value = answer(*case)
        return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value

    return found


def _variance(right: int, N: int) -> float:
    return standard_error(right, N) ** 2


def _of_one_row(right: int, N: int) -> float:
    return standard_error(right, N) * N**0.5


def _of_the_count(right: int, N: int) -> float:
    return standard_error(right, N) * N


def _n_outside_the_root(right: int, N: int) -> float:
    return standard_error(right, N) / N**0.5


def _only_n_under_the_root(right: int, N: int) -> float:
    return right / N * (1 - right / N) / N**0.5


def _rounded(right: int, N: int) -> float:
    return round(standard_error(right, N), 2)


def _without_the_wrong(right: int, N: int) -> float:
    return (right / N / N) ** 0.5


def _at_worst(right: int, N: int) -> float:
    return 0.5 / N**0.5


def _twice(right: int, N: int) -> float:
    return 2 * standard_error(right, N)


def _half_an_interval(right: int, N: int) -> float:
    return 1.96 * standard_error(right, N)


def _in_points(right: int, N: int) -> float:
    return 100 * standard_error(right, N)


# ---- 2: the interval of a difference, on the same rows ------------------------------------------------------------

SHARE = torch.tensor([0.025, 0.975])


def paired_interval(correct: Tensor, draws: int) -> tuple[float, float]:
    N = correct.shape[1]
    rows = torch.randint(N, (draws, N))  # each line is a new test set: N rows, drawn with replacement
    differences = correct[0, rows].mean(1) - correct[1, rows].mean(1)  # both models on the same rows
    low, high = differences.quantile(torch.tensor([0.025, 0.975]))
    return low.item(), high.item()


def _pairs() -> list[tuple]:
    """Rows that both get right, only the first, only the second, neither; in an order that does not matter."""

    def case(both: int, first: int, second: int, neither: int) -> tuple:
        correct = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 0]]).repeat_interleave(
            torch.tensor([both, first, second, neither]), dim=1
        )
        return correct[:, torch.randperm(correct.shape[1], generator=torch.Generator().manual_seed(5))], 3000

    return [case(300, 60, 30, 100), case(280, 34, 66, 130), case(330, 50, 48, 70)]


def _as_pair(answer: Callable) -> Callable:
    """The middle of (low, high) and half its width: they vary less from draw to draw than the ends do.

    From a fixed seed, so that a check says the same each time. What is no pair of numbers raises WrongForm.
    """

    def found(*case: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            value = answer(*case)
        if value is None or value is Ellipsis:
            return value
        ends = value.tolist() if isinstance(value, Tensor) else value
        if not isinstance(ends, tuple | list) or len(ends) != 2:
            raise WrongForm(f"Two numbers are wanted, (low, high); you return {described(value)}.")
        if any(each is Ellipsis for each in ends):
            return ...
        if any(isinstance(each, Tensor) and each.numel() != 1 or isinstance(each, list) for each in ends):
            raise WrongForm("Two numbers are wanted, (low, high); yours are not. Over which dimension is the mean?")
        low, high = (float(end) for end in ends)
        return {"middle of the interval": (low + high) / 2, "width of the interval": (high - low) / 2}

    return found


def _drawn(correct: Tensor, draws: int) -> tuple[Tensor, Tensor]:
    """The accuracies of both on the same draws."""
    rows = torch.randint(correct.shape[1], (draws, correct.shape[1]))
    return correct[0, rows].mean(1), correct[1, rows].mean(1)


def _ends(values: Tensor, share: Tensor = SHARE) -> tuple[float, ...]:
    return tuple(values.quantile(share).tolist())


def _other_rows_for_each(correct: Tensor, draws: int) -> tuple[float, ...]:
    return _ends(_drawn(correct, draws)[0] - _drawn(correct, draws)[1])


def _turned_round(correct: Tensor, draws: int) -> tuple[float, ...]:
    first, second = _drawn(correct, draws)
    return _ends(second - first)


def _without_the_sign(correct: Tensor, draws: int) -> tuple[float, ...]:
    first, second = _drawn(correct, draws)
    return _ends((first - second).abs())


def _ninety(correct: Tensor, draws: int) -> tuple[float, ...]:
    first, second = _drawn(correct, draws)
    return _ends(first - second, torch.tensor([0.05, 0.95]))


def _one_standard_error(correct: Tensor, draws: int) -> tuple[float, ...]:
    first, second = _drawn(correct, draws)
    middle, spread = (first - second).mean().item(), (first - second).std().item()
    return middle - spread, middle + spread


def _without_replacement(correct: Tensor, draws: int) -> tuple[float, ...]:
    difference = (correct[0].mean() - correct[1].mean()).item()
    return difference, difference


def _ends_of_two_intervals(correct: Tensor, draws: int) -> tuple[float, ...]:
    first, second = (_ends(accuracies) for accuracies in _drawn(correct, draws))
    return first[0] - second[1], first[1] - second[0]


def _first_alone(correct: Tensor, draws: int) -> tuple[float, ...]:
    return _ends(_drawn(correct, draws)[0])


def _in_points_both(correct: Tensor, draws: int) -> tuple[float, ...]:
    first, second = _drawn(correct, draws)
    return _ends(100 * (first - second))


def _a_quarter(correct: Tensor, draws: int) -> tuple[float, ...]:
    first, second = _drawn(correct, draws)
    return _ends(first - second, torch.tensor([0.25, 0.975]))


def _over_the_draws(correct: Tensor, draws: int) -> tuple[float, ...]:
    rows = torch.randint(correct.shape[1], (draws, correct.shape[1]))
    return _ends((correct[0, rows] - correct[1, rows]).mean(0))


def _only_where_they_differ(correct: Tensor, draws: int) -> tuple[float, ...]:
    first, second = _drawn(correct[:, correct[0] != correct[1]], draws)
    return _ends(first - second)


def _counted(correct: Tensor, draws: int) -> tuple[float, ...]:
    first, second = _drawn(correct, draws)
    return _ends((first - second) * correct.shape[1])


def _high_first(correct: Tensor, draws: int) -> tuple[float, ...]:
    return paired_interval(correct, draws)[::-1]


EXERCISES = [
    Exercise(
        key="B5.standard_error",
        title="standard_error",
        minutes=3,
        solution=standard_error,
        cases=_counts,
        tolerance=1e-3,  # with N - 1 in the place of N it is right as well
        compares=_as_number,
        hints=(
            "With p = right / N, one row has the variance p (1 - p). The mean of N rows has N times less.",
            "A standard error is a standard deviation: the square root of that variance.",
        ),
        mutants=(
            Mutant(_variance, "That is the variance of the accuracy. The standard error is its square root."),
            Mutant(_of_one_row, "That is the spread of a single row. The mean of N rows varies less."),
            Mutant(_of_the_count, "That is the spread of the number right. A share is that number divided by N."),
            Mutant(_n_outside_the_root, "N belongs under the root: the variance is N times smaller, not its root."),
            Mutant(_only_n_under_the_root, "Only N is under the root. The variance p (1 - p) belongs there too."),
            Mutant(_rounded, "You round. Return the number as it is; where it is printed, it is rounded."),
            Mutant(_without_the_wrong, "The variance of one row is p (1 - p). Your factor 1 - p is missing."),
            Mutant(_at_worst, "That holds for p = 1/2, the worst case. Use the share that was measured."),
            Mutant(_twice, "That is about half of a 95 % interval. The standard error itself has no factor 2."),
            Mutant(_half_an_interval, "That is half of a 95 % interval. The standard error has no factor 1.96."),
            Mutant(_in_points, "The number is in percentage points. Return it as a share, without the factor 100."),
        ),
    ),
    Exercise(
        key="B5.paired_interval",
        title="paired_interval",
        minutes=5,
        solution=paired_interval,
        cases=_pairs,
        tolerance=4e-3,  # a fifth of a standard error: luck of the draws, but no other interval
        compares=_as_pair,
        hints=(
            "torch.randint(N, (draws, N)) gives one new test set a line. Indexing with it, correct[0, rows], has the "
            "shape (draws, N).",
            "Take the mean over dimension 1 for each model, on the same rows; subtract; then .quantile at 0.025 and "
            "0.975.",
        ),
        mutants=(
            Mutant(_other_rows_for_each, "Each model gets draws of its own. Draw once, and use the rows for both."),
            Mutant(_turned_round, "The difference is turned round: first model minus second."),
            Mutant(_without_the_sign, "You dropped the sign: a difference may be negative. Leave the abs out."),
            Mutant(_ninety, "From 5 % to 95 % lie 90 % of the draws. Cut 2.5 % at each end."),
            Mutant(_one_standard_error, "One standard deviation to each side holds two thirds. Wanted are 95 %."),
            Mutant(
                _without_replacement,
                "Every draw gives the same difference. Draw with replacement, and take the mean over dimension 1 only.",
            ),
            Mutant(
                _ends_of_two_intervals,
                "You subtract the ends of two intervals. Subtract within each draw, then take the quantiles.",
            ),
            Mutant(_first_alone, "That is the interval of the first model's accuracy. Subtract the second's."),
            Mutant(_in_points_both, "These are points. Return shares, without the factor 100."),
            Mutant(_a_quarter, "The lower quantile is 0.25. 2.5 % is 0.025."),
            Mutant(_over_the_draws, "You average over the draws. Average over the rows: dimension 1."),
            Mutant(
                _only_where_they_differ,
                "You draw from the rows on which the two differ. A new test set has all kinds of rows: draw from all.",
            ),
            Mutant(_counted, "You count rows. Divide by N: a difference of accuracies is wanted."),
            Mutant(_high_first, "The right two numbers in the wrong order: the lower end comes first."),
        ),
    ),
]
