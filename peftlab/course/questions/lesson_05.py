"""Lesson 05, selective tuning: the quiz and the predictions. Truths that were measured come from the stored results."""

from __future__ import annotations

from functools import cache
from statistics import mean
from typing import Any

from peftlab.bench.results import Results
from peftlab.course.question import Option, Prediction, Question
from peftlab.show.lora_figures import accuracies
from peftlab.show.selective_figures import gaps

QUIZ = [
    Question(
        "same_rate",
        "Somebody trains a Fisher mask and a random one of equal size, both with the learning rate that is best "
        "for Fisher. Fisher is nine points ahead. What follows?",
        [
            Option(
                "Fisher finds better entries",
                "No: it may, but this does not show it. The random mask was held at a rate that is too low for it.",
            ),
            Option(
                "Nothing yet: the random mask may need another rate",
                "Yes. Entries that the loss hardly feels need larger steps. Search each arm's rate, then compare.",
                right=True,
            ),
            Option(
                "Equal rates are the fair way to compare",
                "No: equal settings are fair only if they suit all arms equally. Equal *search* is fair.",
            ),
        ],
    ),
    Question(
        "step",
        "You train 0.5 % of all entries, scattered over every matrix. What does that save in a training step?",
        [
            Option(
                "Most of the backward pass",
                "No: autograd works out the gradient of each whole matrix, and then picks a few entries out of it.",
            ),
            Option(
                "The optimiser's work and its states",
                "Yes. AdamW keeps two numbers for each *trained* number. Forward and backward pass cost what they did.",
                right=True,
            ),
            Option(
                "Nothing",
                "No: AdamW's states and its step shrink with the number of trained entries.",
            ),
        ],
    ),
    Question(
        "bias",
        "Why does the bias of the keys in attention not learn anything?",
        [
            Option(
                "It adds the same to all scores of a query, and the softmax ignores that",
                "Yes. q·(k + b) is q·k plus q·b, which is the same for every key.",
                right=True,
            ),
            Option(
                "It is frozen by BitFit",
                "No: BitFit trains it like all others. Its gradient is rounding noise.",
            ),
            Option(
                "Llama has no biases",
                "No: true, but MiniLM's keys have one, and it does nothing there either.",
            ),
        ],
    ),
    Question(
        "file",
        "LoRA (lesson 00) trains two matrices beside a weight, r (d_in + d_out) numbers. A sparse mask, stored as "
        "values and places, trains equally many numbers of a matrix. Whose file is smaller?",
        [
            Option("The mask's: most of it is zeros", "No: LoRA stores no zeros either, and the mask stores places."),
            Option("Both are the same", "No: each value of the mask comes with its place, 4 bytes more."),
            Option(
                "LoRA's, by half",
                "Yes. 4 bytes for each number against 8: where its two matrices belong is known.",
                right=True,
            ),
        ],
    ),
]


@cache
def _stored() -> dict[str, Any]:
    return Results.load("selective")


def at(cell: str) -> float:
    return mean(accuracies(_stored(), cell))


def percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def _gap() -> float:
    """Fisher's lead over random at 0.5 %, in points."""
    return 100 * mean(gaps(_stored(), "fisher/0.005", "random/0.005"))


def _way() -> float:
    """How far BitFit gets from the head alone to full fine-tuning."""
    return (at("bitfit") - at("head")) / (at("full") - at("head"))


def _step() -> str:
    cells = Results.load("selective_steps")["cells"]
    passes, whole = cells["forward_backward"], cells["step"]
    return (
        f"Forward and backward pass took {percent(passes['random/0.005'] / passes['full'], 0)} of full fine-tuning's "
        f"time, the whole step with AdamW about {percent(whole['random/0.005'] / whole['full'], 0)}"
    )


def _kept_with_shuffled_labels() -> float:
    masks = (_stored()["cells"][f"masks/{seed}"] for seed in range(5))
    return mean(each["shared_with_fisher"]["fisher_shuffled/0.005"] for each in masks)


PREDICTIONS = [
    Prediction(
        "bet",
        "0.5 % of the numbers train. By how much does Fisher's choice beat a random one, each at its best rate?",
        choices=["by more than 5 points", "by 1 to 5 points", "by less than 1 point, or not at all"],
        truth=lambda: 0 if _gap() > 5 else 1 if _gap() > 1 else 2,
        says=lambda: (
            f"We measured {percent(at('fisher/0.005'))} with Fisher's choice, {percent(at('magnitude/0.005'))} with "
            f"the largest numbers and {percent(at('random/0.005'))} at random, means of five seeds"
        ),
    ),
    Prediction(
        "labels",
        "We shuffle the labels of the 1,024 examples and compute Fisher again. How many of the chosen entries stay?",
        choices=["about a hundredth, as by chance", "about a third", "about nine tenths"],
        truth=lambda: 0 if _kept_with_shuffled_labels() < 0.1 else 1 if _kept_with_shuffled_labels() < 0.6 else 2,
        says=lambda: (
            f"{percent(_kept_with_shuffled_labels(), 0)} of the entries were the same, and they gave "
            f"{percent(at('fisher_shuffled/0.005'))} instead of {percent(at('fisher/0.005'))}"
        ),
    ),
    Prediction(
        "bitfit",
        "The head alone trains, then everything. How far on the way between the two do the biases get?",
        choices=["less than a third", "a third to two thirds", "more than two thirds"],
        truth=lambda: 0 if _way() < 1 / 3 else 1 if _way() < 2 / 3 else 2,
        says=lambda: (
            f"BitFit has {percent(at('bitfit'))}, the head alone {percent(at('head'))}, everything "
            f"{percent(at('full'))}: {percent(_way(), 0)} of the way, with 0.1 % of the numbers"
        ),
    ),
    Prediction(
        "step",
        "One number in two hundred trains. What do forward and backward pass take, compared with training everything?",
        choices=["about a hundredth", "about a half", "about as much"],
        truth=2,
        says=_step,
    ),
]
