"""Bridge B1, a transformer block and its names: predictions and quiz."""

from __future__ import annotations

from peftlab.course.question import Option, Prediction, Question

PREDICTIONS = [
    Prediction(
        "most",
        "Which part of MiniLM holds the most of its 22,713,216 parameters?",
        choices=[
            "the attention: 4 matrices in each of 6 blocks",
            "the feed-forward networks: 2 larger matrices in each of 6 blocks",
            "the word embeddings: one matrix before the first block",
            "biases and LayerNorms, because they are everywhere",
        ],
        truth=2,
        says="30,522 tokens × 384 numbers = 11,720,448: more than half of the model, and no usual target_modules "
        "touches it. The feed-forward networks come next, with twice the attention's. In larger models the blocks take "
        "the larger share: the embedding grows with d, a block with d².",
    ),
    Prediction(
        "dense",
        'You write `target_modules=["dense"]`. How many modules of MiniLM does that hit?',
        choices=["6: one in each block", "12: the two of each feed-forward network", "18", "19"],
        truth=3,
        says="Three names in each block end with `dense`: attention.output.dense, intermediate.dense and output.dense. "
        "And then there is the pooler, pooler.dense, outside all blocks: 6 · 3 + 1 = 19.",
    ),
]

QUIZ = [
    Question(
        "shape",
        "`print(model)` shows `(up_proj): Linear(in_features=576, out_features=1536)`. "
        "What is the shape of its `weight`?",
        [
            Option("(576, 1536)", "No: that is the order of the printout. The weight is stored outputs first."),
            Option("(1536, 576)", "Yes: (d_out, d_in). One row for each output.", right=True),
            Option("(1536,)", "No: that would be the shape of its bias, and SmolLM2 has no biases."),
            Option(
                "It depends on the length of the text",
                "No: the same matrix is used for every token. Only x grows with the text.",
            ),
        ],
    ),
    Question(
        "grouped",
        "In SmolLM2, LoRA with r = 8 trains fewer numbers beside `v_proj` than beside `q_proj`. Why?",
        [
            Option(
                "peft gives v_proj a smaller rank",
                "No: r is 8 for both. peft changes it only where rank_pattern says so.",
            ),
            Option(
                "v_proj has 192 outputs and q_proj has 576: three heads instead of nine",
                "Yes: r (d_in + d_out) is 8 · (576 + 192) = 6,144 against 8 · (576 + 576) = 9,216.",
                right=True,
            ),
            Option(
                "The values of a head are shorter than its queries",
                "No: every head here is 64 wide. There are fewer of them: three heads of queries share one of values.",
            ),
        ],
    ),
    Question(
        "targets",
        "You want only the second matrix of MiniLM's feed-forward networks and write "
        '`target_modules=["output.dense"]`. What do you get?',
        [
            Option("What you want", "No: attention.output.dense ends with output.dense as well."),
            Option(
                "An error, because the name is ambiguous",
                "No: every match is taken, without an error or a warning. That is the trap.",
            ),
            Option(
                "Two matrices in each block, one of them the attention's",
                "Yes: 12 modules. A regular expression for the whole name, as a string, can tell them apart.",
                right=True,
            ),
            Option(
                "Every module with dense in its name",
                "No: the whole entry must stand at the end of the name, so intermediate.dense is left out.",
            ),
        ],
    ),
]
