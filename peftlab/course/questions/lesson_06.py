"""Lesson 06, LoRA: the quiz and the predictions. Truths that were measured come from the stored results."""

from __future__ import annotations

from functools import cache
from statistics import mean
from typing import Any

from peftlab.bench.results import Results
from peftlab.course.question import Option, Prediction, Question
from peftlab.show.lora_figures import accuracies

QUIZ = [
    Question(
        "parameters",
        "You attach LoRA with r = 8 to a frozen layer of 1000 inputs and 500 outputs. How many parameters train?",
        [
            Option("4,000,000", "No: that is r times the full matrix. A and B are thin, 8 × 1000 and 500 × 8."),
            Option("8,000", "No: that is A alone. B trains too, with 500 × 8 more."),
            Option("64", "No: r × r would be a matrix between A and B. LoRA has none (AdaLoRA has a diagonal there)."),
            Option("12,000", "Yes: r (d_in + d_out) = 8 · 1500.", right=True),
        ],
    ),
    Question(
        "start_swapped",
        "Someone starts the other way round: A zero, B random. What happens?",
        [
            Option(
                "It never learns",
                "No: that needs both to be zero. Here A's gradient has the factor B, and B is not zero.",
            ),
            Option(
                "It starts from the pretrained model too, and A moves first",
                "Yes: BA is zero again, so the start is the same. Now B's gradient, which has the factor A x, is the "
                "one that is zero in the first step.",
                right=True,
            ),
            Option(
                "The model is disturbed before the first step",
                "No: that needs both to be random. One zero factor is enough to make BA zero.",
            ),
            Option(
                "W₀ must move until A and B can",
                "No: W₀ is frozen all the time. Whatever is learned is learned by A and B.",
            ),
        ],
    ),
    Question(
        "time",
        "Your adapter trains well under one per cent of the parameters, yet a step still takes about two thirds of the "
        "time. Why not far less?",
        [
            Option(
                "Most of the time goes into the frozen model, forward and backward",
                "Yes. Only the gradients of the frozen weights themselves fall away, and the optimiser's work on them.",
                right=True,
            ),
            Option(
                "Something is wrong: it should be some hundred times faster",
                "No: the forward pass is the same, and so is most of the way back through the frozen layers.",
            ),
            Option(
                "The adapter was not attached, so everything trains",
                "No: then the step would take all of the time. `count_parameters` tells you for certain.",
            ),
        ],
    ),
    Question(
        "alpha",
        "You double r and keep the learning rate. What does the original scaling α/r suggest for α?",
        [
            Option(
                "Double it too: α = 2r is the rule",
                "No: it keeps α/r. But in our sweep, the largest learning rate that still works then fell from 1e-2 "
                "to 3e-3.",
            ),
            Option(
                "Halve it, so that the larger adapter does not do too much",
                "No: the division by r is there for that already. You would divide twice.",
            ),
            Option(
                "Leave it: that is what the division by r is for",
                "Yes. In our sweep the same learning rates, up to 1e-2, then fit r = 4 and r = 64.",
                right=True,
            ),
        ],
    ),
    Question(
        "same_product",
        "Back to the idea of a matrix as a product of two thin ones (bridge B3). Two people train the same LoRA with "
        "different seeds. Their A and B do not look alike at all. Have the two runs learned different things?",
        [
            Option(
                "Yes: A and B are what LoRA learns",
                "No: the model only ever sees the product. For any invertible M of shape r × r, B M and M⁻¹ A have "
                "the same product as B and A.",
            ),
            Option(
                "One cannot tell from A and B: compare the products BA",
                "Yes. Very different factors can have equal products, and the product is all that reaches h.",
                right=True,
            ),
            Option(
                "No: A and B always end up the same up to their signs",
                "No: that would be true of singular vectors, which are of length 1, at right angles and sorted. "
                "Nothing forces that on A and B.",
            ),
        ],
    ),
]


@cache
def _stored() -> dict[str, Any]:
    return Results.load("scissors")


def _percent(cell: str) -> float:
    """Mean accuracy of a stored cell over its seeds, in percent."""
    return 100 * mean(accuracies(_stored(), cell))


def _energy_of_top_8() -> list[float]:
    """In percent: every matrix, every seed."""
    return [
        100 * energy["8"]
        for name, cell in _stored()["cells"].items()
        if name.startswith("spectrum/")
        for energy in cell["energy"].values()
    ]


