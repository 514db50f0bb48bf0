"""Lesson 00, Start here: the five questions of the self check, and the predictions."""

from __future__ import annotations

import math
from functools import cache
from statistics import mean
from typing import Any

from peftlab.bench.results import Results
from peftlab.course.question import Option, Prediction, Question

QUIZ = [
    Question(
        "names",
        "You gave `attach` the names `q_proj` and `v_proj`. What in a transformer block is called that?",
        [
            Option(
                "Two weight matrices of the attention, which make queries and values out of each token's vector",
                "Yes. Queries are compared with keys, and the result says how much of each value is taken.",
                right=True,
            ),
            Option(
                "The two matrices of the feed-forward part",
                "No: in this model these are `gate_proj`, `up_proj` and `down_proj`. They treat every token by itself.",
            ),
            Option(
                "The vectors of the tokens themselves, before and after the block",
                "No: those are activations, computed anew for every text. A name in `target_modules` means a layer "
                "with weights.",
            ),
            Option(
                "Two of the attention heads",
                "No: the heads are slices of these matrices. One name in `target_modules` takes all heads along.",
            ),
        ],
        bridge="B1",
    ),
    Question(
        "surgery",
        "You freeze a model with `model.requires_grad_(False)`. Then you write `model.head = nn.Linear(64, 10)`. What "
        "trains?",
        [
            Option(
                "Nothing: the model is frozen",
                "No: freezing marked the parameters that were there. It is no rule for those that come later.",
            ),
            Option(
                "The new layer, and nothing else",
                "Yes. Its parameters are new, and new parameters require a gradient. PEFT libraries do just that: "
                "freeze first, then put in what is to learn.",
                right=True,
            ),
            Option(
                "Nothing until it is registered with `add_module`",
                "No: assigning a module to an attribute registers it. (In a plain Python list it would be lost.)",
            ),
            Option(
                "The whole model: the new layer switches gradients on again",
                "No: gradients flow back as far as something needs them, but the frozen parameters stay frozen.",
            ),
        ],
        bridge="B2",
    ),
    Question(
        "rank",
        "A is a matrix of shape 8 × 1000, B one of shape 500 × 8. What do you know of the matrix B A?",
        [
            Option(
                "It is of shape 8 × 8",
                "No: in B A the inner sizes meet, 8 with 8, and the outer ones stay. (A B would not even fit.)",
            ),
            Option(
                "It has 500 × 1000 entries, and each can be chosen freely",
                "No: the shape is right. But 12,000 numbers go in, so 500,000 cannot all be free.",
            ),
            Option(
                "It is 500 × 1000, and a sum of at most 8 columns times rows",
                "Yes. Its rank is at most 8: whatever goes in, 8 numbers are all that gets through the middle. This is "
                "what an adapter of 1.8 MB is made of.",
                right=True,
            ),
        ],
        bridge="B3",
    ),
    Question(
        "backward",
        "A frozen layer lies between an adapter and the loss. What does `loss.backward()` do there?",
        [
            Option(
                "It stops: a frozen layer lets no gradient through",
                "No: then an adapter in front of a frozen layer could never learn. Frozen means that the layer's own "
                "weights get no gradient. The gradient of its *input* is still computed and handed on, back to the "
                "adapter.",
            ),
            Option(
                "It goes through to the adapter, and only the frozen weights get no gradient of their own",
                "Yes. That is why a PEFT step costs less than full training, but far from nothing: the way forward and "
                "about half of the work on the way back remain. What falls away are the gradients of the frozen "
                "weights, and what the optimiser Adam keeps for them: two more numbers for every weight.",
                right=True,
            ),
            Option(
                "It computes all gradients, and the optimiser leaves out those of the frozen weights",
                "No: that would be true if you kept them out of the optimiser only. With `requires_grad=False` they "
                "are never computed, and take no memory.",
            ),
        ],
        bridge="B4",
    ),
    Question(
        "validation",
        "You try ten learning rates, one run each. You measure all ten on the test set and report the best. What is "
        "wrong?",
        [
            Option(
                "Nothing: the model was not trained on the test set",
                "No: not trained on it, but chosen by it. The best of ten is partly the best and partly the luckiest, "
                "and on new texts the luck is gone.",
            ),
            Option(
                "Only that the seed should have been fixed",
                "No: with one fixed seed you compare ten single runs, and luck still has a part. Several seeds show "
                "how large that part is.",
            ),
            Option(
                "The test set chose the learning rate, so the number is too good",
                "Yes. Choose on a third set, the *validation* set, then measure the chosen one on the test set, once. "
                "And run it with several seeds: when two settings differ by less than seeds do, you cannot tell them "
                "apart.",
                right=True,
            ),
        ],
        bridge="B5",
    ),
]

