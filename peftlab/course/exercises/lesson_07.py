"""Lesson 07, LoRA at work: the exercises, their solutions, and the wrong answers that people give."""

from __future__ import annotations

import torch
from torch import Tensor

from peftlab.course.exercise import Exercise, Mutant, WrongForm, described


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


# ---- 1: how many adapters fit -------------------------------------------------------------------------------------

SIZES = {"bytes of one adapter": 1_843_200, "adapters in the space of one copy": 291}


# ---- 2: one layer, a mixed batch ----------------------------------------------------------------------------------


def routed(x: torch.Tensor, W: torch.Tensor, adapters: dict, names: list, scale: float) -> torch.Tensor:
    h = x @ W.T
    for row, name in enumerate(names):
        if name in adapters:
            A, B = adapters[name]
            h[row] = h[row] + scale * (x[row] @ A.T @ B.T)
    return h


def _routed_cases() -> list[tuple]:
    g = _generator()

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    adapters = {"a": (randn(2, 5), randn(7, 2)), "b": (randn(3, 5), randn(7, 3))}
    return [
        (randn(4, 3, 5), randn(7, 5), adapters, ["b", "__base__", "a", "b"], 2.0),
        (randn(2, 1, 5), randn(7, 5), adapters, ["a", "a"], 0.5),
        (randn(3, 2, 5), randn(7, 5), adapters, ["b", "a", "__base__"], 3.0),
        (randn(2, 4, 5), randn(7, 5), adapters, ["a", "nobody"], 1.5),
    ]


def _first_for_all(x, W, adapters, names, scale):  # noqa: ANN001, ANN202
    return routed(x, W, adapters, [names[0]] * len(names), scale)


def _everyone_gets_all(x, W, adapters, names, scale):  # noqa: ANN001, ANN202
    return x @ W.T + sum(scale * (x @ A.T @ B.T) for A, B in (adapters[n] for n in set(names) if n in adapters))


def _no_base_path(x, W, adapters, names, scale):  # noqa: ANN001, ANN202
    return routed(x, torch.zeros_like(W), adapters, names, scale)


def _no_scale(x, W, adapters, names, scale):  # noqa: ANN001, ANN202
    return routed(x, W, adapters, names, 1.0)


def _base_row_dropped(x, W, adapters, names, scale):  # noqa: ANN001, ANN202
    h = routed(x, W, adapters, names, scale)
    for row, name in enumerate(names):
        if name not in adapters:
            h[row] = 0
    return h


def _stops_at_base(x, W, adapters, names, scale):  # noqa: ANN001, ANN202
    h = x @ W.T
    for row, name in enumerate(names):
        A, B = adapters[name]
        h[row] = h[row] + scale * (x[row] @ A.T @ B.T)
    return h


def _stops_at_other_names(x, W, adapters, names, scale):  # noqa: ANN001, ANN202
    h = x @ W.T
    for row, name in enumerate(names):
        if name != "__base__":
            A, B = adapters[name]
            h[row] = h[row] + scale * (x[row] @ A.T @ B.T)
    return h


def _every_name_on_all_rows(x, W, adapters, names, scale):  # noqa: ANN001, ANN202
    h = x @ W.T
    for name in names:
        if name in adapters:
            A, B = adapters[name]
            h = h + scale * (x @ A.T @ B.T)
    return h


def _sorted_rows(x, W, adapters, names, scale):  # noqa: ANN001, ANN202
    return routed(x, W, adapters, sorted(names), scale)


# ---- 3: a weighted sum of adapters, exactly -----------------------------------------------------------------------


def weighted_sum(factors: list, weights: list) -> tuple[torch.Tensor, torch.Tensor]:
    A = torch.cat([w * A for (A, _), w in zip(factors, weights, strict=True)])
    B = torch.cat([B for _, B in factors], dim=1)
    return A, B


