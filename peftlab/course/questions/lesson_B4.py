"""Bridge B4, what backward computes and Adam stores: predictions and quiz."""

from __future__ import annotations

from peftlab.course.question import Option, Prediction, Question

PREDICTIONS = [
    Prediction(
        "memory",
        "LoRA freezes 99 % of this model's numbers. By how much does the memory of a training step fall?",
        choices=["by 99 %", "by about 90 %", "by about half", "by less than 10 %"],
        truth=2,
        says="Gradients and Adam's memory fall with the number of trained parameters. The weights stay, and what the "
        "forward pass leaves behind falls by a third only. Together these two are about two thirds of the whole; with "
        "more tokens they are more.",
    ),
    Prediction(
        "flops",
        "How much of the computing of a full training step, forward and backward, does a LoRA step on query and "
        "value need?",
        choices=["about 1 %", "about a third", "about two thirds", "about 95 %"],
        truth=2,
        says="The forward pass stays, and of the two products of the backward pass one. Two of three remain.",
    ),
]

QUIZ = [
    Question(
        "path",
        "You train LoRA on one matrix in block 3 of 8, and nothing else. What does the backward pass compute in the "
        "frozen matrices of block 5?",
        [
            Option("Nothing: they are frozen", "No: then the gradient would never arrive in block 3."),
            Option("g xᵀ only, the gradient of W", "No: that is the product that a frozen layer leaves out."),
            Option(
                "Wᵀ g only, the gradient of the input",
                "Yes: it hands the gradient down and needs W alone. The blocks below block 3 compute nothing.",
                right=True,
            ),
            Option("Both, and the first is thrown away", "No: autograd computes what is needed, no more."),
        ],
    ),
    Question(
        "ends",
        "You move the same LoRA from all blocks to the top two of 30. What else changes, beside fewer trained numbers?",
        [
            Option(
                "The 28 blocks below keep no activations and have no backward pass",
                "Yes: nothing below the lowest trained parameter is in the graph. What it costs in accuracy is "
                "another question.",
                right=True,
            ),
            Option(
                "Nothing: the gradient goes down to the embedding all the same",
                "No: it stops at the lowest parameter that trains.",
            ),
            Option(
                "The 28 blocks below need no forward pass either",
                "No: the top two still need an input, and the blocks below compute it.",
            ),
        ],
    ),
    Question(
        "bytes",
        "Mixed precision, AdamW. You freeze 7 billion parameters, kept in 16 bits, and train 40 million at 16 bytes "
        "each. What do weights, gradients and Adam's memory take together?",
        [
            Option("112 GB", "No: that is 16 bytes for all 7 billion, full fine-tuning."),
            Option(
                "about 14.6 GB",
                "Yes: 14 GB for the frozen weights, 0.64 GB for all that is trained. Activations come on top.",
                right=True,
            ),
            Option("about 0.6 GB", "No: that is the trained part. The frozen weights must be there to compute with."),
            Option("about 28 GB", "No: a frozen weight has no gradient. Its 2 bytes are all it takes."),
        ],
    ),
    Question(
        "lesson_06",
        "Lesson 06 measured: one LoRA step on query and value took 68 % of the time of a full one (on one CPU thread). "
        "A colleague wants it much faster, with a smaller r. What do you answer?",
        [
            Option(
                "Right: half the rank, half the time",
                "No: halving r halves only the work inside A and B. What you mostly wait for is the frozen model.",
            ),
            Option(
                "It will get near 1 % with r = 1",
                "No: that is the share of the numbers that train, not of the computing.",
            ),
            Option(
                "Hardly: forward and Wᵀ g of the frozen model remain, whatever r is",
                "Yes. (How many matrices get an A and B does matter: on all 36 it took 89 %.) Fewer tokens, a smaller "
                "model or fewer blocks on the path would help.",
                right=True,
            ),
            Option(
                "Freeze more layers, then it gets faster",
                "No: they are all frozen already. What counts is how far down the lowest trained one lies.",
            ),
        ],
    ),
]
