"""Bridge B3, from outer product to SVD: the exercises, their solutions, and the wrong answers that people give."""

from __future__ import annotations

import torch
from torch import Tensor

from peftlab.course.exercise import Exercise, Mutant

# ---- 1: a product as a sum of multiplication tables ---------------------------------------------------------------


def rank_one_terms(B: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.outer(B[:, i], A[i]) for i in range(len(A))])


def _term_cases() -> list[tuple]:
    g = torch.Generator().manual_seed(3)

    def case(d_out: int, d_in: int, r: int) -> tuple:
        return torch.randn(d_out, r, generator=g), torch.randn(r, d_in, generator=g)

    return [case(5, 4, 3), case(3, 7, 2), case(6, 6, 1)]


def _terms_summed(B: Tensor, A: Tensor) -> Tensor:
    return B @ A


def _terms_summed_loop(B: Tensor, A: Tensor) -> Tensor:
    return rank_one_terms(B, A).sum(0, keepdim=True)


def _terms_turned(B: Tensor, A: Tensor) -> Tensor:
    return rank_one_terms(B, A).transpose(1, 2)


def _terms_first_only(B: Tensor, A: Tensor) -> Tensor:
    return torch.stack([torch.outer(B[:, 0], A[0]) for _ in range(len(A))])


def _terms_backwards(B: Tensor, A: Tensor) -> Tensor:
    return rank_one_terms(B, A).flip(0)


def _terms_mismatched(B: Tensor, A: Tensor) -> Tensor:
    return torch.stack([torch.outer(B[:, i], A[-1 - i]) for i in range(len(A))])


def _terms_last_dimension(B: Tensor, A: Tensor) -> Tensor:
    return torch.stack([torch.outer(B[:, i], A[i]) for i in range(len(A))], dim=-1)


# ---- 2: how many numbers ------------------------------------------------------------------------------------------

NUMBERS = {"the whole matrix": 589_824, "B and A, r = 8": 15_360, "largest r that is still smaller": 307}


def _counted(whole: int = 589_824, thin: int = 15_360, largest: float = 307) -> dict[str, float]:
    return dict(zip(NUMBERS, (whole, thin, largest), strict=True))


EXERCISES = [
    Exercise(
        key="B3.rank_one_terms",
        title="rank_one_terms",
        minutes=4,
        solution=rank_one_terms,
        cases=_term_cases,
        tolerance=1e-5,
        hints=(
            "Term i takes column i of B, B[:, i], and row i of A, A[i]. torch.outer makes the table of the two.",
            "torch.stack puts a list of r matrices on top of one another: shape (r, d_out, d_in).",
        ),
        mutants=(
            Mutant(_terms_summed, "That is the finished product. Keep the r terms apart: shape (r, d_out, d_in)."),
            Mutant(_terms_summed_loop, "You have added the terms up already. Stack them, without the sum."),
            Mutant(_terms_turned, "Each term is turned over: outer(column of B, row of A), in this order."),
            Mutant(_terms_first_only, "Every term uses column 0 and row 0. Term i needs column i and row i."),
            Mutant(_terms_backwards, "The right terms in the wrong order: the first one belongs to column 0."),
            Mutant(_terms_mismatched, "Column and row do not belong together: column i of B goes with row i of A."),
            Mutant(_terms_last_dimension, "The terms are right; put them along the first dimension (dim=0)."),
        ),
    ),
    Exercise(
        key="B3.numbers",
        title="how many numbers",
        minutes=4,
        solution=NUMBERS,
        hints=(
            "The whole matrix has d_out · d_in numbers. B has d_out · r, A has r · d_in.",
            "B and A together have r (d_in + d_out). For which r is that still less than d_in · d_out? Divide, and "
            "round down.",
        ),
        mutants=(
            Mutant(_counted(thin=64), "r · r would be a matrix between B and A. B is 1536 × 8 and A is 8 × 384."),
            Mutant(
                _counted(thin=8 * 384 * 1536),
                "You took r times the whole matrix. B and A are thin: 8 · 1536 + 8 · 384.",
            ),
            Mutant(_counted(thin=8 * 1536), "That is B alone. A has another 8 · 384."),
            Mutant(_counted(thin=8 * 384), "That is A alone. B has another 8 · 1536."),
            Mutant(
                _counted(thin=8 * 1536 * 8 * 384),
                "You multiplied the sizes of B and A. They are stored side by side: add.",
            ),
            Mutant(_counted(largest=307.2), "A rank is a whole number: round down."),
            Mutant(_counted(largest=308), "One too many: 308 · 1920 is more than 589,824. Round down."),
            Mutant(
                _counted(largest=384),
                "At r = 384, B and A hold more than the whole matrix: 384 · 1920. Solve r (384 + 1536) < 384 · 1536.",
            ),
            Mutant(
                _counted(largest=383),
                "That is the largest r below full rank, but 383 · 1920 is more than "
                "589,824. Solve r (384 + 1536) < 384 · 1536.",
            ),
            Mutant(
                _counted(largest=192),
                "Half the width is right for square matrices only. Solve r (384 + 1536) < 384 · 1536.",
            ),
            Mutant(_counted(whole=384 + 1536), "The whole matrix has 1536 rows of 384 numbers: multiply."),
        ),
        shown="""
        {
            "the whole matrix": 1536 * 384,                  # 589,824
            "B and A, r = 8": 8 * (384 + 1536),              # 15,360
            "largest r that is still smaller": 307,          # 1536 * 384 / (384 + 1536) = 307.2, rounded down
        }
        """,
    ),
]
