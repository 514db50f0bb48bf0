"""Lesson 06, LoRA: the exercises, their solutions, and the wrong answers that people give."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from peftlab.course.exercise import Exercise, Mutant


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(6)


def _randn(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator)


# ---- 1: the best rank-r cut ---------------------------------------------------------------------------------------


def best_cut(dW: torch.Tensor, r: int) -> torch.Tensor:
    U, S, Vh = torch.linalg.svd(dW, full_matrices=False)
    return U[:, :r] * S[:r] @ Vh[:r]


def _cut_cases() -> list[tuple]:
    g = _seeded()
    return [(_randn(7, 5, generator=g), 2), (_randn(4, 9, generator=g), 3), (_randn(6, 6, generator=g), 0)]


def _cut_smallest(dW: Tensor, r: int) -> Tensor:
    U, S, Vh = torch.linalg.svd(dW, full_matrices=False)
    k = len(S) - r
    return U[:, k:] * S[k:] @ Vh[k:]


def _cut_without_values(dW: Tensor, r: int) -> Tensor:
    U, _, Vh = torch.linalg.svd(dW, full_matrices=False)
    return U[:, :r] @ Vh[:r]


def _cut_twice(dW: Tensor, r: int) -> Tensor:
    U, S, Vh = torch.linalg.svd(dW, full_matrices=False)
    return U[:, :r] * S[:r] ** 2 @ Vh[:r]


def _cut_root(dW: Tensor, r: int) -> Tensor:
    U, S, Vh = torch.linalg.svd(dW, full_matrices=False)
    return U[:, :r] * S[:r].sqrt() @ Vh[:r]


def _cut_columns_of_vh(dW: Tensor, r: int) -> Tensor:
    U, S, Vh = torch.linalg.svd(dW, full_matrices=False)
    return U[:, :r] * S[:r] @ Vh[:, :r].T


def _not_cut(dW: Tensor, r: int) -> Tensor:
    return dW


def _cut_off(dW: Tensor, r: int) -> Tensor:
    return dW - best_cut(dW, r)


def _cut_off_by_one(dW: Tensor, r: int) -> Tensor:
    return best_cut(dW, r + 1)


# ---- 2: LoRA's output ---------------------------------------------------------------------------------------------


def lora_forward(x, W, b, A, B, alpha):  # noqa: ANN001, ANN201  (shown to learners as they would write it)
    r = A.shape[0]
    return F.linear(x, W, b) + alpha / r * (x @ A.T @ B.T)


def _forward_cases() -> list[tuple]:
    g = _seeded()

    def case(batch: tuple[int, ...], d_in: int, d_out: int, r: int, alpha: float) -> tuple:
        shapes = ((*batch, d_in), (d_out, d_in), (d_out,), (r, d_in), (d_out, r))
        return (*(_randn(*shape, generator=g) for shape in shapes), alpha)

    return [case((3, 2), 7, 5, 4, 6.0), case((1,), 4, 9, 3, 1.0)]


def _no_scale(x, W, b, A, B, alpha):  # noqa: ANN001, ANN202
    return F.linear(x, W, b) + x @ A.T @ B.T


def _only_alpha(x, W, b, A, B, alpha):  # noqa: ANN001, ANN202
    return F.linear(x, W, b) + alpha * (x @ A.T @ B.T)


def _inverse_scale(x, W, b, A, B, alpha):  # noqa: ANN001, ANN202
    return F.linear(x, W, b) + A.shape[0] / alpha * (x @ A.T @ B.T)


def _rank_from_outputs(x, W, b, A, B, alpha):  # noqa: ANN001, ANN202
    return F.linear(x, W, b) + alpha / B.shape[0] * (x @ A.T @ B.T)


def _no_base(x, W, b, A, B, alpha):  # noqa: ANN001, ANN202
    return alpha / A.shape[0] * (x @ A.T @ B.T)


def _no_bias(x, W, b, A, B, alpha):  # noqa: ANN001, ANN202
    return x @ W.T + alpha / A.shape[0] * (x @ A.T @ B.T)


def _bias_twice(x, W, b, A, B, alpha):  # noqa: ANN001, ANN202
    return F.linear(x, W, b) + alpha / A.shape[0] * (x @ A.T @ B.T + b)


def _scales_all(x, W, b, A, B, alpha):  # noqa: ANN001, ANN202
    return alpha / A.shape[0] * (F.linear(x, W, b) + x @ A.T @ B.T)


def _rank_from_inputs(x, W, b, A, B, alpha):  # noqa: ANN001, ANN202
    return F.linear(x, W, b) + alpha / A.shape[1] * (x @ A.T @ B.T)


def _rounded_scale(x, W, b, A, B, alpha):  # noqa: ANN001, ANN202
    return F.linear(x, W, b) + alpha // A.shape[0] * (x @ A.T @ B.T)


def _lesson_rank(x, W, b, A, B, alpha):  # noqa: ANN001, ANN202
    return F.linear(x, W, b) + alpha / 8 * (x @ A.T @ B.T)


def _minus(x, W, b, A, B, alpha):  # noqa: ANN001, ANN202
    return F.linear(x, W, b) - alpha / A.shape[0] * (x @ A.T @ B.T)


def _root_scale(x, W, b, A, B, alpha):  # noqa: ANN001, ANN202
    return F.linear(x, W, b) + alpha / A.shape[0] ** 0.5 * (x @ A.T @ B.T)


# ---- 4: the same for GPT-2's Conv1D -------------------------------------------------------------------------------


def merged_conv1d(weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    r = A.shape[0]
    return weight + alpha / r * (B @ A).T


def _conv1d_cases() -> list[tuple]:
    g = _seeded()
    return [
        (_randn(7, 5, generator=g), _randn(3, 7, generator=g), _randn(5, 3, generator=g), 4.0),
        (_randn(6, 6, generator=g), _randn(2, 6, generator=g), _randn(6, 2, generator=g), 5.0),
    ]


def _conv1d_not_transposed(weight, A, B, alpha):  # noqa: ANN001, ANN202
    return weight + alpha / A.shape[0] * (B @ A)


def _conv1d_no_scale(weight, A, B, alpha):  # noqa: ANN001, ANN202
    return weight + (B @ A).T


def _conv1d_only_delta(weight, A, B, alpha):  # noqa: ANN001, ANN202
    return alpha / A.shape[0] * (B @ A).T


def _conv1d_only_alpha(weight, A, B, alpha):  # noqa: ANN001, ANN202
    return weight + alpha * (B @ A).T


def _conv1d_inverse(weight, A, B, alpha):  # noqa: ANN001, ANN202
    return weight + A.shape[0] / alpha * (B @ A).T


def _conv1d_rank_from_outputs(weight, A, B, alpha):  # noqa: ANN001, ANN202
    return weight + alpha / B.shape[0] * (B @ A).T


def _conv1d_reshaped(weight, A, B, alpha):  # noqa: ANN001, ANN202
    return weight + alpha / A.shape[0] * (B @ A).reshape(weight.shape)


def _conv1d_minus(weight, A, B, alpha):  # noqa: ANN001, ANN202
    return weight - alpha / A.shape[0] * (B @ A).T


EXERCISES = [
    Exercise(
        key="06.best_cut",
        title="best_cut",
        minutes=4,
        solution=best_cut,
        cases=_cut_cases,
        tolerance=1e-5,
        hints=(
            "torch.linalg.svd(dW, full_matrices=False) gives U, S, Vh with dW = U diag(S) Vh, largest S first.",
            "Keep r columns of U, r entries of S and r rows of Vh. `U[:, :r] * S[:r]` scales the columns.",
        ),
        mutants=(
            Mutant(_cut_smallest, "You keep the r smallest directions. svd sorts the largest first: take [:r]."),
            Mutant(_cut_without_values, "The directions are there, their lengths are not: S is missing."),
            Mutant(_cut_twice, "S comes in twice. dW = U diag(S) Vh has it once."),
            Mutant(_cut_root, "The root of S has no place here: dW = U diag(S) Vh."),
            Mutant(_cut_columns_of_vh, "torch.linalg.svd returns Vᵀ, not V: keep its first r rows, not its columns."),
            Mutant(_not_cut, "That is dW itself: nothing was cut."),
            Mutant(_cut_off, "That is what is left after the cut. Return the part that is kept."),
            Mutant(_cut_off_by_one, "One direction too many: [:r] is already r directions, 0 to r - 1."),
        ),
    ),
    Exercise(
        key="06.lora_forward",
        title="lora_forward",
        minutes=8,
        solution=lora_forward,
        cases=_forward_cases,
        tolerance=1e-5,
        hints=(
            "Rows of x are inputs, so the formula's W x is x @ W.T here, and A x is x @ A.T.",
            "The scale is alpha / r, and r is the number of rows of A. It goes on the new path only.",
            "F.linear(x, W, b) is x @ W.T + b.",
        ),
        mutants=(
            Mutant(_no_scale, "alpha / r is missing: the two paths are added as they are."),
            Mutant(_only_alpha, "You scale by alpha; the formula has alpha / r."),
            Mutant(_inverse_scale, "The scale is upside down: alpha / r, not r / alpha."),
            Mutant(_rank_from_outputs, "r is A.shape[0]. B.shape[0] is d_out."),
            Mutant(_rank_from_inputs, "r is A.shape[0]. A.shape[1] is d_in."),
            Mutant(_lesson_rank, "You use the r = 8 of the cell above. Take r from A's shape, so that any A works."),
            Mutant(_rounded_scale, "// rounds the scale down to a whole number. Divide with /."),
            Mutant(_minus, "The new path is added, not taken away."),
            Mutant(_no_base, "The frozen path W x + b is missing."),
            Mutant(_no_bias, "The bias b of the frozen layer is missing."),
            Mutant(_bias_twice, "The bias comes in twice. It belongs to the frozen path only."),
            Mutant(_scales_all, "alpha / r scales the frozen path too. It belongs to B A x only."),
            Mutant(_root_scale, "You divide by the root of r. That is rank-stabilised LoRA; here it is alpha / r."),
        ),
    ),
    Exercise(
        key="06.first_step",
        title="first step",
        minutes=5,
        solution={"A's gradient is zero": True, "B's gradient is zero": False},
        hints=(
            "The output has the product B A x. The gradient of a product with respect to one factor has the other one.",
            "dL/dB is built from A x. dL/dA is built from B. Which of the two is zero at the start?",
        ),
        mutants=(
            Mutant(
                {"A's gradient is zero": "True", "B's gradient is zero": "False"},
                "Right, but without the quotes: True and False.",
            ),
            Mutant(
                {"A's gradient is zero": 1, "B's gradient is zero": 0},
                "Right, but write True and False instead of 1 and 0.",
            ),
            Mutant(
                {"A's gradient is zero": False, "B's gradient is zero": True},
                "The other way round: A's gradient has the factor B, and B starts at zero.",
            ),
            Mutant(
                {"A's gradient is zero": True, "B's gradient is zero": True},
                "Then A and B would never move. B's gradient has the factor A x, and A starts random.",
            ),
            Mutant(
                {"A's gradient is zero": False, "B's gradient is zero": False},
                "The gradient with respect to A has the factor B. What is B at the start?",
            ),
        ),
        shown="""
        {"A's gradient is zero": True, "B's gradient is zero": False}
        # For one input x (for a batch, add them up):
        # dL/dA = (alpha/r) Bᵀ (dL/dh) xᵀ has the factor B, which is zero.
        # dL/dB = (alpha/r) (dL/dh) (A x)ᵀ has the factor A x, which is not.
        """,
    ),
    Exercise(
        key="06.merged_conv1d",
        title="merged_conv1d",
        minutes=6,
        solution=merged_conv1d,
        cases=_conv1d_cases,
        tolerance=1e-5,
        hints=(
            "Conv1D computes x @ weight + bias: its weight is (d_in, d_out), nn.Linear's is (d_out, d_in).",
            "The change of an nn.Linear weight is alpha / r · B A, of shape (d_out, d_in). Turn it round.",
        ),
        mutants=(
            Mutant(
                _conv1d_not_transposed,
                "B A is (d_out, d_in), this weight (d_in, d_out). With square ones nothing stops you, and it is wrong.",
            ),
            Mutant(_conv1d_no_scale, "The scale alpha / r is missing."),
            Mutant(_conv1d_only_alpha, "You scale by alpha; the formula has alpha / r."),
            Mutant(_conv1d_inverse, "The scale is upside down: alpha / r, not r / alpha."),
            Mutant(_conv1d_rank_from_outputs, "r is A.shape[0]. B.shape[0] is d_out."),
            Mutant(_conv1d_reshaped, "reshape keeps the order of the numbers; the matrix must be transposed: .T"),
            Mutant(_conv1d_only_delta, "That is the change. Add it to the weight."),
            Mutant(_conv1d_minus, "Add the change; you take it away."),
        ),
    ),
]
