"""Deep dive 05x, learning the mask: the exercises, their solutions, and the wrong answers that people give."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from peftlab.course.exercise import Exercise, Mutant

L, R = -1.5, 1.5


# ---- 1: the gate ----------------------------------------------------------------------------------------------------


def gate(alpha, u, l, r):  # noqa: ANN001, ANN201, E741
    s = torch.sigmoid(torch.log(u / (1 - u)) + alpha)
    return (s * (r - l) + l).clamp(0, 1)


def _draws() -> list[tuple]:
    g = torch.Generator().manual_seed(51)

    def case(shape: tuple[int, ...], l: float, r: float) -> tuple:  # noqa: E741
        return 3 * torch.randn(*shape, generator=g), torch.rand(*shape, generator=g).clamp(1e-3, 1 - 1e-3), l, r

    return [case((6, 5), -1.5, 1.5), case((9,), -0.1, 1.3)]


def _soft(alpha, u, l, r):  # noqa: ANN001, ANN202, E741
    return torch.sigmoid(torch.log(u / (1 - u)) + alpha)


def _stretched(alpha, u, l, r):  # noqa: ANN001, ANN202, E741
    return _soft(alpha, u, l, r) * (r - l) + l


def _not_moved(alpha, u, l, r):  # noqa: ANN001, ANN202, E741
    return (_soft(alpha, u, l, r) * (r - l)).clamp(0, 1)


def _only_r(alpha, u, l, r):  # noqa: ANN001, ANN202, E741
    return (_soft(alpha, u, l, r) * r + l).clamp(0, 1)


def _no_noise(alpha, u, l, r):  # noqa: ANN001, ANN202, E741
    return (torch.sigmoid(alpha) * (r - l) + l).clamp(0, 1)


def _plain_noise(alpha, u, l, r):  # noqa: ANN001, ANN202, E741
    return (torch.sigmoid(u + alpha) * (r - l) + l).clamp(0, 1)


def _upside_down(alpha, u, l, r):  # noqa: ANN001, ANN202, E741
    return (torch.sigmoid(torch.log((1 - u) / u) + alpha) * (r - l) + l).clamp(0, 1)


def _rounded(alpha, u, l, r):  # noqa: ANN001, ANN202, E741
    return (_stretched(alpha, u, l, r) > 0).float()


# ---- 2: how often it is open ----------------------------------------------------------------------------------------


def chance_open(alpha, l, r):  # noqa: ANN001, ANN201, E741
    return torch.sigmoid(alpha - math.log(-l / r))


def _alphas() -> list[tuple]:
    g = torch.Generator().manual_seed(52)
    return [(2 * torch.randn(4, 3, generator=g), -0.1, 1.3), (torch.randn(5, generator=g), -1.5, 1.0)]


def _sigmoid_alone(alpha, l, r):  # noqa: ANN001, ANN202, E741
    return torch.sigmoid(alpha)


def _wrong_way(alpha, l, r):  # noqa: ANN001, ANN202, E741
    return torch.sigmoid(alpha + math.log(-l / r))


def _closed(alpha, l, r):  # noqa: ANN001, ANN202, E741
    return 1 - chance_open(alpha, l, r)


def _no_log(alpha, l, r):  # noqa: ANN001, ANN202, E741
    return torch.sigmoid(alpha + l / r)


def _fully_open(alpha, l, r):  # noqa: ANN001, ANN202, E741
    return torch.sigmoid(alpha - math.log((1 - l) / (r - 1)))


def _in_the_middle(alpha, l, r):  # noqa: ANN001, ANN202, E741
    return gate(alpha, torch.full_like(alpha, 0.5), l, r)


def _sum_of_them(alpha, l, r) -> Tensor:  # noqa: ANN001, E741
    return chance_open(alpha, l, r).sum()


EXERCISES = [
    Exercise(
        key="05x.gate",
        title="gate",
        minutes=4,
        solution=gate,
        cases=_draws,
        tolerance=1e-5,
        hints=(
            "Three steps: s from α and the noise, stretch s from (0, 1) to (l, r), cut at 0 and 1.",
            "Stretching is s * (r - l) + l; cutting is .clamp(0, 1).",
        ),
        mutants=(
            Mutant(_soft, "That is s, never exactly 0 or 1. Stretch it to (l, r) and cut at 0 and 1."),
            Mutant(_stretched, "Stretched, and not cut: z must lie between 0 and 1. Add .clamp(0, 1)."),
            Mutant(_not_moved, "The stretched range begins at l: + l is missing."),
            Mutant(_only_r, "The range from l to r is r - l wide, not r."),
            Mutant(_no_noise, "u does not come in: this gate is the same in every draw."),
            Mutant(_plain_noise, "The noise enters as log(u / (1 - u)), not as u itself."),
            Mutant(_upside_down, "The fraction is upside down: log(u / (1 - u))."),
            Mutant(_rounded, "You round to 0 or 1. Between them z stays as it is, or nothing has a gradient."),
        ),
    ),
    Exercise(
        key="05x.chance_open",
        title="chance_open",
        minutes=8,
        solution=chance_open,
        cases=_alphas,
        tolerance=1e-5,
        hints=(
            "z > 0 means s (r - l) + l > 0, so s > -l / (r - l). Put the formula of s in, and solve for u.",
            "s > c means log(u / (1 - u)) > log(c / (1 - c)) - α. Here c / (1 - c) is -l / r.",
            "The chance of log(u / (1 - u)) > t, for u even between 0 and 1, is σ(-t).",
        ),
        mutants=(
            Mutant(
                _sigmoid_alone,
                "That is right only for l = -r. In general the border moves: where is s (r - l) + l = 0?",
            ),
            Mutant(
                _wrong_way, "The sign of the logarithm is wrong: a lower l closes gates, so it must lower the chance."
            ),
            Mutant(_closed, "That is the chance of z = 0."),
            Mutant(_no_log, "The border is log(-l / r), not -l / r."),
            Mutant(_fully_open, "That is the chance of z = 1, fully open. Open at all is z > 0."),
            Mutant(_in_the_middle, "That is the gate's value at u = 1/2. Wanted is how often it is above 0."),
            Mutant(_sum_of_them, "The sum over all gates is the penalty. Wanted is the chance of each gate."),
        ),
        shown="""
        def chance_open(alpha, l, r):
            return torch.sigmoid(alpha - math.log(-l / r))

        # z > 0  ⇔  s > -l / (r - l)  ⇔  log(u / (1 - u)) > log(-l / r) - α,
        # and log(u / (1 - u)) > t has the chance σ(-t).
        """,
    ),
]
