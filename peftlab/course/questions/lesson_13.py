"""Lesson 13, quantisation and QLoRA: the quiz and the predictions. Measured truths come from the stored results."""

from __future__ import annotations

import math
from functools import cache
from statistics import mean
from typing import Any

from peftlab.bench.results import Results
from peftlab.costs.memory import GIB, training
from peftlab.course.question import Option, Prediction, Question
from peftlab.methods import LoRA
from peftlab.show.quant_figures import after, orders

QUIZ = [
    Question(
        "bits",
        "You quantise to 4 bits in blocks of 32, with one 32-bit scale for each block and no double quantisation. How "
        "many bits does a weight cost?",
        [
            Option("4", "No: the scales must be stored too, 32 bits for every 32 weights."),
            Option("4.5", "No: that is for blocks of 64. Half the block, twice the scales."),
            Option("5", "Yes: 4 + 32/32. A smaller block is more exact and costs more.", right=True),
            Option("36", "No: one scale for each block, not for each weight."),
        ],
    ),
    Question(
        "gradient",
        "In QLoRA, what does backward do at a linear layer whose weight is in 4 bits?",
        [
            Option(
                "Nothing: a frozen layer needs no backward pass",
                "No: adapters in earlier layers need the gradient of this layer's input.",
            ),
            Option(
                "It computes a gradient for the codes and rounds it",
                "No: codes are whole numbers and stay as they are.",
            ),
            Option(
                "It makes Ŵ again, to get the input's gradient",
                "Yes: dL/dx = dL/dh Ŵ. The dense Ŵ is made again in every pass, and thrown away each time.",
                right=True,
            ),
            Option(
                "It uses the dense Ŵ that the forward pass has kept",
                "No: kept for every layer, that would be the whole dense model in memory again.",
            ),
        ],
    ),
    Question(
        "merge",
        "Your QLoRA adapter is good. You want one 4-bit model to ship. What do you do?",
        [
            Option(
                "Merge into the 4-bit base and quantise that again with the same settings",
                "No: the base sits exactly on the levels, so small changes are rounded away, without a word.",
            ),
            Option(
                "Add the adapter to the original weights and quantise that",
                "Yes, if you have them. Or ship the 4-bit base with the adapter beside it. And test what you ship.",
                right=True,
            ),
            Option(
                "Nothing special: merging LoRA never changes outputs",
                "No: that holds for dense weights. Every time you round, outputs change.",
            ),
        ],
    ),
    Question(
        "start",
        "Back to lesson 06: with B = 0, LoRA starts as the pretrained model. And in QLoRA?",
        [
            Option(
                "The pretrained model exactly, since the adapter adds nothing",
                "No: the adapter adds nothing, true, but the base is Ŵ and not W.",
            ),
            Option(
                "The pretrained model after rounding",
                "Yes: the adapter adds nothing yet. LoftQ starts with a BA that makes up for a part of Ŵ - W.",
                right=True,
            ),
            Option("A random model, because B is random here", "No: B = 0 as always. What differs is the base."),
            Option(
                "The pretrained model, because the first step undoes the rounding",
                "No: a rank-r change cannot undo an error that lies in all directions.",
            ),
        ],
    ),
]


@cache
def _race() -> dict[str, Any]:
    return Results.load("quant_race")


@cache
def _trained() -> dict[str, Any]:
    return Results.load("qlora_tiny")


def _harms() -> tuple[float, float]:
    """Mean loss above fp32 of NF4 and of symmetric int4, in blocks of 64."""
    return mean(orders(_race(), "nf4/64")), mean(orders(_race(), "int4/64"))


def _race_truth() -> int:
    nf4, int4 = _harms()
    return next(place for place, below in enumerate((0.5, 0.85, 1.15, float("inf"))) if nf4 / int4 < below)


def _race_says() -> str:
    nf4, int4 = _harms()
    return (
        f"NF4 costs {nf4:.3f} nats per token and symmetric int4 {int4:.3f}, on average over six orders of the columns. "
        "Measured once, they looked alike. Read on."
    )


def _moved() -> float:
    """Share of the codes that differ after a short run was merged and quantised again, in percent."""
    return 100 * mean(run["codes_moved"] for run in after(_trained(), 30))


def _merge_says() -> str:
    runs = after(_trained(), 30)
    change = 100 * mean(run["change"] for run in runs)
    return (
        f"After 30 steps, mean of three seeds: {_moved():.1f} %, though training had changed the weights by "
        f"{change:.1f} % of their size. The loss goes from {mean(run['merged'] for run in runs):.2f} to "
        f"{mean(run['merged_then_nf4'] for run in runs):.2f}."
    )


@cache
def activations_65b(checkpointing: bool) -> float:
    """GiB of activations at the peak: 65B in NF4, LoRA with r = 64 on all matrices, one text of 512 tokens."""
    method = LoRA(r=64, target_modules="all-linear")
    found = training("llama-65b", method, quantize="nf4", batch=1, sequence=512, checkpointing=checkpointing)
    return max(parts.get("activations", 0) for parts in found.parts_at.values()) / GIB


def _activations_says() -> str:
    return (
        f"We predict {activations_65b(False):.0f} GiB, two thirds of what the 4-bit weights take. With checkpointing "
        f"{activations_65b(True):.1f} GiB are left of it."
    )


PREDICTIONS = [
    Prediction(
        "race",
        "On every one of the 92 matrices NF4 has a smaller error than symmetric int4, at the same bits. And the harm "
        "to the tiny model's loss on text that it has never read, on average over several roundings?",
        choices=[
            "NF4 does less than half the harm of int4",
            "NF4 does about a third less harm",
            "the two do the same harm",
            "NF4 does more harm",
        ],
        truth=_race_truth,
        says=_race_says,
    ),
    Prediction(
        "activations",
        "65 billion parameters in NF4, LoRA with r = 64 on all matrices, one text of 512 tokens, no checkpointing. How "
        "much memory do the activations take?",
        choices=["about 0.2 GiB", "about 2 GiB", "about 20 GiB", "about 200 GiB"],
        truth=lambda: min(range(4), key=lambda place: abs(math.log(activations_65b(False) / (0.2, 2, 20, 200)[place]))),
        says=_activations_says,
    ),
    Prediction(
        "requantise",
        "A QLoRA adapter, trained for 30 steps, is merged into its 4-bit base, and the result is quantised again: same "
        "NF4, same blocks. How many of the base's codes are different now?",
        choices=["about 1 %", "about 10 %", "about 40 %"],
        truth=lambda: min(range(3), key=lambda place: abs(math.log(_moved() / (1, 10, 40)[place]))),
        says=_merge_says,
    ),
]
