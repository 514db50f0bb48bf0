"""Lesson 03, adapters: the quiz and the predictions. Truths come from the stored results."""

from __future__ import annotations

from functools import cache
from statistics import mean
from typing import Any

from peftlab.bench.results import Results
from peftlab.course.question import Option, Prediction, Question
from peftlab.show.adapter_figures import ratio, runs

QUIZ = [
    Question(
        "why",
        "LoRA's change can be merged into the weights, an adapter's with ReLU cannot. Why?",
        [
            Option(
                "An adapter has more numbers than fit into the weight",
                "No: a change of full size fits, whatever it was made from. LoRA's ΔW has full size too.",
            ),
            Option(
                "An adapter has biases, and LoRA has none",
                "No: biases merge well. They go into the bias of the layer in front, as in exercise 3.",
            ),
            Option(
                "The base is frozen while an adapter trains",
                "No: it is frozen while LoRA trains as well. Merging comes afterwards.",
            ),
            Option(
                "What ReLU lets by depends on the input, so no fixed matrix does what the adapter does",
                "Yes. Take ReLU out, and two matrices in a row are one, which merges into a linear layer next to it.",
                right=True,
            ),
        ],
    ),
    Question(
        "same_accuracy",
        "You put something simpler in the place of a trained part of a model. The test accuracy stays what it was. "
        "What have you shown?",
        [
            Option(
                "The two compute the same function",
                "No: here the linear map missed half of what varies in what the adapters add, and the accuracy hardly "
                "moved.",
            ),
            Option(
                "On this test, the difference between the two does not matter",
                "Yes, and no more than that. Another task, or text of another kind, may tell them apart.",
                right=True,
            ),
            Option(
                "The part was of no use",
                "No: leave the adapters out altogether, and the accuracy falls.",
            ),
        ],
    ),
    Question(
        "start",
        "Which start leaves the model exactly as it was, and lets all of the adapter learn?",
        [
            Option(
                "W_down and W_up zero",
                "No: each one's gradient is a product with the other, so both stay zero for ever.",
            ),
            Option(
                "W_down random, W_up zero",
                "Yes: Δh is zero, and W_up has a gradient from the first step on. W_down follows.",
                right=True,
            ),
            Option(
                "Both random, with standard deviation 1",
                "No: the model is wrecked before the first step, as the slider showed.",
            ),
        ],
    ),
    Question(
        "switch_off",
        "Back to lesson 00: its adapter could be switched off, and the old model answered, exactly. Houlsby's adapters "
        "stand in the way of everything. Can they be switched off in the same way?",
        [
            Option(
                "Yes: without them h goes on as it did before, and all pretrained weights are what they were",
                "Yes. That holds for every method that leaves the base alone, as long as nothing is merged.",
                right=True,
            ),
            Option(
                "No: the layers behind them have grown used to what they add",
                "No: those layers are frozen. Only the new head has got used to them, and it is switched off as well.",
            ),
            Option(
                "Only after merging them",
                "No: the other way round. Unmerged they can be left out at any time; merged they are in the weights.",
            ),
        ],
    ),
]


@cache
def _stored(name: str) -> dict[str, Any]:
    return Results.load(name)


def _mean(what: str) -> float:
    """Mean test accuracy, in percent: of the adapters, or with something in their place."""
    found = runs(_stored("adapter_widths"), "houlsby", 16)
    return 100 * mean(run["accuracy"] if what == "adapters" else run["replaced_by"][what] for run in found)


def head_only() -> float:
    """Mean test accuracy of the head alone, in percent; five seeds of lesson 06."""
    cells = _stored("scissors")["cells"]
    return 100 * mean(cells[f"head/{seed}"]["accuracy"] for seed in range(5))


def points_without_f() -> float:
    """How much higher the linear adapters are than those with ReLU, in points; the mean of three seeds."""
    cells = _stored("adapter_widths")["cells"]
    return 100 * mean(cells[f"merge/linear/{s}"]["accuracy"] - cells[f"merge/relu/{s}"]["accuracy"] for s in range(3))


def _nearest(offered: tuple[float, ...], found: float) -> int:
    return min(range(len(offered)), key=lambda place: abs(offered[place] - found))


LEFT = (8, 60, 80, 85)
POINTS = (-10, -3, 0, 3)
EXTRA = (1, 10, 60, 200)


def _extra() -> float:
    return 100 * (ratio(_stored("adapter_latency"), "minilm/1x32", "houlsby") - 1)


PREDICTIONS = [
    Prediction(
        "merged",
        "Twelve trained adapters with ReLU. In the place of each we put the linear map that comes nearest to it, and "
        "merge that. How many test definitions does the model still get right?",
        choices=[
            "about 8 %: it is guessing",
            "about 60 %",
            "about 80 %: like the head alone",
            "about 85 %: most",
        ],
        truth=lambda: _nearest(LEFT, _mean("map")),
        says=lambda: (
            f"Three seeds, 1,200 definitions: {_mean('map'):.1f} %, and {_mean('adapters'):.1f} % with the adapters "
            "themselves. Do not conclude that they are linear. Look first."
        ),
    ),
    Prediction(
        "without_f",
        "The same adapters, trained without a nonlinearity. How does the test accuracy compare with ReLU?",
        choices=["about 10 points lower", "about 3 points lower", "within a point", "about 3 points higher"],
        truth=lambda: _nearest(POINTS, points_without_f()),
        says=lambda: f"We measured {points_without_f():+.1f} points, the mean of three seeds.",
    ),
    Prediction(
        "latency",
        "One text of 32 tokens, MiniLM, one CPU thread. Houlsby's adapters with m = 16 add 1.4 % to the "
        "multiplications of the blocks. How much longer does a forward pass take?",
        choices=[f"about {offered} %" for offered in EXTRA],
        truth=lambda: _nearest(EXTRA, _extra()),
        says=lambda: f"We measured {_extra():.0f} %. The next figure has the other sizes, and the noise.",
    ),
]
