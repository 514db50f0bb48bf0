"""Deep dive 05x, learning the mask: the quiz and the prediction."""

from __future__ import annotations

from peftlab.course.question import Option, Prediction, Question
from peftlab.course.questions.lesson_05 import at, percent

QUIZ = [
    Question(
        "stretch",
        "Why is s stretched to the range from L = -1.5 to R = 1.5 before it is cut?",
        [
            Option(
                "So that z can be exactly 0 and exactly 1, each with a chance above zero",
                "Yes. Everything that lands below 0 or above 1 is cut to exactly that, and between them is a slope.",
                right=True,
            ),
            Option(
                "So that changes can have either sign",
                "No: the sign is w's. The gate only says how much of w is used.",
            ),
            Option(
                "So that the gradient never vanishes",
                "No: where z is cut its gradient *is* zero. It comes back when another draw lands between 0 and 1, and "
                "from the price.",
            ),
        ],
    ),
    Question(
        "memory",
        "Diff pruning ends with 0.5 % of the numbers changed. How many numbers does AdamW train in its first phase?",
        [
            Option("0.5 % of N", "No: that is what is left at the end. Which ones is not known before."),
            Option("N, as in full fine-tuning", "No: there is a gate beside every change."),
            Option(
                "2 N: a change and a gate for each",
                "Yes, and AdamW keeps two more numbers for each of them. It needs more memory than full fine-tuning.",
                right=True,
            ),
        ],
    ),
    Question(
        "movement",
        "LT-SFT's first phase was stopped after very few steps of Adam, on small batches. What is its mask worth?",
        [
            Option(
                "Less than it could be: a tiny gradient moves an entry as far as a large one, and batches are noisy",
                "Yes. Adam divides a gradient by its own recent size, so at first the order hangs on little.",
                right=True,
            ),
            Option(
                "As much as a mask by Fisher information: both come from gradients",
                "No: Fisher keeps the size of the gradients. Adam takes it out.",
            ),
            Option(
                "More than a later one: the first steps are the largest",
                "No: with Adam the first steps are all of the size of the learning rate, wherever they lead.",
            ),
        ],
    ),
    Question(
        "file",
        "From lesson 05: a mask with 0.5 % of N entries, stored as values and places. How large is the file, if the "
        "whole model in float32 takes 90 MB?",
        [
            Option("0.45 MB", "No: those are the values alone. Each has a place, in 4 bytes more."),
            Option("0.9 MB", "Yes: 1 % of 90 MB, 8 bytes for each entry instead of 4.", right=True),
            Option("90 MB: the zeros are stored too", "No: only the chosen entries are."),
        ],
    ),
]

PREDICTIONS = [
    Prediction(
        "movement",
        "LT-SFT takes the four entries that moved most. Adam, learning rate 0.02, batches of eight: from when on are "
        "these nearly always the right four?",
        choices=["from the first step on", "after about 5 steps", "after about 50 steps"],
        truth=2,
        says="After one step the list is chance: all 40 have moved by exactly one learning rate. After five about half "
        "of it is right, after fifty nearly all",
    ),
    Prediction(
        "real",
        "0.5 % of MiniLM's numbers. LT-SFT takes 90 steps to find its mask and 90 to train it. How far is it ahead of "
        "a random mask that trains for 180 steps?",
        choices=["by more than 2 points", "by about 1 point", "level, as far as five seeds can tell"],
        truth=lambda: 0 if _lead() > 2 else 1 if _lead() > 0.5 else 2,
        says=lambda: (
            f"LT-SFT has {percent(at('moved/0.005'))}, the random mask {percent(at('long/random/0.005'))}; after 90 "
            f"steps the random mask has {percent(at('random/0.005'))}. Means of five seeds"
        ),
    ),
]


def _lead() -> float:
    """LT-SFT's lead over a random mask with as many steps, in points."""
    return 100 * (at("moved/0.005") - at("long/random/0.005"))
