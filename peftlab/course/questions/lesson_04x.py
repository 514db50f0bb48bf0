"""Deep dive 04x, a prefix as a gated parallel adapter: the quiz."""

from __future__ import annotations

from peftlab.course.question import Option, Prediction, Question

QUIZ = [
    Question(
        "gate",
        "You double the length of the text and leave the prefix as it is. What happens to the gate λ at the last "
        "token?",
        [
            Option(
                "It tends to fall: more keys of the text share the same softmax",
                "Yes. The sum over the text's own keys has more terms, the prefix's sum has as many as before.",
                right=True,
            ),
            Option(
                "Nothing: λ was trained",
                "No: keys and values were trained. λ is computed anew for every token, from its query and all keys.",
            ),
            Option(
                "It rises: a longer text has more to ask",
                "No: each query asks for itself. A longer text adds keys that compete with the prefix.",
            ),
        ],
    ),
    Question(
        "width",
        "A parallel adapter squeezes the input to m numbers. What in a prefix has the place of m?",
        [
            Option(
                "d_h, the width of a head",
                "No: d_h is how wide queries, keys and values are. It is the model's, not the prefix's.",
            ),
            Option(
                "n, the number of virtual tokens",
                "Yes: x W₁ gives one score for each of n keys, and W₂ makes n values into an output.",
                right=True,
            ),
            Option(
                "The number of layers",
                "No: each layer has a prefix of its own, as each layer may have an adapter of its own.",
            ),
        ],
    ),
    Question(
        "unlike",
        "LoRA adds BAx to a layer's output: with B = 0 the model is untouched. Which prefix leaves a layer's output "
        "untouched?",
        [
            Option(
                "One whose keys and values are all zero",
                "No: a key of zeros has the score 0, and exp(0) = 1. It takes a share of the attention and gives "
                "nothing for it, so the output shrinks.",
            ),
            Option(
                "One whose values are the mean of the text's values",
                "No: the mean that counts is the attention's own, and that is another one for every query.",
            ),
            Option(
                "None with finite keys, for all inputs: λ is above zero, and what it takes away must be given back "
                "exactly",
                "Yes. The gate is never quite shut. LLaMA-Adapter gives the prompt a softmax of its own and puts a "
                "trained gate in the place of λ: at zero nothing changes.",
                right=True,
            ),
        ],
    ),
]

PREDICTIONS = [
    Prediction(
        "share",
        "20 virtual tokens stand in front of a text of 12 tokens. What share of all attention goes to them, over all "
        "layers and heads of SmolLM2?",
        choices=["about 5 %", "about 20 %", "about two thirds", "nearly all"],
        truth=2,
        says="The table below has it for three prefixes: more than most people expect. But see to whom it goes.",
    ),
]
