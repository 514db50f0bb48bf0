"""Bridge B2, module surgery: predictions and quiz."""

from __future__ import annotations

from peftlab.course.question import Option, Prediction, Question

PREDICTIONS = [
    Prediction(
        "zero",
        "The path in `Plus` has 3,072 numbers, and nobody froze them. Why does nothing train, and why has not even "
        "the total grown?",
        choices=[
            "`model.requires_grad_(False)` froze them too",
            "they start at zero, and zeros are not counted",
            "the model does not know of them",
            "parameters are counted only after the first step",
        ],
        truth=2,
        says="Freezing came before the path was made, and it would change the first number only: the total counts "
        "frozen parameters too. The path is in a plain Python list, and a module does not look into lists. The forward "
        "pass finds it all the same, so nothing looks wrong.",
    ),
]

QUIZ = [
    Question(
        "local",
        "You write `layer = model.encoder.layer[0].attention.self.query` and then `layer = Plus(layer)`. "
        "What has changed in the model?",
        [
            Option("Its query is wrapped now", "No: `layer` is a variable of yours. The parent still holds the layer."),
            Option(
                "Nothing",
                "Yes: only your variable points elsewhere. Set the attribute of the parent: `attention.query = …`.",
                right=True,
            ),
            Option(
                "A copy of its query is wrapped",
                "No: neither line copies anything. Plus holds the very layer that the model goes on using.",
            ),
        ],
    ),
    Question(
        "order",
        "The loss falls, but your adapter's weights are the same after training as before. What do you look at first?",
        [
            Option(
                "The learning rate: it must be too small",
                "No: even a tiny learning rate nearly always changes some bits. Exactly equal suggests: never touched.",
            ),
            Option(
                "Whether the optimiser was made after the adapter was put in, and whether the adapter is frozen",
                "Yes: something else trains, such as a head. Count what trains, and what the optimiser holds.",
                right=True,
            ),
            Option(
                "Whether the adapter's rank is large enough",
                "No: a small rank limits where an adapter can go. It does not stop it from moving.",
            ),
        ],
    ),
    Question(
        "dense",
        'From bridge B1: you wrap the places that `["dense"]` hits in MiniLM. Which of these stays unwrapped?',
        [
            Option(
                "encoder.layer.0.attention.output.dense",
                "It is hit: the name ends with dense, after a dot, whatever stands before.",
            ),
            Option("pooler.dense", "It is hit too, although it is outside the blocks."),
            Option(
                "encoder.layer.0.attention.self.value",
                "Yes: an entry matches the end of the name, and this one ends with value.",
                right=True,
            ),
            Option("encoder.layer.0.intermediate.dense", "It is hit: the first matrix of the feed-forward network."),
        ],
    ),
]
