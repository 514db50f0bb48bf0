"""The small additive methods on MiniLM: IA³ and soft prompts beside adapters, LoRA, head only and full fine-tuning.

WordNet topics, settings and starts of `scissors` and `adapter_widths`, which hold the other rows. Every learning rate
is chosen on the validation split with seed 0, on a grid that grows until the best one is not at an edge. The test
split is used once per cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from peftlab.bench.adapter_widths import attaching
from peftlab.bench.results import Results
from peftlab.bench.scissors import SETTINGS, Start
from peftlab.methods import IA3, PrefixTuning, PromptTuning, PTuning
from peftlab.methods.base import Method
from peftlab.tasks import datasets, models

SEEDS = (0, 1, 2)
LENGTH = 20  # virtual tokens
METHODS: dict[str, Method] = {
    "ia3": IA3(),
    "prefix": PrefixTuning(num_virtual_tokens=LENGTH),
    "p_tuning": PTuning(num_virtual_tokens=LENGTH),
    "prompt": PromptTuning(num_virtual_tokens=LENGTH, prompt_tuning_init="SAMPLE_VOCAB"),
    "prompt_random": PromptTuning(num_virtual_tokens=LENGTH),
}
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
FIRST = {
    "ia3": (3e-3, 1e-2, 3e-2),
    "prefix": (3e-3, 1e-2, 3e-2),
    "p_tuning": (3e-4, 1e-3, 3e-3),
    "prompt": (3e-2, 0.1, 0.3),
    "prompt_random": (3e-2, 0.1, 0.3),
}


def run(results: Results) -> None:
    torch.set_num_threads(1)
    data = datasets.load("wordnet_topics")
    base, tokenizer = models.load("minilm", num_labels=len(data.classes))
    results.settings(
        **SETTINGS, seeds=list(SEEDS), rates=list(RATES), length=LENGTH, data="wordnet_topics", model="minilm",
        threads=1,
    )  # fmt: skip
    start = Start(base, tokenizer, data)
    for name, method in METHODS.items():
        lr = interior_best(FIRST[name], lambda lr: tried(results, start, name, method, lr))  # noqa: B023
        for seed in SEEDS:
            results.cell(f"{name}/{seed}", lambda: start.trained(attaching(method), lr, seed)[1])  # noqa: B023


def tried(results: Results, start: Start, name: str, method: Method, lr: float) -> float:
    """Validation accuracy after training at this rate."""

    def measured() -> Any:
        return start.trained(attaching(method), lr, SEEDS[0], on="validation")[1]["accuracy"]

    return results.cell(f"choose/{name}/{lr:g}", measured)


def interior_best(first: tuple[float, ...], score: Callable[[float], float]) -> float:
    """The rate with the best score. Where it lies at an edge of those tried, the next one of RATES is tried too."""
    found = {lr: score(lr) for lr in first}
    while True:
        best = max(found, key=found.get)
        place = RATES.index(best)
        missing = [lr for lr in RATES[max(place - 1, 0) : place + 2] if lr not in found]
        if not missing:
            return best
        found |= {lr: score(lr) for lr in missing}
