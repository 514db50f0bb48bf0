"""Bridge B3, from outer product to SVD: predictions and quiz."""

from __future__ import annotations

from peftlab.course.question import Option, Prediction, Question

PREDICTIONS = [
    Prediction(
        "descent",
        "Gradient descent on B and A, 600 steps from a random start, r = 4. Where does its squared error end, compared "
        "with the SVD's first four terms?",
        choices=[
            "clearly lower: it was trained for exactly this matrix",
            "the same, to the digits we print",
            "clearly higher: it is stuck in a poor local minimum",
        ],
        truth=1,
        says="No matrix of rank 4 can be closer than the SVD's, so lower was impossible. And descent is not "
        "trapped: this problem has saddle points, but no local minima other than the best (Baldi and Hornik, 1989).",
    ),
    Prediction(
        "energy",
        "What share of the energy of MiniLM's query matrix do its top 8 of 384 directions hold?",
        choices=["about 2 %, as 8 of 384 suggests", "about 17 %", "about 60 %", "about 95 %"],
        truth=1,
        says="Even in random noise the strongest directions hold more than their share. A trained matrix has more "
        "order than noise, but its energy is spread over more than a hundred directions.",
    ),
    Prediction(
        "average",
        "Two people hold the very same change: one as B and A, the other as −B and −A. You average their B's and "
        "their A's and multiply the two means. What do you get?",
        choices=["the change", "half of it", "a quarter of it", "nothing"],
        truth=3,
        says="The mean of B and −B is zero, and so is the mean of A and −A. Averaging the two products would have "
        "given the change itself.",
    ),
]

QUIZ = [
    Question(
        "sum",
        "You add a change of rank 8 and another of rank 4. What is the rank of the sum?",
        [
            Option("8: the larger one counts", "No: the second brings four tables of its own, unless they coincide."),
            Option(
                "12 at most",
                "Yes: 8 + 4 multiplication tables. It can be less, if directions coincide or cancel.",
                right=True,
            ),
            Option("32", "No: ranks can add up, but they do not multiply."),
            Option(
                "Always exactly 12",
                "No: usually, but not always. If the second repeats four tables of the first, the sum has rank 8 or "
                "less.",
            ),
        ],
    ),
    Question(
        "whole",
        "The top 8 directions of a pretrained W hold little of its energy. A colleague says: so LoRA with r = 8 "
        "cannot work on this layer. What do you answer?",
        [
            Option(
                "Right: choose r so that most of the energy of W is kept",
                "No: LoRA does not cut W. W stays whole and frozen.",
            ),
            Option(
                "That is about W; LoRA puts a low rank on the change that is added to W",
                "Yes: W₀ + B A. Whether a change of rank 8 is enough is another question, and lesson 06 measures it.",
                right=True,
            ),
            Option(
                "Wrong: pretrained weights are of low rank",
                "They are not: you have just seen a real one. It needs more than a hundred directions.",
            ),
        ],
    ),
    Question(
        "v_proj",
        "From bridge B1: SmolLM2's v_proj has a weight of shape (192, 576). How many numbers do B and A have at "
        "r = 16?",
        [
            Option("12,288", "Yes: 16 · (192 + 576).", right=True),
            Option("110,592", "No: that is 192 · 576, the whole matrix."),
            Option("1,769,472", "No: that is 16 times the whole matrix. B and A are thin."),
            Option("256", "No: 16 · 16 would be a matrix between B and A."),
        ],
    ),
]
