"""One base, three tasks: define a word, name the topic, find the word (lesson 07).

SmolLM2 as its package ships it (4-bit weights, de-quantised). For each task LoRA on query and value, and full
fine-tuning beside it, and one adapter for all three; learning rates are chosen on the validation split with seed 0.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

import peftlab
from peftlab.bench.results import Results
from peftlab.methods import LoRA
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.datasets import Completions
from peftlab.tasks.training import train

TASKS = ("define", "topic", "reverse")
SEEDS = (0, 1, 2)
SETTINGS = {"steps": 180, "batch_size": 32, "schedule": "linear", "warmup": 0, "max_length": 48}
CANDIDATES = {"lora": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2), "full": (5e-5, 1e-4, 2e-4, 4e-4)}
METHOD = LoRA(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
SHOTS = 8  # examples in the prompt of the untuned model


def run(results: Results) -> None:
    torch.set_float32_matmul_precision("high")  # on a GPU: TF32 products, three times as fast; nothing else changes
    base, tokenizer = load()
    note_settings(results, tokenizer)
    for task in TASKS:
        one_task(results, base, tokenizer, task)
    jointly(results, base, tokenizer)


def note_settings(results: Results, tokenizer: Any) -> None:
    results.settings(
        **SETTINGS, model="smollm2", r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], seeds=list(SEEDS),
        candidates=CANDIDATES, shots=SHOTS, end=tokenizer.eos_token, matmul=torch.get_float32_matmul_precision(),
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
            run_one = partial(train_and_measure, base, tokenizer, data, kind, best, seed)
            results.cell(f"{kind}/{task}/{seed}", run_one)


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
    base: nn.Module, tokenizer: Any, data: Mapping[str, Completions], kind: str, lr: float, seed: int
) -> dict[str, Any]:
    model, run = trained(base, tokenizer, data["train"], kind, lr, seed)
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
