"""What the tiny model writes by itself: the likeliest continuation, and one drawn at random, of eight beginnings."""

from __future__ import annotations

import torch

from peftlab.bench.results import Results
from peftlab.tasks import models

BEGINNINGS = (
    "The president of the United States",
    "Congress should",
    "In the beginning",
    "It was a dark and stormy night",
    "Emma was",
    "My lord,",
    "river:",
    "small animal:",
)
DRAWN = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0}


@torch.no_grad()
def run(results: Results) -> None:
    torch.set_num_threads(1)
    model, tokenizer = models.load("tiny")
    results.settings(model="tiny", max_new_tokens=40, seed=0, **DRAWN)

    def written(beginning: str, **how: object) -> str:
        torch.manual_seed(0)
        batch = tokenizer(beginning, return_tensors="pt")
        ids = model.generate(**batch, max_new_tokens=40, pad_token_id=tokenizer.pad_token_id, **how)
        return tokenizer.decode(ids[0], skip_special_tokens=True)

    for beginning in BEGINNINGS:
        results.cell(f"likeliest/{beginning}", lambda text=beginning: written(text, do_sample=False))
        results.cell(f"drawn/{beginning}", lambda text=beginning: written(text, **DRAWN))
