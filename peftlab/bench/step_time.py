"""Seconds for one training step: head only, LoRA, full fine-tuning, side by side on one thread."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import nn

import peftlab
from peftlab.bench.results import Results
from peftlab.methods import LoRA
from peftlab.tasks import datasets, models

REPEATS = 15


def run(results: Results) -> None:
    torch.set_num_threads(1)
    data = datasets.load("wordnet_topics")
    base, tokenizer = models.load("minilm", num_labels=len(data.classes))
    results.settings(model="minilm", batch_size=32, length=32, threads=1, repeats=REPEATS, device="cpu")
    batch = tokenizer(
        [" ".join(data.train.texts[i : i + 4]) for i in range(32)],
        padding="max_length",
        truncation=True,
        max_length=32,
        return_tensors="pt",
    )
    batch["labels"] = torch.tensor(data.train.labels[:32])
    head = copy.deepcopy(base).requires_grad_(False)
    head.classifier.requires_grad_(True)
    results.cell(
        "seconds",
        lambda: side_by_side(
            {
                "head": step(head, batch),
                "lora_qv": step(adapted(base, ["query", "value"]), batch),
                "lora_all": step(adapted(base, r".*\.layer\.\d+\..*\.(query|key|value|dense)"), batch),
                "full": step(copy.deepcopy(base).requires_grad_(True), batch),
            },
            REPEATS,
        ),
    )


def adapted(base: nn.Module, targets: list[str] | str) -> nn.Module:
    return peftlab.attach(copy.deepcopy(base), LoRA(r=8, lora_alpha=16, target_modules=targets))


def step(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> Callable[[], None]:
    """One whole training step: forward, backward, AdamW. The learning rate is 0, so that nothing drifts."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)

    def once() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return once


def side_by_side(work: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turns so that a busy moment hits all alike. The first round is a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, once in work.items():
            start = time.perf_counter()
            once()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(found[1:]) for name, found in seconds.items()}
