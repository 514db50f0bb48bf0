"""Lesson 03, adapters: the exercises, their solutions, and the wrong answers that people give."""

from __future__ import annotations

import torch

from peftlab.course.exercise import Exercise, Mutant


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


# ---- 1: the forward pass of one adapter ---------------------------------------------------------------------------


def adapter_forward(
    h: torch.Tensor, W_down: torch.Tensor, b_down: torch.Tensor, W_up: torch.Tensor, b_up: torch.Tensor
) -> torch.Tensor:
    z = torch.relu(h @ W_down.T + b_down)
    return h + z @ W_up.T + b_up


def _forward_cases() -> list[tuple]:
    g = _generator()

    def case(d: int, m: int, *batch: int) -> tuple:
        shapes = ((*batch, d), (m, d), (m,), (d, m), (d,))
        return tuple(torch.randn(*shape, generator=g) for shape in shapes)

    return [case(7, 3, 2, 5), case(6, 2, 4), case(5, 1, 2, 3, 2)]


def _no_residual(h, W_down, b_down, W_up, b_up):  # noqa: ANN001, ANN202
    return adapter_forward(h, W_down, b_down, W_up, b_up) - h


def _relu_last(h, W_down, b_down, W_up, b_up):  # noqa: ANN001, ANN202
    return h + torch.relu((h @ W_down.T + b_down) @ W_up.T + b_up)


def _relu_on_all(h, W_down, b_down, W_up, b_up):  # noqa: ANN001, ANN202
    return torch.relu(h + (h @ W_down.T + b_down) @ W_up.T + b_up)


def _relu_first(h, W_down, b_down, W_up, b_up):  # noqa: ANN001, ANN202
    return h + (torch.relu(h) @ W_down.T + b_down) @ W_up.T + b_up


def _no_relu(h, W_down, b_down, W_up, b_up):  # noqa: ANN001, ANN202
    return h + (h @ W_down.T + b_down) @ W_up.T + b_up


def _no_b_down(h, W_down, b_down, W_up, b_up):  # noqa: ANN001, ANN202
    return adapter_forward(h, W_down, torch.zeros_like(b_down), W_up, b_up)


def _no_b_up(h, W_down, b_down, W_up, b_up):  # noqa: ANN001, ANN202
    return adapter_forward(h, W_down, b_down, W_up, torch.zeros_like(b_up))


def _b_down_after_relu(h, W_down, b_down, W_up, b_up):  # noqa: ANN001, ANN202
    return h + (torch.relu(h @ W_down.T) + b_down) @ W_up.T + b_up


def _relu_twice(h, W_down, b_down, W_up, b_up):  # noqa: ANN001, ANN202
    return h + torch.relu(torch.relu(h @ W_down.T + b_down) @ W_up.T + b_up)


def _relu_and_relu_on_all(h, W_down, b_down, W_up, b_up):  # noqa: ANN001, ANN202
    return torch.relu(adapter_forward(h, W_down, b_down, W_up, b_up))


def _gelu(h, W_down, b_down, W_up, b_up):  # noqa: ANN001, ANN202
    return h + torch.nn.functional.gelu(h @ W_down.T + b_down) @ W_up.T + b_up


# ---- 2: parameters ------------------------------------------------------------------------------------------------

HOULSBY, PFEIFFER, WIDEST = "Houlsby, m = 16", "Pfeiffer, m = 16", "widest Pfeiffer"
PARAMETERS = {HOULSBY: 152_256, PFEIFFER: 76_128, WIDEST: 32}


def _counts(houlsby: int, pfeiffer: int, widest: float) -> dict[str, float]:
    return {HOULSBY: houlsby, PFEIFFER: pfeiffer, WIDEST: widest}


# ---- 3: merge what stands behind a layer --------------------------------------------------------------------------


