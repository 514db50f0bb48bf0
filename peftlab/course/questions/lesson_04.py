"""Lesson 04, soft prompts: the quiz and the predictions. Truths come from the stored results."""

from __future__ import annotations

from functools import cache
from typing import Any

from peftlab.bench.results import Results
from peftlab.course.question import Option, Prediction, Question
from peftlab.show.prompt_figures import chosen

QUIZ = [
    Question(
        "numbers",
        "A model has 24 layers of width 1024, with 16 query heads and 16 key-value heads of 64. You train 10 virtual "
        "tokens. How many numbers has the prefix for each number of the prompt?",
        [
            Option(
                "1: both hold ten vectors",
                "No: a prompt's ten vectors enter once. A prefix has ten keys and ten values in every layer.",
            ),
            Option(
                "24: one vector for each layer",
                "No: in each layer there is a key and a value for each virtual token, so twice that.",
            ),
            Option(
                "48: a key and a value in each of 24 layers",
                "Right: 16 · 64 = 1024, so here each of them is as wide as the model. In SmolLM2 heads share keys and "
                "values, and the factor is 20, not 60.",
                right=True,
            ),
        ],
    ),
    Question(
        "slow",
        "A colleague writes: *prompt tuning does not learn on our model. We start it as `peft` does by default and use "
        "the learning rate of our LoRA, 0.0002, for 300 steps.* What do you ask for first?",
        [
            Option(
                "A much larger rate: the entries can hardly move from where they started",
                "Yes. With Adam an entry moves by about the rate in a step, so by some 0.06 in all, and it started at "
                "random with a size around 1.",
                right=True,
            ),
            Option(
                "More virtual tokens: twenty are too few to hold a task",
                "No: a hundred vectors that cannot move are no better than twenty. Even one vector that moves did "
                "better in this lesson than 32 typed examples.",
            ),
            Option(
                "A larger model: prompt tuning needs billions of parameters",
                "No, not first. The gap to full training closes with size in Lester et al. (2021), but a rate "
                "that is too small must be ruled out first.",
            ),
        ],
    ),
    Question(
        "positions",
        "You load a captured prompt of 67 tokens as keys and values, and let the question's positions start at 0. The "
        "answers are worse than with no prompt. Why?",
        [
            Option(
                "The keys of the prompt were turned to positions 0 to 66, so the question stands on top of them",
                "Yes. Position is in the angle between query and key. Where two tokens have the same position, the "
                "angles say that they stand in the same place.",
                right=True,
            ),
            Option(
                "Any position but exactly 67 is one the prompt was not made for",
                "No: we moved the question far behind the prompt, and little changed. To collide is what hurts.",
            ),
            Option(
                "The values are wrong: they depend on the position as well",
                "No: only queries and keys are turned. Values carry no position of their own.",
            ),
        ],
    ),
    Question(
        "merge",
        "LoRA changes weights, so its change can be added into them, *merged*, and its cost at inference is gone "
        "(lesson 06). Why can a prompt not be merged?",
        [
            Option(
                "Because it was trained with another loss",
                "No: both were trained with the same loss on the same words.",
            ),
            Option(
                "Because it is an input, and no sum with any weight",
                "Yes. LoRA changes W, so W + ΔW is one matrix. A prompt takes positions, and every layer must attend "
                "to them. What can be done once and kept is its keys and values: a prefix.",
                right=True,
            ),
            Option(
                "It can, `merge` only lacks the code",
                "No: no weight matrix of the model, whatever its numbers, makes attention see twenty more positions.",
            ),
        ],
    ),
]


@cache
def _stored(name: str) -> dict[str, Any]:
    return Results.load(name)


def _vector() -> float:
    return chosen(_stored("soft_prompts"), "prompt/text/1").test


OFFERED = (4.9, 4.2, 3.9, 3.2, 2.8)


def extra(batch: int, n: int, work: str = "read") -> float:
    """How much longer the H100 takes with n virtual tokens in front, in percent."""
    found = _stored("soft_prompt_latency_gpu")["cells"][f"cuda/{work}/{batch}"]
    return 100 * (found[f"prompt/{n}"] / found["base"] - 1)


LATENCY_OFFERED = (0, 60, 300)  # nothing; by positions, 52 for 32; worse


def _latency_truth() -> int:
    return min(range(len(LATENCY_OFFERED)), key=lambda place: abs(LATENCY_OFFERED[place] - extra(1, 20)))


PREDICTIONS = [
    Prediction(
        "from_zero",
        "The question's positions start at 0 instead of 67. The loss was 4.7 with no prompt, and is 3.9 from 67. And "
        "from 0?",
        choices=[
            "about 3.9: what counts is the order inside the question",
            "about 4.3: half of the help is lost",
            "about 4.7: as with no prompt",
            "about 5.6: worse than with no prompt",
        ],
        truth=3,
        says="The next cells measure it. The keys are there, and they stand where the question stands.",
    ),
    Prediction(
        "one_vector",
        "Without a prompt the loss is 4.9, with one typed example 4.2, with 32 of them 3.9. Now train *one* vector in "
        "front of the question: 576 numbers. Its loss?",
        choices=[
            f"about {OFFERED[0]}: one vector cannot hold a task",
            f"about {OFFERED[1]}: as one example",
            f"about {OFFERED[2]}: as 32 examples",
            f"about {OFFERED[3]}: far below 32 examples",
            f"about {OFFERED[4]}: as LoRA on the same words",
        ],
        truth=lambda: min(range(len(OFFERED)), key=lambda place: abs(OFFERED[place] - _vector())),
        says=lambda: f"{_vector():.2f} on test words, one run. A vector between the words can say what no word says.",
    ),
    Prediction(
        "latency",
        "An H100 reads one row of 32 tokens. Now 20 virtual tokens stand in front: 52 positions instead of 32. How "
        "much longer does it take?",
        choices=["not measurably longer", "about 60 % longer, as the positions", "several times as long"],
        truth=_latency_truth,
        says=lambda: (
            f"We measured {extra(1, 20):+.1f} %. At this size the card waits for its instructions, not for its "
            "arithmetic. On a CPU it is another story: see below."
        ),
    ),
]
