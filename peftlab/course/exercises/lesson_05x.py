"""Deep dive 05x, learning the mask: the exercises, their solutions, and the wrong answers that people give."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from peftlab.course.exercise import Exercise, Mutant, WrongForm


def _learnable(drawn: str) -> Callable[[Callable], Callable]:
    """What a function of α gives, if it gives the same each time (else `drawn`) and lets a gradient through to α."""

    def compares(answer: Callable) -> Callable:
        def of(alpha, *others):  # noqa: ANN001, ANN002, ANN202
            alpha = alpha.clone().requires_grad_()
            found, again = answer(alpha, *others), answer(alpha, *others)
            if not isinstance(found, Tensor):
                return found
            if not torch.equal(found, again):
                raise WrongForm(drawn)
            right = (gate if len(others) == 3 else chance_open)(alpha, *others)
            near = found.shape == right.shape and bool(torch.isclose(found, right, atol=1e-5).all())
            if near and (not found.requires_grad or torch.autograd.grad(found.sum(), alpha)[0].abs().max() == 0):
                raise WrongForm("Right values, but no gradient reaches α. Stay in torch, and detach nothing.")
            return found.detach()

        return of

    return compares


# ---- 1: the gate ----------------------------------------------------------------------------------------------------


def gate(alpha, u, L, R):  # noqa: ANN001, ANN201
    s = torch.sigmoid(torch.log(u / (1 - u)) + alpha)
    return (s * (R - L) + L).clamp(0, 1)


def _draws() -> list[tuple]:
    g = torch.Generator().manual_seed(51)

    def case(shape: tuple[int, ...], L: float, R: float) -> tuple:
        return 3 * torch.randn(*shape, generator=g), torch.rand(*shape, generator=g).clamp(1e-3, 1 - 1e-3), L, R

    return [case((6, 5), -1.5, 1.5), case((9,), -0.1, 1.3)]


def _soft(alpha, u, L, R):  # noqa: ANN001, ANN202
    return torch.sigmoid(torch.log(u / (1 - u)) + alpha)


def _stretched(alpha, u, L, R):  # noqa: ANN001, ANN202
    return _soft(alpha, u, L, R) * (R - L) + L


def _not_moved(alpha, u, L, R):  # noqa: ANN001, ANN202
    return (_soft(alpha, u, L, R) * (R - L)).clamp(0, 1)


def _only_r(alpha, u, L, R):  # noqa: ANN001, ANN202
    return (_soft(alpha, u, L, R) * R + L).clamp(0, 1)


def _sum_of_limits(alpha, u, L, R):  # noqa: ANN001, ANN202
    return (_soft(alpha, u, L, R) * (R + L) + L).clamp(0, 1)


def _backwards(alpha, u, L, R):  # noqa: ANN001, ANN202
    return (_soft(alpha, u, L, R) * (L - R) + L).clamp(0, 1)


def _not_cut_at_one(alpha, u, L, R):  # noqa: ANN001, ANN202
    return _stretched(alpha, u, L, R).clamp(0)


def _alpha_outside(alpha, u, L, R):  # noqa: ANN001, ANN202
    return ((torch.sigmoid(torch.log(u / (1 - u))) + alpha) * (R - L) + L).clamp(0, 1)


def _decimal_log(alpha, u, L, R):  # noqa: ANN001, ANN202
    return (torch.sigmoid(torch.log10(u / (1 - u)) + alpha) * (R - L) + L).clamp(0, 1)


def _no_noise(alpha, u, L, R):  # noqa: ANN001, ANN202
    return (torch.sigmoid(alpha) * (R - L) + L).clamp(0, 1)


def _plain_noise(alpha, u, L, R):  # noqa: ANN001, ANN202
    return (torch.sigmoid(u + alpha) * (R - L) + L).clamp(0, 1)


def _upside_down(alpha, u, L, R):  # noqa: ANN001, ANN202
    return (torch.sigmoid(torch.log((1 - u) / u) + alpha) * (R - L) + L).clamp(0, 1)


def _rounded(alpha, u, L, R):  # noqa: ANN001, ANN202
    return (_stretched(alpha, u, L, R) > 0).float()


# ---- 2: how often it is open ----------------------------------------------------------------------------------------


def chance_open(alpha, L, R):  # noqa: ANN001, ANN201
    return torch.sigmoid(alpha - math.log(-L / R))


def _alphas() -> list[tuple]:
    g = torch.Generator().manual_seed(52)
    return [(2 * torch.randn(4, 3, generator=g), -0.1, 1.3), (torch.randn(5, generator=g), -1.5, 1.0)]


def _sigmoid_alone(alpha, L, R):  # noqa: ANN001, ANN202
    return torch.sigmoid(alpha)


def _wrong_way(alpha, L, R):  # noqa: ANN001, ANN202
    return torch.sigmoid(alpha + math.log(-L / R))


def _border_of_s(alpha, L, R):  # noqa: ANN001, ANN202
    return torch.sigmoid(alpha + L / (R - L))


def _log_of_border(alpha, L, R):  # noqa: ANN001, ANN202
    return torch.sigmoid(alpha - math.log(-L / (R - L)))


def _nothing_drawn(alpha, L, R):  # noqa: ANN001, ANN202
    return torch.sigmoid(alpha) * (R - L) + L


def _closed(alpha, L, R):  # noqa: ANN001, ANN202
    return 1 - chance_open(alpha, L, R)


def _no_log(alpha, L, R):  # noqa: ANN001, ANN202
    return torch.sigmoid(alpha + L / R)


def _fully_open(alpha, L, R):  # noqa: ANN001, ANN202
    return torch.sigmoid(alpha - math.log((1 - L) / (R - 1)))


def _in_the_middle(alpha, L, R):  # noqa: ANN001, ANN202
    return gate(alpha, torch.full_like(alpha, 0.5), L, R)


def _sum_of_them(alpha, L, R) -> Tensor:  # noqa: ANN001
    return chance_open(alpha, L, R).sum()


EXERCISES = [
    Exercise(
        key="05x.gate",
        title="gate",
        minutes=4,
        solution=gate,
        cases=_draws,
        compares=_learnable("Two calls with the same u differ: u is given, do not draw your own."),
        tolerance=1e-5,
        hints=(
            "Three steps: s from α and the noise, stretch s from (0, 1) to (L, R), cut at 0 and 1.",
            "Stretching is s * (R - L) + L; cutting is .clamp(0, 1).",
        ),
        mutants=(
            Mutant(_soft, "That is s, never exactly 0 or 1. Stretch it to (L, R) and cut at 0 and 1."),
            Mutant(_stretched, "Stretched, and not cut afterwards: z must lie between 0 and 1. End with .clamp(0, 1)."),
            Mutant(_not_moved, "The stretched range begins at L: + L is missing."),
            Mutant(_only_r, "The range from L to R is R - L wide, not R."),
            Mutant(_sum_of_limits, "R + L is not the width of the range from L to R; that is R - L."),
            Mutant(_backwards, "L - R is below zero: the range is R - L wide."),
            Mutant(_not_cut_at_one, "Cut at 1 as well: .clamp(0, 1)."),
            Mutant(_alpha_outside, "α belongs inside σ, added to the logarithm."),
            Mutant(_decimal_log, "The natural logarithm: torch.log, not log10."),
            Mutant(_no_noise, "u does not come in: this gate is the same in every draw."),
            Mutant(_plain_noise, "The noise enters as log(u / (1 - u)), not as u itself."),
            Mutant(_upside_down, "The fraction is upside down: log(u / (1 - u))."),
            Mutant(_rounded, "You round to 0 or 1. Between them z stays as it is, or nothing has a gradient."),
        ),
    ),
    Exercise(
        key="05x.chance_open",
        title="chance_open",
        minutes=10,
        solution=chance_open,
        cases=_alphas,
        compares=_learnable("By drawing you get near. Wanted is the formula."),
        tolerance=1e-5,
        hints=(
            "z > 0 means s (R - L) + L > 0, so s > -L / (R - L). Put the formula of s in, and solve for u.",
            "s > c means log(u / (1 - u)) > log(c / (1 - c)) - α. Here c / (1 - c) is -L / R.",
            "The chance of log(u / (1 - u)) > t, for u uniform between 0 and 1, is σ(-t).",
        ),
        mutants=(
            Mutant(
                _sigmoid_alone,
                "That is right only for L = -R. In general the border moves: where is s (R - L) + L = 0?",
            ),
            Mutant(
                _wrong_way, "The sign of the logarithm is wrong: a lower L closes gates, so it must lower the chance."
            ),
            Mutant(
                _border_of_s,
                "The border c for s is right. s is a sigmoid, so compare its *inside*: the border there is "
                "log(c / (1 - c)).",
            ),
            Mutant(
                _log_of_border,
                "Nearly: log c with c = -L / (R - L). Undoing a sigmoid takes log(c / (1 - c)).",
            ),
            Mutant(_nothing_drawn, "Nothing is drawn in this: where does the noise come in?"),
            Mutant(_closed, "That is the chance of z = 0."),
            Mutant(_no_log, "The border is log(-L / R), not -L / R."),
            Mutant(_fully_open, "That is the chance of z = 1, fully open. Open at all is z > 0."),
            Mutant(_in_the_middle, "That is the gate's value at u = 1/2. Wanted is how often it is above 0."),
            Mutant(_sum_of_them, "The sum over all gates is the penalty. Wanted is the chance of each gate."),
        ),
        shown="""
        def chance_open(alpha, L, R):
            return torch.sigmoid(alpha - math.log(-L / R))

        # z > 0  ⇔  s > -L / (R - L)  ⇔  log(u / (1 - u)) > log(-L / R) - α,
        # and log(u / (1 - u)) > t has the chance σ(-t).
        """,
    ),
]