def merge_behind(
    W: torch.Tensor, b: torch.Tensor, M: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return W + M @ W, b + M @ b + c


def _merge_cases() -> list[tuple]:
    g = _generator()

    def case(d_in: int, d: int) -> tuple:
        return tuple(torch.randn(*shape, generator=g) for shape in ((d, d_in), (d,), (d, d), (d,)))

    return [case(5, 7), case(9, 4)]


def _without_identity(W, b, M, c):  # noqa: ANN001, ANN202
    return M @ W, M @ b + c


def _bias_passes_by(W, b, M, c):  # noqa: ANN001, ANN202
    return W + M @ W, b + c


def _no_c(W, b, M, c):  # noqa: ANN001, ANN202
    return W + M @ W, b + M @ b


def _old_bias_lost(W, b, M, c):  # noqa: ANN001, ANN202
    return W + M @ W, c


def _transposed(W, b, M, c):  # noqa: ANN001, ANN202
    return W + M.T @ W, b + M.T @ b + c


def _bias_without_itself(W, b, M, c):  # noqa: ANN001, ANN202
    return W + M @ W, M @ b + c


def _from_the_right(W, b, M, c):  # noqa: ANN001, ANN202
    return W + M @ W, b + b @ M + c


def _c_through_M(W, b, M, c):  # noqa: ANN001, ANN202, N802
    return W + M @ W, b + M @ (b + c)


def _h_lost_in_weight(W, b, M, c):  # noqa: ANN001, ANN202
    return M @ W, b + M @ b + c


def _c_with_b(W, b, M, c):  # noqa: ANN001, ANN202
    return W + M @ W, (b + c) + M @ (b + c)


def _only_weight(W, b, M, c):  # noqa: ANN001, ANN202
    return W + M @ W, b


EXERCISES = [
    Exercise(
        key="03.adapter_forward",
        title="adapter_forward",
        minutes=4,
        solution=adapter_forward,
        cases=_forward_cases,
        tolerance=1e-5,
        hints=(
            "Rows of h are tokens, so the formula's W_down h is h @ W_down.T here. torch.relu is f.",
            "First z = torch.relu(h @ W_down.T + b_down), of width m. Then up again, and h is added to that.",
        ),
        mutants=(
            Mutant(_no_residual, "You return Δh(h) alone. The adapter gives h + Δh(h)."),
            Mutant(_relu_last, "ReLU comes too late: f stands between the two matrices, on the m numbers."),
            Mutant(_relu_on_all, "ReLU is around everything, h included. It acts on the m numbers in the middle only."),
            Mutant(_relu_first, "ReLU comes too early: f acts on W_down h + b_down, not on h."),
            Mutant(_no_relu, "The nonlinearity is missing: what you have is one matrix, in two steps."),
            Mutant(_no_b_down, "b_down is missing. It decides where each ReLU begins."),
            Mutant(_no_b_up, "b_up is missing."),
            Mutant(_b_down_after_relu, "b_down comes too late. It is added before ReLU and decides where each begins."),
            Mutant(_relu_twice, "One ReLU too many: on the m numbers yes, on what comes up again no."),
            Mutant(_relu_and_relu_on_all, "One ReLU, on the m numbers. The sum is not bent any more."),
            Mutant(_gelu, "That is GELU. Here f is ReLU."),
        ),
    ),
    Exercise(
        key="03.parameters",
        title="parameters",
        minutes=6,
        solution=PARAMETERS,
        hints=(
            "One adapter: W_down is 16 × 384, b_down has 16 numbers, W_up is 384 × 16, b_up has 384 numbers.",
            "Six blocks; Houlsby has two adapters in each, Pfeiffer one. In general one adapter has 2md + m + d.",
            "For the last one: 6 · (769 m + 384) must not exceed Houlsby's number.",
        ),
        mutants=(
            Mutant(_counts(147_456, 73_728, 32), "The biases are missing: b_down has m numbers, b_up has d."),
            Mutant(_counts(147_648, 73_824, 32), "b_up is missing: one number for each of the 384 that come out."),
            Mutant(_counts(152_064, 76_032, 32), "b_down is missing: one number for each unit of the bottleneck."),
            Mutant(_counts(161_472, 85_344, 32), "You count the LayerNorms too. Neither library trains them here."),
            Mutant(
                _counts(12_688, 12_688, 32),
                "That is one adapter. Six blocks have six or twelve.",
            ),
            Mutant(_counts(147_840, 73_920, 32), "b_up has as many numbers as come out: d, not m."),
            Mutant(_counts(156_672, 78_336, 33), "b_down has as many numbers as the bottleneck: m, not d."),
            Mutant(_counts(78_528, 39_264, 32), "One matrix is missing: W_down and W_up are equally large."),
            Mutant(_counts(25_376, 12_688, 32), "That is one block. MiniLM has six."),
            Mutant(_counts(76_128, 76_128, 16), "Houlsby has two adapters in every block, Pfeiffer one."),
            Mutant(_counts(156_876, 80_748, 32), "You count the head too, 12 · 384 + 12 numbers. Leave it out here."),
            Mutant(
                _counts(152_256, 76_128, 33),
                "33 is too wide: 6 · (769 · 33 + 384) = 154,566.",
            ),
            Mutant(_counts(152_256, 76_128, 32.5), "A width is a whole number. Round down: it may not train more."),
            Mutant(_counts(152_256, 76_128, 24_992 / 769), "Nearly: a width is a whole number, so round down."),
            Mutant(_counts(152_256, 76_128, 12), "12 is d / m, the reduction_factor. Asked is the width m."),
            Mutant(_counts(152_256, 76_128, 31), "One more fits: count the biases of six adapters, not of twelve."),
            Mutant(
                _counts(152_256, 76_128, 16),
                "Wider than that: half as many adapters, so twice the width.",
            ),
        ),
        shown="""
        d, m = 384, 16
        one = m * d + m + d * m + d                 # W_down, b_down, W_up, b_up: 12,688
        parameters = {"Houlsby, m = 16": 12 * one,   # 152,256
                      "Pfeiffer, m = 16": 6 * one,   # 76,128
                      "widest Pfeiffer": 32}         # 6 · (769 · 32 + 384) = 149,952, and 33 is too wide
        """,
    ),
    Exercise(
        key="03.merge_behind",
        title="merge_behind",
        minutes=8,
        solution=merge_behind,
        cases=_merge_cases,
        tolerance=1e-5,
        hints=(
            "Write h = W x + b, then h + M h + c, and multiply out. What stands before x is the new weight.",
            "M reads h, of d numbers, so it stands in front of W: M @ W. What has no x is the bias: b, M b and c.",
        ),
        mutants=(
            Mutant(_without_identity, "h itself is lost: the layer gives h + M h + c, not M h + c alone."),
            Mutant(_bias_passes_by, "The old bias goes through M too: b is a part of h."),
            Mutant(_no_c, "c is missing from the bias."),
            Mutant(_old_bias_lost, "The old bias is missing: it is a part of h, by itself and through M."),
            Mutant(_transposed, "M is transposed. For one token it is M @ h, and M @ W for the weight."),
            Mutant(_bias_without_itself, "The new bias has M b and c. The old b itself is missing."),
            Mutant(_only_weight, "The weight is right. The bias changes too."),
            Mutant(_from_the_right, "b @ M is M transposed times b. Here it is M @ b."),
            Mutant(_h_lost_in_weight, "The bias is right. In the weight, h itself is lost."),
            Mutant(_c_with_b, "c comes last: it is added once, and M does not act on it."),
            Mutant(_c_through_M, "c is added after M: it does not go through it."),
        ),
    ),
]
