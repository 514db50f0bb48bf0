"""QLoRA, LoRA and LoftQ's start on the tiny model: define a word, on held-out words; and what merging does.

Three ways to train the same LoRA on all linear layers: on the fp32 base, on the base in NF4 (QLoRA), and on the base in
NF4 with LoftQ's start. Each one's learning rate is chosen on the validation split with seed 0; then three seeds. The
finished QLoRA is merged (which makes the weights dense), quantised again, and its adapter is put on the fp32 base; the
same after shorter runs, whose changes are smaller. Two controls: where QLoRA and LoftQ start when the columns are
shuffled before rounding (one rounding is one draw) and where QLoRA then ends, and which part of a short training's
change brings its gain. Twenty minutes on one quiet CPU thread.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

import peftlab
from peftlab.bench.quant_race import SHUFFLES, shuffled
from peftlab.bench.results import Results
from peftlab.course.sixteen_levels import block_matrices
from peftlab.methods import LoRA
from peftlab.quant import attach_loftq, loftq, quantize, quantize_model
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.training import Run, train

SEEDS = (0, 1, 2)
METHOD = LoRA(r=8, lora_alpha=16, target_modules="all-linear")
SETTINGS = {"steps": 120, "batch_size": 16, "schedule": "linear", "warmup": 10, "max_length": 64}
RATES = (1e-3, 2e-3, 4e-3)
WAYS = ("lora", "qlora", "loftq")
LOFTQ_ITERATIONS = 5
SHORTER = (15, 30, 60)  # steps, at QLoRA's chosen rate
SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the change that the shortest run makes


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
    for way in ("qlora", "loftq"):
        for order in SHUFFLES:
            measure = partial(start_in_order, base, tokenizer, data, way, order)
            results.cell(f"start/{way}/order {order}", measure)
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
    rate = results.content["cells"][f"qlora after {SHORTER[0]}/{SEEDS[0]}"]["lr"]
    for order in SHUFFLES:
        measure = partial(trained_in_order, base, tokenizer, data, rate, order)
        results.cell(f"qlora/{SEEDS[0]}/order {order}", measure)
    results.cell(f"change of {SHORTER[0]} steps/{SEEDS[0]}", partial(parts_of_a_change, base, tokenizer, data, rate))


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


def start_in_order(base: nn.Module, tokenizer: Any, data: dict, way: str, order: int) -> float:
    """As `start_loss`, with the columns of each matrix shuffled before it is rounded, and put back after."""

    def begin(W: torch.Tensor) -> torch.Tensor:
        if way == "qlora":
            return quantize(W).dequantize()
        found = loftq(W, METHOD.r, iterations=LOFTQ_ITERATIONS, scaling=METHOD.lora_alpha / METHOD.r, double=True)
        return found.Q.dequantize() + METHOD.lora_alpha / METHOD.r * found.B @ found.A

    return loss_with(base, {n: shuffled(begin, W, order) for n, W in block_matrices(base).items()}, tokenizer, data)


def trained_in_order(base: nn.Module, tokenizer: Any, data: dict, lr: float, order: int) -> float:
    """Test loss of QLoRA with the first seed on a base that was rounded with its columns shuffled.

    The rounded weights are stored densely here: the same numbers, so the same training.
    """
    rounded = {name: shuffled(lambda w: quantize(w).dequantize(), W, order) for name, W in block_matrices(base).items()}
    model = with_weights(base, rounded)
    return loss(trained(model, tokenizer, data, "lora", lr, SEEDS[0])[0], tokenizer, data["test"])


def loss_with(base: nn.Module, weights: dict[str, torch.Tensor], tokenizer: Any, data: dict) -> float:
    """Test loss of the base with these matrices in the place of its own."""
    return loss(with_weights(base, weights), tokenizer, data["test"])


def with_weights(base: nn.Module, weights: dict[str, torch.Tensor]) -> nn.Module:
    """A copy of the base with these matrices in the place of its own."""
    model = copy.deepcopy(base)
    with torch.no_grad():
        for name, W in weights.items():
            model.get_submodule(name).weight.copy_(W)
    return model


def parts_of_a_change(base: nn.Module, tokenizer: Any, data: dict, lr: float) -> dict[str, Any]:
    """The shortest run of seed 0: losses with a share of its change, with new codes or new scales alone, codes moved.

    "codes" and "scales": merged and quantised again, but only the codes, or only the scales, are the new ones.
    """
    old = {name: quantize(W) for name, W in block_matrices(base).items()}
    model, _ = trained(base, tokenizer, data, "qlora", lr, SEEDS[0], SHORTER[0])
    dense = {name: W.clone() for name, W in block_matrices(peftlab.merge(model)).items()}
    new = {name: quantize(W) for name, W in dense.items()}
    start = {name: q.dequantize() for name, q in old.items()}
    measure = partial(loss_with, base, tokenizer=tokenizer, data=data)
    found: dict[str, Any] = {
        "shares": {str(part): measure({n: start[n].lerp(dense[n], part) for n in old}) for part in SHARES},
        "codes": measure({n: replace(new[n], absmax=old[n].absmax).dequantize() for n in old}),
        "scales": measure({n: replace(old[n], absmax=new[n].absmax).dequantize() for n in old}),
        "both": measure({n: new[n].dequantize() for n in old}),
    }
    kinds = sorted({name.rpartition(".")[2] for name in old})
    of_kind = {kind: [name for name in old if name.endswith(kind)] for kind in kinds}
    found["codes_moved"] = {
        kind: round(sum((new[n].codes != old[n].codes).float().mean().item() for n in names) / len(names), 5)
        for kind, names in of_kind.items()
    }
    return found


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
