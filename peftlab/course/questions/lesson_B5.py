"""Bridge B5, validation, seeds, intervals: predictions and quiz."""

from __future__ import annotations

from peftlab.course.question import Option, Prediction, Question

PREDICTIONS = [
    Prediction(
        "upsets",
        "Full fine-tuning is ahead of LoRA by half a point on the mean of five seeds. You draw one run of each method: "
        "25 possible pairs. In how many of them is LoRA ahead?",
        choices=["only the one that you saw", "about 5", "about 12, a coin toss", "about 20"],
        truth=1,
        says="We stored five runs of each, and in 5 of the 25 pairs LoRA is ahead: among these runs, one pair in five "
        "says the opposite of the means. (All five come from one weak run of full fine-tuning: with so few seeds the "
        "5 is itself uncertain.)",
    ),
    Prediction(
        "winner",
        "200 classifiers differ in nothing but their random examples. You keep the one that is best on 100 rows. How "
        "much better does it look there than on rows it has never seen?",
        choices=["not at all", "about half a point", "about 5 points", "about 20 points"],
        truth=2,
        says="The more you try, the luckier the luckiest. Nearly all of it is a gift of the 100 rows, and other rows "
        "do not give it.",
    ),
]

QUIZ = [
    Question(
        "two_points",
        "Your model gets 90 of 100 test rows right. A colleague's gets 92 of 100 other rows of the same kind. What do "
        "you conclude?",
        [
            Option(
                "Hers is better: 92 is more than 90",
                "It is the higher number. But each moves by about 3 points from one hundred rows to the next.",
            ),
            Option(
                "Nothing yet: each number has a standard error of about 3 points",
                "Yes: √(0.9 · 0.1 / 100) is 0.03. Test both on the same rows, and on more of them.",
                right=True,
            ),
            Option(
                "They are equally good",
                "Not shown either. A wide interval holds zero, and it holds a difference of 5 points as well.",
            ),
        ],
    ),
    Question(
        "not_covered",
        "You train with five seeds, test all five on the same 1,200 rows, and report the mean with its spread over "
        "seeds. Which luck does the spread leave out?",
        [
            Option("The start of the head", "No: that changes with the seed, so the spread shows it."),
            Option("The order of the training data", "No: the seed fixes that order too, so the spread shows it."),
            Option(
                "None, five seeds are enough",
                "No: seeds average the seed's luck away. The rows stay the same.",
            ),
            Option(
                "Which 1,200 rows they were",
                "Yes: all five runs share them. Only other rows, or an interval over rows, tell.",
                right=True,
            ),
        ],
    ),
    Question(
        "forty",
        "You try 40 learning rates, look at the test accuracy of each, and report the best with its interval. What is "
        "wrong?",
        [
            Option(
                "The number is probably too high, and the interval does not know that you chose",
                "Yes: the interval is made for rows that had no part in the choice. Choose on validation.",
                right=True,
            ),
            Option("The interval is too wide", "Its width is fine. It sits in the wrong place, probably too high."),
            Option(
                "Nothing, if the test set has 1,200 rows",
                "More rows make the illusion smaller, and it does not vanish: move the slider of the last section.",
            ),
        ],
    ),
    Question(
        "average",
        "Five seeds of LoRA leave five pairs B and A. (B A is what LoRA adds to a weight; other pairs give the same "
        "product: bridge B3.) What may you average?",
        [
            Option(
                "The five B's, and the five A's",
                "No: B and A are not unique. Two runs with the same product can cancel each other.",
            ),
            Option(
                "Nothing: keep the best seed",
                "That is choosing, and a seed that is chosen on the test rows is only a lucky one.",
            ),
            Option(
                "The five accuracies, with their spread beside the mean",
                "Yes. The products B A can be averaged too, but that makes a new model, which must be tested.",
                right=True,
            ),
        ],
    ),
]
