"""Lesson 05, selective tuning: the exercises, their solutions, and the wrong answers that people give."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from peftlab.course.exercise import Exercise, Mutant, WrongForm, described

# ---- 1: the empirical Fisher information ----------------------------------------------------------------------------


def fisher(G):  # noqa: ANN001, ANN201  (shown to learners as they would write it)
    return (G**2).mean(0)


def _gradients() -> list[tuple]:
    g = torch.Generator().manual_seed(5)
    return [(torch.randn(*shape, generator=g),) for shape in ((7, 3, 2), (4, 5))]


def _square_of_mean(G):  # noqa: ANN001, ANN202
    return G.mean(0) ** 2


def _sum_of_squares(G):  # noqa: ANN001, ANN202
    return (G**2).sum(0)


def _mean_size(G):  # noqa: ANN001, ANN202
    return G.abs().mean(0)


def _root(G):  # noqa: ANN001, ANN202
    return (G**2).mean(0).sqrt()


def _variance(G):  # noqa: ANN001, ANN202
    return G.var(0, correction=0)


def _variance_of_sample(G):  # noqa: ANN001, ANN202
    return G.var(0)


def _norm(G):  # noqa: ANN001, ANN202
    return G.norm(dim=0)


def _one_less(G):  # noqa: ANN001, ANN202
    return (G**2).sum(0) / (len(G) - 1)


def _over_entries(G):  # noqa: ANN001, ANN202
    return (G**2).mean(tuple(range(1, G.ndim)))


def _one_number(G):  # noqa: ANN001, ANN202
    return (G**2).mean()


def _not_squared(G):  # noqa: ANN001, ANN202
    return G.mean(0)


# ---- 2: the mask ----------------------------------------------------------------------------------------------------


def top_k_masks(scores, k):  # noqa: ANN001, ANN201
    everything = torch.cat([tensor.flatten() for tensor in scores.values()])
    chosen = torch.zeros(len(everything), dtype=torch.bool)
    chosen[everything.topk(k).indices] = True
    parts = chosen.split([tensor.numel() for tensor in scores.values()])
    return {name: part.view(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def _as_numbers(answer: Callable) -> Callable:
    """Masks as 0 and 1, to be compared. Right places in another form are refused: the lesson goes on with the masks."""

    def numbers(scores, k):  # noqa: ANN001, ANN202
        masks = answer(scores, k)
        if masks is None or masks is ...:
            return masks
        if not isinstance(masks, dict):
            raise WrongForm(f"Wanted is a dictionary, name of tensor -> mask; you return {described(masks)}.")
        if masks.keys() != scores.keys() or not all(isinstance(mask, Tensor) for mask in masks.values()):
            return masks
        right = top_k_masks(scores, k)
        if any(mask.dtype != torch.bool for mask in masks.values()):
            if all(mask.shape == right[n].shape and bool((mask == right[n]).all()) for n, mask in masks.items()):
                raise WrongForm("The right places, but as numbers. A mask holds True and False, as >= gives.")
            if all(mask.dtype == torch.int64 and mask.ndim == 1 for mask in masks.values()):
                raise WrongForm("These are places. A mask holds True and False, in the shape of its tensor.")
        return {name: mask.float() for name, mask in masks.items()}

    return numbers


def _scores() -> list[tuple]:
    g = torch.Generator().manual_seed(55)

    def case(k: int, *shapes: tuple[int, ...]) -> tuple:
        made = {f"tensor {i}": torch.rand(*shape, generator=g) * (i + 1) ** 2 for i, shape in enumerate(shapes)}
        return made, k

    below_zero = {name: tensor - 3 for name, tensor in case(4, (3, 4), (2, 5))[0].items()}
    return [case(6, (4, 3), (5,), (2, 6)), case(3, (3, 5), (4,)), (below_zero, 4)]


def _masks_at_least(scores, threshold) -> dict:  # noqa: ANN001
    return {name: tensor >= threshold for name, tensor in scores.items()}


def _joined(scores) -> Tensor:  # noqa: ANN001
    return torch.cat([tensor.flatten() for tensor in scores.values()])


def _inside_each(scores, share):  # noqa: ANN001, ANN202
    return {
        name: tensor >= tensor.flatten().topk(max(1, min(share(tensor), tensor.numel()))).values[-1]
        for name, tensor in scores.items()
    }


def _k_in_each(scores, k):  # noqa: ANN001, ANN202
    return _inside_each(scores, lambda tensor: k)


def _same_share_in_each(scores, k):  # noqa: ANN001, ANN202
    total = len(_joined(scores))
    return _inside_each(scores, lambda tensor: round(k / total * tensor.numel()))


def _k_divided(scores, k):  # noqa: ANN001, ANN202
    return _inside_each(scores, lambda tensor: k // len(scores))


def _by_size(scores, k):  # noqa: ANN001, ANN202
    return top_k_masks({name: tensor.abs() for name, tensor in scores.items()}, k)


def _kth_smallest(scores, k):  # noqa: ANN001, ANN202
    return _masks_at_least(scores, _joined(scores).kthvalue(k).values)


def _smallest(scores, k):  # noqa: ANN001, ANN202
    threshold = _joined(scores).topk(k, largest=False).values[-1]
    return {name: tensor <= threshold for name, tensor in scores.items()}


def _one_too_few(scores, k):  # noqa: ANN001, ANN202
    threshold = _joined(scores).topk(k).values[-1]
    return {name: tensor > threshold for name, tensor in scores.items()}


def _one_too_many(scores, k):  # noqa: ANN001, ANN202
    return _masks_at_least(scores, _joined(scores).topk(k + 1).values[-1])


def _frozen_ones(scores, k):  # noqa: ANN001, ANN202
    return {name: ~mask for name, mask in top_k_masks(scores, k).items()}


def _the_scores_themselves(scores, k):  # noqa: ANN001, ANN202
    return {name: scores[name] * mask for name, mask in top_k_masks(scores, k).items()}


def _left_flat(scores, k):  # noqa: ANN001, ANN202
    return {name: mask.flatten() for name, mask in top_k_masks(scores, k).items()}


# ---- 4: bytes of a sparse file --------------------------------------------------------------------------------------


def file_bytes(n, k):  # noqa: ANN001, ANN201
    return {"places": 4 * k + 4 * k, "bitmap": 4 * k + (n + 7) // 8, "whole": 4 * n}


def _sizes() -> list[tuple]:
    return [(1000, 10), (1003, 700), (1005, 3), (64, 1)]


def _only_values(n, k):  # noqa: ANN001, ANN202
    return file_bytes(n, k) | {"places": 4 * k, "bitmap": 4 * k}


def _places_without_values(n, k):  # noqa: ANN001, ANN202
    return file_bytes(n, k) | {"places": 4 * k}


def _wide_places(n, k):  # noqa: ANN001, ANN202
    return file_bytes(n, k) | {"places": 12 * k}


def _bits_as_bytes(n, k):  # noqa: ANN001, ANN202
    return file_bytes(n, k) | {"bitmap": 4 * k + n}


def _bits_as_numbers(n, k):  # noqa: ANN001, ANN202
    return file_bytes(n, k) | {"bitmap": 4 * k + 4 * n}


def _bitmap_of_k(n, k):  # noqa: ANN001, ANN202
    return file_bytes(n, k) | {"bitmap": 4 * k + (k + 7) // 8}


def _bitmap_alone(n, k):  # noqa: ANN001, ANN202
    return file_bytes(n, k) | {"bitmap": (n + 7) // 8}


def _bits_lost(n, k):  # noqa: ANN001, ANN202
    return file_bytes(n, k) | {"bitmap": 4 * k + n // 8}


def _rounded(n, k):  # noqa: ANN001, ANN202
    return file_bytes(n, k) | {"bitmap": 4 * k + round(n / 8)}


def _one_byte_more(n, k):  # noqa: ANN001, ANN202
    return file_bytes(n, k) | {"bitmap": 4 * k + n // 8 + 1}


def _bitmap_alone_and_short(n, k):  # noqa: ANN001, ANN202
    return file_bytes(n, k) | {"bitmap": n // 8}


def _places_and_bits(n, k):  # noqa: ANN001, ANN202
    return file_bytes(n, k) | {"bitmap": 8 * k + (n + 7) // 8}


def _in_bits(n, k):  # noqa: ANN001, ANN202
    return {"places": 64 * k, "bitmap": 32 * k + n, "whole": 32 * n}


def _broken_byte(n, k):  # noqa: ANN001, ANN202
    return file_bytes(n, k) | {"bitmap": 4 * k + n / 8}


def _numbers_not_bytes(n, k):  # noqa: ANN001, ANN202
    return {"places": 2 * k, "bitmap": k + (n + 7) // 8, "whole": n}


BIASES = {"one block of MiniLM": 4_224, "the whole encoder": 25_728, "one block of the tiny model": 0}
RMS = "The tiny model's norms are RMSNorms: a weight, no bias."


def _miscounts() -> list[Mutant]:
    """Wrong counts of MiniLM's biases, each with the tiny model's right and with its norms counted as biases."""
    found = [
        (3_456, 20_736, "LayerNorms have biases too, two in each block and one behind the embeddings."),
        (3_456, 21_120, "The LayerNorms of the blocks are missing: two biases of 384 in each."),
        (3_456, 25_728, "The whole is right, the block is not: it has two LayerNorms, with biases of 384."),
        (3_840, 23_424, "384 are missing in the block: is the attention's output there, and are there two LayerNorms?"),
        (4_224, 25_344, "The LayerNorm behind the embeddings has a bias too."),
        (4_224, 26_112, "The block is right. Behind the embeddings stands one LayerNorm, with one bias of 384."),
        (4_992, 30_336, "You count the LayerNorms' weights as well. BitFit trains biases only."),
        (3_072, 18_816, "The feed-forward network's first layer puts out 1,536 numbers, and its bias is as long."),
        (5_376, 32_640, "Only the first of the two feed-forward layers puts out 1,536. The second goes back to 384."),
        (4_224, 30_348, "That is what attach counts: the head's 4,620 numbers are in it."),
    ]
    mutants = [Mutant(BIASES | {"one block of the tiny model": 256}, RMS)]
    for block, whole, says in found:
        wrong = BIASES | {"one block of MiniLM": block, "the whole encoder": whole}
        mutants.append(Mutant(wrong, says))
        mutants.append(Mutant(wrong | {"one block of the tiny model": 256}, f"{says} {RMS}"))
    return mutants


MISCOUNTS = _miscounts()


EXERCISES = [
    Exercise(
        key="05.fisher",
        title="fisher",
        minutes=3,
        solution=fisher,
        cases=_gradients,
        tolerance=1e-6,
        hints=(
            "The formula says: first square, then take the mean over the examples.",
            "Examples are the first dimension of G: mean(0) averages over them.",
        ),
        mutants=(
            Mutant(
                _square_of_mean,
                "You square the mean. Gradients of opposite sign cancel there; the mean of the squares does not let "
                "them.",
            ),
            Mutant(_sum_of_squares, "That is the sum. Divide by the number of examples: take the mean."),
            Mutant(_mean_size, "The gradients are squared in the formula; you take their absolute value."),
            Mutant(_root, "No root: F̂ is the mean of squares itself. (For choosing the largest it would do.)"),
            Mutant(_variance, "That is the variance: the mean has been taken away before squaring. Leave it in."),
            Mutant(
                _variance_of_sample,
                "That is the variance, with n - 1: .var takes the mean away before squaring. Leave it in, divide by n.",
            ),
            Mutant(_norm, "A norm is the root of the *sum* of squares. Take the mean, and no root."),
            Mutant(_one_less, "Divide by n, the number of examples, not by n - 1."),
            Mutant(_over_entries, "You average over the entries and keep the examples. It is the other way round."),
            Mutant(_one_number, "You average over everything. Each entry has a Fisher information of its own."),
            Mutant(_not_squared, "The square is missing: without it, opposite signs cancel."),
        ),
    ),
    Exercise(
        key="05.top_k_masks",
        title="top_k_masks",
        minutes=10,
        solution=top_k_masks,
        cases=_scores,
        compares=_as_numbers,
        hints=(
            "One ranking for all tensors: flatten each, and join them with torch.cat.",
            "The k-th largest of the joined scores is a threshold: everything.topk(k).values[-1].",
            "A score that reaches the threshold is chosen: tensor >= threshold, for each tensor.",
        ),
        mutants=(
            Mutant(_k_in_each, "You choose k in every tensor. Choose k in all, so that a tensor may get none."),
            Mutant(
                _same_share_in_each,
                "You give each tensor the same share. Here the tensors compete: one ranking for all of them.",
            ),
            Mutant(_k_divided, "You divide k among the tensors. Rank all scores together: a tensor may get none."),
            Mutant(_by_size, "You rank by size. A score below zero ranks below all others: no abs, no square."),
            Mutant(_kth_smallest, "kthvalue counts from the smallest. Use topk: its last value is the threshold."),
            Mutant(_smallest, "These are the smallest scores. topk takes the largest unless you say otherwise."),
            Mutant(_one_too_few, "One too few: the k-th largest score must be in. Use >=, not >."),
            Mutant(_one_too_many, "One too many: the threshold is the k-th largest score, at place k - 1."),
            Mutant(_frozen_ones, "True is what trains. You mark what stays frozen."),
            Mutant(_the_scores_themselves, "A mask holds True and False, not the scores."),
            Mutant(_left_flat, "The right entries, but flat. Give each mask the shape of its tensor: .view(shape)."),
        ),
        shown="""
        def top_k_masks(scores, k):
            everything = torch.cat([tensor.flatten() for tensor in scores.values()])
            threshold = everything.topk(k).values[-1]
            return {name: tensor >= threshold for name, tensor in scores.items()}

        # If several scores equal the threshold, these are more than k. The library takes exactly k:
        # it marks the places that topk gives.
        """,
    ),
    Exercise(
        key="05.biases",
        title="biases",
        minutes=5,
        solution=BIASES,
        hints=(
            "A block has six linear layers and two LayerNorms. A bias is as long as the layer's output.",
            "Seven of these eight outputs are 384 long, one is 1,536. The embeddings have a LayerNorm too.",
            "The tiny model is a Llama: its linear layers have no bias, and its norms (RMSNorm) have none either.",
        ),
        mutants=(*MISCOUNTS,),
        shown="""
        {"one block of MiniLM": 4_224, "the whole encoder": 25_728, "one block of the tiny model": 0}
        # query, key, value, attention output: 4 · 384; feed-forward: 1,536 + 384; two LayerNorms: 2 · 384.
        # Six blocks, and the LayerNorm behind the embeddings: 6 · 4,224 + 384.
        # The tiny model is a Llama. It has no biases at all.
        """,
    ),
    Exercise(
        key="05.file_bytes",
        title="file_bytes",
        minutes=5,
        solution=file_bytes,
        cases=_sizes,
        hints=(
            "float32 and int32 take 4 bytes each. Both short forms hold the k values; they differ in how they say "
            "where.",
            "A bitmap has one bit for each of the n entries, chosen or not. Eight bits are a byte, and a file has "
            "whole bytes only.",
            "(n + 7) // 8 rounds n / 8 up.",
        ),
        mutants=(
            Mutant(_only_values, "Values without their places are useless: add what says where they belong."),
            Mutant(_places_without_values, "k places of 4 bytes *and* k values of 4 bytes."),
            Mutant(_wide_places, "The places are int32 here: 4 bytes each, not 8."),
            Mutant(_bits_as_bytes, "A bit for each entry, not a byte: divide by 8."),
            Mutant(_bits_as_numbers, "A bit for each entry, not a number of 4 bytes."),
            Mutant(_bitmap_of_k, "The bitmap has a bit for *every* entry, n of them, not for the k that train."),
            Mutant(_bitmap_alone, "The bitmap says where, not what: the k values are missing."),
            Mutant(_bits_lost, "n // 8 rounds down, and up to 7 entries lose their bit. Round up."),
            Mutant(_rounded, "round(n / 8) also rounds down, and then some entries lose their bit. Round up."),
            Mutant(_one_byte_more, "n // 8 + 1 is one byte too many when 8 divides n."),
            Mutant(_bitmap_alone_and_short, "The k values are missing beside the bitmap. And round n / 8 up."),
            Mutant(_places_and_bits, "Values and bitmap are enough: the bits replace the places."),
            Mutant(_in_bits, "You count bits. Divide by 8."),
            Mutant(_broken_byte, "A file has whole bytes: round n / 8 up."),
            Mutant(_numbers_not_bytes, "You count numbers. Each float32 or int32 takes 4 bytes."),
        ),
    ),
]
