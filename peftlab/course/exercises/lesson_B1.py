"""Bridge B1, a transformer block and its names: the exercises, their solutions, and the wrong answers people give."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from peftlab.course.exercise import Exercise, Mutant

# ---- 1: shapes by name --------------------------------------------------------------------------------------------

SHAPES = {
    "attention.self.key.weight": (384, 384),
    "attention.self.key.bias": (384,),
    "intermediate.dense.weight": (1536, 384),
    "output.dense.weight": (384, 1536),
}


def _with(**changes: tuple[int, ...] | int) -> dict:
    """SHAPES with some entries replaced: key, bias, wide and narrow stand for the four in their order."""
    names = dict(zip(("key", "bias", "wide", "narrow"), SHAPES, strict=True))
    return SHAPES | {names[short]: shape for short, shape in changes.items()}


# ---- 2: attention of one head -------------------------------------------------------------------------------------


def one_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    scores = q @ k.T / q.shape[-1] ** 0.5
    return torch.softmax(scores, dim=-1) @ v


def _head_cases() -> list[tuple]:
    """More tokens than features and fewer; as many keys as queries and not; values wider than keys."""
    g = torch.Generator().manual_seed(1)

    def case(queries: int, keys: int, d_head: int, d_value: int) -> tuple:
        shapes = ((queries, d_head), (keys, d_head), (keys, d_value))
        return tuple(torch.randn(*shape, generator=g) for shape in shapes)

    return [case(5, 7, 3, 4), case(3, 3, 8, 8), case(1, 6, 2, 2)]


def _head_no_scale(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.T, dim=-1) @ v


def _head_scale_without_root(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.T / q.shape[-1], dim=-1) @ v


def _head_scale_by_tokens(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.T / q.shape[0] ** 0.5, dim=-1) @ v


def _head_scale_by_values(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.T / v.shape[-1] ** 0.5, dim=-1) @ v


def _head_scale_by_32(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.T / 32**0.5, dim=-1) @ v


def _head_multiplies(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.T * q.shape[-1] ** 0.5, dim=-1) @ v


def _head_over_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.T / q.shape[-1] ** 0.5, dim=0) @ v


def _head_no_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q @ k.T / q.shape[-1] ** 0.5 @ v


def _head_scale_after_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.T, dim=-1) / q.shape[-1] ** 0.5 @ v


def _head_only_weights(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.T / q.shape[-1] ** 0.5, dim=-1)


def _head_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]


EXERCISES = [
    Exercise(
        key="B1.shapes",
        title="the shapes",
        minutes=3,
        solution=SHAPES,
        hints=(
            "nn.Linear(in_features, out_features) stores its weight as (out_features, in_features).",
            "intermediate.dense goes from d = 384 up to 1536; output.dense comes back. A bias has one number for "
            "each output.",
        ),
        mutants=(
            Mutant(
                _with(wide=(384, 1536), narrow=(1536, 384)),
                "The other way round: nn.Linear prints in → out, and stores the weight as (out, in).",
            ),
            Mutant(
                _with(key=(32, 384)),
                "That is the part of one head. All 12 heads share the matrix: 12 · 32 = 384 rows.",
            ),
            Mutant(
                _with(key=(384, 32)),
                "32 is the width of one head. The matrix serves all 12 heads: 12 · 32 = 384 rows.",
            ),
            Mutant(_with(bias=(384, 384)), "A bias adds one number to each output: it is a vector, (384,)."),
            Mutant(_with(bias=(1, 384)), "PyTorch stores a bias with one dimension only: (384,)."),
            Mutant(_with(bias=384), "A shape is a tuple, also with one dimension: (384,), with the comma."),
            Mutant(
                _with(wide=(1536, 384), narrow=(1536, 384)),
                "intermediate.dense is right. output.dense comes back from 1536 to 384.",
            ),
            Mutant(
                _with(wide=(384, 1536), narrow=(384, 1536)),
                "output.dense is right. intermediate.dense has 1536 outputs, and outputs come first.",
            ),
        ),
        shown="""
        {
            "attention.self.key.weight": (384, 384),
            "attention.self.key.bias": (384,),
            "intermediate.dense.weight": (1536, 384),  # (out, in)
            "output.dense.weight": (384, 1536),
        }
        """,
    ),
    Exercise(
        key="B1.one_head",
        title="one_head",
        minutes=5,
        solution=one_head,
        cases=_head_cases,
        tolerance=1e-5,
        hints=(
            "Every query with every key: q @ k.T has the shape (queries, keys). The head's width d_h is q.shape[-1].",
            "softmax runs over the keys, which are the last dimension; then the weights multiply v.",
        ),
        mutants=(
            Mutant(_head_no_scale, "The scores are not divided by the root of d_h."),
            Mutant(_head_scale_without_root, "You divide by d_h; it should be its root, d_h ** 0.5."),
            Mutant(_head_scale_by_tokens, "You take the root of the number of tokens. d_h is q.shape[-1]."),
            Mutant(_head_scale_by_values, "You take the root of the width of v. d_h is the width of q and k."),
            Mutant(_head_scale_by_32, "32 is MiniLM's d_h. Read it off q.shape[-1], so that any head works."),
            Mutant(_head_multiplies, "You multiply by the root of d_h. Divide by it."),
            Mutant(
                _head_over_queries,
                "softmax over the wrong dimension: the weights of one query, over all keys, add up to one (dim=-1).",
            ),
            Mutant(_head_no_softmax, "softmax is missing: the scores must become weights that add up to one."),
            Mutant(_head_scale_after_softmax, "The root of d_h belongs inside softmax, on the scores."),
            Mutant(_head_only_weights, "Those are the attention weights. Multiply them by v."),
            Mutant(_head_causal, "You hide later tokens. MiniLM reads in both directions: no mask here."),
        ),
    ),
]
