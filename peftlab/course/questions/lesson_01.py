"""Lesson 01, the scaling dilemma: the quiz and the predictions."""

from __future__ import annotations

from statistics import median

from peftlab.bench.results import Results
from peftlab.costs import memory
from peftlab.costs.scaling import BESIROGLU, HOFFMANN_UNROUNDED, KAPLAN
from peftlab.course import ladder, wall
from peftlab.course.question import Option, Prediction, Question
from peftlab.show.wall_figures import CHINCHILLA, peak_cells

KNOWN = 5  # rungs that the lesson shows before the line is drawn

QUIZ = [
    Question(
        "first_to_go",
        "A 7B model, LoRA, bf16, 32 GiB at the peak of a step, of which 17 GiB are activations. The card has 24. What "
        "do you try first?",
        [
            Option(
                "A smaller rank",
                "No: adapters, gradients and averages take less than one GiB. What the adapters keep besides, fp32 "
                "copies of their inputs, does not depend on r.",
            ),
            Option(
                "4-bit weights",
                "It helps, by 9 GiB: 23 are left, and with the reserve that is the very edge. It also costs rounding. "
                "Something else gains more, and changes no result.",
            ),
            Option(
                "Gradient checkpointing, or fewer tokens in a step",
                "Yes: the activations are the largest part, and both go for them. Checkpointing pays with time.",
                right=True,
            ),
            Option(
                "An optimiser that keeps nothing",
                "No: it keeps averages for the adapter alone, a fraction of a GiB.",
            ),
        ],
    ),
    Question(
        "bend",
        "Nine models of growing size, all trained once on the same text. The loss falls less and less. Which finding "
        "would speak *against* data as the reason?",
        [
            Option(
                "More of such text, read once, moves the large models down by more than the small ones",
                "No: that is what data as the reason predicts.",
            ),
            Option(
                "The large models bend at the same place with ten times the text",
                "Yes: then it was something else, such as the learning rates, or the time they were given.",
                right=True,
            ),
            Option(
                "The formula with E, A/N^α and B/D^β fits well",
                "No: a good fit of that formula is no evidence against it, and little for it. It has five constants.",
            ),
            Option(
                "Three seeds of one size lie close together",
                "No: seeds say how far luck moves a point, not why the curve has its shape.",
            ),
        ],
    ),
    Question(
        "hours",
        "Full fine-tuning of a model takes 10 hours on one card. By FLOPs alone, how long would LoRA on all its "
        "matrices take?",
        [
            Option("Minutes: less than a hundredth of the numbers train", "No: the others are still multiplied with."),
            Option(
                "About 7 hours",
                "Yes: 4 of 6 FLOPs. The forward pass and the way of the error back remain; the gradients of the frozen "
                "weights fall away. What the clock says is another matter.",
                right=True,
            ),
            Option("About 3 hours", "No: that would be 2 of 6, the forward pass alone."),
            Option("10 hours: the whole model is used", "No: a third of the work, the weights' gradients, is gone."),
        ],
    ),
    Question(
        "switched_off",
        "Back to lesson 00: a LoRA of 1.8 MB made SmolLM2 define invented words. A colleague wants a hundred such "
        "habits. What does each further one need on disk?",
        [
            Option("Another copy of SmolLM2", "No: that is full fine-tuning. The base was not changed."),
            Option("1.8 MB, beside the one base", "Yes. One base, a hundred small files.", right=True),
            Option("Nothing: the habits go into the same file", "No: each habit is a training of its own."),
        ],
    ),
]


def _gib(model: str, method: str, again: bool = False) -> float:
    return wall.training(model, method, again, 2048).gib


def saved_by_lora_on_gpt2() -> float:
    return 1 - _gib("gpt2", "LoRA") / _gib("gpt2", "full")


def speed(method: str, shape: str = "6.7B", kind: str = "plain") -> float:
    """Tokens a second on the H100, median of the rounds."""
    return median(cell["tokens_a_second"] for cell in peak_cells(Results.load("qlora_scale"), shape, method, kind))


