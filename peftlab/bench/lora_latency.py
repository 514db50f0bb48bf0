"""What an unmerged LoRA costs at inference: base, merged, unmerged and routed, side by side (lesson 07).

SmolLM2, batches of 1 to 32. Two kinds of work: reading a prompt of 32 tokens (one forward pass), and writing one more
token after it (with the cache of keys and values), which is what generation does again and again. The variants take
turns, and the median of each is kept: on a CPU (one thread, float32, results in `lora_latency`) of 5 repeats, on a GPU
(bfloat16, results in `lora_latency_gpu`) of 50.

Base and merged do the same arithmetic, so the distance of their ratio from 1 is the noise; measure on a machine that
does nothing else. A routed batch of one row has only one adapter, of two rows two.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import nn

import peftlab
from peftlab.bench.results import Results
from peftlab.methods import LoRA
from peftlab.tasks import models

BATCHES = (1, 2, 4, 8, 16, 32)
TOKENS = 32
TASKS = ("define", "topic", "reverse")
TARGETS = {"qv": ["q_proj", "v_proj"], "all": "all-linear"}
REPEATS = {"cpu": 5, "cuda": 50}


def run(results: Results) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        results = Results.open("lora_latency_gpu")  # another machine, another file
    torch.set_num_threads(1)
    base, _ = models.load("smollm2", dtype=torch.float32 if device == "cpu" else torch.bfloat16)
    base = base.to(device)
    repeats = REPEATS[device]
    results.settings(model="smollm2", tokens=TOKENS, r=8, batches=list(BATCHES), threads=1, repeats=repeats, tasks=3)
    for targets in TARGETS:
        variants = prepared(base, targets)
        for batch in BATCHES:
            for work in ("read", "write"):
                cell = f"{device}/{targets}/{work}/{batch}"
                results.cell(cell, lambda: side_by_side(variants, work, batch, device))  # noqa: B023


def prepared(base: nn.Module, targets: str) -> dict[str, nn.Module]:
    """The same model four times: without adapters, with one merged, with one unmerged, with three to route."""
    lora = LoRA(r=8, lora_alpha=16, target_modules=TARGETS[targets])
    merged = peftlab.merge(_trained(peftlab.attach(copy.deepcopy(base), lora)))
    unmerged = _trained(peftlab.attach(copy.deepcopy(base), lora))
    routed = copy.deepcopy(base)
    for name in TASKS:
        peftlab.attach(routed, lora, name=name)
    return {"base": base, "merged": merged, "unmerged": unmerged, "routed": _trained(routed)}


def _trained(model: nn.Module) -> nn.Module:
    """B is no longer zero, as after training (the time does not depend on it; merging should have something to do)."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1e-3)
    return model.requires_grad_(False)


@torch.no_grad()
def side_by_side(variants: Mapping[str, nn.Module], work: str, batch: int, device: str) -> dict[str, float]:
    """Median seconds of each variant, taken in turns; the first round is a warm-up."""
    ids = torch.randint(100, 40_000, (batch, TOKENS), generator=torch.Generator().manual_seed(0)).to(device)
    steps = {name: _step(model, name, ids, work) for name, model in variants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS[device] + 1):
        for name, once in steps.items():
            seconds[name].append(timed(once, device))
    return {name: median(found[1:]) for name, found in seconds.items()}


def _step(model: nn.Module, name: str, ids: torch.Tensor, work: str) -> Callable[[], Any]:
    batch = len(ids)
    extra = {"adapter_names": [TASKS[row % len(TASKS)] for row in range(batch)]} if name == "routed" else {}
    if work == "read":
        return lambda: model(ids, use_cache=False, logits_to_keep=1, **extra)
    cache = model(ids, use_cache=True, logits_to_keep=1, **extra).past_key_values

    def write_one_token() -> None:
        model(ids[:, -1:], past_key_values=cache, use_cache=True, logits_to_keep=1, **extra)
        cache.crop(-1)  # forget the token again: every repeat is the same work

    return write_one_token


def timed(once: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    once()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
