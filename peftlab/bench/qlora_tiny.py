"""QLoRA, LoRA and LoftQ's start on the tiny model: define a word, on held-out words; and what merging does.

Three ways to train the same LoRA on all linear layers: on the fp32 base, on the base in NF4 (QLoRA), and on the base in
NF4 with LoftQ's start. Each one's learning rate is chosen on the validation split with seed 0; then three seeds. The
finished QLoRA is merged (which makes the weights dense), quantised again, and its adapter is put on the fp32 base; the
same after shorter runs, whose changes are smaller. A quarter of an hour on one quiet CPU thread.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from functools import partial
from typing import Any

import torch
from torch import nn

import peftlab
from peftlab.bench.results import Results
from peftlab.course.sixteen_levels import block_matrices
from peftlab.methods import LoRA
from peftlab.quant import attach_loftq, quantize_model
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.training import Run, train

SEEDS = (0, 1, 2)
METHOD = LoRA(r=8, lora_alpha=16, target_modules="all-linear")
SETTINGS = {"steps": 120, "batch_size": 16, "schedule": "linear", "warmup": 10, "max_length": 64}
RATES = (1e-3, 2e-3, 4e-3)
WAYS = ("lora", "qlora", "loftq")
LOFTQ_ITERATIONS = 5
SHORTER = (15, 30, 60)  # steps, at QLoRA's chosen rate


def run(results: Results) -> None:
    torch.set_num_threads(1)
    base, tokenizer = models.load("tiny")
    words = datasets.load("define_word")
    data = {part: words.definitions(part) for part in ("train", "validation", "test")}
    results.settings(
        **SETTINGS, model="tiny", task="define", r=METHOD.r, lora_alpha=METHOD.lora_alpha, rates=RATES,
        target_modules=METHOD.target_modules, seeds=SEEDS, kind="nf4", blocksize=64, double=True,
        loftq_iterations=LOFTQ_ITERATIONS, threads=1, shorter=SHORTER,
    )  # fmt: skip
    for way in WAYS:
        results.cell(f"start/{way}", partial(start_loss, base, tokenizer, data, way))
    results.cell("loftq/errors", partial(loftq_errors, base))
    for way in WAYS:
        losses = {
            lr: results.cell(f"choose/{way}/{lr}", partial(choose, base, tokenizer, data, way, lr)) for lr in RATES
        }
        best = min(losses, key=losses.get)
        for seed in SEEDS:
            results.cell(f"{way}/{seed}", partial(final, base, tokenizer, data, way, best, seed))
            for steps in SHORTER if way == "qlora" else ():
                measure = partial(final, base, tokenizer, data, way, best, seed, steps)
                results.cell(f"qlora after {steps}/{seed}", measure)


def prepared(base: nn.Module, way: str, seed: int = 0) -> nn.Module:
    """A copy of the base, ready to train."""
    torch.manual_seed(seed)  # A's start
    model = copy.deepcopy(base)
    if way == "loftq":
        attach_loftq(model, METHOD, iterations=LOFTQ_ITERATIONS, double=True)
        return model
    return peftlab.attach(quantize_model(model) if way == "qlora" else model, METHOD)


def trained(
    base: nn.Module, tokenizer: Any, data: dict, way: str, lr: float, seed: int, steps: int = SETTINGS["steps"]
) -> tuple[nn.Module, Run]:
    model, settings = prepared(base, way, seed), {**SETTINGS, "steps": steps, "progress": sys.stderr.isatty()}
    return model, train(model, tokenizer, data["train"], lr=lr, seed=seed, **settings)


def loss(model: nn.Module, tokenizer: Any, rows: Any) -> float:
    return round(metrics.evaluate(model, tokenizer, rows, max_length=64, batch_size=50).loss, 5)


def start_loss(base: nn.Module, tokenizer: Any, data: dict, way: str) -> float:
    """Test loss before the first step. For 'lora' that is the frozen model, for 'qlora' the frozen one in NF4."""
    return loss(prepared(base, way), tokenizer, data["test"])


def loftq_errors(base: nn.Module) -> dict[str, Any]:
    """‖W - Q - sBA‖ over all matrices, divided by ‖W‖, after each iteration; first that of quantising alone."""
    model = copy.deepcopy(base)
    size = sum(W.double().square().sum().item() for W in block_matrices(model).values())
    by_layer = attach_loftq(model, METHOD, iterations=LOFTQ_ITERATIONS, double=True)
    steps = zip(*by_layer.values(), strict=True)
    return {"errors": [round((sum(e**2 for e in step) / size) ** 0.5, 5) for step in steps]}


def choose(base: nn.Module, tokenizer: Any, data: dict, way: str, lr: float) -> float:
    """Validation loss."""
    return loss(trained(base, tokenizer, data, way, lr, SEEDS[0])[0], tokenizer, data["validation"])


def final(
    base: nn.Module, tokenizer: Any, data: dict, way: str, lr: float, seed: int, steps: int = SETTINGS["steps"]
) -> dict[str, Any]:
    model, run = trained(base, tokenizer, data, way, lr, seed, steps)
    test = data["test"]
    found = {"lr": lr, "loss": loss(model, tokenizer, test), "trainable": run.trainable}
    found["train_losses"] = [round(value, 4) for value in run.losses]
    if way != "qlora":
        return found
    W = block_matrices(base)
    with tempfile.TemporaryDirectory() as folder:
        peftlab.save(model, folder)
        moved = peftlab.load(copy.deepcopy(base), folder)
        found["on_fp32_base"] = loss(moved, tokenizer, test)
        merged_fp32 = peftlab.merge(moved)
        found["fp32_base_merged_then_nf4"] = loss(quantize_model(merged_fp32), tokenizer, test)
    frozen = quantize_model(copy.deepcopy(base))
    rounded = {name: frozen.get_submodule(name).quantized for name in W}
    merged = peftlab.merge(model)
    found["merged"] = loss(merged, tokenizer, test)
    dense = block_matrices(merged)
    change = {name: dense[name] - rounded[name].dequantize() for name in W}
    found["change"] = share(change, W)
    again = quantize_model(merged)
    found["merged_then_nf4"] = loss(again, tokenizer, test)
    now = {name: again.get_submodule(name).quantized for name in W}
    found["lost"] = share({name: now[name].dequantize() - dense[name] for name in W}, W)
    moved_codes = sum((now[name].codes != rounded[name].codes).sum().item() for name in W)
    found["codes_moved"] = round(moved_codes / sum(w.numel() for w in W.values()), 5)
    return found


def share(differences: dict[str, torch.Tensor], W: dict[str, torch.Tensor]) -> float:
    """‖difference‖ / ‖W‖ over all matrices that both have."""
    off = sum(d.double().square().sum().item() for d in differences.values())
    return round((off / sum(W[name].double().square().sum().item() for name in differences)) ** 0.5, 5)
