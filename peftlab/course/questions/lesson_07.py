"""Lesson 07, LoRA at work: the quiz and the predictions. Truths come from the stored results."""

from __future__ import annotations

from functools import cache
from typing import Any

from peftlab.bench.results import Results
from peftlab.course.question import Option, Prediction, Question
from peftlab.show.work_figures import ratio

QUIZ = [
    Question(
        "mixed_batch",
        "Thirty requests arrive, ten for each of three adapters. What does a mixed batch save, compared with three "
        "batches, one after the other?",
        [
            Option(
                "The adapters' products BAx: they are computed once",
                "No: these are what differs. Every row needs those of its own adapter.",
            ),
            Option(
                "Passes over the frozen weights: W₀x is the same formula for all thirty rows",
                "Yes. One product with a large matrix serves all rows, and W₀ is read from memory once. (Our own "
                "library does not use this, peft does.)",
                right=True,
            ),
            Option(
                "Memory: three separate batches need three copies of the base",
                "No: with adapters attached, one base is enough either way. What is saved is time.",
            ),
        ],
    ),
    Question(
        "unmerge",
        "Your service changes between three adapters in a 16-bit model by adding and subtracting their ΔW, thousands "
        "of times a day. What do you have in the evening?",
        [
            Option(
                "The model of the morning: what was added was also subtracted",
                "No: every sum is rounded, and subtracting does not undo that. Each swap starts from what the last one "
                "left, until rounding reaches a state that repeats.",
            ),
            Option(
                "A model that has drifted a little, by an amount nobody measured",
                "Yes. Keep the original weights and put them back, or keep the adapter unmerged.",
                right=True,
            ),
            Option(
                "An error, because 16-bit weights cannot be merged",
                "No: it works without a word, so you must measure what it does. In our test the answers hardly "
                "changed.",
            ),
        ],
    ),
    Question(
        "cross_terms",
        'You add two adapters with `combination_type="linear"` and weights of 1. The new ΔW has parts that are in '
        "neither adapter's ΔW. Which?",
        [
            Option(
                "B₁A₂ and B₂A₁: one adapter's reading joined to the other's writing",
                "Yes. (B₁ + B₂)(A₁ + A₂) has four products, and only two of them were trained.",
                right=True,
            ),
            Option(
                "Rounding errors: the sums are not exact",
                "No: the extra terms are there in exact arithmetic too. They can be as large as what was trained.",
            ),
            Option(
                "What is above 1: the weights must sum to 1",
                "No: smaller weights make every term smaller, the two unwanted ones too. They do not go away.",
            ),
        ],
    ),
    Question(
        "extract",
        "Back to the scissors of lesson 06. Somebody gives you the base, and the same model with a LoRA of rank 8 "
        "merged in, in 32 bits, but not the adapter. Can you get it back?",
        [
            Option(
                "No: once merged, it is lost in the weights",
                "No: the difference of the two models is the whole ΔW, and the base is at hand.",
            ),
            Option(
                "Yes, exactly the A and B that were trained",
                "No: the product BA comes back, but many pairs of factors have that product.",
            ),
            Option(
                "Yes, up to rounding: subtract, then take the top 8 directions of every difference",
                "Yes. Every difference has rank 8, so the cut to 8 directions loses nothing but rounding errors.",
                right=True,
            ),
        ],
    ),
]


@cache
def _stored(name: str) -> dict[str, Any]:
    return Results.load(name)


def _extra(targets: str, work: str, batch: int) -> float:
    """How much longer the unmerged model takes than the merged one on the GPU, in percent."""
    return 100 * (ratio(_stored("lora_latency_gpu"), "cuda", targets, work, batch, "unmerged") - 1)


LATENCY_OFFERED = (1, 10, 50, 200)


def _latency_truth() -> int:
    found = _extra("qv", "read", 1)
    return min(range(len(LATENCY_OFFERED)), key=lambda place: abs(LATENCY_OFFERED[place] - found))


def _latency_says() -> str:
    return (
        f"We measured {_extra('qv', 'read', 1):.0f} %, on one H100. Counted in multiplications, it would be less than "
        "one part in a hundred. The next figure shows more, and what a CPU does."
    )


def _way_back(dtype: str, what: str) -> float:
    return 100 * _stored("adapters")["cells"]["way_back"][f"torch.{dtype}"][what]


def kept(task: str, pair: str = "define+topic") -> float:
    """How far the half-and-half sum of a pair went from the base's loss to the own adapter's, in percent."""
    cells = _stored("adapters")["cells"]
    names = (f"base/{task}", f"combine/cat/{pair}/0.5/{task}", f"{task}/{task}")
    base, combined, own = (cells[name]["loss"] for name in names)
    return 100 * (base - combined) / (base - own)


def _combination_truth() -> int:
    worst = min(("define", "topic"), key=kept)
    return 0 if kept(worst) > 90 else (1 if worst == "define" else 2)


PREDICTIONS = [
    Prediction(
        "latency",
        "A forward pass over one row of 32 tokens on a data-centre GPU. The base is in bfloat16, and a LoRA of rank 8, "
        "in 32 bits, is unmerged on query and value. How much longer does it take than merged?",
        choices=[f"about {offered} % longer" for offered in LATENCY_OFFERED],
        truth=_latency_truth,
        says=_latency_says,
    ),
    Prediction(
        "way_back",
        "Add ΔW to the weights of a bfloat16 model and subtract it again, as `peft` does. What share of the weights is "
        "back where it was, bit for bit?",
        lowest=0,
        highest=100,
        unit="%",
        truth=lambda: _way_back("bfloat16", "back"),
        says=lambda: (
            f"Over 60 matrices and three adapters. In 32 bits it is {_way_back('float32', 'back'):.0f} %: "
            "better, and still not all. Rounding a sum is not undone by subtracting."
        ),
    ),
    Prediction(
        "combination",
        "Half of `define` plus half of `topic`, as an exact sum. How good is it at the two jobs?",
        choices=[
            "nearly as good as each adapter alone",
            "it loses most in defining words",
            "it loses most in naming topics",
        ],
        truth=_combination_truth,
        says=lambda: (
            f"Of the way from the base's loss to the own adapter's, the sum goes {kept('define'):.0f} % in defining "
            f"and {kept('topic'):.0f} % in naming topics. Equal weights do not mean equal influence. The two ΔW differ "
            "in size, and we suspect that it also matters where they write."
        ),
    ),
]
