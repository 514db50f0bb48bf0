"""How often SmolLM2 answers rightly: the base and the stored adapters, alone and added together (lesson 07).

Only the two tasks with one right answer, topic and reverse, on the first 300 test rows of each. An answer is right
if the most likely token, at each step of the right answer, is that answer's next token: greedy writing would begin
with it. What comes after the answer does not count, because the untuned model never learned where to stop.
"""

from __future__ import annotations

import torch
from torch import nn

import peftlab
from peftlab.bench.results import Results
from peftlab.bench.three_tasks import SHOTS, TASKS, adapters_folder, served, splits, with_examples
from peftlab.tasks import models
from peftlab.tasks.datasets import IGNORED, Completions, encode
from peftlab.tasks.metrics import device_of

ROWS = 300
COMBINED = (("define", "topic"), ("define", "reverse"), ("topic", "reverse"), TASKS)
WEIGHTS = (0.5, 1.0)


def run(results: Results) -> None:
    model, tokenizer = models.load("smollm2")
    model = served(model.to("cuda" if torch.cuda.is_available() else "cpu"))
    results.settings(model="smollm2", rows=ROWS, weights=list(WEIGHTS), shots=SHOTS)
    data = {task: splits(task) for task in ("topic", "reverse")}
    for task, parts in data.items():
        test = parts["test"][:ROWS]
        with peftlab.disabled(model):
            results.cell(f"base/{task}", lambda: share_right(model, tokenizer, test))  # noqa: B023
        for name in TASKS:
            peftlab.use(model, name)
            results.cell(f"{name}/{task}", lambda: share_right(model, tokenizer, test))  # noqa: B023
        for names in COMBINED:
            if task in names:
                for how in ("cat", "linear"):
                    for weight in WEIGHTS:
                        results.cell(
                            f"combine/{how}/{'+'.join(names)}/{weight}/{task}",
                            lambda: combined(model, tokenizer, test, names, how, weight),  # noqa: B023
                        )
    for task, parts in data.items():
        shown = with_examples(parts["test"][:ROWS], parts["train"][:SHOTS])
        with peftlab.disabled(model):
            results.cell(f"examples/{task}", lambda: share_right(model, tokenizer, shown, max_length=512))  # noqa: B023


def combined(model: nn.Module, tokenizer, test: Completions, names: tuple[str, ...], how: str, weight: float) -> float:
    peftlab.add_weighted_adapter(model, list(names), [weight] * len(names), "combined", how)
    peftlab.use(model, "combined")
    found = share_right(model, tokenizer, test)
    peftlab.use(model, names[0])
    peftlab.detach(model, "combined")
    return found


@torch.no_grad()
def share_right(model: nn.Module, tokenizer, test: Completions, *, max_length: int = 48, batch_size: int = 20) -> float:
    """The share of rows whose whole answer, without its end, the model would write."""
    model.eval()
    right = 0
    for start in range(0, len(test), batch_size):
        batch = encode(test, range(start, min(start + batch_size, len(test))), tokenizer, max_length=max_length)
        labels = batch.pop("labels")[:, 1:]
        batch = {name: value.to(device_of(model)) for name, value in batch.items()}
        predicted = model(**batch).logits[:, :-1].argmax(-1).cpu()
        counts = (labels != IGNORED) & (labels != tokenizer.eos_token_id)
        right += int(((predicted == labels) | ~counts).all(dim=1).sum())
    return round(right / len(test), 4)
