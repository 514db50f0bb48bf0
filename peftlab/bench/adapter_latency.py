"""What adapters cost at inference, beside LoRA merged and unmerged: table 1 of the LoRA paper, on a CPU (lesson 03).

One forward pass of MiniLM (texts of 32 and 128 tokens) and of SmolLM2 (the smaller of the same batches), float32, one
thread. The variants take turns, and the median of each is kept. What is counted is the CPU time of the one thread, not
the time on the wall, so that other programs on the machine count less; they still share its caches. The base is
measured twice, as `base` and as `again`, and merged LoRA is the same arithmetic too: what these three differ by is
noise within one session. How much a ratio moves from one session to the next, two sessions say: cells that end in
`/second` were measured anew, in another process and at another time.
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
from peftlab.methods import Compacter, Houlsby, LoRA, ParallelAdapter, Pfeiffer
from peftlab.methods.base import Method
from peftlab.tasks import models

PLACES: dict[str, list[tuple[int, int]]] = {  # (rows, tokens)
    "minilm": [(rows, tokens) for tokens in (32, 128) for rows in (1, 2, 8, 32)],
    "smollm2": [(1, 32), (8, 32), (1, 128)],
}
REPEATS = {"minilm": 9, "smollm2": 5}
TARGETS = {"minilm": (["query", "value"], r".*\.layer\.\d+\..*\.(query|key|value|dense)"),
           "smollm2": (["q_proj", "v_proj"], "all-linear")}  # fmt: skip
FACTOR = 24  # d / m: m is 16 in MiniLM and 24 in SmolLM2


def run(results: Results) -> None:
    torch.set_num_threads(1)
    results.settings(
        threads=1, clock="process_time", repeats=REPEATS, reduction_factor=FACTOR, r=8, places=PLACES, dtype="float32"
    )
    first = [f"{name}/{rows}x{tokens}" for name in PLACES for rows, tokens in PLACES[name]]
    session = "/second" if all(cell in results.content["cells"] for cell in first) else ""
    for name, places in PLACES.items():
        base, _ = models.load(name, dtype=torch.float32)
        variants = prepared(base, name)
        for rows, tokens in places:
            results.cell(
                f"{name}/{rows}x{tokens}{session}",
                lambda: side_by_side(variants, rows, tokens, REPEATS[name]),  # noqa: B023
            )
    if not session:
        print("That was the first session. Run the same command again for the second.")


def prepared(base: nn.Module, name: str) -> dict[str, nn.Module]:
    """The same model, without and with each kind of adapter."""
    two, every = TARGETS[name]
    lora: dict[str, Method] = {
        "lora_qv": LoRA(r=8, lora_alpha=16, target_modules=two),
        "lora_all": LoRA(r=8, lora_alpha=16, target_modules=every),
    }
    factor = {"reduction_factor": FACTOR}
    methods: dict[str, Method] = {
        **lora,
        "houlsby": Houlsby(non_linearity="relu", **factor),
        "pfeiffer": Pfeiffer(**factor),
        "parallel": ParallelAdapter(**factor),
        "compacter": Compacter(**factor),
    }
    merged = peftlab.merge(_moved(peftlab.attach(copy.deepcopy(base), lora["lora_all"])))
    plain = {"base": base, "again": copy.deepcopy(base), "merged": merged}
    with_adapter = {key: _moved(peftlab.attach(copy.deepcopy(base), method)) for key, method in methods.items()}
    return {key: model.requires_grad_(False).eval() for key, model in (plain | with_adapter).items()}


def _moved(model: nn.Module) -> nn.Module:
    """No adapter is zero any more, as after training. The time does not depend on it."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(1e-3 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def side_by_side(variants: Mapping[str, nn.Module], rows: int, tokens: int, repeats: int) -> dict[str, float]:
    """Median CPU seconds of each variant, taken in turns; the first round is a warm-up."""
    ids = torch.randint(1000, 20_000, (rows, tokens), generator=torch.Generator().manual_seed(0))
    steps = {name: _step(model, ids) for name, model in variants.items()}
    calls = max(1, 128 // (rows * tokens))  # a short pass is measured several times at once
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats + 1):
        for name, once in steps.items():
            seconds[name].append(cpu_seconds(once, calls))
    return {name: median(found[1:]) for name, found in seconds.items()}


def _step(model: nn.Module, ids: torch.Tensor) -> Callable[[], Any]:
    extra = {"use_cache": False, "logits_to_keep": 1} if hasattr(model, "lm_head") else {}
    return lambda: model(ids, **extra)


def cpu_seconds(once: Callable[[], Any], calls: int = 1) -> float:
    """CPU time of this process for one call."""
    start = time.process_time()
    for _ in range(calls):
        once()
    return (time.process_time() - start) / calls
