"""Lesson 01, the scaling dilemma: the exercises, their solutions, and the wrong answers that people give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from peftlab.course.exercise import Exercise, Mutant, WrongForm, described

# ---- 1: bytes beside a frozen base --------------------------------------------------------------------------------


def bytes_beside(N: int, c: float, k: int, p: float) -> float:
    return N * c + 4 * k * p


def _bytes_cases() -> list[tuple]:
    return [(1000, 2, 30, 4), (640, 0.5, 7, 2), (100, 4, 9, 4)]


# ---- 2: a power law -----------------------------------------------------------------------------------------------


def power_law(N: list[float], L: list[float]) -> tuple[float, float]:
    slope, intercept = np.polyfit(np.log(N), np.log(L), 1)
    return np.exp(intercept), -slope


def _law_cases() -> list[tuple]:
    """Rungs that are not evenly spaced, with a little noise, so that two of them do not fix the line."""
    random = np.random.default_rng(1)
    cases = []
    for a, b, sizes in ((8.0, 0.1, [2e4, 7e4, 1e5, 9e5, 4e6]), (40.0, 0.35, [5e3, 6e3, 8e4, 2e7])):
        noise = np.exp(0.05 * random.standard_normal(len(sizes)))
        cases.append((sizes, [a * N**-b * float(each) for N, each in zip(sizes, noise, strict=True)]))
    return cases


def _as_pair(answer: Callable) -> Callable:
    """A tuple, a list or an array of two numbers are as good as one another."""

    def called(N: list[float], L: list[float]) -> Any:
        found = answer(N, L)
        if found is None or found is Ellipsis:
            return found
        try:
            a, b = (float(value) for value in found)
        except (TypeError, ValueError):
            raise WrongForm(f"You return {described(found)}. Two numbers are wanted: a, and then b.") from None
        return a, b

    return called


def _fit(N, L):  # noqa: ANN001, ANN202
    return np.polyfit(np.log(N), np.log(L), 1)


def _tenth_power(N, L):  # noqa: ANN001, ANN202
    slope, intercept = _fit(N, L)
    return 10**intercept, -slope


def _ends(N, L):  # noqa: ANN001, ANN202
    b = -np.log(L[-1] / L[0]) / np.log(N[-1] / N[0])
    return L[0] * N[0] ** b, b


def _only_log_N(N, L):  # noqa: ANN001, ANN202
    slope, intercept = np.polyfit(np.log(N), L, 1)
    return np.exp(intercept), -slope


def _straight(N, L):  # noqa: ANN001, ANN202
    slope, intercept = np.polyfit(N, L, 1)
    return intercept, -slope


def _mixed_logs(N, L):  # noqa: ANN001, ANN202
    slope, intercept = np.polyfit(np.log10(N), np.log10(L), 1)
    return np.exp(intercept), -slope


def _turned(N, L):  # noqa: ANN001, ANN202
    slope, intercept = np.polyfit(np.log(L), np.log(N), 1)
    return np.exp(intercept), -slope


# ---- 3: hours -----------------------------------------------------------------------------------------------------


def card_hours(N: float, D: float, flops: float, utilisation: float) -> float:
    return 6 * N * D / (flops * utilisation) / 3600


def _hours_cases() -> list[tuple]:
    """Two real jobs, and a toy on which one token, and the fraction upside down, are not as good as 0."""
    return [(7e9, 2e12, 312e12, 0.4), (1.1e9, 3e9, 989e12, 0.25), (20.0, 60.0, 7200.0, 0.5)]


EXERCISES = [
    Exercise(
        key="01.bytes_beside",
        title="bytes_beside",
        minutes=4,
        solution=bytes_beside,
        cases=_bytes_cases,
        hints=(
            "Two sums: what the frozen numbers take, and what the trained numbers take. A frozen one is stored, and "
            "that is all.",
            "A trained number takes p bytes. Its gradient is as large, and so is each of AdamW's two averages.",
        ),
        mutants=(
            Mutant(
                lambda N, c, k, p: 4 * N * c + 4 * k * p,
                "You give the frozen numbers gradients and averages too. They have none: that is what freezing saves.",
            ),
            Mutant(
                lambda N, c, k, p: 2 * N * c + 4 * k * p,
                "You give the frozen numbers a gradient. They have none.",
            ),
            Mutant(
                lambda N, c, k, p: N * c + 3 * k * p,
                "Three places for a trained number are one short: its value, its gradient, two averages.",
            ),
            Mutant(
                lambda N, c, k, p: N * c + 2 * k * p,
                "Two places for a trained number are half of them: its value, its gradient, and two averages.",
            ),
            Mutant(
                lambda N, c, k, p: N * c + k * p,
                "That is what lies on disk. In training each adapter number has a gradient and two averages as well.",
            ),
            Mutant(
                lambda N, c, k, p: N * c + 4 * k * c,
                "You store the adapter in the base's format. It has its own, p bytes a number.",
            ),
            Mutant(
                lambda N, c, k, p: N * c + 16 * k,
                "16 bytes for a trained number is right for p = 4 alone. Write it with p.",
            ),
            Mutant(
                lambda N, c, k, p: N * c + (4 * p + 2) * k,
                "That is the recipe of careful training, with a second copy of 16-bit weights. Here is no second copy.",
            ),
            Mutant(
                lambda N, c, k, p: N * c + 5 * k * p,
                "Five places for a trained number are one too many: its value, its gradient, two averages.",
            ),
            Mutant(
                lambda N, c, k, p: (N - k) * c + 4 * k * p,
                "The adapter stands beside the base. It takes nothing out of it: all N numbers are still there.",
            ),
            Mutant(
                lambda N, c, k, p: 4 * k * p,
                "You count the adapter alone. The frozen base has to be in memory too.",
            ),
            Mutant(
                lambda N, c, k, p: (N + 4 * k) * p,
                "You take p bytes for a frozen number. It has c: 2 in bf16, about half of one in 4 bits.",
            ),
            Mutant(
                lambda N, c, k, p: (N + k) * c * 4,
                "Frozen and trained numbers are treated alike. Keep the two sums apart.",
            ),
            Mutant(
                lambda N, c, k, p: (N + k) * c + 3 * k * p,
                "The adapter's own values are not in the base's format: they too take p bytes each.",
            ),
            Mutant(
                lambda N, c, k, p: (N * c + 4 * k * p) / 2**30,
                "These are GiB. Bytes are wanted.",
            ),
            Mutant(
                lambda N, c, k, p: N * c * 4 * k * p,
                "You multiply the two parts. They lie side by side in memory: add them.",
            ),
        ),
    ),
    Exercise(
        key="01.power_law",
        title="power_law",
        minutes=7,
        solution=power_law,
        cases=_law_cases,
        compares=_as_pair,
        hints=(
            "Take the logarithm of both sides: log L = log a − b log N. That is a straight line in log N.",
            "np.polyfit(x, y, 1) gives the slope first and then the intercept of a straight line through points x, y. "
            "Which of your two numbers is minus the slope, and which the exponential of the intercept?",
        ),
        mutants=(
            Mutant(lambda N, L: (power_law(N, L)[1], power_law(N, L)[0]), "Right numbers, wrong order: first a."),
            Mutant(
                lambda N, L: (_fit(N, L)[1], -_fit(N, L)[0]),
                "The intercept of your line is log a. You want a: take the exponential.",
            ),
            Mutant(
                lambda N, L: (np.exp(_fit(N, L)[1]), _fit(N, L)[0]),
                "Your b is the slope, which is below zero. The formula has its minus sign already: b is minus the "
                "slope.",
            ),
            Mutant(
                lambda N, L: tuple(_fit(N, L)),
                "You return the line as polyfit gives it, slope and intercept. Turn them into a and b.",
            ),
            Mutant(_straight, "Your line is straight in N and L. A power law is straight in their logarithms."),
            Mutant(_only_log_N, "You took the logarithm of N and not of L. The law needs both."),
            Mutant(_mixed_logs, "You fitted in log10 and undid it with exp. Use one base for both."),
            Mutant(_tenth_power, "You fitted with ln and undid it with 10 to the power of it. Use one base for both."),
            Mutant(
                lambda N, L: (np.exp(_fit(N, L)[0]), -_fit(N, L)[1]),
                "Slope and intercept are exchanged: polyfit gives the slope first.",
            ),
            Mutant(
                lambda N, L: (_fit(N, L)[0], np.exp(_fit(N, L)[1])),
                "First a, and then b, which is minus the slope.",
            ),
            Mutant(
                lambda N, L: _ends(N[:2], L[:2]),
                "You drew the line through the first two rungs. Use all of them: least squares.",
            ),
            Mutant(_ends, "You drew the line through the first and the last rung. Use all of them: least squares."),
            Mutant(_turned, "x and y are exchanged: N is given and L is what follows."),
        ),
    ),
    Exercise(
        key="01.card_hours",
        title="card_hours",
        minutes=5,
        solution=card_hours,
        cases=_hours_cases,
        hints=(
            "How many FLOPs in all, and how many of them does the card really do in a second?",
            "6 for each parameter and token. The card does flops · utilisation in a second, and an hour has 3600.",
        ),
        mutants=(
            Mutant(
                lambda N, D, flops, utilisation: 2 * N * D / (flops * utilisation) / 3600,
                "2 FLOPs for each parameter and token is the forward pass alone. Training takes three such passes: 6.",
            ),
            Mutant(
                lambda N, D, flops, utilisation: 4 * N * D / (flops * utilisation) / 3600,
                "4 is for a frozen base. Here every weight trains: 6.",
            ),
            Mutant(
                lambda N, D, flops, utilisation: N * D / (flops * utilisation) / 3600,
                "You count one FLOP for each parameter and token. Training takes 6.",
            ),
            Mutant(
                lambda N, D, flops, utilisation: 6 * N * D / flops / 3600,
                "That is at the maker's peak. The card reaches only a share of it: `utilisation`.",
            ),
            Mutant(
                lambda N, D, flops, utilisation: 6 * N * D / flops * utilisation / 3600,
                "You multiply the time by the utilisation. A card that is used less takes longer: divide.",
            ),
            Mutant(
                lambda N, D, flops, utilisation: 6 * N * D / (flops * utilisation),
                "These are seconds. Hours are wanted.",
            ),
            Mutant(
                lambda N, D, flops, utilisation: 6 * N * D / (flops * utilisation) / 60,
                "These are minutes. Hours are wanted.",
            ),
            Mutant(
                lambda N, D, flops, utilisation: 6 * N / (flops * utilisation) / 3600,
                "That is for one token. There are D of them.",
            ),
            Mutant(
                lambda N, D, flops, utilisation: flops * utilisation / (6 * N * D) / 3600,
                "You have it upside down: the time is the work, divided by the speed.",
            ),
            Mutant(
                lambda N, D, flops, utilisation: 6 * N * D / (flops * utilisation) * 3600,
                "You multiply by 3600. An hour has 3600 seconds: divide.",
            ),
            Mutant(
                lambda N, D, flops, utilisation: 6 * N * D / (flops * utilisation) / 86400,
                "These are days. Hours are wanted.",
            ),
            Mutant(
                lambda N, D, flops, utilisation: 6 * N * D / flops,
                "These are seconds, at the maker's peak. Hours are wanted, and the card reaches only a share of it.",
            ),
            Mutant(
                lambda N, D, flops, utilisation: 3 * N * D / (flops * utilisation) / 3600,
                "3 counts a multiplication and its addition as one. They are two FLOPs: 6.",
            ),
            Mutant(
                lambda N, D, flops, utilisation: 8 * N * D / (flops * utilisation) / 3600,
                "8 is with checkpointing, which runs the forward pass twice. Without it: 6.",
            ),
        ),
    ),
]
