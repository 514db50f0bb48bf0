"""Deep dive 04x, a prefix as a gated parallel adapter: the exercises, their solutions, and wrong answers."""

from __future__ import annotations

import torch
from torch import Tensor

from peftlab.course.exercise import Exercise, Mutant


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(40)


# ---- 1: the prefix's share ----


def share(S_P: Tensor, S: Tensor) -> Tensor:
    prefix, own = S_P.exp().sum(-1), S.exp().sum(-1)
    return prefix / (prefix + own)


def _share_cases() -> list[tuple]:
    g = _generator()

    def case(*shape: int, n: int) -> tuple[Tensor, Tensor]:
        T = shape[-1]
        S = torch.randn(*shape, T, generator=g)
        hidden = torch.ones(T, T).triu(1).bool()  # what a causal model may not see
        return torch.randn(*shape, n, generator=g) - 0.5, S.masked_fill(hidden, float("-inf"))

    return [case(4, n=3), case(2, 5, n=2), case(3, 2, 6, n=1)]


def _of_the_input(S_P, S):  # noqa: ANN001, ANN202
    return 1 - share(S_P, S)


def _ratio(S_P, S):  # noqa: ANN001, ANN202
    return S_P.exp().sum(-1) / S.exp().sum(-1)


def _by_count(S_P, S):  # noqa: ANN001, ANN202
    n, own = S_P.shape[-1], torch.isfinite(S).sum(-1)
    return n / (n + own)


def _means(S_P, S):  # noqa: ANN001, ANN202
    prefix, own = S_P.exp().mean(-1), S.exp().mean(-1)
    return prefix / (prefix + own)


def _without_exp(S_P, S):  # noqa: ANN001, ANN202
    return torch.sigmoid(S_P.sum(-1) - S.masked_fill(S.isinf(), 0).sum(-1))


def _scores_as_weights(S_P, S):  # noqa: ANN001, ANN202
    prefix, own = S_P.sum(-1), S.masked_fill(S.isinf(), 0).sum(-1)
    return prefix / (prefix + own)


def _each_by_itself(S_P, S):  # noqa: ANN001, ANN202
    prefix, own = S_P.softmax(-1).sum(-1), S.softmax(-1).sum(-1)
    return prefix / (prefix + own)


def _best_key(S_P, S):  # noqa: ANN001, ANN202
    return torch.sigmoid(S_P.max(-1).values - S.max(-1).values)


# ---- 2: the prefix as two matrices ----


def as_adapter(W_q: Tensor, P_K: Tensor, P_V: Tensor) -> tuple[Tensor, Tensor]:
    d_h = W_q.shape[0]
    return W_q.T @ P_K.T / d_h**0.5, P_V


def _adapter_cases() -> list[tuple]:
    g = _generator()
    return [
        tuple(torch.randn(*shape, generator=g) for shape in ((d_h, d), (n, d_h), (n, d_h)))
        for d, d_h, n in ((7, 4, 3), (5, 3, 2), (10, 6, 9))
    ]


def _unscaled(W_q, P_K, P_V):  # noqa: ANN001, ANN202
    return W_q.T @ P_K.T, P_V


def _scaled_by_d(W_q, P_K, P_V):  # noqa: ANN001, ANN202
    return W_q.T @ P_K.T / W_q.shape[1] ** 0.5, P_V


def _without_root(W_q, P_K, P_V):  # noqa: ANN001, ANN202
    return W_q.T @ P_K.T / W_q.shape[0], P_V


def _for_columns(W_q, P_K, P_V):  # noqa: ANN001, ANN202
    return P_K @ W_q / W_q.shape[0] ** 0.5, P_V


def _values_transposed(W_q, P_K, P_V):  # noqa: ANN001, ANN202
    return as_adapter(W_q, P_K, P_V)[0], P_V.T


def _both_transposed(W_q, P_K, P_V):  # noqa: ANN001, ANN202
    return P_K @ W_q / W_q.shape[0] ** 0.5, P_V.T


def _root_on_values(W_q, P_K, P_V):  # noqa: ANN001, ANN202
    return W_q.T @ P_K.T, P_V / W_q.shape[0] ** 0.5


def _times_root(W_q, P_K, P_V):  # noqa: ANN001, ANN202
    return W_q.T @ P_K.T * W_q.shape[0] ** 0.5, P_V


def _softmax_inside(W_q, P_K, P_V):  # noqa: ANN001, ANN202
    return as_adapter(W_q, P_K, P_V)[0].softmax(-1), P_V


def _swapped(W_q, P_K, P_V):  # noqa: ANN001, ANN202
    return W_q.T @ P_V.T / W_q.shape[0] ** 0.5, P_K


def _without_W(W_q, P_K, P_V):  # noqa: ANN001, ANN202
    return P_K.T / W_q.shape[0] ** 0.5, P_V


EXERCISES = [
    Exercise(
        key="04x.share",
        title="share",
        minutes=4,
        solution=share,
        cases=_share_cases,
        tolerance=1e-5,
        hints=(
            "Softmax divides every exp(score) by the sum over all keys. Which part of that sum is the prefix's?",
            "Sum exp(S_P) over its last axis, and exp(S) over its own. exp(-inf) is 0, so hidden keys drop out.",
        ),
        mutants=(
            Mutant(_of_the_input, "That is 1 - λ, what is left for the text's own keys."),
            Mutant(_ratio, "You divide by the sum over the text's own keys alone. A share divides by the sum of both."),
            Mutant(_by_count, "You count keys. A key weighs exp(score), not 1."),
            Mutant(_means, "Sums, not means: more keys take more of the attention."),
            Mutant(_without_exp, "The exp comes before the sum: Σ exp(score), not exp(Σ score)."),
            Mutant(_scores_as_weights, "A key's weight is exp(score), not the score."),
            Mutant(_each_by_itself, "Each softmax sums to 1 by itself. One common denominator is wanted."),
            Mutant(_best_key, "That is the largest key of each side alone. All of them count."),
        ),
    ),
    Exercise(
        key="04x.as_adapter",
        title="as_adapter",
        minutes=6,
        solution=as_adapter,
        cases=_adapter_cases,
        tolerance=1e-5,
        hints=(
            "q = x W_qᵀ for a row x, and the scores are q P_Kᵀ / √d_h. Everything right of x is W₁.",
            "W₁ has shape (d, n): from the width of the model to one number for each virtual token. W₂ is P_V itself.",
        ),
        mutants=(
            Mutant(_unscaled, "The scores are divided by √d_h. Put that into W₁."),
            Mutant(_scaled_by_d, "Divide by the root of the head's width d_h, not of the model's width d."),
            Mutant(_without_root, "Divide by √d_h, not by d_h."),
            Mutant(_for_columns, "The rows of x are inputs, so W₁ stands right of x: (d, n)."),
            Mutant(_values_transposed, "W₂ takes n numbers to d_h: (n, d_h), as P_V is."),
            Mutant(_both_transposed, "Both are transposed. They stand right of a row x: W₁ (d, n), W₂ (n, d_h)."),
            Mutant(_root_on_values, "√d_h belongs to the scores, inside the softmax: into W₁."),
            Mutant(_times_root, "Divide by √d_h, do not multiply."),
            Mutant(_softmax_inside, "f is the softmax, and it comes after x W₁. W₁ itself is linear."),
            Mutant(_swapped, "Keys decide how much, values what is passed on. You swapped them."),
            Mutant(_without_W, "x must become a query first: W_q belongs into W₁."),
        ),
    ),
]