def _nearest(value: float, offered: tuple[float, ...]) -> int:
    """The place of the offered number that is nearest to what was measured."""
    return min(range(len(offered)), key=lambda place: abs(offered[place] - value))


def _energy_says() -> str:
    shares = _energy_of_top_8()
    noise = 100 * _stored()["cells"]["spectrum/0"]["gaussian_noise"]["384x384"]["8"]
    return (
        f"We measured {mean(shares):.0f} % on average, over 36 matrices and five seeds, and from {min(shares):.0f} % "
        f"to {max(shares):.0f} % in single ones. Random noise would give {noise:.0f} %. So there is structure, but the "
        "change is not of low rank."
    )


# Which run ends lowest: (learning rate, α), as the sweep's cells are called, in the order of the choices.
ALPHA_RUNS = (("0.0003", 8), ("0.0003", 128), ("0.01", 8), ("0.01", 128))


def _best_alpha_run() -> int:
    reached = [_percent(f"alpha/64/{alpha}/{rate}") for rate, alpha in ALPHA_RUNS]
    return reached.index(max(reached))


def _alpha_says() -> str:
    left_behind, scaled = _percent("alpha/64/8/0.01"), _percent("alpha/64/128/0.01")
    return (
        f"In the stored sweep, which trains for longer, this run reaches {left_behind:.0f} % and its neighbour with "
        f"α = 128 ends at {scaled:.0f} %, which is guessing: a large α makes large steps, and a large learning rate "
        "makes them larger. With the small learning rate it is the other way round."
    )


QUERY_AND_VALUE = 6 * 2 * 8 * (384 + 384) + (384 * 12 + 12)

PREDICTIONS = [
    Prediction(
        "energy",
        "What share of ΔW's energy do the top 8 of 384 directions hold?",
        choices=["about 10 %", "about 40 %", "about 95 %"],
        truth=lambda: _nearest(mean(_energy_of_top_8()), (10, 40, 95)),
        says=_energy_says,
    ),
    Prediction(
        "cut_to_8",
        "Keep the top 8 of 384 directions in every matrix and cut the rest away. How often does the model still name "
        "the right topic? (Guessing is right once in twelve.)",
        lowest=0,
        highest=100,
        unit="%",
        truth=lambda: _percent("cut/top/8"),
        says=lambda: (
            f"Mean of five seeds. The whole ΔW gives {_percent('cut/top/384'):.0f} %, eight random directions of it "
            f"{_percent('cut/random/8'):.0f} %."
        ),
    ),
    Prediction(
        "parameters",
        "LoRA with r = 8 on the query and value matrices of six blocks, each 384 × 384, and a head for twelve topics. "
        "How many parameters train?",
        choices=["about 8,000", "about 80,000", "about 800,000", "about 8 million"],
        truth=_nearest(QUERY_AND_VALUE, (8e3, 8e4, 8e5, 8e6)),
        says=f"12 matrices · 8 · (384 + 384) = {QUERY_AND_VALUE - 4620:,}, and the head's 384 · 12 + 12 = 4,620: "
        f"{QUERY_AND_VALUE:,} in all.",
    ),
    Prediction(
        "trained_at_1",
        "A finished ΔW cut to its top direction left little. Now *train* with one direction in each matrix from the "
        "start, head included. Test accuracy?",
        lowest=0,
        highest=100,
        unit="%",
        truth=lambda: _percent("lora_all/1"),
        says=lambda: (
            f"Mean of five seeds, against {_percent('cut/top/1'):.0f} % for the cut. Before you credit the training of "
            "better directions, look at what else differs: here the head learned together with them."
        ),
    ),
    Prediction(
        "file_size",
        "The adapter's file holds what was trained, 4 bytes for each number. How large is it?",
        choices=["about 30 kB", "about 300 kB", "about 3 MB", "about 30 MB"],
        truth=_nearest(4 * QUERY_AND_VALUE, (3e4, 3e5, 3e6, 3e7)),
        says=f"4 · {QUERY_AND_VALUE:,} bytes are {4 * QUERY_AND_VALUE / 1e3:.0f} kB, and the names of the tensors add "
        "a little. The whole model takes 90 MB.",
    ),
    Prediction(
        "alpha_and_rate",
        "Two adapters of rank 64, one with α left at 8, one with α = 128. Two learning rates. Which of the four runs "
        "ends with the lowest loss?",
        choices=[f"learning rate {rate}, α = {alpha}" for rate in ("3e-4", "1e-2") for alpha in (8, 128)],
        truth=_best_alpha_run,
        says=_alpha_says,
    ),
]