def past_the_line() -> float:
    """How much higher the largest rung's loss is than the line through the small ones says, in nats."""
    found = ladder.rungs(Results.load("ladder"))
    a, b = ladder.law([rung.N for rung in found[:KNOWN]], [rung.loss for rung in found[:KNOWN]])
    return found[-1].loss - a * found[-1].N ** -b


def gain(place: int) -> float:
    """How much four passes lower the loss of a rung against one pass, in nats."""
    stored = Results.load("ladder")
    return ladder.rungs(stored)[place].loss - ladder.rungs(stored, passes=4)[place].loss


PREDICTIONS = [
    Prediction(
        "seven",
        "Full fine-tuning of Llama 2 7B in bf16, one text of 512 tokens in a step. How much memory? (1 GiB is "
        "2³⁰ bytes, 7 % more than a GB.)",
        choices=["about 13 GiB", "about 25 GiB", "about 50 GiB", "about 500 GiB"],
        truth=2,
        says=lambda: (
            f"{memory.training('llama-2-7b', 'full', batch=1, device='cpu').gib:.1f} GiB, by the model's config. The "
            "weights are a quarter of it."
        ),
    ),
    Prediction(
        "gpt2",
        "GPT-2, 124 million numbers, steps of 4 × 512 tokens. LoRA, as Hugging Face's peft has it, trains 2 % as many "
        "and freezes the rest. How much memory does that save, against full fine-tuning?",
        choices=["about 5 %", "about half", "about 95 %"],
        truth=0,
        says=lambda: (
            f"{100 * saved_by_lora_on_gpt2():.0f} %: from {_gib('gpt2', 'full'):.1f} to {_gib('gpt2', 'LoRA'):.1f} "
            "GiB. The calculator below shows what remains."
        ),
    ),
    Prediction(
        "line",
        "You have a line through five small models. Where will the largest, thirty times larger than the last of "
        "them, be?",
        choices=["clearly below the line: better", "on it, or nearly", "clearly above it: worse"],
        truth=lambda: 0 if past_the_line() < -0.1 else 2 if past_the_line() > 0.1 else 1,
        says=lambda: f"It lies {abs(past_the_line()):.2f} nats {'above' if past_the_line() > 0 else 'below'} the line.",
    ),
    Prediction(
        "again",
        "Now each model reads the same 11.5 million tokens four times. Who gains more by it?",
        choices=["the smallest model", "all about the same", "the largest model"],
        truth=lambda: 0 if gain(0) > gain(-1) + 0.1 else 2 if gain(-1) > gain(0) + 0.1 else 1,
        says=lambda: f"The smallest gains {gain(0):.2f} nats, the largest {gain(-1):.2f}.",
    ),
    Prediction(
        "advice",
        "The budget of Chinchilla, 70 billion parameters on 1.4 trillion tokens. How large a model would the first "
        "published law, two years older, have made of it?",
        choices=["about 7 billion", "about 70 billion", "about 500 billion"],
        truth=2,
        says=lambda: (
            f"{KAPLAN.optimum(CHINCHILLA).N / 1e9:.0f} billion, by the law of 2020; "
            f"{HOFFMANN_UNROUNDED.optimum(CHINCHILLA).N / 1e9:.0f} by that of 2022, and "
            f"{BESIROGLU.optimum(CHINCHILLA).N / 1e9:.0f} by its refit of 2024."
        ),
    ),
    Prediction(
        "speed",
        "LoRA does 4 FLOPs where full fine-tuning does 6. On our H100, for 6.7 billion parameters, how fast was a LoRA "
        "step of Hugging Face's peft?",
        choices=["ten times as fast as a full one", "1.5 times as fast, as counted", "slower than a full one"],
        truth=lambda: 2 if speed("lora") < speed("full") else 1,
        says=lambda: (
            f"{speed('lora'):,.0f} tokens a second, {speed('lora') / speed('full'):.0%} of full fine-tuning's "
            f"{speed('full'):,.0f}. Median of three rounds."
        ),
    ),
]