def _product(answer):  # noqa: ANN001, ANN202
    """What is compared is B A, because the weight may sit on either factor."""

    def delta(factors: list, weights: list) -> Tensor:
        found = answer(factors, weights)
        if found is None or found is Ellipsis:
            return found
        (A_1, B_1), wanted = factors[0], "Return two tensors, A and B"
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise WrongForm(f"{wanted}; yours is {described(found)}.")
        if any(each is Ellipsis for each in found):
            return ...
        if not all(isinstance(each, Tensor) and each.ndim == 2 for each in found):
            raise WrongForm(f"{wanted}, each a matrix; yours are {' and '.join(map(described, found))}.")
        A, B = found
        shapes, product = f"Your A is {tuple(A.shape)}, your B {tuple(B.shape)}", (B_1.shape[0], A_1.shape[1])
        if B.shape[1] != A.shape[0]:
            if (A.shape[0], B.shape[1]) == product:
                raise WrongForm(f"{shapes}: that is the other way round. Return A first, then B.")
            if B.shape[1] == B_1.shape[1] != A.shape[0]:
                raise WrongForm(f"{shapes}: B A does not exist. Put the B's side by side.")
            raise WrongForm(f"{shapes}: B A does not exist.")
        if (B.shape[0], A.shape[1]) != product:
            raise WrongForm(f"{shapes}: B A would be {(B.shape[0], A.shape[1])}, and every Bᵢ Aᵢ is {product}.")
        return B @ A

    return delta


def _sum_cases() -> list[tuple]:
    g = _generator()

    def pair(r: int) -> tuple[Tensor, Tensor]:
        return torch.randn(r, 5, generator=g), torch.randn(7, r, generator=g)

    return [
        ([pair(2), pair(2)], [0.5, 0.5]),
        ([pair(2), pair(2), pair(2)], [1.0, 0.25, 2.0]),
        ([pair(3), pair(3)], [1.5, -1.0]),
    ]


def _linear(factors, weights):  # noqa: ANN001, ANN202
    return sum(w * A for (A, _), w in zip(factors, weights, strict=True)), sum(B for _, B in factors)


def _linear_roots(factors, weights):  # noqa: ANN001, ANN202
    roots = [abs(w) ** 0.5 for w in weights]
    signs = [1 if w > 0 else -1 for w in weights]
    A = sum(s * root * A for (A, _), root, s in zip(factors, roots, signs, strict=True))
    return A, sum(root * B for (_, B), root in zip(factors, roots, strict=True))


def _linear_weights_twice(factors, weights):  # noqa: ANN001, ANN202
    A = sum(w * A for (A, _), w in zip(factors, weights, strict=True))
    return A, sum(w * B for (_, B), w in zip(factors, weights, strict=True))


def _weights_twice(factors, weights):  # noqa: ANN001, ANN202
    A = torch.cat([w * A for (A, _), w in zip(factors, weights, strict=True)])
    return A, torch.cat([w * B for (_, B), w in zip(factors, weights, strict=True)], dim=1)


def _no_weights(factors, weights):  # noqa: ANN001, ANN202
    return weighted_sum(factors, [1.0] * len(weights))


def _first_weight(factors, weights):  # noqa: ANN001, ANN202
    return weighted_sum(factors, [weights[0]] * len(weights))


