"""What a training step costs when few parameters train: time and live bytes on one thread (lesson 05).

MiniLM, 32 texts of 32 tokens. The arms take turns. Time twice: forward and backward pass alone, and the whole step with
AdamW. Live bytes are the peak of a whole step after the first, so the optimiser's states are there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import peftlab
from peftlab.bench.results import Results
from peftlab.bench.scissors import TARGETS
from peftlab.bench.step_time import side_by_side, step
from peftlab.costs.live import LiveBytes
from peftlab.methods import BitFit, FishMask, LastLayers, LNTuning, LoRA, Method
from peftlab.tasks import datasets, models

REPEATS = 11
ARMS: dict[str, Method | str] = {
    "head": "head",
    "full": "full",
    "bitfit": BitFit(),
    "layer_norm": LNTuning(),
    "last/1": LastLayers(num_layers=1),
    "lora_qv/8": LoRA(r=8, lora_alpha=16, target_modules=TARGETS["lora_qv"]),
    "lora_all/8": LoRA(r=8, lora_alpha=16, target_modules=TARGETS["lora_all"]),
    "random/0.005": FishMask(keep_ratio=0.005, scores="random"),
    "random/0.5": FishMask(keep_ratio=0.5, scores="random"),
}


def run(results: Results) -> None:
    torch.set_num_threads(1)
    data = datasets.load("wordnet_topics")
    base, tokenizer = models.load("minilm", num_labels=len(data.classes))
    results.settings(model="minilm", batch_size=32, length=32, threads=1, repeats=REPEATS, device="cpu")
    texts = [" ".join(data.train.texts[i : i + 4]) for i in range(32)]
    batch = tokenizer(texts, padding="max_length", truncation=True, max_length=32, return_tensors="pt")
    batch["labels"] = torch.tensor(data.train.labels[:32])
    arms = {name: prepared(base, method) for name, method in ARMS.items()}
    passes = {name: passes_of(model, batch) for name, model in arms.items()}
    results.cell("forward_backward", lambda: side_by_side(passes, REPEATS))
    for model in arms.values():
        model.zero_grad(set_to_none=True)
    results.cell("step", lambda: side_by_side({name: step(model, batch) for name, model in arms.items()}, REPEATS))
    for name, model in arms.items():
        results.cell(f"bytes/{name}", lambda model=model: live_bytes(model, batch))


def prepared(base: nn.Module, method: Method | str) -> nn.Module:
    """A copy of which this trains."""
    model = copy.deepcopy(base)
    if isinstance(method, Method):
        return peftlab.attach(model, method)
    model.requires_grad_(method == "full").classifier.requires_grad_(True)
    return model


def passes_of(model: nn.Module, batch: Mapping[str, Tensor]) -> Callable[[], None]:
    """Forward and backward pass, and no optimiser."""
    model.train()

    def once() -> None:
        model(**batch).loss.backward()
        model.zero_grad(set_to_none=True)

    return once


def live_bytes(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """Bytes of live tensors: the peak in the second step, and after it. AdamW's states are in both."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
    model.train()
    for _ in range(2):
        with LiveBytes(model, optimizer) as live:
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    states = sum(t.nbytes for s in optimizer.state.values() for t in s.values() if isinstance(t, Tensor) and t.ndim)
    return {"peak": live.peak, "between_steps": live.now, "states": states}
