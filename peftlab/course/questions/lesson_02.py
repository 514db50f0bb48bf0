"""Lesson 02, the landscape: the quiz and the predictions."""

from __future__ import annotations

from peftlab.course.question import Option, Prediction, Question

QUIZ = [
    Question(
        "two_files",
        "Two checkpoints of MiniLM have the same 101 tensors. 100 are bit-identical. In the word embeddings a few rows "
        "differ, in all their entries. What is the likeliest story?",
        [
            Option(
                "LoRA on query and value was merged",
                "No: then the query and value matrices of every block differ, in nearly all entries.",
            ),
            Option(
                "Somebody trained the vectors of a few words and froze the rest",
                "Yes: selective training of chosen rows. Full fine-tuning also leaves most rows alone, but moves the "
                "other 100 tensors.",
                right=True,
            ),
            Option(
                "Full fine-tuning on a few short texts",
                "No: few texts do touch few rows of that table. But one step of full fine-tuning moves all the other "
                "tensors too.",
            ),
            Option(
                "Prompt tuning with a few virtual tokens",
                "No: its vectors stand beside the word embeddings, in a tensor of their own. All 101 stay as they are.",
            ),
        ],
    ),
    Question(
        "writable",
        "Which of these trained models can *not* be saved as MiniLM with other weights?",
        [
            Option(
                "LoRA on all matrices",
                "It can: merged, each matrix is W₀ + ΔW, a matrix of the same shape.",
            ),
            Option("Biases and LayerNorms, trained", "It can: these tensors are in the model, with the same shapes."),
            Option(
                "Prompt tuning with 20 virtual tokens",
                "Yes, that one: no weight of MiniLM holds an extra position in front of every text.",
                right=True,
            ),
            Option(
                "IA³ on keys and values",
                "It can: a factor on each output of a layer is a factor on each row of its weight and bias. The family "
                "does not decide this, the formula does.",
            ),
        ],
    ),
    Question(
        "saves",
        "You train a model's biases, about one number in a thousand. What do you save against full fine-tuning?",
        [
            Option(
                "Nearly all of everything: a thousandth trains, so it costs a thousandth",
                "No: the forward pass is the same, and the error still travels back through every frozen matrix.",
            ),
            Option(
                "The gradients and Adam's averages of the frozen weights, and the work of computing those gradients",
                "Yes. The forward pass and the way back through the layers remain. Bridge B4 takes it apart.",
                right=True,
            ),
            Option(
                "Nothing: the whole model takes part, so the whole model must be paid for",
                "No: what is frozen needs no gradient of its own, and Adam keeps nothing for it.",
            ),
            Option(
                "Time at inference",
                "No: the model has its old shape and its old speed. (That nothing is *added* is this family's merit.)",
            ),
        ],
    ),
    Question(
        "switch",
        "Back to lesson 00: its LoRA could be switched off, and the old answers came back exactly. Which model of this "
        "lesson can do that too, with no second copy of any weight?",
        [
            Option(
                "The one with biases and LayerNorms, trained in place",
                "No: their old values were written over. You would need a copy of them, a small one here.",
            ),
            Option(
                "The one with LoRA, after merging",
                "No: the sum is in the weights, and subtracting the change again does not give back the same bits.",
            ),
            Option(
                "The one with Houlsby's adapters",
                "Yes: θ is bit-identical, so leaving the new parts out gives the old model. The family does not matter "
                "here, only that nothing was written over.",
                right=True,
            ),
            Option(
                "The fully fine-tuned one, since half of its numbers did not change",
                "No: the other half did.",
            ),
        ],
    ),
]

PREDICTIONS = [
    Prediction(
        "merged",
        "LoRA with r = 8 on MiniLM's query and value matrices: 20 training steps, then merged. How many of the 101 "
        "pretrained tensors differ from before?",
        choices=["none: the base is frozen", "2", "12", "all 101"],
        truth=2,
        says="Six blocks, and in each the query and the value matrix: 12. Merging writes into what was frozen.",
    ),
    Prediction(
        "full",
        "Full fine-tuning, 20 steps of 16 definitions, AdamW without weight decay. Every number is allowed to train. "
        "What share of MiniLM's 22.6 million numbers really changes?",
        choices=["about 1 in 100", "about half", "all of them, or nearly"],
        truth=1,
        says="In our run it is half. Think of which numbers no definition ever touched; the next figure shows where.",
    ),
]