EXERCISES = [
    Exercise(
        key="07.sizes",
        title="sizes",
        minutes=4,
        solution=SIZES,
        hints=(
            "SmolLM2's q_proj is 576 × 576 and its v_proj 192 × 576. LoRA trains r (d_in + d_out) numbers in each.",
            "30 blocks, r = 8, 4 bytes a number. A full copy has 134,515,008 numbers, of 4 bytes too. Round down.",
        ),
        mutants=(
            Mutant(
                {"bytes of one adapter": 460_800, "adapters in the space of one copy": 1167},
                "You count numbers. Each takes 4 bytes, in the adapter and in the copy.",
            ),
            Mutant(
                {"bytes of one adapter": 1_843_200, "adapters in the space of one copy": 72},
                "The full copy has 4 bytes a number too: 538,060,032 bytes.",
            ),
            Mutant(
                {"bytes of one adapter": 61_440, "adapters in the space of one copy": 8757},
                "That is one block. SmolLM2 has 30.",
            ),
            Mutant(
                {"bytes of one adapter": 2_211_840, "adapters in the space of one copy": 243},
                "v_proj is 192 × 576, not 576 × 576: three query heads share one value head.",
            ),
            Mutant(
                {"bytes of one adapter": 460_800, "adapters in the space of one copy": 291},
                "The ratio is right. The first number should be bytes, and you give numbers: 4 bytes each.",
            ),
            Mutant(
                {"bytes of one adapter": 1_843_200, "adapters in the space of one copy": 134_515_008 / 460_800},
                "Right but for the rounding: only whole adapters count. Round down.",
            ),
            Mutant(
                {"bytes of one adapter": 1_843_200, "adapters in the space of one copy": 292},
                "Round down: the last one does not fit any more.",
            ),
        ),
        shown="""
        numbers = 30 * 8 * ((576 + 576) + (576 + 192))       # blocks · r · (query + value) = 460,800
        sizes = {"bytes of one adapter": 4 * numbers,         # 1,843,200
                 "adapters in the space of one copy": 134_515_008 * 4 // (4 * numbers)}   # 291
        """,
    ),
    Exercise(
        key="07.routed",
        title="routed",
        minutes=10,
        solution=routed,
        cases=_routed_cases,
        tolerance=1e-5,
        hints=(
            "Start with the base path for the whole batch: h = x @ W.T. It is the same for every row.",
            "Then go through `enumerate(names)`; for a name that is in `adapters`, add its part to h[row] only.",
            "A name that is not in `adapters`, such as '__base__', leaves its row as it is.",
        ),
        mutants=(
            Mutant(_first_for_all, "Every row gets the first row's adapter. Look the name up for each row."),
            Mutant(_everyone_gets_all, "Every row gets the sum of all adapters: each row has one name."),
            Mutant(_every_name_on_all_rows, "You add each adapter to the whole batch. Add it to its own row, h[row]."),
            Mutant(_no_base_path, "The frozen path x Wᵀ is missing."),
            Mutant(_no_scale, "The scale is missing on the adapters' path."),
            Mutant(_base_row_dropped, "A row without an adapter is the base model's row: x Wᵀ, not zero."),
            Mutant(_stops_at_base, "'__base__' is in no dictionary: such a row takes the frozen path alone."),
            Mutant(_stops_at_other_names, "Any name that `adapters` lacks gets none, whatever it is called."),
            Mutant(_sorted_rows, "The adapters reach the wrong rows: the order of `names` is the order of the batch."),
        ),
    ),
    Exercise(
        key="07.weighted_sum",
        title="weighted_sum",
        minutes=8,
        solution=weighted_sum,
        cases=_sum_cases,
        compares=_product,
        tolerance=1e-5,
        hints=(
            "Σ wᵢ Bᵢ Aᵢ is one product of two longer matrices: stack the A's on top of one another.",
            "torch.cat of the A's gives (Σr, d_in), torch.cat(..., dim=1) of the B's gives (d_out, Σr). Each wᵢ once.",
        ),
        mutants=(
            Mutant(_linear, "You add the A's and the B's. (B₁ + B₂)(A₁ + A₂) has cross terms B₁A₂ and B₂A₁."),
            Mutant(_linear_roots, "That is peft's 'linear': right square roots, but the cross terms are there."),
            Mutant(_linear_weights_twice, "Each weight comes in twice, and (B₁ + B₂)(A₁ + A₂) has cross terms."),
            Mutant(_weights_twice, "The weight comes in twice, in A and in B: the product has wᵢ²."),
            Mutant(_no_weights, "The weights are missing."),
            Mutant(_first_weight, "Every adapter has its own weight; you use the first one for all."),
        ),
    ),
]
