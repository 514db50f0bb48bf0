"""Lesson 13, quantisation and QLoRA: the exercises, their solutions, and the wrong answers that people give."""

from __future__ import annotations

import torch
from torch import Tensor

from peftlab.course.exercise import Exercise, Mutant
from peftlab.quant.nf4 import quantile

LAST = 0.9677083


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(13)


# ---- 1: there and back ----------------------------------------------------------------------------------------------


def round_trip(w: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    c = w.abs().amax(dim=1, keepdim=True)
    code = ((w / c).unsqueeze(-1) - levels).abs().argmin(dim=-1)
    return c * levels[code]


def _trip_cases() -> list[tuple]:
    g = _seeded()
    uneven = torch.tensor([-1.0, -0.6, -0.25, 0.0, 0.3, 0.55, 1.0])
    few = torch.tensor([-1.0, -0.2, 0.0, 0.4, 1.0])
    first = torch.randn(3, 9, generator=g) * 0.3
    first[1, 4] = -1.7  # the largest by size is negative
    return [(first, uneven), (torch.randn(4, 6, generator=g) * 2 + 0.5, few), (torch.randn(2, 11, generator=g), few)]


def _nearest(u: Tensor, levels: Tensor) -> Tensor:
    return (u[..., None] - levels).abs().argmin(dim=-1)


def _size(w: Tensor) -> Tensor:
    return w.abs().amax(dim=1, keepdim=True)


def _trip(w: Tensor, levels: Tensor, c: Tensor) -> Tensor:
    return c * levels[_nearest(w / c, levels)]


def _trip_one_scale(w: Tensor, levels: Tensor) -> Tensor:
    return _trip(w, levels, w.abs().max())


def _trip_columns(w: Tensor, levels: Tensor) -> Tensor:
    return _trip(w, levels, w.abs().amax(dim=0, keepdim=True))


def _trip_max(w: Tensor, levels: Tensor) -> Tensor:
    return _trip(w, levels, w.amax(dim=1, keepdim=True))


def _trip_range(w: Tensor, levels: Tensor) -> Tensor:
    return _trip(w, levels, w.amax(dim=1, keepdim=True) - w.amin(dim=1, keepdim=True))


def _trip_mean(w: Tensor, levels: Tensor) -> Tensor:
    return _trip(w, levels, w.abs().mean(dim=1, keepdim=True))


def _trip_not_back(w: Tensor, levels: Tensor) -> Tensor:
    return levels[_nearest(w / _size(w), levels)]


def _trip_codes(w: Tensor, levels: Tensor) -> Tensor:
    return _nearest(w / _size(w), levels)


def _trip_not_scaled(w: Tensor, levels: Tensor) -> Tensor:
    return _size(w) * levels[_nearest(w, levels)]


def _trip_never_scaled(w: Tensor, levels: Tensor) -> Tensor:
    return levels[_nearest(w, levels)]


def _trip_signed_distance(w: Tensor, levels: Tensor) -> Tensor:
    c = _size(w)
    return c * levels[((w / c)[..., None] - levels).argmin(dim=-1)]


def _trip_floor(w: Tensor, levels: Tensor) -> Tensor:
    c = _size(w)
    return c * levels[(torch.searchsorted(levels, w / c, right=True) - 1).clamp_min(0)]


def _trip_above(w: Tensor, levels: Tensor) -> Tensor:
    c = _size(w)
    return c * levels[torch.searchsorted(levels, w / c).clamp_max(len(levels) - 1)]


def _trip_even(w: Tensor, levels: Tensor) -> Tensor:
    c = _size(w)
    return c * levels[((w / c + 1) / 2 * (len(levels) - 1)).round().long()]


def _trip_same(w: Tensor, levels: Tensor) -> Tensor:
    return w


# ---- 2: half of NF4 -------------------------------------------------------------------------------------------------


def half(n: int) -> torch.Tensor:
    p = torch.linspace(0.5, 0.9677083, n + 1)[1:]
    q = quantile(p)
    return q / q.max()


def _half_cases() -> list[tuple]:
    return [(8,), (7,), (3,)]


def _half_with_zero(n: int) -> Tensor:
    q = quantile(torch.linspace(0.5, LAST, n + 1))
    return q / q.max()


def _half_too_few(n: int) -> Tensor:
    q = quantile(torch.linspace(0.5, LAST, n))
    return q / q.max()


def _half_to_31_of_32(n: int) -> Tensor:
    q = quantile(torch.linspace(0.5, 31 / 32, n + 1)[1:])
    return q / q.max()


def _half_not_scaled(n: int) -> Tensor:
    return quantile(torch.linspace(0.5, LAST, n + 1)[1:])


def _half_even(n: int) -> Tensor:
    return torch.linspace(0, 1, n + 1)[1:]


def _half_probabilities(n: int) -> Tensor:
    p = torch.linspace(0.5, LAST, n + 1)[1:]
    return p / p.max()


def _half_from_zero(n: int) -> Tensor:
    q = quantile(torch.linspace(0, LAST, n + 1)[1:])
    return q / q.max()


def _half_both_signs(n: int) -> Tensor:
    q = quantile(torch.linspace(1 - LAST, LAST, n + 1)[1:])
    return q / q.max()


def _half_ends_cut(n: int) -> Tensor:
    q = quantile(torch.linspace(0.5, LAST, n + 2)[1:-1])
    return q / q.max()


def _half_to_1_cut(n: int) -> Tensor:
    q = quantile(torch.linspace(0.5, 1, n + 2)[1:-1])
    return q / q.max()


def _half_last_set(n: int) -> Tensor:
    q = quantile(torch.linspace(0.5, LAST, n + 1)[1:])
    q[-1] = 1
    return q


def _half_descending(n: int) -> Tensor:
    return half(n).flip(0)


def _half_summed(n: int) -> Tensor:
    q = quantile(torch.linspace(0.5, LAST, n + 1)[1:])
    return q / q.sum()


# ---- 3: bits --------------------------------------------------------------------------------------------------------


def bits(blocksize: int, double: bool) -> float:
    per_scale = 8 + 32 / 256 if double else 32
    return 4 + per_scale / blocksize


def _bits_cases() -> list[tuple]:
    return [(64, False), (64, True), (32, True), (128, False)]


# ---- 4: what gets a gradient ----------------------------------------------------------------------------------------

GRADIENT = {"codes": False, "scales": False, "A": True, "B": True, "x": True, "norms": False}

EXERCISES = [
    Exercise(
        key="13.round_trip",
        title="round_trip",
        minutes=4,
        solution=round_trip,
        cases=_trip_cases,
        tolerance=1e-5,
        hints=(
            "Three steps: c of each row, `w.abs().amax(dim=1, keepdim=True)`; for each w / c the number of the nearest "
            "level; c times that level.",
            "`(w / c).unsqueeze(-1) - levels` has the difference of each weight to each level. `.abs().argmin(dim=-1)` "
            "finds the nearest.",
        ),
        mutants=(
            Mutant(_trip_one_scale, "You take one scale for everything. Each row is a block with a scale of its own."),
            Mutant(_trip_columns, "Your blocks are the columns. Here each row is a block."),
            Mutant(_trip_max, "c is the largest *absolute* value. Here the largest by size may be negative."),
            Mutant(_trip_range, "That scale is the range, maximum minus minimum. Here c is the largest |w|."),
            Mutant(_trip_mean, "That scale is the mean of |w|: larger weights would not fit. Take the largest |w|."),
            Mutant(_trip_not_back, "These are levels, between -1 and 1. To come back, multiply by c."),
            Mutant(_trip_codes, "These are codes, the places of the levels. Look the levels up, and multiply by c."),
            Mutant(_trip_not_scaled, "Divide w by c before you look for the nearest level."),
            Mutant(_trip_never_scaled, "c is missing on both ways: divide by it, then multiply by it."),
            Mutant(_trip_signed_distance, "The nearest level has the smallest *absolute* difference: .abs() first."),
            Mutant(_trip_floor, "You always take the level below. The nearest one may be above."),
            Mutant(_trip_above, "You always take the level above. The nearest one may be below."),
            Mutant(_trip_even, "That is right for even levels only. Compare each weight with each of `levels`."),
            Mutant(_trip_same, "That is w itself: nothing was rounded."),
        ),
    ),
    Exercise(
        key="13.half",
        title="half",
        minutes=7,
        solution=half,
        cases=_half_cases,
        tolerance=1e-5,
        hints=(
            "n + 1 probabilities, evenly spaced from 0.5 to 0.9677083: torch.linspace. The first one gives the level "
            "0, which this half leaves out.",
            "`q = quantile(torch.linspace(0.5, 0.9677083, n + 1)[1:])`, and then the largest must become 1.",
        ),
        mutants=(
            Mutant(_half_with_zero, "The level 0 (p = ½) belongs to no half: leave the first one out."),
            Mutant(_half_too_few, "Your first level is 0. Take n + 1 probabilities and leave the first one out."),
            Mutant(_half_to_31_of_32, "You end at 31/32 = 0.96875. NF4's authors end at 0.9677083, a little below."),
            Mutant(_half_not_scaled, "Divide by the largest, so that the last level is 1."),
            Mutant(_half_even, "These levels are evenly spaced. It is the probabilities that are; then quantile."),
            Mutant(_half_probabilities, "These are probabilities. quantile(p) makes levels of them."),
            Mutant(_half_from_zero, "From 0 the probabilities cover both signs. The positive half begins at 0.5."),
            Mutant(
                _half_both_signs, "Your probabilities begin below 0.5 and cover both signs. This half begins at 0.5."
            ),
            Mutant(_half_ends_cut, "n + 1 probabilities are enough: only the first is left out, the last stays."),
            Mutant(_half_to_1_cut, "You go towards 1 and cut it off. The last probability is 0.9677083, and it stays."),
            Mutant(_half_last_set, "You set the last level to 1. Divide *all* of them by the largest."),
            Mutant(_half_descending, "The right levels, from the largest down. Turn them round: ascending."),
            Mutant(_half_summed, "You divide by the sum. Divide by the largest, so that the last level is 1."),
        ),
    ),
    Exercise(
        key="13.bits",
        title="bits",
        minutes=5,
        solution=bits,
        cases=_bits_cases,
        hints=(
            "A weight costs its code, 4 bits, and its share of what the whole block has: one scale for `blocksize` "
            "weights.",
            "A plain scale has 32 bits. Doubly quantised it has 8, and 256 of them share 32 more: 8 + 32/256.",
        ),
        mutants=(
            Mutant(lambda b, d: (8 + 32 / 256 if d else 32) / b, "That is the scales' share. The code itself has 4."),
            Mutant(
                lambda b, d: 4 + (8 if d else 32) / b, "The 8-bit scales have a scale too: 32 bits for 256 of them."
            ),
            Mutant(lambda b, d: 4 + (8 + 32 if d else 32) / b, "The second scale is shared: 32 bits for 256 scales."),
            Mutant(lambda b, d: 4 + 32 / b, "That ignores `double`: with it, a scale has 8 bits and a share of 32."),
            Mutant(
                lambda b, d: 4 + (8 / b + 32 / 256 if d else 32 / b),
                "The second scale's 32 bits are shared by 256 *scales*, that is by 256 · blocksize weights.",
            ),
            Mutant(lambda b, d: 4.0, "The codes alone. Their scales must be stored too."),
            Mutant(lambda b, d: 4 + (8 + 32 / 256 if d else 32), "One scale for each block, not for each weight."),
            Mutant(
                lambda b, d: 4 + (32 if d else 8 + 32 / 256) / b,
                "You have `double` the wrong way round: with it, a scale has 8 bits and a share of 32.",
            ),
            Mutant(lambda b, d: 4 * b + (8 + 32 / 256 if d else 32), "That is a whole block. Divide by its weights."),
            Mutant(
                lambda b, d: 4 + ((8 + 32 / 256 + 32) if d else 32) / b,
                "Double quantisation *replaces* the 32-bit scales by 8-bit ones. You store both.",
            ),
            Mutant(lambda b, d: 4 + (8 + 32 / 256 if d else 32) / 64, "Use `blocksize` where you have 64."),
            Mutant(
                lambda b, d: 4 + ((8 + 32 / 256) / b if d else 32 // b),
                "Fractions of a bit count here: divide with /, not with //.",
            ),
            Mutant(
                lambda b, d: round(4 + (8 + 32 / 256 if d else 32) / b, 3),
                "Right, but rounded. Return the number as it comes.",
            ),
            Mutant(
                lambda b, d: 5 + (8 + 32 / 256 if d else 32) / b,
                "A sign costs nothing extra: the 16 codes stand for levels of both signs.",
            ),
            Mutant(
                lambda b, d: 4 + (8 + 32 / 256 if d else 16) / b,
                "A plain scale is a 32-bit number here, not a 16-bit one.",
            ),
        ),
    ),
    Exercise(
        key="13.gradient",
        title="what gets a gradient",
        minutes=3,
        solution=GRADIENT,
        hints=(
            "Freezing comes from LoRA, and 4 bits change nothing about it: which tensors did LoRA train?",
            "The loss is behind this layer, and adapters are before it too. By what way does it reach them?",
        ),
        mutants=(
            Mutant(
                GRADIENT | {"x": False},
                "Then adapters in earlier layers would learn nothing: how do they hear of the loss?",
            ),
            Mutant(GRADIENT | {"codes": True}, "Codes are whole numbers: no small step changes one. W stays frozen."),
            Mutant(
                GRADIENT | {"scales": True},
                "Scales could be trained, and some methods do. QLoRA keeps them as they were measured.",
            ),
            Mutant(GRADIENT | {"A": False}, "B = 0 at the start makes A's gradient 0 for one step only. Both train."),
            Mutant(
                GRADIENT | {"B": False}, "B starts at zero, but it trains: else the adapter would do nothing for ever."
            ),
            Mutant(
                GRADIENT | {"norms": True}, "The norms are not quantised, but they are frozen like all of the base."
            ),
            Mutant(
                GRADIENT | {"norms": True, "x": False},
                "Two to think of again: what is frozen, and what lies on the way back.",
            ),
            Mutant(
                dict.fromkeys(GRADIENT, True),
                "That would be full fine-tuning. QLoRA is LoRA: all of the base is frozen.",
            ),
            Mutant(dict.fromkeys(GRADIENT, False), "Then nothing would learn. What did LoRA add?"),
            Mutant(
                {name: not value for name, value in GRADIENT.items()},
                "All the other way round: True means that a gradient is computed.",
            ),
        ),
        shown="""
        {"codes": False, "scales": False, "A": True, "B": True, "x": True, "norms": False}
        # Gradients flow *through* the 4-bit weights to x (dL/dx = dL/dh Ŵ), not into them.
        """,
    ),
]