# Our reading of the first eight test words in the stored run with seed 0. A judgement, not a measurement.
ACCEPTED = 2
BANDS = ("none or one", "two or three", "four to six", "seven or eight")


@cache
def _cells() -> dict[str, Any]:
    return Results.load("invent_a_word")["cells"]


def _tuned() -> list[dict[str, Any]]:
    return [cell for name, cell in sorted(_cells().items()) if name.startswith("seed/")]


def perplexities() -> tuple[float, list[float]]:
    """Before training, and after it with each seed; 300 test words."""
    return math.exp(_cells()["base"]["loss"]), [math.exp(cell["loss"]) for cell in _tuned()]


def right_word() -> tuple[float, list[float]]:
    """In percent: how often a definition is likelier after its own word than after another one."""
    return 100 * _cells()["base"]["own_word_likelier"], [100 * cell["own_word_likelier"] for cell in _tuned()]


def _band(accepted: int) -> int:
    return next(place for place, most in enumerate((1, 3, 6, 8)) if accepted <= most)


PREDICTIONS = [
    Prediction(
        "before",
        "You ask the untuned model what your invented word means. What will it write?",
        choices=[
            "that it does not know this word",
            "a short definition, as in a dictionary",
            "something fluent and made up, often beside the point",
            "letters and signs without sense",
        ],
        truth=2,
        says="Run the next cell and look. A language model goes on with what is likely, and after 'Definition:' a "
        "confession of ignorance is not.",
    ),
    Prediction(
        "perplexity",
        f"Before training, the model chooses as if among {perplexities()[0]:.0f} tokens (perplexity, on our stored 300 "
        "test words). And after 60 steps?",
        lowest=1,
        highest=round(perplexities()[0]),
        truth=lambda: mean(perplexities()[1]),
        says="Mean of three seeds. So much, after so little: what it learned can hardly have been difficult. Later in "
        "this lesson we find out what it was.",
    ),
    Prediction(
        "file",
        "You trained 460,800 numbers of 4 bytes. The base model has 134.5 million, of 2 bytes in its file. How large "
        "is the file that you send?",
        choices=["about 2 kB", "about 2 MB", "about 30 MB", "about 270 MB: the model is needed as a whole"],
        truth=1,
        says="Only what was trained is saved. Your friend's base model does the rest, and must be the same one.",
    ),
    Prediction(
        "right",
        "Of the definitions that your model writes for the first eight test words, how many would you accept?",
        choices=list(BANDS),
        truth=_band(ACCEPTED),
        says=f"We read those of our stored run and accepted {ACCEPTED}. You may well have marked other ones: this is "
        "a judgement, and your run differs from ours.",
    ),
    Prediction(
        "knowledge",
        "Untuned, the model finds the definition likelier after its own word than after another one in "
        f"{right_word()[0]:.0f} % of 300 cases. After the 60 steps that made it sound like a dictionary?",
        lowest=50,
        highest=100,
        unit="%",
        truth=lambda: mean(right_word()[1]),
        says="Mean of three seeds. Tone cannot do that. Before you conclude that it has learned what words mean, run "
        "the next cell and look at its second line.",
    ),
]
