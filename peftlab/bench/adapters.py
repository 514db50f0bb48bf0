"""The three adapters of data/adapters: trained, then measured alone, on each other's tasks, added together, merged.

Lesson 07. Small enough for two CPU cores: a few minutes for each adapter. The learning rate, 4e-3, was for every task
the best of those tried at the time. In the wider grid measured since (`three_tasks`, whose runs see 3.6 times as many
examples) it is the best for topic and reverse, and next to the best (8e-3) for define. An adapter that is in
data/adapters already is not trained again; delete its folder to do that.

For the two tasks with one right answer, an answer is right if the most likely token, at each step of the right answer,
is that answer's next token: greedy writing would begin with it. What comes after it does not count, because the
untuned model never learned where to stop.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import peftlab
from peftlab.bench.results import Results
from peftlab.bench.three_tasks import METHOD, SHOTS, TASKS, last, load, measured, splits, with_examples
from peftlab.surgery import adapted_modules
from peftlab.tasks.datasets import IGNORED, Completions, data_folder, encode
from peftlab.tasks.metrics import device_of
from peftlab.tasks.training import train

SETTINGS = {"steps": 200, "batch_size": 8, "schedule": "linear", "warmup": 0, "max_length": 48}
LR = 4e-3
ROWS = 100  # of each test split
COMBINED = (("define", "topic"), ("define", "reverse"), ("topic", "reverse"), TASKS)
WEIGHTS = (0.5, 1.0)


def run(results: Results) -> None:
    base, tokenizer = load()
    end = tokenizer.eos_token
    results.settings(**SETTINGS, lr=LR, seed=0, model="smollm2", rows=ROWS, weights=list(WEIGHTS), shots=SHOTS, end=end)
    for task in TASKS:
        if not (folder() / task / "adapter_config.json").exists():
            results.content["cells"].pop(f"trained/{task}", None)
        results.cell(f"trained/{task}", lambda: trained(base, tokenizer, task))  # noqa: B023
    model = served(copy.deepcopy(base))
    results.cell("way_back", lambda: way_back(model))
    tests = {task: splits(task)["test"][:ROWS] for task in TASKS}
    for task in TASKS:
        results.cell(f"bf16/{task}", lambda: in_bf16(base, tokenizer, tests[task], task))  # noqa: B023
    for task in TASKS:
        alone(results, model, tokenizer, tests[task], task)
    for task in TASKS:
        added(results, model, tokenizer, tests[task], task)
    for task in ("topic", "reverse"):
        shown = with_examples(tests[task], splits(task)["train"][:SHOTS])
        with peftlab.disabled(model):
            results.cell(f"examples/{task}", lambda: answers(model, tokenizer, shown, 512))  # noqa: B023


def folder() -> Path:
    return data_folder() / "adapters"


def trained(base: nn.Module, tokenizer: Any, task: str) -> dict[str, Any]:
    """Train one adapter and keep it."""
    torch.manual_seed(0)  # A's start
    model = peftlab.attach(copy.deepcopy(base), METHOD)
    run = train(model, tokenizer, splits(task)["train"], lr=LR, seed=0, progress=False, **SETTINGS)
    peftlab.save(model, folder() / task)
    return {"trainable": run.trainable, "last_losses": last(run.losses)}


def served(model: nn.Module) -> nn.Module:
    """The base with the three stored adapters attached, by the names of their tasks."""
    for name in TASKS:
        peftlab.load(model, folder() / name, name=name)
    return model


def alone(results: Results, model: nn.Module, tokenizer: Any, test: Completions, task: str) -> None:
    """The base and each of the three adapters on one task."""
    with peftlab.disabled(model):
        results.cell(f"base/{task}", lambda: answers(model, tokenizer, test))
    for name in TASKS:
        peftlab.use(model, name)
        results.cell(f"{name}/{task}", lambda: answers(model, tokenizer, test))


def added(results: Results, model: nn.Module, tokenizer: Any, test: Completions, task: str) -> None:
    """Weighted sums of adapters, on one of the tasks that went in."""
    for names in COMBINED:
        for how in ("cat", "linear"):
            for weight in WEIGHTS if task in names else ():
                cell = f"combine/{how}/{'+'.join(names)}/{weight}/{task}"
                results.cell(cell, lambda: combination(model, tokenizer, test, names, how, weight))  # noqa: B023


def combination(
    model: nn.Module, tokenizer: Any, test: Completions, names: tuple[str, ...], how: str, weight: float
) -> dict[str, Any]:
    peftlab.add_weighted_adapter(model, list(names), [weight] * len(names), "combined", how)
    peftlab.use(model, "combined")
    found = answers(model, tokenizer, test)
    peftlab.use(model, names[0])
    peftlab.detach(model, "combined")
    return found


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
    peftlab.load(model, folder() / task)
    unmerged = measured(model, tokenizer, test)
    return {"unmerged": unmerged, "merged": measured(peftlab.merge(model), tokenizer, test)}


@torch.no_grad()
def answers(model: nn.Module, tokenizer: Any, test: Completions, max_length: int = 48) -> dict[str, float]:
    """Loss per token of the answers (their end included), and the share of answers that would be written rightly."""
    model.eval()
    right = tokens = loss = 0
    for start in range(0, len(test), 25):
        batch = encode(test, range(start, min(start + 25, len(test))), tokenizer, max_length=max_length)
        labels = batch.pop("labels")[:, 1:]
        logits = model(**{name: value.to(device_of(model)) for name, value in batch.items()}).logits[:, :-1].cpu()
        tokens += int((labels != IGNORED).sum())
        loss += float(F.cross_entropy(logits.transpose(1, 2), labels, reduction="sum"))
        end = (labels == IGNORED) | (labels == tokenizer.eos_token_id)
        right += int(((logits.argmax(-1) == labels) | end).all(dim=1).sum())
    return {"loss": round(loss / tokens, 4), "right": round(right / len(test), 4), "tokens": tokens}
