"""What n virtual tokens cost at inference: none, a prompt, a prefix, side by side (lesson 04).

SmolLM2, reading a prompt of 32 tokens and writing one more token after it, as in `lora_latency`, whose rules hold here:
the variants take turns, medians, one thread on a CPU (results in `soft_prompt_latency`), bfloat16 on a GPU (results in
`soft_prompt_latency_gpu`). Measure on a machine that does nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import nn

import peftlab
from peftlab.bench.lora_latency import TOKENS, timed
from peftlab.bench.results import Results
from peftlab.methods import PrefixTuning, PromptTuning
from peftlab.tasks import models

LENGTHS = (20, 100)
BATCHES = {"cpu": (1, 4, 16), "cuda": (1, 4, 16, 32)}
REPEATS = {"cpu": 5, "cuda": 20}


def run(results: Results) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        results = Results.open("soft_prompt_latency_gpu")  # another machine, another file
    torch.set_num_threads(1)
    base, _ = models.load("smollm2", dtype=torch.float32 if device == "cpu" else torch.bfloat16)
    variants = prepared(base.to(device))
    results.settings(
        model="smollm2", tokens=TOKENS, lengths=LENGTHS, batches=BATCHES[device], threads=1, repeats=REPEATS[device]
    )
    for batch in BATCHES[device]:
        for work in ("read", "write"):
            results.cell(f"{device}/{work}/{batch}", lambda: side_by_side(variants, work, batch, device))  # noqa: B023


def prepared(base: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Variant -> (model, name of the adapter in it). Three copies of the model, two of them with two adapters each."""
    variants = {"base": (base, "")}
    for kind, method in {"prompt": PromptTuning, "prefix": PrefixTuning}.items():
        model = copy.deepcopy(base)
        for n in LENGTHS:
            peftlab.attach(model, method(num_virtual_tokens=n), name=f"{kind}_{n}")
            variants[f"{kind}/{n}"] = (model, f"{kind}_{n}")
    return variants


@torch.no_grad()
def side_by_side(variants: Mapping[str, tuple[nn.Module, str]], work: str, batch: int, device: str) -> dict[str, float]:
    """Median seconds of each variant, taken in turns; the first round is a warm-up."""
    ids = torch.randint(100, 4_000, (batch, TOKENS), generator=torch.Generator().manual_seed(0)).to(device)
    steps = {}
    for name, (model, adapter) in variants.items():
        _switch(model, adapter)
        steps[name] = _step(model, ids, work)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS[device] + 1):
        for name, once in steps.items():
            _switch(*variants[name])
            seconds[name].append(timed(once, device))
    return {name: median(found[1:]) for name, found in seconds.items()}


def _switch(model: nn.Module, adapter: str) -> None:
    if adapter:
        peftlab.use(model, adapter)


def _step(model: nn.Module, ids: torch.Tensor, work: str) -> Callable[[], Any]:
    if work == "read":
        return lambda: model(input_ids=ids, use_cache=False, logits_to_keep=1)
    cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values

    def write_one_token() -> None:
        model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.crop(-1)  # forget the token again: every repeat is the same work

    return write_one_token
