"""One base, three tasks: define a word, name the topic, find the word (lesson 07).

SmolLM2 as its package ships it (4-bit weights, de-quantised). For each task LoRA on query and value, and full
fine-tuning beside it; learning rates are chosen on the validation split with seed 0. The adapters of seed 0 are kept in
data/adapters. Then: every adapter on every task, one adapter trained on all three, and weighted combinations.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import peftlab
from peftlab.bench.results import Results
from peftlab.methods import LoRA
from peftlab.surgery import adapted_modules
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.datasets import Completions, data_folder
from peftlab.tasks.training import train

TASKS = ("define", "topic", "reverse")
SEEDS = (0, 1, 2)
SETTINGS = {"steps": 180, "batch_size": 32, "schedule": "linear", "warmup": 0, "max_length": 48}
CANDIDATES = {"lora": (5e-4, 1e-3, 2e-3, 4e-3), "full": (2e-5, 5e-5, 1e-4)}
METHOD = LoRA(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
SHOTS = 8  # examples in the prompt of the untuned model
WEIGHTS = (0.5, 0.7, 1.0)


def run(results: Results) -> None:
    base, tokenizer = load()
    note_settings(results)
    for task in TASKS:
        one_task(results, base, tokenizer, task)
    between(results, base, tokenizer)
    jointly(results, base, tokenizer)


def note_settings(results: Results) -> None:
    results.settings(
        **SETTINGS, model="smollm2", r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], seeds=list(SEEDS),
        candidates=CANDIDATES, shots=SHOTS, weights=list(WEIGHTS),
    )  # fmt: skip


def load() -> tuple[nn.Module, Any]:
    """The base model on the best device there is, in float32."""
    base, tokenizer = models.load("smollm2")
    return base.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def splits(task: str) -> dict[str, Completions]:
    """Train, validation and test of a task, as prompts and completions."""
    if task == "topic":
        rows = datasets.load("wordnet_topics").topics
    else:
        words = datasets.load("define_word")
        rows = words.definitions if task == "define" else words.reverse
    return {part: rows(part) for part in ("train", "validation", "test")}


def one_task(results: Results, base: nn.Module, tokenizer: Any, task: str) -> None:
    """Untuned, with examples in the prompt, LoRA and full fine-tuning on one task."""
    data = splits(task)
    results.cell(f"base/{task}", lambda: measured(base, tokenizer, data["test"]))
    shown = with_examples(data["test"], data["train"][:SHOTS])
    results.cell(f"examples/{task}", lambda: measured(base, tokenizer, shown, max_length=512))
    for kind, rates in CANDIDATES.items():
        losses = {
            lr: results.cell(f"choose/{kind}/{task}/{lr}", lambda: validation_loss(base, tokenizer, data, kind, lr))  # noqa: B023
            for lr in rates
        }
        best = min(losses, key=losses.get)
        for seed in SEEDS:
            keep = adapters_folder() / task if (kind, seed) == ("lora", 0) else None
            run_one = partial(train_and_measure, base, tokenizer, data, task, kind, best, seed, keep)
            results.cell(f"{kind}/{task}/{seed}", run_one)


def between(results: Results, base: nn.Module, tokenizer: Any) -> None:
    """Every adapter on every task, and weighted combinations. Needs the adapters of `one_task`."""
    data = {task: splits(task) for task in TASKS}
    model = served(copy.deepcopy(base))
    for name in TASKS:
        peftlab.use(model, name)
        for task in TASKS:
            results.cell(f"cross/{name}/{task}", lambda: measured(model, tokenizer, data[task]["test"]))  # noqa: B023
    results.cell("way_back", lambda: way_back(model))
    for task in TASKS:
        results.cell(f"bf16/{task}", lambda: in_bf16(base, tokenizer, data[task]["test"], task))  # noqa: B023
    for names in (("define", "topic"), ("define", "reverse"), ("topic", "reverse"), TASKS):
        for how in ("cat", "linear"):
            for weight in WEIGHTS:
                cell = f"combine/{how}/{'+'.join(names)}/{weight}"
                results.cell(cell, lambda: combination(model, tokenizer, data, names, how, weight))  # noqa: B023


def jointly(results: Results, base: nn.Module, tokenizer: Any) -> None:
    """One adapter trained on all three tasks, the rival of every combination."""
    data = {task: splits(task) for task in TASKS}
    mixed = mixture([data[task]["train"] for task in TASKS])
    losses = {
        lr: results.cell(f"choose/joint/all/{lr}", lambda: joint(base, tokenizer, mixed, data, lr, 0, "validation"))  # noqa: B023
        for lr in CANDIDATES["lora"]
    }
    best = min(losses, key=lambda lr: sum(found["loss"] for found in losses[lr].values()))
    for seed in SEEDS:
        results.cell(f"joint/all/{seed}", lambda: joint(base, tokenizer, mixed, data, best, seed, "test"))  # noqa: B023


def adapters_folder() -> Path:
    return data_folder() / "adapters"


def served(model: nn.Module) -> nn.Module:
    """The base with the three stored adapters attached, by the names of their tasks."""
    for name in TASKS:
        peftlab.load(model, adapters_folder() / name, name=name)
    return model


@torch.no_grad()
def way_back(model: nn.Module) -> dict[str, dict[str, float]]:
    """Add every ΔW to its matrix and subtract it again: which share of the entries is back, which never moved?"""
    found = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        entries = back = unmoved = 0
        for wrapper in adapted_modules(model).values():
            W0 = wrapper.base.weight.to(dtype)
            for name in TASKS:
                delta = wrapper.adapters[name].delta_weight()
                merged = (W0 + delta).to(dtype)
                entries += W0.numel()
                back += int(((merged - delta).to(dtype) == W0).sum())
                unmoved += int((merged == W0).sum())
        found[str(dtype)] = {"back": round(back / entries, 4), "unmoved": round(unmoved / entries, 4)}
    return found


def in_bf16(base: nn.Module, tokenizer: Any, test: Completions, task: str) -> dict[str, dict[str, Any]]:
    """A stored adapter on a bfloat16 base, unmerged (the adapter stays in float32) and merged."""
    model = copy.deepcopy(base).to(torch.bfloat16)
    peftlab.load(model, adapters_folder() / task)
    unmerged = measured(model, tokenizer, test)
    return {"unmerged": unmerged, "merged": measured(peftlab.merge(model), tokenizer, test)}


# ---- training and measuring ---------------------------------------------------------------------------------------


def prepared(base: nn.Module, kind: str) -> nn.Module:
    model = copy.deepcopy(base)
    return peftlab.attach(model, METHOD) if kind == "lora" else model.requires_grad_(True)


def trained(base: nn.Module, tokenizer: Any, train_on: Completions, kind: str, lr: float, seed: int, steps: int = 0):
    torch.manual_seed(seed)  # A's start
    model = prepared(base, kind)
    settings = {**SETTINGS, "steps": steps or SETTINGS["steps"]}
    return model, train(model, tokenizer, train_on, lr=lr, seed=seed, progress=sys.stderr.isatty(), **settings)


def validation_loss(base: nn.Module, tokenizer: Any, data: Mapping[str, Completions], kind: str, lr: float) -> float:
    model, _ = trained(base, tokenizer, data["train"], kind, lr, SEEDS[0])
    return measured(model, tokenizer, data["validation"])["loss"]


def train_and_measure(
    base: nn.Module, tokenizer: Any, data: Mapping[str, Completions], task: str, kind: str, lr: float, seed: int,
    keep: Path | None,
) -> dict[str, Any]:  # fmt: skip
    model, run = trained(base, tokenizer, data["train"], kind, lr, seed)
    if keep is not None:
        peftlab.save(model, keep)
    found = measured(model, tokenizer, data["test"])
    return found | {"lr": lr, "trainable": run.trainable, "total": run.total, "last_losses": last(run.losses)}


def last(losses: list[float], n: int = 20) -> float:
    return round(sum(losses[-n:]) / n, 4)


def joint(
    base: nn.Module, tokenizer: Any, mixed: Completions, data: Mapping[str, Any], lr: float, seed: int, part: str
) -> dict[str, dict[str, float]]:
    """One adapter on all three tasks, with as many steps as the three had together."""
    model, _ = trained(base, tokenizer, mixed, "lora", lr, seed, steps=len(TASKS) * SETTINGS["steps"])
    return {task: measured(model, tokenizer, data[task][part]) for task in TASKS}


def combination(
    model: nn.Module, tokenizer: Any, data: Mapping[str, Any], names: tuple[str, ...], how: str, weight: float
) -> dict[str, dict[str, float]]:
    """A weighted sum of stored adapters, on each of its tasks."""
    active = next(iter(model.peftlab.state.active))
    peftlab.add_weighted_adapter(model, list(names), [weight] * len(names), "combined", how)
    peftlab.use(model, "combined")
    try:
        return {task: measured(model, tokenizer, data[task]["test"]) for task in names}
    finally:
        peftlab.use(model, active)
        peftlab.detach(model, "combined")


def measured(model: nn.Module, tokenizer: Any, test: Completions, max_length: int = 48) -> dict[str, Any]:
    """Loss per token of the answer, its end included."""
    found = metrics.evaluate(model, tokenizer, test, max_length=max_length, batch_size=100)
    return {"loss": round(found.loss, 4), "perplexity": round(found.perplexity, 3), "tokens": found.n}


def with_examples(test: Completions, examples: Completions) -> Completions:
    """The same questions with worked examples in front of each."""
    head = "\n\n".join(p + c for p, c in zip(examples.prompts, examples.completions, strict=True))
    return Completions([f"{head}\n\n{prompt}" for prompt in test.prompts], list(test.completions))


def mixture(parts: list[Completions]) -> Completions:
    """The tasks' rows, one after the other; training shuffles them. The shorter ones are repeated to equal length."""
    longest = max(len(part) for part in parts)
    rows = [(part, i % len(part)) for part in parts for i in range(longest)]
    return Completions([p.prompts[i] for p, i in rows], [p.completions[i] for p, i in rows])
