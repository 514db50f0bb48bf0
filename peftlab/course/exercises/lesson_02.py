"""Lesson 02, the landscape: the exercises, their solutions, and the wrong answers that people give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from peftlab.course.exercise import Exercise, Mutant, WrongForm, described

# ---- 1: what changed ----------------------------------------------------------------------------------------------


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, int]:
    counts = {name: int((before[name] != after[name]).sum()) for name in before}
    return {name: count for name, count in counts.items() if count > 0}


def _models() -> list[tuple]:
    """Two pairs of models: one changed in few entries, by little, and in steps that cancel; one not at all."""
    g = torch.Generator().manual_seed(2)
    shapes = {"table": (6, 4), "query.weight": (3, 4), "query.bias": (3,), "value.weight": (5, 4), "norm": (4,)}
    before = {name: torch.randn(*shape, generator=g) for name, shape in shapes.items()}
    before["query.weight"] *= 1e-4
    after = {name: tensor.clone() for name, tensor in before.items()}
    after["table"][2] += 1.0  # one row of six
    after["query.weight"] *= 1 + 1e-6  # every entry, by less than any tolerance
    before["value.weight"][:2] = after["value.weight"][:2] = 0.5
    after["value.weight"][0] += 0.25  # what one row gains, the next loses
    after["value.weight"][1] -= 0.25
    after["new.lora_A"] = torch.randn(2, 4, generator=g)  # not a tensor of the model
    same = {name: tensor.clone() for name, tensor in before.items()}
    return [(before, after), (before, same)]


def _are_names(found: Any) -> bool:
    return isinstance(found, list | tuple | set | frozenset) and all(isinstance(each, str) for each in found)


def _as_numbers(answer: Callable) -> Callable:
    """Counts as tensors with one element are as good as numbers."""

    def called(before: dict[str, Tensor], after: dict[str, Tensor]) -> Any:
        try:
            found = answer(before, after)
        except KeyError as error:
            if error.args[0] in after and error.args[0] not in before:
                says = f"`after` has tensors that `before` lacks, such as {error.args[0]}: go through `before`."
                raise WrongForm(says) from None
            raise
        if found is None or found is Ellipsis:
            return found
        if not isinstance(found, dict):
            words = "You return the names. " if _are_names(found) else f"You return {described(found)}. "
            raise WrongForm(f"{words}A dictionary is wanted: name and number of changed entries.")
        if any(isinstance(value, bool) for value in found.values()):
            raise WrongForm("Your values are True and False. Wanted is how many entries differ.")
        single = {
            name: value.item() for name, value in found.items() if isinstance(value, Tensor) and value.numel() == 1
        }
        return {**found, **single}

    return called


def _close(before, after):  # noqa: ANN001, ANN202
    counts = {name: int((~torch.isclose(before[name], after[name])).sum()) for name in before}
    return {name: count for name, count in counts.items() if count > 0}


def _by_sum(before, after):  # noqa: ANN001, ANN202
    moved = {name for name in before if abs((after[name] - before[name]).sum()) > 0}
    return {name: count for name, count in changed(before, after).items() if name in moved}


def _whole_tensors(before, after):  # noqa: ANN001, ANN202
    return {name: before[name].numel() for name in changed(before, after)}


def _zeros_too(before, after):  # noqa: ANN001, ANN202
    return {name: int((before[name] != after[name]).sum()) for name in before}


def _rows(before, after):  # noqa: ANN001, ANN202
    counts = {name: int((before[name] != after[name]).any(-1).sum()) for name in before}
    return {name: count for name, count in counts.items() if count > 0}


def _unchanged(before, after):  # noqa: ANN001, ANN202
    counts = {name: int((before[name] == after[name]).sum()) for name in before}
    return {name: count for name, count in counts.items() if count > 0}


def _new_ones_too(before, after):  # noqa: ANN001, ANN202
    new = {name: tensor.numel() for name, tensor in after.items() if name not in before}
    return {**changed(before, after), **new}


def _grown(before, after):  # noqa: ANN001, ANN202
    counts = {name: int((after[name] > before[name]).sum()) for name in before}
    return {name: count for name, count in counts.items() if count > 0}


# ---- 2: five questions --------------------------------------------------------------------------------------------

FIRST_TRY = {
    "invoices": (1, "prompt"),
    "price list": (2, "retrieval"),
    "tickets": (3, "head only"),
    "customers": (4, "LoRA, unmerged"),
    "keyboard": (4, "LoRA, merged"),
    "one card": (5, "QLoRA"),
}


NAMES = ("prompt", "retrieval", "head only", "LoRA, merged", "LoRA, unmerged", "QLoRA", "full fine-tuning")


def _about(case: str, choice: Any) -> str:
    """What is wrong with one pair of which the bank below knows nothing."""
    if not isinstance(choice, tuple | list) or len(choice) != 2:
        return f"{case}: a pair is wanted, such as (5, \"full fine-tuning\"), and this is {choice!r}."
    number, name = choice
    if not isinstance(number, int) or isinstance(number, bool):
        return f"{case}: the number of the question comes first, without quotes."
    if name not in NAMES:
        return f"{case}: {name!r} is not one of the seven names."
    question, wanted = FIRST_TRY[case]
    if name == wanted:
        return f"{case}: the right thing to try, but another question settles it first."
    if number == question:
        return f"{case}: the right question, but another answer to it."
    where = "An earlier" if question < number else "A later"
    return f"{case}: not yet. {where} question settles it."


def _but(says: str, **other: tuple[int, str]) -> Mutant:
    cases = {name.replace("_", " "): choice for name, choice in other.items()}
    return Mutant({**FIRST_TRY, **cases}, says)


EXERCISES = [
    Exercise(
        key="02.changed",
        title="changed",
        minutes=4,
        solution=changed,
        cases=_models,
        compares=_as_numbers,
        hints=(
            "before[name] != after[name] is a tensor of True and False, and .sum() counts the True.",
            "Go through the names of `before`. Keep a name only if its count is above 0.",
        ),
        mutants=(
            Mutant(_close, "You allow a tolerance. The smallest step of training counts: use !=."),
            Mutant(_by_sum, "Changes up and down cancel in your sum. Compare entry by entry."),
            Mutant(_whole_tensors, "You count every entry of a tensor that changed. Count those that differ."),
            Mutant(_zeros_too, "Tensors without any change are in your result, with 0. Leave them out."),
            Mutant(_rows, "You count rows that changed. Count entries: there is one .any too many."),
            Mutant(_unchanged, "You count what stayed equal. != in the place of ==."),
            Mutant(_new_ones_too, "A tensor that only `after` has is new, not changed. Go through `before`."),
            Mutant(_grown, "You count the entries that grew. Those that shrank have changed too."),
        ),
    ),
    Exercise(
        key="02.first_try",
        title="first_try",
        minutes=8,
        solution=FIRST_TRY,
        explains=_about,
        hints=(
            "Ask the five questions in their order, and stop at the first one that the case's own words answer.",
            "Nobody has to train anything for the first two cases. Of the other four, two stop at the same question.",
        ),
        mutants=(
            _but(
                "invoices: five examples in the prompt are good enough already, by measurement. A trained model would "
                "have to be kept, tested and served for points that nobody asked for.",
                invoices=(4, "LoRA, merged"),
            ),
            _but(
                "price list: trained weights would be out of date on Monday, and could not name their source. Facts "
                "that change belong beside the model, not in it.",
                price_list=(4, "LoRA, merged"),
            ),
            _but(
                "price list: the list is far longer than any prompt. Finding the right lines for each question and "
                "putting those into the prompt is what retrieval is.",
                price_list=(1, "prompt"),
            ),
            _but(
                "tickets: the head alone is above what is needed, by measurement. LoRA may add points; first ask "
                "whether anybody needs them.",
                tickets=(4, "LoRA, merged"),
            ),
            _but(
                "tickets: eight queues are eight labels, and a head gives one in a single pass. A prompt to a large "
                "model for two million tickets a day is a bill.",
                tickets=(1, "prompt"),
            ),
            _but(
                "customers: merged, every customer needs a full copy of the model, and a batch cannot mix them. "
                "Leave the adapters unmerged, beside one base.",
                customers=(4, "LoRA, merged"),
            ),
            _but(
                "customers: the manuals have been in the prompt, and it was not enough. Tone is no fact to look up, "
                "either: no document answers the question how to sound.",
                customers=(2, "retrieval"),
            ),
            _but(
                "keyboard: that program can hold no adapter and no extra call. It wants a plain model, so the change "
                "has to go into the weights: merge.",
                keyboard=(4, "LoRA, unmerged"),
            ),
            _but(
                "keyboard: full fine-tuning gives a plain model too, but this model is too large for it here. And "
                "question 4 comes before memory: LoRA, merged, is the cheaper way to the same file.",
                keyboard=(5, "full fine-tuning"),
            ),
            _but(
                "one card: 70 billion numbers at 2 bytes each are 140 GB before the first gradient. LoRA makes what "
                "is trained small, not what is frozen.",
                one_card=(5, "LoRA, merged"),
            ),
            _but(
                "one card: unmerged or merged, LoRA keeps the base in 16 bits, 140 GB. What is frozen has to shrink.",
                one_card=(5, "LoRA, unmerged"),
            ),
            _but(
                "one card: full fine-tuning needs gradients and AdamW's two averages for all 70 billion numbers, about "
                "eleven times that card, and with averages in fp32 more than twenty times.",
                one_card=(5, "full fine-tuning"),
            ),
        ),
        shown="""
        first_try = {
            "invoices": (1, "prompt"),             # measured, and good enough
            "price list": (2, "retrieval"),        # facts that change, and a source is wanted
            "tickets": (3, "head only"),           # a label, and the head alone was enough, measured
            "customers": (4, "LoRA, unmerged"),    # many from one base, mixed in a batch
            "keyboard": (4, "LoRA, merged"),       # one task, a program that knows plain models only
            "one card": (5, "QLoRA"),              # the frozen weights alone do not fit in 16 bits
        }
        """,
    ),
]
