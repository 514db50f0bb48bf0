"""Lesson 00, Start here: one small exercise, to see how exercises work."""

from __future__ import annotations

from peftlab.course.exercise import Exercise, Mutant

# ---- the prompt ---------------------------------------------------------------------------------------------------


def prompt(word: str) -> str:
    return f"Word: {word}\nDefinition:"


def _cases() -> list[tuple]:
    return [("tired",), ("ice cream",), ("Zorgle",)]


EXERCISES = [
    Exercise(
        key="00.prompt",
        title="prompt",
        minutes=2,
        solution=prompt,
        hints=[
            'An f-string puts a value into a text: f"Word: {word}".',
            "A new line inside a string is written \\n. Nothing stands after the last colon.",
        ],
        cases=_cases,
        mutants=[
            Mutant(
                lambda word: f"Word: {word}\nDefinition: ",
                "One space too many, at the end. It looks harmless. But this model's tokens carry the space before a "
                "word with them (' lacking' is one token), so a prompt that ends in a space leads to tokens that the "
                "model has seldom seen there. Many a bad result comes from this.",
            ),
            Mutant(
                lambda word: f"Word: {word} Definition:",
                "The two parts stand on one line here; \\n between them begins a new one.",
            ),
            Mutant(
                lambda word: f"Word: {word}\\nDefinition:",
                "Here \\n is a backslash and an n, not a new line. Write one backslash, and no r before the quotes.",
            ),
            Mutant(
                lambda word: f"\nWord: {word}\nDefinition:",
                "There is a new line before 'Word:'. With triple quotes, begin right after them.",
            ),
            Mutant(
                lambda word: f"Word: {word}\n    Definition:",
                "The second line begins with spaces. Inside triple quotes, the indentation belongs to the text; with "
                "\\n in a string on one line it does not arise.",
            ),
            Mutant(
                lambda word: f"Word: {word}\nDefinition:\n",
                "There is a new line after 'Definition:'. The model is to go on in the same line.",
            ),
            Mutant(
                lambda word: f"Word: {word}\nDefinition",
                "The colon after 'Definition' is missing.",
            ),
            Mutant(
                lambda word: f"Word:{word}\nDefinition:",
                "A space is missing between 'Word:' and the word.",
            ),
            Mutant(
                lambda word: "Word: {word}\nDefinition:",
                "This asks for the word '{word}' itself: the f before the quotes is missing.",
            ),
            Mutant(
                lambda word: "Word: word\nDefinition:",
                "This asks for the word 'word' every time. In an f-string, {word} stands for the argument.",
            ),
            Mutant(
                lambda word: f"Word: {word.lower()}\nDefinition:",
                "Leave the word as it is typed: capitals matter to the model.",
            ),
        ],
    )
]
