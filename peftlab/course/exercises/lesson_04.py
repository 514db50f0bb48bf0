"""Lesson 04, soft prompts: the exercises, their solutions, and the wrong answers that people give."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from peftlab.course.exercise import Exercise, Mutant, WrongForm


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


# ---- 1: how many numbers ----

SIZES = {"numbers in the prompt": 11_520, "numbers in the prefix": 230_400}


# ---- 2: from a cache to the table of a prefix ----


def table(cache: list) -> torch.Tensor:
    pairs = torch.stack([torch.stack([keys[0], values[0]]) for keys, values in cache])  # (layers, 2, heads, n, d_h)
    return pairs.permute(3, 0, 1, 2, 4).flatten(1)  # the token first, then all that belongs to it in one row


def _cache_cases() -> list[tuple]:
    g = _generator()

    def cache(layers: int, heads: int, n: int, d_h: int) -> list[tuple[Tensor, Tensor]]:
        shape = (1, heads, n, d_h)
        return [(torch.randn(shape, generator=g), torch.randn(shape, generator=g)) for _ in range(layers)]

    return [(cache(2, 3, 5, 4),), (cache(4, 1, 3, 2),), (cache(3, 2, 1, 6),)]


def _values_first(cache):  # noqa: ANN001, ANN202
    return table([(values, keys) for keys, values in cache])


def _all_keys_then_all_values(cache):  # noqa: ANN001, ANN202
    keys, values = (torch.stack([pair[i][0] for pair in cache]) for i in (0, 1))  # (layers, heads, n, d_h)
    return torch.cat([each.permute(2, 0, 1, 3).flatten(1) for each in (keys, values)], dim=1)


def _viewed(cache):  # noqa: ANN001, ANN202
    pairs = torch.stack([torch.stack([keys[0], values[0]]) for keys, values in cache])
    return pairs.reshape(pairs.shape[3], -1)


def _heads_mixed(cache):  # noqa: ANN001, ANN202
    pairs = torch.stack([torch.stack([keys[0], values[0]]) for keys, values in cache])
    return pairs.permute(3, 0, 1, 4, 2).flatten(1)


def _each_as_it_lies(cache):  # noqa: ANN001, ANN202
    n = cache[0][0].shape[2]
    return torch.cat([part[0].reshape(n, -1) for pair in cache for part in pair], dim=1)


def _head_by_head(cache):  # noqa: ANN001, ANN202
    pairs = torch.stack([torch.stack([keys[0], values[0]]) for keys, values in cache])
    return pairs.permute(3, 0, 2, 1, 4).flatten(1)


def _last_layer(cache):  # noqa: ANN001, ANN202
    return table(cache[-1:])


def _keys_only(cache):  # noqa: ANN001, ANN202
    return torch.stack([keys[0] for keys, _ in cache]).permute(2, 0, 1, 3).flatten(1)


def _batch_kept(cache):  # noqa: ANN001, ANN202
    return table(cache)[None]


def _token_second(cache):  # noqa: ANN001, ANN202
    return table(cache).T


# ---- 3: prompt tuning from raw tensors ----


def prepend(P: Tensor, X: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, n = len(X), len(P)
    inputs = torch.cat([P.expand(batch, -1, -1), X], dim=1)
    mask = torch.cat([mask.new_ones(batch, n), mask], dim=1)
    labels = torch.cat([labels.new_full((batch, n), -100), labels], dim=1)
    return inputs, mask, labels


def _prepend_cases() -> list[tuple]:
    g = _generator()

    def case(batch: int, T: int, n: int, d: int) -> tuple:
        mask = torch.ones(batch, T, dtype=torch.long)
        mask[-1, -1] = 0  # padding
        labels = torch.randint(1, 50, (batch, T), generator=g)
        labels[:, 0] = -100
        return torch.randn(n, d, generator=g), torch.randn(batch, T, d, generator=g), mask, labels

    P, X, mask, labels = case(2, 5, 2, 3)
    padded_in_front = P, X, mask.flip(1), labels.flip(1)  # so that a first column is no filling
    return [case(2, 4, 3, 5), case(3, 5, 1, 4), case(1, 3, 6, 2), padded_in_front]


def _behind(P, X, mask, labels):  # noqa: ANN001, ANN202
    _, mask, labels = prepend(P, X, mask, labels)
    return torch.cat([X, P.expand(len(X), -1, -1)], dim=1), mask, labels


def _mask_as_it_was(P, X, mask, labels):  # noqa: ANN001, ANN202
    inputs, _, labels = prepend(P, X, mask, labels)
    return inputs, mask, labels


def _labels_as_they_were(P, X, mask, labels):  # noqa: ANN001, ANN202
    inputs, mask, _ = prepend(P, X, mask, labels)
    return inputs, mask, labels


def _all_ones(P, X, mask, labels):  # noqa: ANN001, ANN202
    inputs, widened, labels = prepend(P, X, mask, labels)
    return inputs, torch.ones_like(widened), labels


def _first_column(P, X, mask, labels):  # noqa: ANN001, ANN202
    inputs, _, labels = prepend(P, X, mask, labels)
    return inputs, torch.cat([mask[:, :1].expand(-1, len(P)), mask], dim=1), labels


def _only_inputs(P, X, mask, labels):  # noqa: ANN001, ANN202
    return prepend(P, X, mask, labels)[0]


def _both_as_they_were(P, X, mask, labels):  # noqa: ANN001, ANN202
    return prepend(P, X, mask, labels)[0], mask, labels


def _masked_out(P, X, mask, labels):  # noqa: ANN001, ANN202
    inputs, _, widened = prepend(P, X, mask, labels)
    return inputs, torch.cat([mask.new_zeros(len(X), len(P)), mask], dim=1), widened


def _labels_zero(P, X, mask, labels):  # noqa: ANN001, ANN202
    inputs, widened, _ = prepend(P, X, mask, labels)
    return inputs, widened, torch.cat([labels.new_zeros(len(X), len(P)), labels], dim=1)


def _wide_behind(P, X, mask, labels):  # noqa: ANN001, ANN202
    batch, n = len(X), len(P)
    inputs = prepend(P, X, mask, labels)[0]
    mask = torch.cat([mask, mask.new_ones(batch, n)], dim=1)
    return inputs, mask, torch.cat([labels, labels.new_full((batch, n), -100)], dim=1)


def _same_and_whole_labels(answer: Callable) -> Callable:
    """The loss takes whole numbers as labels, so labels of the right value are wrong as floating-point numbers."""

    @wraps(answer)
    def compared(P: Tensor, X: Tensor, mask: Tensor, labels: Tensor):  # noqa: ANN202
        found = answer(P, X, mask, labels)
        last = found[2] if isinstance(found, tuple | list) and len(found) == 3 else None
        if isinstance(last, Tensor) and last.is_floating_point():
            raise WrongForm(
                "The labels became floating-point numbers, and the loss wants whole ones: "
                "labels.new_full((batch, n), -100) keeps their kind."
            )
        return found

    return compared


def _added(P, X, mask, labels):  # noqa: ANN001, ANN202
    return X + P.mean(0), mask, labels


EXERCISES = [
    Exercise(
        key="04.sizes",
        title="sizes",
        minutes=4,
        solution=SIZES,
        hints=(
            "A prompt has one row of width 576 for each virtual token, before the first layer only.",
            "A prefix has, for each virtual token and each of the 30 layers, a key and a value for each of 3 heads "
            "of 64 numbers.",
        ),
        mutants=(
            Mutant(
                {"numbers in the prompt": 11_520, "numbers in the prefix": 691_200},
                "Keys and values are not 576 wide here: nine query heads share three key heads of 64.",
            ),
            Mutant(
                {"numbers in the prompt": 11_520, "numbers in the prefix": 115_200},
                "A prefix has a key and a value. You count one of them.",
            ),
            Mutant(
                {"numbers in the prompt": 11_520, "numbers in the prefix": 7_680},
                "That is one layer. Every one of the 30 gets its own keys and values.",
            ),
            Mutant(
                {"numbers in the prompt": 11_520, "numbers in the prefix": 76_800},
                "That is one head. There are three of them.",
            ),
            Mutant(
                {"numbers in the prompt": 345_600, "numbers in the prefix": 230_400},
                "A prompt stands before the first layer only. What the layers make of it is computed, not trained.",
            ),
            Mutant(
                {"numbers in the prompt": 576, "numbers in the prefix": 11_520},
                "That is for one virtual token. There are n = 20.",
            ),
            Mutant(
                {"numbers in the prompt": 11_520, "numbers in the prefix": 345_600},
                "In each layer there is a key and a value, each 3 · 64 wide, not one vector of 576.",
            ),
            Mutant(
                {"numbers in the prompt": 11_520, "numbers in the prefix": 11_520},
                "The prefix has its numbers in each of 30 layers.",
            ),
            Mutant(
                {"numbers in the prompt": 46_080, "numbers in the prefix": 921_600},
                "Those are bytes. The question is how many numbers are trained.",
            ),
        ),
        shown="""
        sizes = {"numbers in the prompt": 20 * 576,                  # n · d = 11,520
                 "numbers in the prefix": 20 * 30 * 2 * 3 * 64}      # n · layers · (key, value) · heads · d_h = 230,400
        """,
    ),
    Exercise(
        key="04.table",
        title="table",
        minutes=8,
        solution=table,
        cases=_cache_cases,
        tolerance=1e-6,
        hints=(
            "Drop the batch of one, then stack keys and values, then stack the layers: (layers, 2, heads, n, d_h).",
            "The token must come first: .permute(3, 0, 1, 2, 4). Then .flatten(1) makes one row of each token.",
        ),
        mutants=(
            Mutant(
                _each_as_it_lies,
                "You reshape (heads, n, d_h) as it lies: a row then holds several tokens of one head. Bring n to the "
                "front first.",
            ),
            Mutant(_head_by_head, "Within a layer, first the keys of all heads, then the values of all heads."),
            Mutant(_values_first, "In each layer, the keys come first and the values second."),
            Mutant(
                _all_keys_then_all_values,
                "A row goes layer by layer: the keys and values of the first layer, then those of the second.",
            ),
            Mutant(
                _viewed,
                "The shape is right, the numbers are scrambled: reshape reads them in the old order. Move the token's "
                "axis to the front first.",
            ),
            Mutant(_heads_mixed, "The d_h numbers of one head belong together, head after head."),
            Mutant(_last_layer, "That is the last layer only. A prefix stands in every layer."),
            Mutant(_keys_only, "The values are missing."),
            Mutant(_batch_kept, "Drop the batch of one: the table has two dimensions."),
            Mutant(_token_second, "One row for each token: yours has one column for each."),
        ),
    ),
    Exercise(
        key="04.prepend",
        title="prepend",
        minutes=8,
        solution=prepend,
        cases=_prepend_cases,
        compares=_same_and_whole_labels,
        tolerance=1e-6,
        hints=(
            "Three torch.cat along dim=1. P has no batch dimension yet: P.expand(batch, -1, -1).",
            "The mask gets ones in front: P may be looked at. The labels get -100, the value that the loss ignores.",
        ),
        mutants=(
            Mutant(_behind, "P stands in front of X. Behind it, a causal model would not see P while it reads X."),
            Mutant(_mask_as_it_was, "The mask has one column for each position, and there are n positions more now."),
            Mutant(
                _labels_as_they_were,
                "The labels are n positions short. A loss would compare each position with another's label.",
            ),
            Mutant(_both_as_they_were, "Mask and labels must grow too: one column for each of the n new positions."),
            Mutant(_all_ones, "The padding must stay hidden: keep the old mask behind your ones."),
            Mutant(_first_column, "The new columns of the mask are ones, not a copy of its first column."),
            Mutant(_only_inputs, "Three things are wanted: inputs, mask and labels."),
            Mutant(_masked_out, "A 0 in the mask hides a position. Nothing would look at P."),
            Mutant(
                _labels_zero,
                "Label 0 is a token of the vocabulary, so the model would learn to write it. -100 is what the loss "
                "ignores.",
            ),
            Mutant(_wide_behind, "P stands in front, so the new columns of mask and labels do too."),
            Mutant(_added, "P is not added to the inputs. It takes positions of its own."),
        ),
    ),
]
